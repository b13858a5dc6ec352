"""apt and its like get through repoxy what the archive itself would have given them.

Cold, warm, with upstream stopped, with the index deleted; by the base URL, through repoxy as an HTTP
proxy, and by the `HTTPS///` form; and again and again while the archive is being republished.
"""

import shutil
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rig import archive as archives
from rig import web
from rig.archive import Apt, Archive, Keys, Origin
from rig.case import Case, scratch_root
from rig.process import run
from rig.repoxy import Repoxy

# Updates while the archive is being republished, and by how many clients at a time.
UPDATES, CLIENTS = 200, 4
# Updates from an archive that has its indexes by their names alone.
UPDATES_BY_NAME = 40
# Seconds between two generations.
REPUBLISH_EVERY = 0.2
# Seconds after which the newest generation must have come through: longer than repoxy leaves a name
# alone after upstream could not say.
SETTLE_LIMIT = 120
# Where a Debian system keeps the keys of Debian's archive.
DEBIAN_KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class DebianCase(Case):
    """Gives each test an archive, the server that publishes it, and a repoxy in front."""

    def setUp(self) -> None:
        """Publishes the first generation."""
        archives.require_programs()
        self.scratch = Path(tempfile.mkdtemp(dir=scratch_root()))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        self.keys = Keys(self.scratch)
        self.addCleanup(self.keys.stop)
        self.debs = {
            name: archives.package(self.scratch, name, version, size)
            for name, version, size in [("hello", "1.0", 200_000), ("pp", "2~3+b1", 1000)]
        }
        self.origin = Origin()
        self.addCleanup(self.origin.stop)
        self.clients = 0

    def publish(self, **options) -> Archive:
        """Publishes an archive with all packages."""
        archive = Archive(self.keys, **options)
        archive.add("hello", "1.0", self.debs["hello"])
        archive.add("pp", "2~3+b1", self.debs["pp"])
        self.origin.publish(archive)
        return archive

    def repoxy(self, ttl="0s", upstream=None, more="", keyring=None) -> Repoxy:
        """Starts a repoxy whose proxy `local` has the archive, known to clients as `deb.example.test/debian`."""
        table = "\n".join([
            "[[proxy]]", 'type = "debian"', 'name = "local"', f'upstream = "{upstream or self.origin.url}"',
            'ns = "deb.example.test/debian"', f'ttl = "{ttl}"', f'keyring = "{keyring or self.keys.ring}"', more,
        ])
        server = Repoxy(self.scratch, "http://127.0.0.1:9", extra=table)
        self.addCleanup(self._end, server)
        return server.start()

    def apt(self, uri: str, settings: str = "", suite="stable main", keys=None) -> Apt:
        """A new apt whose only source is there."""
        self.clients += 1
        source = f"deb [signed-by={keys or self.keys.ring}] {uri} {suite}\n"
        return Apt(self.scratch / f"apt{self.clients}", source, settings)

    def assert_installs(self, apt: Apt) -> None:
        """Updates, and fetches all packages."""
        apt.update()
        self.assertCountEqual(apt.download("hello", "pp").values(), self.debs.values())


class Contract:
    """What holds for each way to reach an archive; a subclass says how clients are set up."""

    options: dict = {}

    def client(self, repoxy: Repoxy) -> Apt:
        """A client in this way, with nothing fetched yet."""
        raise NotImplementedError

    def test_cold_warm_with_upstream_stopped_and_with_the_index_deleted(self):
        """Everything is fetched once, whoever asks how often and whatever has happened meanwhile."""
        self.publish(**self.options)
        straight = self.apt(self.origin.url)
        self.assert_installs(straight)
        self.origin.forget()
        repoxy = self.repoxy(ttl="1h")
        self.assert_installs(self.client(repoxy))
        self.assertEqual(self.origin.count("GET .*/pool/"), 2)
        asked = list(self.origin.requests)
        found = [path for path in asked if "HEAD" not in path]
        self.assertCountEqual(found, set(found), "something was fetched twice")
        warm = self.client(repoxy)
        self.assert_installs(warm)
        warm.update()
        self.assertEqual(self.origin.requests, asked, "a warm client costs upstream nothing")
        self.origin.stop()
        self.assert_installs(self.client(repoxy))
        repoxy.delete_index()
        self.assert_installs(self.client(repoxy))
        repoxy.stop()
        repoxy.start()
        self.assert_installs(self.client(repoxy))
        repoxy.fsck()
        # What clients hold is what the archive gave them, but for the host in the names.
        self.assertCountEqual(self.client_lists(repoxy), straight.lists().values())

    def client_lists(self, repoxy: Repoxy):
        """The documents that a new client ends up with."""
        apt = self.client(repoxy)
        apt.update()
        return apt.lists().values()


class ByBaseUrl(Contract, DebianCase):
    """`deb http://host/debian/<proxy> suite component`."""

    def client(self, repoxy):
        """A source at repoxy's own address."""
        return self.apt(f"{repoxy.url}/debian/local")


class ByName(ByBaseUrl):
    """An archive that has its indexes by their names alone."""

    options = {"by_hash": False}


class WithASignatureApart(ByBaseUrl):
    """An archive with `Release` and `Release.gpg`."""

    options = {"in_release": False}


class AsHttpProxy(Contract, DebianCase):
    """`Acquire::http::Proxy`; nobody resolves the archive's name."""

    def client(self, repoxy):
        """The archive's own address, and repoxy as the proxy."""
        return self.apt("http://deb.example.test/debian", f'Acquire::http::Proxy "{repoxy.url}/";\n')


class HttpsFormThroughAProxy(Contract, DebianCase):
    """`deb http://HTTPS///host/path` through an HTTP proxy, as with apt-cacher-ng."""

    def client(self, repoxy):
        """The form in place of the address, and repoxy as the proxy."""
        return self.apt("http://HTTPS///deb.example.test/debian", f'Acquire::http::Proxy "{repoxy.url}/";\n')


class HttpsFormAtRepoxy(Contract, DebianCase):
    """`deb http://repoxy/HTTPS///host/path`."""

    def client(self, repoxy):
        """The form below repoxy's address."""
        return self.apt(f"{repoxy.url}/HTTPS///deb.example.test/debian")


class Republished(DebianCase):
    """The archive changes all the time, and no client ever sees half of a change."""

    def republish(self, archive: Archive, atomically: bool):
        """Publishes generations until the returned function is called."""
        done = threading.Event()

        def loop() -> None:
            while not done.wait(REPUBLISH_EVERY):
                self.origin.publish(archive, atomically)

        thread = threading.Thread(target=loop)
        thread.start()

        def stop() -> None:
            done.set()
            thread.join()

        self.addCleanup(stop)
        return stop

    def assert_newest_comes_through(self, apt: Apt, archive: Archive) -> None:
        """Updates until the client has the last generation: what it was given was not merely old."""
        newest = f"Version: {archive.number}\n".encode()
        limit = time.monotonic() + SETTLE_LIMIT
        while not any(newest in content for content in apt.lists().values()):
            self.assertLess(time.monotonic(), limit, "the newest generation does not come through")
            time.sleep(0.2)
            apt.update()

    def test_200_updates_by_four_clients_while_the_archive_is_republished_have_no_mismatch(self):
        """apt fails on a mismatch; here any failure or warning of any run fails the test."""
        archive = self.publish()
        repoxy = self.repoxy()
        apts = [self.apt(f"{repoxy.url}/debian/local") for _ in range(CLIENTS)]
        for apt in apts:
            apt.update()
        stop = self.republish(archive, atomically=True)
        with ThreadPoolExecutor(CLIENTS) as pool:
            loops = [pool.submit(lambda a: [a.update() for _ in range(UPDATES // CLIENTS)], a) for a in apts]
            for loop in loops:
                loop.result()
        stop()
        self.assertGreater(archive.number, CLIENTS, "the archive stood still")
        for apt in apts:
            self.assert_newest_comes_through(apt, archive)
        self.assert_installs(apts[0])
        repoxy.fsck()

    def test_an_archive_without_by_hash_that_changes_file_by_file_has_no_mismatch_either(self):
        """Between its files and its InRelease such an archive is wrong for whoever asks it directly."""
        archive = self.publish(by_hash=False)
        repoxy = self.repoxy()
        apt = self.apt(f"{repoxy.url}/debian/local")
        apt.update()
        stop = self.republish(archive, atomically=False)
        for _ in range(UPDATES_BY_NAME):
            apt.update()
        stop()
        self.assertGreater(archive.number, 1, "the archive stood still")
        self.assert_newest_comes_through(apt, archive)

    def test_a_release_and_its_signature_always_belong_together(self):
        """The same for an archive without InRelease."""
        archive = self.publish(in_release=False)
        repoxy = self.repoxy()
        apt = self.apt(f"{repoxy.url}/debian/local")
        apt.update()
        stop = self.republish(archive, atomically=True)
        for _ in range(UPDATES_BY_NAME):
            apt.update()
        stop()
        self.assert_newest_comes_through(apt, archive)


class Curl(DebianCase):
    """What apt does when it goes on with a partial file, by curl."""

    def test_ranges_of_a_package_are_its_bytes(self):
        """Also of a cold one, and upstream is asked for the whole once."""
        self.publish()
        repoxy = self.repoxy()
        deb = self.debs["hello"]
        url = f"{repoxy.url}/debian/local/pool/main/h/hello/hello_1.0_amd64.deb"
        for start, end in [(100_000, ""), (0, 99), (len(deb) - 1, "")]:
            part = run("curl", "--silent", "--show-error", "--fail", "--range", f"{start}-{end}", url).stdout
            self.assertEqual(part, deb[start:] if end == "" else deb[start : end + 1])
        partial = self.scratch / "partial.deb"
        partial.write_bytes(deb[:12_345])
        run("curl", "--silent", "--show-error", "--fail", "--continue-at", "-", "--output", partial, url)
        self.assertEqual(partial.read_bytes(), deb)
        self.assertEqual(self.origin.count("GET .*/pool/"), 1)
        encoded = url.replace("hello/hello_1.0", "hello/%68ello%5f1.0").replace("/h/hello/", "/h/%68ello/")
        self.assertEqual(web.fetch(encoded).body, deb)
        self.assertEqual(self.origin.count("GET .*/pool/"), 1)


class RealDebian(DebianCase):
    """The archive that this machine's own apt is set up for, and Debian's own signatures."""

    def setUp(self) -> None:
        """Finds out where it is."""
        super().setUp()
        self.url, self.suite = archives.machines_mirror()
        more = 'connect_timeout = "30s"'
        self.server = self.repoxy(ttl="1h", upstream=self.url, more=more, keyring=DEBIAN_KEYS)

    def test_apt_gets_a_package_whose_signatures_and_checksums_hold(self):
        """Verified here, and by apt again; then once more without upstream being asked."""
        first = self.apt(f"{self.server.url}/debian/local", suite=f"{self.suite} main", keys=DEBIAN_KEYS)
        first.update()
        found = first.download("hello")
        self.assertTrue(any(name.startswith("hello_") for name in found), found.keys())
        shown = self.server.command("show", f"debian/local/meta/dists/{self.suite}/InRelease", "--json")
        self.assertIn(b'"verified":true', shown.stdout)
        again = self.apt(f"{self.server.url}/debian/local", suite=f"{self.suite} main", keys=DEBIAN_KEYS)
        again.update()
        self.assertEqual(again.download("hello"), found)
        self.server.fsck()

    def test_mmdebstrap_unpacks_a_package_through_repoxy(self):
        """As a base URL, with apt underneath in a root that mmdebstrap makes."""
        tree = self.scratch / "tree"
        run(
            "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--skip=check/empty",
            "--include=hello", f"--keyring={DEBIAN_KEYS}", "--aptopt=Acquire::Languages none", self.suite, tree,
            f"deb {self.server.url}/debian/local {self.suite} main",
        )
        self.assertTrue((tree / "usr/bin/hello").exists())


if __name__ == "__main__":
    unittest.main()
