"""Images made here, the same bytes every time: OCI and Docker, one and two platforms, runnable."""

import functools
import gzip
import io
import json
import random
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from .process import program
from .web import digest_of

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

MIB = 1 << 20


@dataclass
class Document:
    """A manifest or an index: what a tag can point at."""

    media_type: str
    body: bytes
    # Blobs by digest that it names itself.
    blobs: dict[str, bytes] = field(default_factory=dict)
    # Documents that it names, the first being that of this machine's platform.
    children: list["Document"] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """The document's digest."""
        return digest_of(self.body)

    def digests(self) -> set[str]:
        """Every digest a client needs to have the document for all platforms."""
        return {self.digest, *self.blobs}.union(*(child.digests() for child in self.children))


def canonical(value) -> bytes:
    """Returns JSON in one fixed form."""
    return json.dumps(value, separators=(",", ":")).encode()


def layer(files: dict[str, bytes], level: int = 6) -> tuple[bytes, str]:
    """Returns a gzipped tar of `files` and the digest of the plain tar."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), level, mtime=0), digest_of(plain.getvalue())


def image(layers: list[tuple[bytes, str]], architecture="amd64", docker=False) -> Document:
    """Returns an image manifest whose entry point prints a line, with `layers` as made by `layer`."""
    config = canonical({
        "architecture": architecture,
        "os": "linux",
        "config": {"Entrypoint": ["/bin/busybox", "echo"], "Cmd": ["hello from the cache"]},
        "rootfs": {"type": "layers", "diff_ids": [plain for _, plain in layers]},
        "history": [{"created_by": f"layer {n}"} for n in range(len(layers))],
    })
    blobs = {digest_of(config): config} | {digest_of(packed): packed for packed, _ in layers}

    def descriptor(media_type: str, content: bytes) -> dict:
        return {"mediaType": media_type, "size": len(content), "digest": digest_of(content)}

    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    body = canonical({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, config),
        "layers": [descriptor(DOCKER_LAYER if docker else OCI_LAYER, packed) for packed, _ in layers],
    })
    return Document(media_type, body, blobs)


def index(images: dict[str, Document]) -> Document:
    """Returns an OCI index of images by architecture."""
    body = canonical({
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": child.media_type,
                "size": len(child.body),
                "digest": child.digest,
                "platform": {"os": "linux", "architecture": architecture},
            }
            for architecture, child in images.items()
        ],
    })
    return Document(OCI_INDEX, body, children=list(images.values()))


def noise(seed: int, size: int) -> bytes:
    """Returns bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


@functools.cache
def busybox_layer() -> tuple[bytes, str]:
    """Returns a layer with a statically linked busybox: what makes an image runnable."""
    return layer({"bin/busybox": Path(program("busybox")).read_bytes()})


@functools.cache
def multi() -> Document:
    """Returns an index of two platforms, three layers each, one of them shared."""
    shared = busybox_layer()
    return index({
        architecture: image(
            [shared, layer({f"etc/{architecture}": noise(seed, 40_000)}), layer({"srv/data": noise(seed + 1, MIB)})],
            architecture,
        )
        for seed, architecture in ((10, "amd64"), (20, "arm64"))
    })


@functools.cache
def single() -> Document:
    """Returns a Docker image of one platform."""
    return image([busybox_layer(), layer({"etc/single": noise(30, 300_000)})], docker=True)


@functools.cache
def big() -> Document:
    """Returns an image whose one layer is of 100 MiB."""
    return image([layer({"srv/big": noise(40, 100 * MIB)}, level=0)])


@functools.cache
def many() -> dict[str, Document]:
    """Returns twenty images of one 2 MiB layer, by tag."""
    return {f"v{n}": image([layer({"srv/data": noise(100 + n, 2 * MIB)}, level=0)]) for n in range(20)}


def big_blob() -> tuple[str, bytes]:
    """Returns digest and bytes of the 100 MiB layer."""
    return max(big().blobs.items(), key=lambda entry: len(entry[1]))
