"""The HTTP cache tests (npm `http-cache-tests`): their origin, and a run of them through a proxy."""

import json
import os
import subprocess
from pathlib import Path

from . import web
from .process import Process, free_port, program

# Where `tests/run` installs it.
HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "repoxy-tests/http-cache-tests"
SUITE = HOME / "node_modules/http-cache-tests"
# Lists the tests as the suite's own command line sees them: those for browsers are not among them.
LIST = """
import tests from './tests/index.mjs'
import surrogate from './tests/surrogate-control.mjs'
const kinds = {}
for (const group of [...tests, surrogate]) {
  for (const test of group.tests) {
    const kind = group.id === 'surrogate-control' ? 'surrogate' : test.kind || 'required'
    if (!test.browser_only) kinds[test.id] = kind
  }
}
console.log(JSON.stringify(kinds))
"""
# The longest run of all tests, in seconds; they take about twenty.
RUN_LIMIT = 300


class CacheSuite:
    """The origin that the tests talk to through the proxy under test."""

    def __init__(self, scratch: Path):
        if not SUITE.is_dir():
            raise AssertionError("`http-cache-tests` is not installed; run ./tests/run, which installs it")
        self.port = free_port()
        self.scratch = scratch
        environment = {
            "npm_config_protocol": "http",
            "npm_config_port": str(self.port),
            "npm_config_pidfile": str(scratch / "origin.pid"),
        }
        self.origin = Process(
            "node", "server/server.mjs", log=scratch / "origin.log", cwd=SUITE, env={**os.environ, **environment}
        )
        self.origin.wait_until(lambda: web.answers(f"{self.url}/README.md"))

    @property
    def url(self) -> str:
        """The origin's base address."""
        return f"http://127.0.0.1:{self.port}"

    def kinds(self) -> dict[str, str]:
        """Each test's id and kind: `required`, `optimal`, `check` or `surrogate`."""
        return json.loads(self._node("--input-type=module", "--eval", LIST, environment={}))

    def run(self, base: str) -> dict[str, str]:
        """Runs all tests through the proxy at `base`; returns each one's outcome: `pass`, or `Assertion` if the
        proxy did not do what is tested, or `Setup` if it could not be tested (and others for what failed)."""
        # The second empty value is what says that all tests are meant.
        environment = {"npm_config_base": base, "npm_config_id": "", "npm_package_config_id": ""}
        output = self._node("--no-warnings", "cli.mjs", environment=environment)
        results = json.loads(output[output.index("{"):])
        return {test: "pass" if result is True else result[0] for test, result in results.items()}

    def stop(self) -> None:
        """Ends the origin."""
        self.origin.stop()

    def _node(self, *arguments, environment) -> str:
        done = subprocess.run(
            [program("node"), *arguments],
            cwd=SUITE, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=RUN_LIMIT, check=False, text=True,
        )
        if done.returncode != 0:
            raise AssertionError(f"node {arguments[0]}: exit {done.returncode}\n{done.stderr[-4000:]}")
        return done.stdout
