"""What is on disk survives kill -9, maintenance and people with editors."""

import shutil
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

from rig import images, pullers, web
from rig.case import Case
from rig.images import MIB
from rig.process import run


def pull_all(repoxy) -> None:
    """Pulls the twenty images by tag, digest and blob, all at once; fails on any wrong byte."""

    def pull(entry) -> None:
        tag, document = entry
        manifest = repoxy.get(f"/v2/library/many/manifests/{tag}")
        assert (manifest.status, manifest.digest) == (200, document.digest), manifest
        for digest in document.blobs:
            blob = repoxy.get(f"/v2/library/many/blobs/{digest}")
            assert (blob.status, blob.digest) == (200, digest), (blob.status, blob.headers.items())

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(pull, images.many().items()))


class Crash(Case):
    """kill -9 at the worst moment."""

    def test_a_kill_in_the_middle_of_twenty_pulls_leaves_a_clean_store(self):
        """Every fill has half of its blob; afterwards fsck finds nothing and all pulls are right."""
        faults = [self.upstream.fault("GET .*/many/blobs/", hold=100) for _ in range(20)]
        repoxy = self.repoxy()

        def doomed(document) -> None:
            # Connections die with the server; the fills of layers are what matters.
            digest = max(document.blobs, key=lambda digest: len(document.blobs[digest]))
            try:
                repoxy.get(f"/v2/library/many/blobs/{digest}")
            except (OSError, web.http.client.HTTPException):
                pass

        with ThreadPoolExecutor(20) as pool:
            pulls = [pool.submit(doomed, document) for document in images.many().values()]
            for fault in faults:
                self.assertTrue(fault.reached.wait(web.SILENCE_LIMIT))
            repoxy.kill()
            for fault in faults:
                fault.release()
            for pull in pulls:
                pull.result()
        repoxy.start()
        repoxy.fsck()
        pull_all(repoxy)
        repoxy.fsck()

    def test_the_partial_files_of_a_dead_server_are_removed_by_gc(self):
        """What the killed instance left below `tmp/` is nobody's."""
        digest, content = images.big_blob()
        fault = self.upstream.fault("GET .*/big/blobs/", hold=len(content) // 2)
        repoxy = self.repoxy()

        def partial_files() -> list:
            return [file for file in (repoxy.hub / "tmp").rglob("*") if file.is_file() and file.stat().st_size > MIB]

        connection, response = web.opened(f"{repoxy.url}/v2/library/big/blobs/{digest}")
        response.read(len(content) // 4)
        repoxy.kill()
        connection.close()
        fault.release()
        self.assertEqual(len(partial_files()), 1)
        repoxy.start()
        repoxy.command("gc")
        self.assertEqual(partial_files(), [])
        self.assertEqual(repoxy.get(f"/v2/library/big/blobs/{digest}").digest, digest)


class Maintenance(Case):
    """gc, fsck and reindex beside a running server."""

    def test_gc_beside_running_pulls_takes_nothing_that_is_needed(self):
        """Cold and warm pulls go on while gc runs again and again without any grace."""
        repoxy = self.repoxy()
        over = threading.Event()

        def collect() -> int:
            runs = 0
            while not over.is_set() or runs < 2:
                # Forced: in a store that is just filling, blobs without a ref yet may be more than
                # half of it. 11: the other run has the lock.
                repoxy.command("gc", "--grace", "0s", "--force", ok=(0, 11))
                runs += 1
            return runs

        with ThreadPoolExecutor(2) as pool:
            collectors = [pool.submit(collect) for _ in range(2)]
            try:
                for _ in range(3):
                    pull_all(repoxy)
            finally:
                over.set()
            self.assertGreaterEqual(sum(collector.result() for collector in collectors), 4)
        self.upstream.stop()
        pull_all(repoxy)
        repoxy.fsck()

    def test_a_blob_that_nothing_names_is_gone_after_two_runs(self):
        """The first run condemns it, the second reaps it; what is named stays."""
        repoxy = self.repoxy()
        pull_all(repoxy)
        stray = b"nobody's"
        file = repoxy.blob(web.digest_of(stray))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stray)
        repoxy.command("gc", "--grace", "0s", "--dry-run")
        self.assertTrue(file.exists())
        repoxy.command("gc", "--grace", "0s")
        self.assertFalse(file.exists())
        trash = repoxy.root / "type/container/trash"
        self.assertEqual([f.name for f in trash.rglob("*") if f.is_file()], [file.name])
        repoxy.command("gc", "--grace", "0s")
        self.assertEqual([f for f in trash.rglob("*") if f.is_file()], [])
        self.upstream.stop()
        pull_all(repoxy)
        repoxy.fsck()

    def test_fsck_finds_a_damaged_blob_and_repair_makes_it_a_miss(self):
        """One changed byte: exit 3, then quarantine, then upstream is asked again."""
        repoxy = self.repoxy()
        pull_all(repoxy)
        repoxy.settle()
        document = images.many()["v7"]
        digest = max(document.blobs, key=lambda digest: len(document.blobs[digest]))
        damaged = bytearray(repoxy.blob(digest).read_bytes())
        damaged[MIB] ^= 1
        # A new file: the old one may be mapped by the server, and is immutable.
        repoxy.blob(digest).unlink()
        repoxy.blob(digest).write_bytes(damaged)
        self.assertIn(digest.removeprefix("sha256:"), repoxy.command("fsck", "--read-data", ok=(3,)).stdout.decode())
        repoxy.command("fsck", "--read-data", "--repair", ok=(0, 3))
        self.assertFalse(repoxy.blob(digest).exists())
        pull_all(repoxy)
        repoxy.fsck()

    def test_reindex_beside_a_running_server_changes_no_answer(self):
        """Also when the index had been replaced by rubbish."""
        repoxy = self.repoxy()
        pull_all(repoxy)
        self.upstream.stop()
        repoxy.command("reindex")
        pull_all(repoxy)
        for file in (repoxy.root / "index").glob("index.db"):
            file.write_bytes(b"this is not a database" * 1000)
        pull_all(repoxy)
        repoxy.command("reindex")
        pull_all(repoxy)
        repoxy.fsck()

    def test_ls_shows_what_was_pulled(self):
        """Twenty tags, as one JSON object a line."""
        repoxy = self.repoxy()
        pull_all(repoxy)
        repoxy.settle()
        listed = repoxy.command("ls", "refs", "--proxy", "hub", "--json").stdout.decode()
        for tag in images.many():
            self.assertIn(f"library/many/tags/{tag}\"", listed)


class ByHand(Case):
    """Files that a person wrote."""

    def test_a_ref_and_blobs_written_by_hand_are_served(self):
        """In the form of docs/layout.md, with no `links`, while upstream is down."""
        repoxy = self.repoxy()
        self.upstream.stop()
        document = images.single()
        for content in [document.body, *document.blobs.values()]:
            file = repoxy.blob(web.digest_of(content))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        repoxy.write_by_hand("library/hand/tags/1.json", {
            "kind": "container.tag",
            "targetDigest": document.digest,
            "mediaType": document.media_type,
            "size": len(document.body),
            "upstream": "registry-1.docker.io",
            "fetchedAt": "2025-11-09T12:34:56Z",
            "ttlSeconds": 604800,
        })
        pulled = self.scratch / "pulled"
        run("skopeo", "copy", "--src-tls-verify=false", f"docker://{repoxy.host}/library/hand:1", f"dir:{pulled}")
        self.assertEqual(pullers.tree(pulled)["manifest.json"], document.digest)
        repoxy.fsck()

    def test_a_blob_is_no_oracle_for_another_repository(self):
        """Content is shared on disk, but each repository serves only what is its own (I6)."""
        repoxy = self.repoxy()
        digest, _ = images.big_blob()
        self.assertEqual(repoxy.get(f"/v2/library/big/blobs/{digest}", "HEAD").status, 200)
        self.assertEqual(repoxy.get(f"/v2/library/big/blobs/{digest}").digest, digest)
        self.assertEqual(repoxy.get(f"/v2/library/app/blobs/{digest}").status, 404)

    def test_everything_may_be_deleted_while_the_server_is_stopped(self):
        """The next start begins from nothing."""
        repoxy = self.repoxy()
        pull_all(repoxy)
        repoxy.stop()
        shutil.rmtree(repoxy.root)
        repoxy.start()
        pull_all(repoxy)
        repoxy.fsck()


if __name__ == "__main__":
    unittest.main()
