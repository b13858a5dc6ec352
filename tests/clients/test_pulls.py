"""Real container clients pull through repoxy and get what the registry itself would have given them.

The same contract for every client: cold, warm, with upstream stopped, with the index deleted, and
from an upstream that asks for a token.
"""

import re
import unittest

from rig import counting_proxy, pullers
from rig.case import Case, registry

IMAGES = [("library/app", "multi"), ("library/app", "single"), ("library/app", "oci"), ("team/blobs/tags", "1.0")]
# Whatever brings content over; asking whether a tag still stands is not among it.
CONTENT = r"GET /v2/.+/(blobs|manifests)/"


class Contract:
    """What holds for each client; a subclass names the client."""

    client: type[pullers.Puller]

    def setUp(self):
        """Makes the client, and lets it say what it gets straight from the registry."""
        super().setUp()
        self.puller = self.client(self.scratch)
        host = registry().url.removeprefix("http://")
        self.straight = {image: self.puller.pull(host, *image) for image in IMAGES}

    def assert_same_as_straight(self, repoxy, prefix=""):
        """Pulls every image and compares."""
        for repository, tag in IMAGES:
            with self.subTest(repository=repository, tag=tag):
                pulled = self.puller.pull(repoxy.host, prefix + repository, tag)
                self.assertEqual(pulled, self.straight[repository, tag])

    def test_a_cold_pull_gives_the_registrys_bytes_and_a_warm_one_asks_for_no_content(self):
        """Every document and blob is fetched at most once."""
        repoxy = self.repoxy()
        self.assert_same_as_straight(repoxy)
        asked = [path for path in self.upstream.paths() if re.search(CONTENT, path)]
        self.assertCountEqual(asked, set(asked), "something was fetched twice")
        self.upstream.forget()
        self.assert_same_as_straight(repoxy)
        self.assertEqual(self.upstream.count(CONTENT), 0)
        repoxy.fsck()

    def test_a_pull_while_upstream_is_stopped_is_served_from_the_store(self):
        """Also after a restart, and although the tag is past its ttl."""
        repoxy = self.repoxy(ttl="0s")
        self.assert_same_as_straight(repoxy)
        self.upstream.stop()
        self.assert_same_as_straight(repoxy)
        repoxy.stop()
        repoxy.start()
        self.assert_same_as_straight(repoxy)

    def test_a_pull_after_the_index_was_deleted_under_the_running_server_asks_for_no_content(self):
        """The files are the truth."""
        repoxy = self.repoxy()
        self.assert_same_as_straight(repoxy)
        self.upstream.forget()
        repoxy.delete_index()
        self.assert_same_as_straight(repoxy)
        self.assertEqual(self.upstream.count(CONTENT), 0)

    def test_a_pull_from_a_token_protected_upstream_needs_no_credentials_of_the_client(self):
        """The password goes to the token service and nowhere else."""
        self.upstream = self.counting_upstream(token_protected=True)
        repoxy = self.repoxy(credentials=(counting_proxy.USER, counting_proxy.PASSWORD))
        self.assert_same_as_straight(repoxy)
        self.assertGreater(self.upstream.count("^GET /token"), 0)
        for request in self.upstream.requests:
            if not request.path.startswith("/token"):
                self.assertIn(request.authorization, (None, f"Bearer {counting_proxy.TOKEN}"))


class Skopeo(Contract, Case):
    """skopeo copies one platform."""

    client = pullers.Skopeo


class SkopeoAll(Contract, Case):
    """skopeo copies all platforms."""

    client = pullers.SkopeoAll


class Crane(Contract, Case):
    """crane pulls, validates, resolves and lists."""

    client = pullers.Crane


class Podman(Contract, Case):
    """podman pulls from repoxy by its address."""

    client = pullers.Podman


class PodmanMirror(Contract, Case):
    """podman pulls from docker.io with repoxy as its mirror."""

    client = pullers.PodmanMirror


class Containerd(Contract, Case):
    """containerd pulls from docker.io with repoxy as its mirror, which sends `?ns=docker.io`."""

    client = pullers.Containerd


class Mounts(Case):
    """The ways to say which proxy is meant."""

    def test_a_proxy_is_named_by_path_by_namespace_or_by_being_the_default(self):
        """All three lead to the same manifest, fetched once."""
        repoxy = self.repoxy()
        bodies = {
            repoxy.get(path).body
            for path in (
                "/v2/hub/library/app/manifests/multi",
                "/v2/library/app/manifests/multi",
                "/v2/library/app/manifests/multi?ns=docker.io",
            )
        }
        self.assertEqual(len(bodies), 1)
        self.assertEqual(self.upstream.count("GET .*/manifests/multi"), 1)

    def test_an_unknown_namespace_is_refused_without_asking_anyone(self):
        """repoxy is not an open proxy."""
        repoxy = self.repoxy()
        answer = repoxy.get("/v2/library/app/manifests/multi?ns=other.example.org")
        self.assertEqual(answer.status, 404)
        answer.error_code()
        self.assertEqual(self.upstream.requests, [])


if __name__ == "__main__":
    unittest.main()
