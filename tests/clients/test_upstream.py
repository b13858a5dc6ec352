"""What clients see when many come at once, when they leave, and when upstream misbehaves."""

import hashlib
import http.client
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

from rig import images, web
from rig.case import Case
from rig.images import MIB

CLIENTS = 50


def read_digest(url: str, on_first_byte=lambda: None) -> tuple[int, str]:
    """Reads a body without keeping it; returns its status and digest."""
    connection, response = web.opened(url)
    try:
        state = hashlib.sha256()
        chunk = response.read(1)
        on_first_byte()
        while chunk:
            state.update(chunk)
            chunk = response.read(MIB)
        return response.status, "sha256:" + state.hexdigest()
    finally:
        connection.close()


class ManyClients(Case):
    """One fill for any number of clients, and independent of each."""

    def setUp(self):
        """Names the blob that all want."""
        super().setUp()
        self.digest, self.content = images.big_blob()
        self.path = f"/v2/library/big/blobs/{self.digest}"

    def test_fifty_clients_on_one_cold_blob_cost_upstream_one_get(self):
        """All fifty have their first byte while upstream has sent one of the hundred MiB."""
        fault = self.upstream.fault("GET .*/blobs/", hold=MIB)
        repoxy = self.repoxy()
        everybody = threading.Barrier(CLIENTS, action=fault.release)
        with ThreadPoolExecutor(CLIENTS) as pool:
            pulls = [pool.submit(read_digest, repoxy.url + self.path, everybody.wait) for _ in range(CLIENTS)]
            self.assertEqual([pull.result() for pull in pulls], [(200, self.digest)] * CLIENTS)
        self.assertEqual(self.upstream.count("GET .*/blobs/"), 1)

    def test_a_client_that_leaves_does_not_stop_the_fill(self):
        """It leaves at a tenth; the next one is served although upstream is gone by then."""
        fault = self.upstream.fault("GET .*/blobs/", hold=len(self.content) // 10)
        repoxy = self.repoxy()
        connection, response = web.opened(repoxy.url + self.path)
        response.read(MIB)
        fault.reached.wait(web.SILENCE_LIMIT)
        connection.close()
        fault.release()
        self.assertEqual(read_digest(repoxy.url + self.path), (200, self.digest))
        self.assertEqual(self.upstream.count("GET .*/blobs/"), 1)
        self.upstream.stop()
        self.assertEqual(read_digest(repoxy.url + self.path), (200, self.digest))

    def test_a_range_of_a_cold_blob_is_answered_from_the_same_fill(self):
        """206, the right slice, and one GET in all."""
        repoxy = self.repoxy()
        answer = repoxy.get(self.path, headers={"Range": "bytes=1000-1999"})
        self.assertEqual(answer.status, 206)
        self.assertEqual(answer.headers["Content-Range"], f"bytes 1000-1999/{len(self.content)}")
        self.assertEqual(answer.body, self.content[1000:2000])
        self.assertEqual(read_digest(repoxy.url + self.path), (200, self.digest))
        self.assertEqual(self.upstream.count("GET .*/blobs/"), 1)

    def test_a_stalled_fill_holds_up_nobody_else(self):
        """While one blob hangs, a hit and another miss are answered; then the stalled one goes on."""
        fault = self.upstream.fault("GET .*/big/blobs/", hold=MIB)
        repoxy = self.repoxy()
        repoxy.get("/v2/library/app/manifests/multi")
        with ThreadPoolExecutor(1) as pool:
            stalled = pool.submit(read_digest, repoxy.url + self.path)
            fault.reached.wait(web.SILENCE_LIMIT)
            self.assertEqual(repoxy.get("/v2/library/app/manifests/multi").status, 200)
            self.assertEqual(repoxy.get("/v2/library/app/manifests/single").status, 200)
            self.assertFalse(stalled.done())
            fault.release()
            self.assertEqual(stalled.result(), (200, self.digest))


class Misbehaviour(Case):
    """An upstream that cuts, lies, refuses."""

    def setUp(self):
        """Names a blob of 2 MiB."""
        super().setUp()
        document = images.many()["v0"]
        self.digest, self.content = max(document.blobs.items(), key=lambda entry: len(entry[1]))
        self.path = f"/v2/library/many/blobs/{self.digest}"
        self.tag = "/v2/library/app/manifests/single"

    def test_a_broken_transfer_is_resumed_where_it_broke(self):
        """The client notices nothing; upstream sees two ranges."""
        self.upstream.fault("GET .*/blobs/", cut=MIB)
        self.upstream.fault("GET .*/blobs/", cut=MIB // 2)
        repoxy = self.repoxy()
        answer = repoxy.get(self.path)
        self.assertEqual((answer.status, answer.digest), (200, self.digest))
        ranges = [request.range for request in self.upstream.requests if "/blobs/" in request.path]
        self.assertEqual(ranges[0], None)
        self.assertEqual(len(ranges), 3)
        for resumed in ranges[1:]:
            self.assertRegex(resumed, r"^bytes=[1-9]\d*-$")
        repoxy.fsck()

    def test_a_flipped_byte_cuts_the_connection_and_nothing_is_stored(self):
        """No client ever has a whole wrong body; the next one has the right one."""
        self.upstream.fault("GET .*/blobs/", flip=MIB)
        repoxy = self.repoxy()
        with self.assertRaises(http.client.IncompleteRead):
            repoxy.get(self.path)
        self.assertFalse(repoxy.blob(self.digest).exists())
        self.assertEqual(repoxy.get(self.path).digest, self.digest)
        repoxy.fsck()

    def assert_never_wrong(self, repoxy, path, digest):
        """Asks while upstream lies: a refusal, a cut, or, if upstream was asked again, the right bytes."""
        try:
            answer = repoxy.get(path)
            self.assertTrue(answer.status >= 500 or answer.digest == digest, (answer.status, answer.body))
        except http.client.HTTPException:
            pass
        self.assertEqual(repoxy.get(path).digest, digest)

    def test_a_manifest_that_is_not_what_its_digest_says_is_never_served(self):
        """Clients check this too; repoxy must not keep it."""
        wanted = images.single().digest
        fault = self.upstream.fault("GET .*/manifests/", flip=5)
        self.assert_never_wrong(self.repoxy(), f"/v2/library/app/manifests/{wanted}", wanted)
        self.assertTrue(fault.reached.is_set())

    def test_a_tag_whose_body_is_not_what_upstream_says_is_never_served(self):
        """skopeo and crane would accept it, so repoxy is the only check."""
        fault = self.upstream.fault("GET .*/manifests/single", flip=5)
        self.assert_never_wrong(self.repoxy(), self.tag, images.single().digest)
        self.assertTrue(fault.reached.is_set())

    def test_too_many_requests_is_answered_stale_if_there_is_something(self):
        """A tag past its ttl is better than none, and the answer says so."""
        repoxy = self.repoxy(ttl="0s")
        self.assertEqual(repoxy.get(self.tag).status, 200)
        self.upstream.fault("/manifests/", times=100, status=429, headers={"Retry-After": "120"})
        answer = repoxy.get(self.tag)
        self.assertEqual((answer.status, answer.digest), (200, images.single().digest))
        # RFC 9211, section 2.4: a negative ttl is a stale answer.
        self.assertRegex(answer.headers["Cache-Status"], r"fwd=stale|ttl=-\d")
        self.assertIsNotNone(answer.headers["Age"])

    def test_too_many_requests_is_passed_on_if_there_is_nothing(self):
        """Never as a 404, which would make clients believe that the image is gone."""
        self.upstream.fault("/manifests/", times=100, status=429, headers={"Retry-After": "120"}, body=b"slow down")
        repoxy = self.repoxy()
        answer = repoxy.get(self.tag)
        self.assertEqual(answer.status, 429)
        self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assertEqual(answer.error_code(), "TOOMANYREQUESTS")

    def test_an_upstream_that_is_down_is_never_a_404(self):
        """A miss is 502, 503 or 504 in the protocol's own form."""
        repoxy = self.repoxy()
        self.upstream.stop()
        answer = repoxy.get(self.tag)
        self.assertIn(answer.status, (502, 503, 504))
        answer.error_code()

    def test_a_tag_past_its_ttl_is_confirmed_by_head(self):
        """Docker Hub counts GETs of manifests, not HEADs."""
        repoxy = self.repoxy(ttl="0s")
        repoxy.get(self.tag)
        self.upstream.forget()
        self.assertEqual(repoxy.get(self.tag).digest, images.single().digest)
        self.assertEqual(self.upstream.count("^HEAD .*/manifests/single"), 1)
        self.assertEqual(self.upstream.count("^GET"), 0)


if __name__ == "__main__":
    unittest.main()
