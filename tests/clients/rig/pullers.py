"""Real clients, each with its own private storage, and what it got as digests by name.

`pull(host, repository, tag)` returns the same value if and only if the client got the same bytes.
"""

import json
import os
import tempfile
from pathlib import Path

from .process import Process, program, run
from .web import digest_of


def tree(directory: Path) -> dict[str, str]:
    """Returns the digest of every file below a directory, by its path."""
    return {
        str(file.relative_to(directory)): digest_of(file.read_bytes())
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


class Puller:
    """A client with scratch space; a fresh directory for each pull."""

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self.pulls = 0

    def fresh(self) -> Path:
        """Returns a new empty directory."""
        self.pulls += 1
        directory = self.scratch / f"{type(self).__name__}-{self.pulls}"
        directory.mkdir()
        return directory


class Skopeo(Puller):
    """`skopeo copy` into a directory: the bytes of every manifest and blob as they came."""

    arguments: tuple[str, ...] = ()

    def pull(self, host: str, repository: str, tag: str) -> dict[str, str]:
        """Copies one image."""
        target = self.fresh()
        run("skopeo", "copy", *self.arguments, "--src-tls-verify=false",
            f"docker://{host}/{repository}:{tag}", f"dir:{target}")
        return tree(target)


class SkopeoAll(Skopeo):
    """The same with all platforms of an index."""

    arguments = ("--all",)


class Crane(Puller):
    """`crane pull` into an OCI layout, then digest, list and remote validation."""

    def pull(self, host: str, repository: str, tag: str) -> dict:
        """Pulls all platforms."""
        target, name = self.fresh(), f"{host}/{repository}:{tag}"
        run("crane", "pull", "--insecure", "--format", "oci", name, target)
        run("crane", "validate", "--insecure", "--remote", name)
        digest = run("crane", "digest", "--insecure", name).stdout.decode().strip()
        # In no certain order: docker-registry 2.8 gives them as its disk does.
        tags = sorted(run("crane", "ls", "--insecure", f"{host}/{repository}").stdout.decode().split())
        # The layout's own index.json may name the host that was asked.
        files = {path: content for path, content in tree(target).items() if path.startswith("blobs/")}
        return files | {"digest": digest, "tags": tags}


class Podman(Puller):
    """`podman pull` into a private storage."""

    def name(self, host: str, repository: str, tag: str) -> str:
        """What is pulled."""
        return f"{host}/{repository}:{tag}"

    def environment(self, _host: str, _directory: Path) -> dict[str, str]:
        """What the command is started with beside the test's own environment."""
        return {}

    def pull(self, host: str, repository: str, tag: str) -> dict:
        """Pulls this machine's platform; returns the digests of manifest, image and layers."""
        directory, name = self.fresh(), self.name(host, repository, tag)
        environment = os.environ | self.environment(host, directory)
        # podman refuses a run directory whose path is longer than fifty characters.
        with tempfile.TemporaryDirectory(dir="/tmp") as run_directory:
            podman = ["podman", "--root", directory, "--runroot", run_directory, "--storage-driver", "vfs"]
            run(*podman, "pull", "--quiet", "--tls-verify=false", name, env=environment)
            image = json.loads(run(*podman, "image", "inspect", name, env=environment).stdout)[0]
        return {"digest": image["Digest"], "id": image["Id"], "layers": image["RootFS"]["Layers"]}


class PodmanMirror(Podman):
    """`podman pull docker.io/…` with the host as mirror of docker.io in registries.conf."""

    def name(self, host: str, repository: str, tag: str) -> str:
        return f"docker.io/{repository}:{tag}"

    def environment(self, host: str, directory: Path) -> dict[str, str]:
        config = directory.with_suffix(".conf")
        config.write_text(
            '[[registry]]\nprefix = "docker.io"\nlocation = "docker.io"\n'
            f'[[registry.mirror]]\nlocation = "{host}"\ninsecure = true\n'
        )
        return {"CONTAINERS_REGISTRIES_CONF": str(config)}


CONTAINERD_CONFIG = """\
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
address = "{directory}/c.sock"
[ttrpc]
address = "{directory}/t.sock"
"""


class Containerd(Puller):
    """A private containerd whose hosts.toml has the host as mirror of docker.io (`?ns=docker.io`)."""

    def pull(self, host: str, repository: str, tag: str) -> dict[str, str]:
        """Pulls all platforms and returns the digests of the content store, read back."""
        directory = self.fresh()
        config = directory / "config.toml"
        config.write_text(CONTAINERD_CONFIG.format(directory=directory))
        hosts = directory / "hosts/docker.io"
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(
            f'server = "http://{host}"\n[host."http://{host}"]\ncapabilities = ["pull", "resolve"]\n'
        )
        ctr = [program("ctr"), "--address", directory / "c.sock"]
        daemon = Process("containerd", "--config", config, log=directory / "containerd.log")
        try:
            daemon.wait_until(lambda: run(*ctr, "version", ok=None).returncode == 0)
            run(*ctr, "images", "pull", "--all-platforms", "--hosts-dir", directory / "hosts",
                "--snapshotter", "native", f"docker.io/{repository}:{tag}")
            listed = run(*ctr, "content", "ls", "--quiet").stdout.decode().split()
            return {digest: digest_of(run(*ctr, "content", "get", digest).stdout) for digest in listed}
        finally:
            daemon.stop()
