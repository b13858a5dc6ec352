"""A Terraform registry with one provider and one module, made on the spot and signed with a key of its own."""

import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from pathlib import Path

from .process import run

HOST = "registry.acme.test"
PLATFORMS = [("linux", "amd64"), ("linux", "arm64"), ("darwin", "arm64")]
VERSION = "1.1.0"
MODULE_VERSION = "1.2.0"
# What `init` installs; it is never run.
EXECUTABLE = b"#!/bin/sh\nexit 1\n"
MODULE_SOURCE = b'output "here" {\n  value = "from the archive"\n}\n'


def package(os: str, arch: str) -> bytes:
    """Returns a provider's zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        entry = zipfile.ZipInfo(f"terraform-provider-demo_v{VERSION}_x5")
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, EXECUTABLE + f"# {os}_{arch}\n".encode())
    return content.getvalue()


def module() -> bytes:
    """Returns a module's archive; the module is in its directory `sub`."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry = tarfile.TarInfo("sub/main.tf")
        entry.size = len(MODULE_SOURCE)
        archive.addfile(entry, io.BytesIO(MODULE_SOURCE))
    return content.getvalue()


class Signer:
    """A key that is thrown away with its directory."""

    def __init__(self, scratch: Path):
        self.home = scratch / "gnupg"
        self.home.mkdir(mode=0o700)
        self._gpg("--passphrase", "", "--quick-generate-key", "acme@registry.acme.test", "rsa2048", "sign", "never")
        self.armor = self._gpg("--armor", "--export").decode()
        listed = self._gpg("--with-colons", "--list-keys").decode()
        self.key_id = next(line.split(":")[4] for line in listed.splitlines() if line.startswith("pub"))

    def sign(self, content: bytes) -> bytes:
        """Returns a detached signature in binary form."""
        return self._gpg("--passphrase", "", "--output", "-", "--detach-sign", input=content)

    def stop(self) -> None:
        """Ends the agent that gpg has started."""
        run("gpgconf", "--homedir", self.home, "--kill", "all")

    def _gpg(self, *arguments, **options) -> bytes:
        command = ["gpg", "--homedir", self.home, "--batch", "--quiet", "--pinentry-mode", "loopback"]
        return run(*command, *arguments, **options).stdout


class TfRegistry:
    """The registry as an HTTP server on a free port, which counts what it is asked."""

    def __init__(self, scratch: Path):
        self.asked: list[tuple[str, str]] = []
        self.tokens: list[str] = []
        self.files: dict[str, tuple[str, bytes]] = {}
        self.signer = Signer(scratch)
        self._fill()
        registry = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):  # noqa: N802, the name is the library's
                registry.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_):
                """Says nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def put(self, path: str, content: bytes | dict) -> None:
        """Holds a file, or a JSON document, at a path."""
        if isinstance(content, dict):
            self.files[path] = ("application/json", json.dumps(content).encode())
        else:
            self.files[path] = ("application/octet-stream", content)

    def _fill(self) -> None:
        self.put("/.well-known/terraform.json", {"providers.v1": "/p/", "modules.v1": "/m/"})
        platforms = [{"os": os, "arch": arch} for os, arch in PLATFORMS]
        versions = [{"version": VERSION, "protocols": ["5.0"], "platforms": platforms}]
        self.put("/p/acme/demo/versions", {"versions": versions, "warnings": None})
        sums = ""
        for os, arch in PLATFORMS:
            name, content = f"terraform-provider-demo_{VERSION}_{os}_{arch}.zip", package(os, arch)
            digest = hashlib.sha256(content).hexdigest()
            sums += f"{digest}  {name}\n"
            self.put(f"/files/{name}", content)
            self.put(f"/p/acme/demo/{VERSION}/download/{os}/{arch}", {
                "protocols": ["5.0"], "os": os, "arch": arch, "filename": name, "shasum": digest,
                "download_url": f"/files/{name}",
                "shasums_url": "/files/SHA256SUMS",
                "shasums_signature_url": "/files/SHA256SUMS.sig",
                "signing_keys": {"gpg_public_keys": [
                    {"key_id": self.signer.key_id, "ascii_armor": self.signer.armor, "trust_signature": ""},
                ]},
            })
        self.put("/files/SHA256SUMS", sums.encode())
        self.put("/files/SHA256SUMS.sig", self.signer.sign(sums.encode()))
        modules = [{"source": "acme/net/aws", "versions": [{"version": MODULE_VERSION}]}]
        self.put("/m/acme/net/aws/versions", {"modules": modules})
        self.put("/files/net.tgz", module())

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        """Answers a request."""
        self.asked.append((request.command, request.path))
        self.tokens += request.headers.get_all("Authorization", [])
        if request.path == f"/m/acme/net/aws/{MODULE_VERSION}/download":
            request.send_response(204)
            request.send_header("X-Terraform-Get", "/files/net.tgz//sub?archive=tar.gz")
            request.end_headers()
            return
        media_type, content = self.files.get(request.path, ("application/json", b'{"errors":["Not Found"]}'))
        request.send_response(200 if request.path in self.files else 404)
        request.send_header("Content-Type", media_type)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(content)

    def paths(self, method: str = "GET") -> list[str]:
        """Returns the paths that were asked for with this method, in order."""
        return [path for asked, path in self.asked if asked == method]

    def stop(self) -> None:
        """Refuses connections from now on."""
        self._server.shutdown()
        self._server.server_close()
