"""OpenTofu, and Terraform where it is installed, through repoxy: by `host` block and by network mirror.

The same contract for both: cold, warm, with upstream stopped, with the index deleted.
"""

import hashlib
import json
import re
import shutil
import unittest

from rig import web
from rig.case import Case
from rig.process import free_port, run
from rig.repoxy import Repoxy
from rig.tf_clients import Tf
from rig.tf_registry import EXECUTABLE, HOST, MODULE_SOURCE, PLATFORMS, VERSION, TfRegistry, package


class Contract:
    """What holds for each client; a subclass names the program."""

    program: str
    # What it says of a signature by a key that its maker does not vouch for.
    signed: str

    def setUp(self):
        """Starts a registry and a repoxy in front of it, with TLS."""
        self.scratch = self.make_scratch()
        self.registry = TfRegistry(self.scratch)
        self.addCleanup(self.registry.stop)
        self.addCleanup(self.registry.signer.stop)
        self.client = Tf(self.program, self.scratch)
        self.certificate = self.scratch / "cert.pem"
        key = self.scratch / "key.pem"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", self.certificate,
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
        port = free_port()
        self.mirror = f"https://127.0.0.1:{port}"
        tls = f'[tls]\nlisten = "127.0.0.1:{port}"\ncert = "{self.certificate}"\nkey = "{key}"\n'
        proxy = f'[[proxy]]\ntype = "tf"\nname = "acme"\nupstream = "{self.registry.url}"\nns = ["{HOST}"]\nttl = "0s"\n'
        # The container proxy that the rig adds is never asked for anything.
        self.server = Repoxy(self.scratch, "http://127.0.0.1:9", extra=tls + proxy)
        self.addCleanup(self._end, self.server)
        self.server.start()

    def assert_installed(self, directory) -> None:
        """Fails unless the provider's files are those of the registry."""
        found = [path for path in directory.rglob("terraform-provider-demo*") if path.is_file()]
        self.assertEqual(len(found), 1, found)
        self.assertEqual(found[0].read_bytes()[: len(EXECUTABLE)], EXECUTABLE)

    def by_host(self) -> None:
        """Installs provider and module by the registry protocols, and checks what was installed."""
        directory, said = self.client.by_host(self.server.url)
        self.assertIn(f"{self.signed}, key ID {self.registry.signer.key_id}", said)
        self.assert_installed(directory)
        modules = [path.read_bytes() for path in (directory / ".terraform/modules").rglob("main.tf")]
        self.assertEqual(modules, [MODULE_SOURCE])
        lock = (directory / ".terraform.lock.hcl").read_text()
        self.assertIn('"h1:', lock)
        for platform in PLATFORMS:
            self.assertIn(f"zh:{hashlib.sha256(package(*platform)).hexdigest()}", lock)

    def by_mirror(self) -> None:
        """Installs the provider by the network mirror protocol, and checks what was installed."""
        directory, said = self.client.by_mirror(self.mirror, self.certificate)
        self.assertIn("verified checksum", said)
        self.assert_installed(directory)

    def everything(self) -> None:
        """Both ways."""
        self.by_host()
        self.by_mirror()

    def content(self) -> list[str]:
        """What was fetched of the registry that never changes."""
        return [path for path in self.registry.paths() if path.startswith("/files/")]

    def test_what_is_installed_is_the_registrys_and_is_fetched_once(self):
        """Whichever protocol comes first."""
        self.by_mirror()
        self.everything()
        self.assertCountEqual(self.content(), set(self.content()), "something was fetched twice")
        zips = [path for path in self.content() if path.endswith(".zip")]
        self.assertEqual(len(zips), 1, "no package was fetched that nobody wanted")
        self.server.fsck()

    def test_the_mirror_gives_the_hash_that_clients_compute_and_they_accept_it(self):
        """Of the package that is cached, once it has been read."""
        directory, _ = self.client.by_host(self.server.url)
        lock = (directory / ".terraform.lock.hcl").read_text()
        computed = re.findall(r'"(h1:[^"]+)"', lock)
        document = f"{self.server.url}/tf/acme/mirror/{HOST}/acme/demo/{VERSION}.json"

        def given() -> list[str]:
            hashes = json.loads(web.fetch(document).body)["archives"]["linux_amd64"]["hashes"]
            return [each for each in hashes if each.startswith("h1:")]

        self.server.process.wait_until(given)
        self.assertEqual(given(), computed)
        self.by_mirror()

    def test_init_works_while_upstream_is_stopped(self):
        """Also after a restart, and although everything is past its time."""
        self.everything()
        self.registry.stop()
        self.everything()
        self.server.stop()
        self.server.start()
        self.everything()

    def test_init_after_the_index_was_deleted_under_the_running_server_fetches_nothing_anew(self):
        """The files are the truth."""
        self.everything()
        fetched = self.content()
        self.server.delete_index()
        self.everything()
        self.assertEqual(self.content(), fetched)

    def test_a_signature_that_is_not_the_registrys_stops_init_and_nothing_is_kept(self):
        """By either way."""
        sums = self.registry.files["/files/SHA256SUMS"][1]
        self.registry.put("/files/SHA256SUMS.sig", self.registry.signer.sign(sums + b"\n"))
        self.client.by_host(self.server.url, ok=(1,))
        self.client.by_mirror(self.mirror, self.certificate, ok=(1,))
        refs = self.server.root / "type/tf/proxies/acme/refs/providers"
        self.assertFalse(refs.exists() and any(refs.rglob("*.json")))
        self.assertNotIn(f"/files/terraform-provider-demo_{VERSION}_linux_amd64.zip", self.registry.paths())

    def test_the_clients_token_stays_here(self):
        """With a `host` block the user's token for the registry goes to repoxy, and no further."""
        token = {"TF_TOKEN_registry_acme_test": "the-users-own"}
        self.client.by_host(self.server.url, environment=token)
        self.assertEqual(self.registry.tokens, [])


class OpenTofu(Contract, Case):
    """Always."""

    program = "tofu"
    signed = "signed"


if shutil.which("terraform"):
    # It comes with no package manager and its source is not free: it is tested where it is.
    class Terraform(Contract, Case):
        """Where it is installed."""

        program = "terraform"
        signed = "self-signed"


if __name__ == "__main__":
    unittest.main()
