"""The real upstream: Debian's docker-registry with the images of `images` in it."""

from pathlib import Path

from . import images, web
from .process import Process, free_port

CONFIG = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {data}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Registry:
    """A running docker-registry."""

    def __init__(self, scratch: Path):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config = scratch / "registry.yml"
        config.write_text(CONFIG.format(data=scratch / "registry", port=port))
        self.process = Process("docker-registry", "serve", config, log=scratch / "registry.log")
        self.process.wait_until(lambda: web.answers(f"{self.url}/v2/"))

    def push(self, repository: str, tag: str, document: images.Document) -> None:
        """Uploads a document and all that it needs, and points `tag` at it."""
        self._push(repository, tag, document, set())

    def _push(self, repository: str, reference: str, document: images.Document, sent: set[str]) -> None:
        for digest, content in document.blobs.items():
            if digest not in sent:
                sent.add(digest)
                session = web.fetch(f"{self.url}/v2/{repository}/blobs/uploads/", "POST").headers["Location"]
                put = web.fetch(f"{session}&digest={digest}", "PUT", body=content)
                assert put.status == 201, put
        for child in document.children:
            self._push(repository, child.digest, child, sent)
        put = web.fetch(
            f"{self.url}/v2/{repository}/manifests/{reference}",
            "PUT",
            headers={"Content-Type": document.media_type},
            body=document.body,
        )
        assert put.status == 201, put

    def fill(self) -> None:
        """Uploads all images that the tests use."""
        self.push("library/app", "multi", images.multi())
        self.push("library/app", "single", images.single())
        self.push("library/app", "oci", images.multi().children[0])
        self.push("team/blobs/tags", "1.0", images.single())
        self.push("library/big", "1.0", images.big())
        for tag, document in images.many().items():
            self.push("library/many", tag, document)

    def stop(self) -> None:
        """Stops the registry."""
        self.process.stop()
