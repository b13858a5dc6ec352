"""What stands between repoxy and the real registry: it counts every request, can ask for tokens,
and misbehaves when told to.

Faults are held back by events, never by time, so that a test decides what happens first.
"""

import base64
import http.client
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

# Bytes passed on at a time.
CHUNK = 64 * 1024
# Seconds after which a held answer goes on by itself, so that a failed test ends.
HOLD_LIMIT = 120
# The token that is given out, and the user it is given to.
TOKEN = "opaque-token-of-the-test"
USER, PASSWORD = "robot", "pass:word with spaces"
# Headers that belong to one connection.
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"}


@dataclass
class Request:
    """One request that arrived."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Fault:
    """What happens, `times` times, to requests whose `METHOD /path` matches `pattern`.

    `status` answers at once. Otherwise the real answer is passed on, but `flip`: the byte at this
    offset is changed; `cut`: the connection is closed after as many bytes; `hold`: after as many
    bytes it waits for `release()`.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    flip: int | None = None
    cut: int | None = None
    hold: int | None = None
    # Set when a request has reached the fault.
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Lets a held answer go on."""
        self.released.set()


class CountingProxy:
    """A reverse proxy in front of `registry_url`."""

    def __init__(self, registry_url: str, token_protected: bool = False):
        self.registry = urlsplit(registry_url)
        self.token_protected = token_protected
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self.server: _Server | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """The address; the same after `stop` and `start`."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listens, on the same port as before if there was one."""
        self.server = _Server(("127.0.0.1", self.port), self)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Closes the listener and every connection: upstream is down."""
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server.cut_all()
            self.server = None
        for fault in self.faults:
            fault.release()

    def fault(self, pattern: str, **what) -> Fault:
        """Adds a fault; the oldest that matches and has times left is taken."""
        fault = Fault(pattern, **what)
        with self.lock:
            self.faults.append(fault)
        return fault

    def paths(self) -> list[str]:
        """Returns `METHOD /path` of every request that has arrived."""
        with self.lock:
            return [f"{request.method} {request.path}" for request in self.requests]

    def count(self, pattern: str) -> int:
        """How many requests whose `METHOD /path` matches have arrived."""
        return sum(bool(re.search(pattern, path)) for path in self.paths())

    def forget(self) -> None:
        """Starts counting from nothing."""
        with self.lock:
            self.requests.clear()

    def note(self, handler: "_Handler") -> Fault | None:
        """Records a request and takes the fault that is meant for it."""
        headers = handler.headers
        arrived = Request(handler.command, handler.path, headers.get("Range"), headers.get("Authorization"))
        with self.lock:
            self.requests.append(arrived)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, f"{handler.command} {handler.path}"):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, address, proxy: CountingProxy):
        self.proxy = proxy
        self.connections: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request, client_address):
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request, client_address):
        """A peer that goes away is no error of the test."""

    def cut_all(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self):
        """Answers GET."""
        self._answer()

    do_HEAD = do_GET

    def _answer(self) -> None:
        proxy = self.server.proxy
        fault = proxy.note(self)
        if urlsplit(self.path).path == "/token":
            self._give_token()
        elif fault is not None and fault.status is not None:
            self._reply(fault.status, fault.headers, fault.body)
            fault.reached.set()
        elif proxy.token_protected and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            scope = re.match(r"/v2/(.+)/(manifests|blobs|tags|referrers)/", self.path)
            challenge = f'Bearer realm="{proxy.url}/token",service="registry.test"'
            if scope:
                challenge += f',scope="repository:{scope[1]}:pull"'
            body = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}'
            self._reply(401, {"WWW-Authenticate": challenge, "Content-Type": "application/json"}, body)
        else:
            self._pass_on(fault or Fault(""))

    def _give_token(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != wanted or query.get("service") != ["registry.test"]:
            self._reply(401, {"Content-Type": "application/json"}, b'{"details":"who are you"}')
            return
        token = json.dumps({"token": TOKEN, "expires_in": 300}).encode()
        self._reply(200, {"Content-Type": "application/json"}, token)

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _pass_on(self, fault: Fault) -> None:
        registry = self.server.proxy.registry
        connection = http.client.HTTPConnection(registry.hostname, registry.port, timeout=HOLD_LIMIT)
        try:
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in HOP_BY_HOP | {"host", "authorization"}
            }
            connection.request(self.command, self.path, headers=headers)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP | {"date", "server"}:
                    self.send_header(name, value)
            if answer.getheader("Content-Length") is None:
                self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self._pass_body(answer, fault)
        finally:
            connection.close()

    def _pass_body(self, answer: http.client.HTTPResponse, fault: Fault) -> None:
        stops = sorted({at for at in (fault.flip, fault.cut, fault.hold) if at is not None})
        sent = 0
        while True:
            stop = next((at for at in stops if at >= sent), None)
            if stop == sent:
                stops.remove(stop)
                if fault.hold == sent:
                    self.wfile.flush()
                    fault.reached.set()
                    fault.released.wait(HOLD_LIMIT)
                if fault.cut == sent:
                    fault.reached.set()
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                if fault.flip == sent:
                    byte = answer.read(1)
                    self.wfile.write(bytes([byte[0] ^ 1]))
                    fault.reached.set()
                    sent += 1
                continue
            chunk = answer.read(min(CHUNK, stop - sent) if stop is not None else CHUNK)
            if not chunk:
                return
            self.wfile.write(chunk)
            sent += len(chunk)

    def log_message(self, format, *args):  # noqa: A002 (the name is the base class's)
        """Says nothing: `requests` is the log."""
