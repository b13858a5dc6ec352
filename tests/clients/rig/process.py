"""Foreign programs: found or fail, started with a log file, stopped by the id they were started with."""

import shutil
import socket
import subprocess
import time
from pathlib import Path

# The longest that any server here may take to answer for the first time, in seconds.
START_LIMIT = 30
# The longest that any command here may run, in seconds.
COMMAND_LIMIT = 300


def program(name: str) -> str:
    """Returns the path of a program. A missing one fails the test: nothing is skipped."""
    path = shutil.which(name)
    if path is None:
        raise AssertionError(f"`{name}` is not installed; run ./tests/run, which installs it")
    return path


def free_port() -> int:
    """Returns a port on 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(*command, ok=(0,), **options) -> subprocess.CompletedProcess:
    """Runs a command to its end with captured output. An exit code outside `ok` fails the test;
    `ok=None` takes any."""
    done = subprocess.run(
        [program(str(command[0])), *map(str, command[1:])],
        stdin=options.pop("stdin", subprocess.DEVNULL) if "input" not in options else None,
        capture_output=True,
        timeout=COMMAND_LIMIT,
        check=False,
        **options,
    )
    if ok is not None and done.returncode not in ok:
        raise AssertionError(
            f"{' '.join(map(str, command))}: exit {done.returncode}\n"
            f"{done.stdout.decode(errors='replace')[-4000:]}{done.stderr.decode(errors='replace')[-4000:]}"
        )
    return done


class Process:
    """A running server whose output goes to `log`."""

    def __init__(self, *command, log: Path, **options):
        self.log = log
        with log.open("ab") as sink:
            self.child = subprocess.Popen(
                [program(str(command[0])), *map(str, command[1:])],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                **options,
            )

    def wait_until(self, ready) -> None:
        """Waits until `ready()` is true; fails if the process ends first or takes too long."""
        limit = time.monotonic() + START_LIMIT
        while not ready():
            if self.child.poll() is not None:
                raise AssertionError(f"{self.child.args[0]} ended with {self.child.returncode}:\n{self.tail()}")
            if time.monotonic() > limit:
                raise AssertionError(f"{self.child.args[0]} did not become ready:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self) -> str:
        """Returns the end of the log."""
        return self.log.read_bytes()[-6000:].decode(errors="replace")

    def stop(self) -> int:
        """Asks the process to end, and kills it if it does not; returns its exit code."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(START_LIMIT)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.child.returncode

    def kill(self) -> None:
        """Ends the process as a power cut would: no handler runs."""
        self.child.kill()
        self.child.wait()
