"""The server's edge: errors in the protocol's form, TLS, draining, metrics, configuration."""

import hashlib
import json
import re
import socket
import unittest

from rig import images, web
from rig.case import Case
from rig.images import MIB
from rig.process import free_port, run
from rig.repoxy import Repoxy

NO_SUCH = "sha256:" + "0" * 64


class Errors(Case):
    """Refusals have the form that the distribution specification gives them."""

    def assert_refused(self, answer, status, *codes):
        """Checks status and body."""
        self.assertEqual(answer.status, status)
        self.assertIn(answer.error_code(), codes)
        self.assertTrue(answer.headers["Content-Type"].startswith("application/json"))

    def test_what_is_not_there_is_404(self):
        """Unknown tag, digest, blob and repository."""
        repoxy = self.repoxy()
        unknown = ("MANIFEST_UNKNOWN", "NAME_UNKNOWN")
        self.assert_refused(repoxy.get("/v2/library/app/manifests/no-such-tag"), 404, *unknown)
        self.assert_refused(repoxy.get(f"/v2/library/app/manifests/{NO_SUCH}"), 404, *unknown)
        self.assert_refused(repoxy.get(f"/v2/library/app/blobs/{NO_SUCH}"), 404, "BLOB_UNKNOWN", "NAME_UNKNOWN")
        self.assert_refused(repoxy.get("/v2/no/such/repository/tags/list"), 404, "NAME_UNKNOWN")

    def test_an_unknown_tag_is_asked_for_once_in_a_while(self):
        """The negative cache is short but there."""
        repoxy = self.repoxy()
        for _ in range(5):
            self.assertEqual(repoxy.get("/v2/library/app/manifests/no-such-tag").status, 404)
        self.assertLessEqual(self.upstream.count("/manifests/no-such-tag"), 2)

    def test_what_cannot_be_is_400_and_upstream_is_not_asked(self):
        """Malformed digests."""
        repoxy = self.repoxy()
        for digest in ("sha256:short", "sha256:" + "G" * 64):
            self.assert_refused(repoxy.get(f"/v2/library/app/blobs/{digest}"), 400, "DIGEST_INVALID")
        self.assertEqual(self.upstream.count("/blobs/"), 0)

    def test_a_write_is_405_with_the_methods_that_are_allowed(self):
        """repoxy is read-only."""
        repoxy = self.repoxy()
        for method, path in (
            ("PUT", "/v2/library/app/manifests/single"),
            ("POST", "/v2/library/app/blobs/uploads/"),
            ("DELETE", "/v2/library/app/manifests/single"),
        ):
            answer = repoxy.get(path, method)
            self.assert_refused(answer, 405, "UNSUPPORTED")
            self.assertEqual({part.strip() for part in answer.headers["Allow"].split(",")}, {"GET", "HEAD"})
        self.assertEqual(self.upstream.requests, [])

    def test_head_is_get_without_the_body(self):
        """Same status and headers for a manifest and a blob, cold and warm."""
        repoxy = self.repoxy()
        document = images.single()
        for path in ("/v2/library/app/manifests/single", *(f"/v2/library/app/blobs/{d}" for d in document.blobs)):
            cold, get, warm = (repoxy.get(path, method) for method in ("HEAD", "GET", "HEAD"))
            for head in (cold, warm):
                self.assertEqual(head.body, b"")
                for name in ("Content-Type", "Content-Length", "Docker-Content-Digest"):
                    self.assertEqual(head.headers[name], get.headers[name], f"{path} {name}")
            self.assertEqual(get.digest, get.headers["Docker-Content-Digest"])

    def test_the_base_endpoint_answers_without_upstream(self):
        """`/v2/` is what clients ask first."""
        repoxy = self.repoxy()
        self.assertEqual(repoxy.get("/v2/").status, 200)
        self.assertEqual(self.upstream.requests, [])

    def test_a_plain_port_survives_a_tls_hello(self):
        """skopeo, podman and crane try TLS first; they need an answer, not silence."""
        repoxy = self.repoxy()
        with socket.create_connection(("127.0.0.1", repoxy.port), timeout=20) as raw:
            raw.sendall(bytes.fromhex("16030100050100000100"))
            answered = b""
            while part := raw.recv(4096):
                answered += part
        self.assertIn(b"400", answered.split(b"\r\n")[0])
        self.assertEqual(repoxy.get("/v2/").status, 200)

    def test_all_tags_are_listed_whether_or_not_upstream_pages(self):
        """`n` and `last`, and links to the next page, if there is one, under our own name."""
        repoxy = self.repoxy()
        tags, path = [], "/v2/hub/library/many/tags/list?n=7"
        for _ in range(10):
            answer = repoxy.get(path)
            tags += json.loads(answer.body)["tags"]
            link = answer.headers["Link"]
            if not link:
                break
            path = link[link.index("<") + 1 : link.index(">")]
            self.assertTrue(path.startswith("/v2/hub/library/many/tags/list?"), path)
        self.assertCountEqual(tags, images.many())


class Tls(Case):
    """HTTPS with a certificate of our own authority."""

    def test_https_works_with_http_1_and_2(self):
        """curl checks the certificate; the plain port goes on working."""
        key, cert = self.scratch / "key.pem", self.scratch / "cert.pem"
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert)
        port = free_port()
        repoxy = self.repoxy(extra=f'[tls]\nlisten = "127.0.0.1:{port}"\ncert = "{cert}"\nkey = "{key}"\n')
        digest, content = max(images.single().blobs.items(), key=lambda entry: len(entry[1]))
        for flag, version in (("--http1.1", "1.1"), ("--http2", "2")):
            target = self.scratch / f"body-{version}"
            done = run("curl", "--silent", "--show-error", "--fail", "--cacert", cert, flag, "--output", target,
                       "--write-out", "%{http_version}", f"https://localhost:{port}/v2/library/app/blobs/{digest}")
            self.assertEqual(done.stdout.decode(), version)
            self.assertEqual(target.read_bytes(), content)
        self.assertEqual(repoxy.get(f"/v2/library/app/blobs/{digest}").digest, digest)


class Life(Case):
    """Start, observation and end."""

    def test_sigterm_lets_running_answers_finish(self):
        """No new connection is taken, the old one is served to its end, the exit code is 0."""
        digest, content = images.big_blob()
        fault = self.upstream.fault("GET .*/blobs/", hold=len(content) // 2)
        repoxy = self.repoxy()
        connection, response = web.opened(f"{repoxy.url}/v2/library/big/blobs/{digest}")
        state = hashlib.sha256(response.read(1))
        fault.reached.wait(web.SILENCE_LIMIT)
        repoxy.process.child.terminate()
        repoxy.process.wait_until(lambda: not web.answers(f"{repoxy.url}/-/health"))
        fault.release()
        while chunk := response.read(MIB):
            state.update(chunk)
        connection.close()
        self.assertEqual("sha256:" + state.hexdigest(), digest)
        self.assertEqual(repoxy.stop(), 0)

    def test_the_metrics_are_what_prometheus_wants(self):
        """promtool finds nothing to say, and hits and misses are counted."""
        repoxy = self.repoxy()
        for _ in range(2):
            repoxy.get("/v2/library/app/manifests/single")
        metrics = repoxy.get("/-/metrics")
        self.assertEqual(metrics.status, 200)
        run("promtool", "check", "metrics", input=metrics.body)
        for outcome in ("filled", "hit"):
            counted = rf'(?m)^repoxy_responses_total\{{proxy="container/hub",outcome="{outcome}"\}} 1$'
            self.assertRegex(metrics.body.decode(), counted)

    def test_health_and_readiness_are_answered(self):
        """For load balancers."""
        repoxy = self.repoxy()
        self.assertEqual(repoxy.get("/-/health").status, 200)
        self.assertEqual(repoxy.get("/-/ready").status, 200)

    def test_a_config_mistake_is_one_clear_error(self):
        """Unknown key, bad value, two proxies of one name: exit 2, file and line, and a hint."""
        server = Repoxy(self.scratch, self.upstream.url)
        good = server.config.read_text()
        second = '[[proxy]]\ntype = "container"\nname = "hub"\nupstream = "http://127.0.0.1:1"\n'
        for bad, named in (
            ("lissten = 1\n" + good, "`lissten`"),
            (good.replace('ttl = "1h"', 'ttl = "soon"'), "`soon`"),
            (good + second, "`hub`"),
        ):
            server.config.write_text(bad)
            for command in (("serve",), ("config", "check")):
                done = server.command(*command, ok=(2,))
                said = done.stderr.decode()
                self.assertIn(named, said)
                self.assertRegex(said, rf"(?m)^error: {re.escape(str(server.config))}:\d+")
                self.assertRegex(said, r"(?m)^hint: ")

    def test_config_show_masks_secrets(self):
        """The password is nowhere in what can be seen."""
        server = self.repoxy(credentials=("robot", "very secret"))
        server.get("/v2/library/app/manifests/single")
        shown = server.command("config", "show")
        self.assertNotIn(b"very secret", shown.stdout + shown.stderr)
        self.assertNotIn("very secret", server.process.log.read_text())


if __name__ == "__main__":
    unittest.main()
