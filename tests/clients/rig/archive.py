"""A signed Debian archive made on the spot, the server that publishes it, and apt with a root of its own."""

import gzip
import hashlib
import lzma
import os
import re
import subprocess
import threading
import time
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from .process import program, run

# Who signs.
SIGNER = "archive@example.test"
# The moment of the first generation: a day ago, so that thousands of later ones are in the past too.
FIRST = int(time.time()) - 24 * 3600
# How many generations of indexes an archive keeps under their digests.
KEPT = 3
ARCHITECTURE = "amd64"
DESCRIPTION = "made on the spot"


class Keys:
    """An OpenPGP key of its own, and the keyring that trusts it."""

    def __init__(self, scratch: Path):
        # Short, because the agent's socket is below it.
        self.home = scratch / "gpg"
        self.home.mkdir(mode=0o700)
        self.ring = scratch / "archive.gpg"
        self._gpg("--passphrase", "", "--quick-gen-key", f"Archive <{SIGNER}>", "ed25519", "sign", "never")
        self._gpg("--output", self.ring, "--export", SIGNER)

    def _gpg(self, *arguments, **options) -> bytes:
        return run("gpg", "--homedir", self.home, "--batch", "--quiet", "--yes", *arguments, **options).stdout

    def clearsign(self, text: bytes) -> bytes:
        """Returns the text with its signature around it."""
        return self._gpg("--clearsign", input=text)

    def detached(self, text: bytes) -> bytes:
        """Returns the armored signature alone."""
        return self._gpg("--armor", "--detach-sign", input=text)

    def stop(self) -> None:
        """Ends the agent that gpg has started."""
        run("gpgconf", "--homedir", self.home, "--kill", "gpg-agent")


def package(scratch: Path, name: str, version: str, size: int) -> bytes:
    """Builds a package with `size` bytes in it that cannot be compressed, and returns it."""
    tree = scratch / f"{name}_{version}"
    (tree / "DEBIAN").mkdir(parents=True)
    content = tree / f"usr/share/{name}/content"
    content.parent.mkdir(parents=True)
    content.write_bytes(os.urandom(size))
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: {ARCHITECTURE}\n"
        f"Maintainer: Nobody <{SIGNER}>\nDescription: {DESCRIPTION}\n"
    )
    deb = scratch / f"{name}_{version}.deb"
    run("dpkg-deb", "--build", "--root-owner-group", tree, deb)
    return deb.read_bytes()


class Archive:
    """What is published: packages, and a new generation of indexes whenever one is asked for."""

    def __init__(self, keys: Keys, by_hash: bool = True, in_release: bool = True):
        self.keys = keys
        self.by_hash = by_hash
        self.in_release = in_release
        self.number = 0
        self.pool: dict[str, bytes] = {}
        self.stanzas: list[str] = []
        # The by-hash paths of each generation, the newest last.
        self.kept: list[dict[str, bytes]] = []

    def add(self, name: str, version: str, deb: bytes) -> str:
        """Adds a package and returns its path in the archive."""
        path = f"pool/main/{name[0]}/{name}/{name}_{version}_{ARCHITECTURE}.deb"
        self.pool[path] = deb
        self.stanzas.append(
            f"Package: {name}\nVersion: {version}\nArchitecture: {ARCHITECTURE}\n"
            f"Maintainer: Nobody <{SIGNER}>\nFilename: {path}\nSize: {len(deb)}\n"
            f"SHA256: {hashlib.sha256(deb).hexdigest()}\nDescription: {DESCRIPTION}\n"
            f"Description-md5: {hashlib.md5(DESCRIPTION.encode() + b'x').hexdigest()}\n\n"
        )
        return path

    def generation(self) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """Makes the next generation: its files, and those of its documents that make it valid."""
        self.number += 1
        # Something that changes each time, in size too.
        news = f"Package: news\nVersion: {self.number}\nArchitecture: all\nFilename: none\nSize: 1\n" + (
            f"SHA256: {'0' * 64}\nDescription: {'x' * (self.number % 7)}\n"
        )
        packages = ("".join(self.stanzas) + news).encode()
        translation = (
            f"Package: news\nDescription-md5: {self.number:032x}\nDescription-en: {self.number}\n\n".encode()
        )
        binary = f"main/binary-{ARCHITECTURE}"
        plain = {
            f"{binary}/Packages": packages,
            f"{binary}/Packages.xz": lzma.compress(packages, preset=0),
            f"{binary}/Packages.gz": gzip.compress(packages, mtime=0),
            f"{binary}/Packages.diff/Index": b"SHA256-Current: none\n",
            "main/i18n/Translation-en.xz": lzma.compress(translation, preset=0),
        }
        date = formatdate(FIRST + self.number, usegmt=True).replace("GMT", "UTC")
        until = formatdate(time.time() + 7 * 24 * 3600, usegmt=True).replace("GMT", "UTC")
        lines = [
            "Origin: Test", "Label: Test", "Suite: stable", "Codename: stable", f"Date: {date}",
            f"Valid-Until: {until}", f"Architectures: {ARCHITECTURE}", "Components: main",
            f"Acquire-By-Hash: {'yes' if self.by_hash else 'no'}", "SHA256:",
        ]
        digests = {path: hashlib.sha256(content).hexdigest() for path, content in plain.items()}
        lines += [f" {digests[path]} {len(content)} {path}" for path, content in plain.items()]
        release = ("\n".join(lines) + "\n").encode()
        files = {f"dists/stable/{path}": content for path, content in plain.items()}
        if self.by_hash:
            hashed = {
                f"dists/stable/{path.rpartition('/')[0]}/by-hash/SHA256/{digests[path]}": content
                for path, content in plain.items()
            }
            self.kept = [*self.kept[1 - KEPT :], hashed]
            for older in self.kept:
                files |= older
        if self.in_release:
            documents = {"dists/stable/InRelease": self.keys.clearsign(release)}
        else:
            documents = {
                "dists/stable/Release": release,
                "dists/stable/Release.gpg": self.keys.detached(release),
            }
        return files, documents


class Origin:
    """An HTTP server of files in memory, with validators and ranges, that counts what it is asked."""

    def __init__(self):
        self.lock = threading.Lock()
        self.files: dict[str, tuple[bytes, str]] = {}
        self.requests: list[str] = []
        self.changes = 0
        self.server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """The address of the archive; the same after `stop` and `start`."""
        return f"http://127.0.0.1:{self.port}/archive"

    def put(self, files: dict[str, bytes], keep: bool = True) -> None:
        """Publishes files all at once; without `keep` nothing else is there any more."""
        with self.lock:
            # A second for each change, so that no two versions have the same date.
            self.changes += 1
            date = formatdate(FIRST + self.changes, usegmt=True)
            known = self.files
            published = {f"/archive/{path}": (content, date) for path, content in files.items()}
            for path, (content, _) in published.items():
                if path in known and known[path][0] == content:
                    published[path] = known[path]
            self.files = {**known, **published} if keep else published

    def publish(self, archive: Archive, atomically: bool = True) -> None:
        """Publishes the next generation, as a whole or as mirrors do: first the files, one by one."""
        files, documents = archive.generation()
        if atomically:
            self.put({**archive.pool, **files, **documents}, keep=False)
            return
        for path, content in files.items():
            self.put({path: content})
        self.put(documents)

    def count(self, pattern: str) -> int:
        """How many requests `METHOD /path` match."""
        with self.lock:
            return sum(re.search(pattern, request) is not None for request in self.requests)

    def forget(self) -> None:
        """Forgets what was asked so far."""
        with self.lock:
            self.requests.clear()

    def start(self) -> None:
        """Starts (again)."""
        origin = self

        class Handler(BaseHTTPRequestHandler):
            """Answers from the files."""

            protocol_version = "HTTP/1.1"

            def do_GET(self):
                """Answers with a file."""
                with origin.lock:
                    origin.requests.append(f"{self.command} {self.path}")
                    found = origin.files.get(unquote(self.path))
                if found is None:
                    self._head(404, 0)
                    return
                content, date = found
                since = self.headers["If-Modified-Since"]
                if since and parsedate_to_datetime(since) >= parsedate_to_datetime(date):
                    self._head(304, None, date)
                    return
                self._head(200, len(content), date)
                if self.command == "GET":
                    self.wfile.write(content)

            do_HEAD = do_GET

            def _head(self, status, length, date=None):
                self.send_response(status)
                if length is not None:
                    self.send_header("Content-Length", str(length))
                if date:
                    self.send_header("Last-Modified", date)
                self.end_headers()

            def log_message(self, *_):
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stops: nobody listens any more."""
        if self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


class Apt:
    """apt with a root of its own: no file, trust or setting of the machine plays a part."""

    def __init__(self, root: Path, sources: str, settings: str = ""):
        self.root = root
        for directory in [
            "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/sources.list.d", "etc/apt/trusted.gpg.d",
            "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "var/lib/dpkg",
        ]:
            (root / directory).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "etc/apt/sources.list").write_text(sources)
        self.config = root / "apt.conf"
        self.config.write_text(
            f'Dir "{root}/";\nDir::State::status "{root}/var/lib/dpkg/status";\n'
            f'APT::Architecture "{ARCHITECTURE}";\nAPT::Architectures {{ "{ARCHITECTURE}"; }};\n'
            'APT::Sandbox::User "root";\nDebug::NoLocking "true";\nAcquire::Languages { "en"; };\n'
            # Nothing may be put right by trying again.
            'Acquire::Retries "0";\nAcquire::Check-Valid-Until "true";\nAcquire::Check-Date "true";\n'
            + settings
        )
        self.environment = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        }
        self.environment |= {"APT_CONFIG": str(self.config), "LC_ALL": "C.UTF-8"}

    def run(self, *arguments) -> subprocess.CompletedProcess:
        """Runs apt-get; warnings count as failures, which for apt they do not."""
        done = run("apt-get", *arguments, ok=None, env=self.environment)
        output = (done.stdout + done.stderr).decode(errors="replace")
        if done.returncode != 0 or re.search(r"^(W|E|Err):", output, re.M):
            raise AssertionError(f"apt-get {' '.join(arguments)}: exit {done.returncode}\n{output[-6000:]}")
        return done

    def update(self) -> None:
        """Fetches the indexes."""
        self.run("update", "--error-on=any")

    def download(self, *packages: str) -> dict[str, bytes]:
        """Fetches packages and what they depend on, and returns them by file name."""
        self.run("install", "--download-only", "--yes", *packages)
        archives = self.root / "var/cache/apt/archives"
        found = {file.name: file.read_bytes() for file in archives.glob("*.deb")}
        for file in archives.glob("*.deb"):
            file.unlink()
        return found

    def lists(self) -> dict[str, bytes]:
        """The documents and indexes that it holds."""
        directory = self.root / "var/lib/apt/lists"
        return {file.name: file.read_bytes() for file in directory.iterdir() if file.is_file() and file.name != "lock"}


def machines_mirror() -> tuple[str, str]:
    """The URL and suite of the Debian archive that this machine's own apt is set up for."""
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    codename = release["VERSION_CODENAME"].strip('"')
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(IDENTIFIER)")
    for line in targets.stdout.decode().splitlines():
        words = line.split()
        if words[1:] == [codename, "main", "Packages"] and re.match("https?://", words[0]):
            return words[0].rstrip("/"), codename
    raise AssertionError(f"this machine's apt has no source with `{codename} main`")


def require_programs() -> None:
    """Fails if one of the programs that are used here is missing."""
    for name in ["apt-get", "dpkg-deb", "gpg", "gpgconf", "mmdebstrap"]:
        program(name)
