"""The test case that all client tests extend: one registry for all, the rest fresh for each test."""

import atexit
import functools
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

from .counting_proxy import CountingProxy
from .registry import Registry
from .repoxy import Repoxy


@functools.cache
def scratch_root() -> Path:
    """Returns the one scratch directory of this run; removed at its end."""
    directory = Path(tempfile.mkdtemp(prefix="repoxy-clients-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


@functools.cache
def registry() -> Registry:
    """Returns the filled registry; stopped at the end of the run."""
    server = Registry(scratch_root())
    atexit.register(server.stop)
    server.fill()
    return server


class Case(unittest.TestCase):
    """Gives each test a scratch directory, a counting upstream and, when asked, a repoxy.

    The server's log is printed at the end of each test that failed.
    """

    maxDiff = None

    def shortDescription(self):
        """Returns nothing, so that the runner prints the test's name, which is a sentence."""

    def setUp(self) -> None:
        """Starts the upstream."""
        self.scratch = self.make_scratch()
        self.upstream = self.counting_upstream()

    def make_scratch(self) -> Path:
        """Makes a directory that is removed with the test."""
        scratch = Path(tempfile.mkdtemp(dir=scratch_root()))
        self.addCleanup(shutil.rmtree, scratch, ignore_errors=True)
        return scratch

    def counting_upstream(self, **options) -> CountingProxy:
        """Starts a counting proxy in front of the registry."""
        upstream = CountingProxy(registry().url, **options)
        self.addCleanup(upstream.stop)
        return upstream

    def repoxy(self, **options) -> Repoxy:
        """Starts a repoxy in front of `self.upstream`."""
        server = Repoxy(self.scratch, self.upstream.url, **options)
        self.addCleanup(self._end, server)
        return server.start()

    def _end(self, server: Repoxy) -> None:
        server.stop()
        self.log_tail += server.process.tail() if server.process else ""

    def run(self, result=None):
        """Runs the test, and prints the server's log if it failed."""
        self.log_tail = ""
        result = result or self.defaultTestResult()
        problems = len(result.failures) + len(result.errors)
        outcome = super().run(result)
        if len(result.failures) + len(result.errors) > problems:
            print(f"\n--- {self.id()}: end of the server's log\n{self.log_tail}", file=sys.stderr)
        return outcome
