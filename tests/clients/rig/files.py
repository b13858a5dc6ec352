"""A repoxy in front of any HTTP server, with one proxy of type `generic`."""

from pathlib import Path

from .repoxy import Repoxy


class Files(Repoxy):
    """Its proxy is called `files`."""

    def __init__(self, scratch: Path, upstream_url: str, more: str = ""):
        super().__init__(scratch, upstream_url)
        lines = [
            f'root = "file://{self.root}"',
            f'listen = "127.0.0.1:{self.port}"',
            "[[proxy]]",
            'type = "generic"',
            'name = "files"',
            f'upstream = "{upstream_url}"',
            more,
        ]
        self.config.write_text("\n".join(lines) + "\n")

    @property
    def base(self) -> str:
        """The address that stands for upstream's."""
        return f"{self.url}/generic/files"
