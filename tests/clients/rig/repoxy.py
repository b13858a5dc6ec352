"""repoxy itself: the release binary with a root of its own, started, stopped, killed, commanded."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

from . import web
from .process import Process, free_port, run

REPOSITORY = Path(__file__).parents[3]
# The binary under test; another build, or a stand-in with the same command line, by `REPOXY`.
BINARY = os.environ.get("REPOXY", str(REPOSITORY / "target/release/repoxy"))


class Repoxy:
    """One root, one config file, and at most one server on it."""

    def __init__(self, scratch: Path, upstream_url: str, ttl="1h", credentials=None, extra=""):
        self.scratch = scratch
        self.root = scratch / "root"
        self.port = free_port()
        self.config = scratch / "repoxy.toml"
        self.process: Process | None = None
        lines = [
            f'root = "file://{self.root}"',
            f'listen = "127.0.0.1:{self.port}"',
            extra,
            "[[proxy]]",
            'type = "container"',
            'name = "hub"',
            f'upstream = "{upstream_url}"',
            'ns = ["docker.io"]',
            "default = true",
            f'ttl = "{ttl}"',
        ]
        # The machine's own disk may be nearly full, which is no test's concern.
        self.environment = {**os.environ, "REPOXY_GC_MIN_FREE": "0"}
        if credentials:
            user, self.environment["UPSTREAM_PASSWORD"] = credentials
            lines.append(f'credentials = {{ username = "{user}", password_env = "UPSTREAM_PASSWORD" }}')
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def host(self) -> str:
        """`127.0.0.1:<port>`: what stands before the slash in an image name."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://{self.host}"

    @property
    def hub(self) -> Path:
        """The directory of the proxy that all tests use."""
        return self.root / "type/container/proxies/hub"

    def blob(self, digest: str) -> Path:
        """Where a blob's file is, by `docs/layout.md`."""
        encoded = digest.removeprefix("sha256:")
        return self.root / "type/container/blobs/sha256" / encoded[:2] / encoded[2:4] / encoded

    def start(self) -> "Repoxy":
        """Starts the server and waits until it is ready."""
        self.process = Process(
            BINARY, "serve", "--config", self.config,
            log=self.scratch / "repoxy.log", env=self.environment, cwd=self.scratch,
        )
        self.process.wait_until(lambda: web.answers(f"{self.url}/-/ready"))
        return self

    def stop(self) -> int:
        """Ends the server by SIGTERM; returns its exit code."""
        return self.process.stop() if self.process else 0

    def kill(self) -> None:
        """Ends the server by SIGKILL."""
        self.process.kill()

    def get(self, path: str, method: str = "GET", headers=None) -> web.Answer:
        """Asks the server."""
        return web.fetch(self.url + path, method, headers)

    def settle(self) -> None:
        """Waits until what has been fetched is stored: a client has the bytes a little earlier."""
        under_way = re.compile(r"^repoxy_fills\{.*\} (\S+)$", re.MULTILINE)
        self.process.wait_until(lambda: {"0"} == set(under_way.findall(self.get("/-/metrics").body.decode())))

    def command(self, *arguments, ok=(0,)) -> subprocess.CompletedProcess:
        """Runs another subcommand on the same root."""
        return run(BINARY, *arguments, "--config", self.config, ok=ok, env=self.environment, cwd=self.scratch)

    def fsck(self) -> None:
        """Fails unless `fsck` has read everything and found nothing."""
        self.command("fsck", "--read-data")

    def delete_index(self) -> None:
        """Takes the index away from under a running server."""
        files = list((self.root / "index").glob("index.db*"))
        assert files, "there is no index to delete"
        for file in files:
            file.unlink()

    def delete_all(self) -> None:
        """Forgets everything that was cached; the server must not be running."""
        shutil.rmtree(self.root)

    def write_by_hand(self, path: str, reference: dict) -> None:
        """Writes a ref file as a person with an editor would."""
        file = self.hub / "refs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(reference, indent=2))
