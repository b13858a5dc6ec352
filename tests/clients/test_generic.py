"""Plain files with curl, from a plain file server: cold, warm, in parts, with upstream stopped and the index gone."""

import hashlib
import http.server
import os
import shutil
import tempfile
import threading
import unittest
from pathlib import Path

from rig.case import scratch_root
from rig.files import Files
from rig.process import run

CONTENT = bytes(n * 7 % 251 for n in range(3_000_000))


class FileServer:
    """The standard library's file server on a directory. It knows `Last-Modified`, but neither tags nor ranges."""

    def __init__(self, directory: Path):
        self.requests: list[str] = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            """Serves the directory and remembers what was asked."""

            requests = self.requests

            def __init__(self, *arguments):
                super().__init__(*arguments, directory=directory)

            def log_request(self, *_):
                self.requests.append(f"{self.command} {self.path}")

            def log_error(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def stop(self) -> None:
        """Ends it; a second time does nothing."""
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class GenericTest(unittest.TestCase):
    """curl through a proxy for plain files."""

    def setUp(self) -> None:
        """Starts a file server with one large file, and repoxy in front of it."""
        self.scratch = Path(tempfile.mkdtemp(dir=scratch_root()))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        files = self.scratch / "files"
        files.mkdir()
        (files / "big.bin").write_bytes(CONTENT)
        # Long ago, so that it counts as fresh for a while.
        os.utime(files / "big.bin", (1_600_000_000, 1_600_000_000))
        (files / "tool.tar.gz").write_bytes(b"not really")
        digest = hashlib.sha256(b"not really").hexdigest()
        (files / "tool.tar.gz.sha256").write_text(f"{digest}  tool.tar.gz\n")
        self.upstream = FileServer(files)
        self.addCleanup(self.upstream.stop)
        rule = '[[proxy.rules]]\nmatch = "*.tar.gz"\nimmutable = true\nsidecar = ".sha256"\n'
        self.repoxy = Files(self.scratch, self.upstream.url, rule)
        self.addCleanup(self.repoxy.stop)
        self.repoxy.start()

    def curl(self, path: str, *options) -> bytes:
        """Fetches a path into a file and returns what is in it then."""
        target = self.scratch / "fetched"
        run("curl", "-fsS", "-o", target, *options, f"{self.repoxy.base}{path}")
        return target.read_bytes()

    def test_a_file_is_fetched_once_and_then_served_with_upstream_stopped(self):
        """Cold, warm, stopped, restarted without an index."""
        for _ in range(3):
            self.assertEqual(self.curl("/big.bin"), CONTENT)
        self.assertEqual(self.upstream.requests, ["GET /big.bin"])
        self.repoxy.settle()
        self.upstream.stop()
        self.assertEqual(self.curl("/big.bin"), CONTENT)
        self.repoxy.stop()
        self.repoxy.delete_index()
        self.repoxy.start()
        self.assertEqual(self.curl("/big.bin"), CONTENT)
        self.repoxy.fsck()

    def test_parts_are_served_from_a_server_that_has_none(self):
        """A range on a cold cache, and a download that goes on where it stopped."""
        self.assertEqual(self.curl("/big.bin", "-r", "1000-1999"), CONTENT[1000:2000])
        self.assertEqual(self.curl("/big.bin", "-r", "-500"), CONTENT[-500:])
        (self.scratch / "fetched").write_bytes(CONTENT[:1_234_567])
        self.assertEqual(self.curl("/big.bin", "-C", "-"), CONTENT)
        self.assertEqual(self.upstream.requests, ["GET /big.bin"])

    def test_a_client_that_has_it_is_told_so(self):
        """`-z` sends `If-Modified-Since`, `--etag-compare` sends `If-None-Match`."""
        etag = self.scratch / "etag"
        self.curl("/big.bin")
        self.repoxy.settle()
        self.assertEqual(self.curl("/big.bin", "--etag-save", etag), CONTENT)
        for condition in (("--etag-compare", etag), ("-z", "Mon, 01 Jan 2024 00:00:00 GMT")):
            done = run(
                "curl", "-sS", "-o", self.scratch / "nothing", "-w", "%{http_code}", *condition,
                f"{self.repoxy.base}/big.bin",
            )
            self.assertEqual(done.stdout, b"304", condition)

    def test_a_file_is_compared_with_the_checksum_beside_it(self):
        """The right one is kept; a file that is not what its checksum says never ends well."""
        self.assertEqual(self.curl("/tool.tar.gz"), b"not really")
        files = self.scratch / "files"
        (files / "bad.tar.gz").write_bytes(b"something else")
        (files / "bad.tar.gz.sha256").write_text("0" * 64 + "\n")
        done = run("curl", "-fsS", "-o", self.scratch / "bad", f"{self.repoxy.base}/bad.tar.gz", ok=None)
        self.assertNotEqual(done.returncode, 0)
        self.repoxy.settle()
        self.repoxy.fsck()
        self.upstream.stop()
        self.assertEqual(self.curl("/tool.tar.gz"), b"not really")

    def test_a_file_that_is_not_there_is_the_servers_own_404(self):
        """And it is not remembered."""
        for _ in range(2):
            done = run("curl", "-sS", "-w", "%{http_code}", f"{self.repoxy.base}/nothing")
            self.assertIn(b"Nothing matches the given URI", done.stdout)
            self.assertTrue(done.stdout.endswith(b"404"))
        (self.scratch / "files/nothing").write_bytes(b"now there is")
        self.assertEqual(self.curl("/nothing"), b"now there is")


if __name__ == "__main__":
    unittest.main()
