"""A small HTTP client that neither follows, retries, decompresses nor interprets."""

import hashlib
import http.client
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

# Seconds of silence after which a request is given up.
SILENCE_LIMIT = 120
# What the rig itself accepts: as a container client would.
ACCEPT = ", ".join([
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "*/*",
])


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def digest(self) -> str:
        """The digest of the body as it arrived."""
        return digest_of(self.body)

    def error_code(self) -> str:
        """The code of a distribution error body; fails if the body has not that form."""
        errors = json.loads(self.body)["errors"]
        assert isinstance(errors[0]["message"], str), errors
        return errors[0]["code"]


def digest_of(content: bytes) -> str:
    """Returns `sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def opened(url: str, method: str = "GET", headers=None, body=None):
    """Sends a request and returns the connection and the response with its body still to be read."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=SILENCE_LIMIT)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.request(method, target, body=body, headers={"Accept": ACCEPT, **(headers or {})})
    return connection, connection.getresponse()


def fetch(url: str, method: str = "GET", headers=None, body=None) -> Answer:
    """Sends a request and reads the whole answer. A body cut short raises `IncompleteRead`."""
    connection, response = opened(url, method, headers, body)
    try:
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 200."""
    try:
        return fetch(url).status == 200
    except (OSError, http.client.HTTPException):
        return False
