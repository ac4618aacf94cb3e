"""Proxies in front of real servers that break connections, requests or responses on command.

`HttpProxy` handles requests and responses. It is a separate process, because pyarrow holds the
interpreter's lock while it waits for GCS. `TcpProxy` handles bytes. A fault fires a given number of
times. Both listen on the loopback interface only.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

HOP_BY_HOP = {"connection", "content-length", "keep-alive", "transfer-encoding"}
CONTROL = "/fault-proxy"
Address = tuple[str, int]


@dataclass
class Fault:
    """A fault for the next requests that match."""

    on: str
    """Regular expression, searched in `METHOD /path` and, after a line break, the body."""
    act: str
    """Name of a method of `Exchange`."""
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    """How many requests had come when it fired, with its own."""


@dataclass
class HttpProxy:
    """A running proxy, controlled by a test."""

    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, on: str, act: str, times: int = 1, status: int = 503, **headers: str) -> None:
        """Break the next requests that match `on`; underscores in `headers` are hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.control("POST", json.dumps([on, act, times, status, named]))

    def answer(self, on: str, *codes: int) -> None:
        """Answer the next requests that match with these statuses, one each."""
        for code in codes:
            self.add(on, "answer", status=code)

    def clear(self) -> None:
        """Remove all faults."""
        self.control("DELETE")

    @property
    def requests(self) -> list[str]:
        """`METHOD /path` of all requests, in order."""
        return self.control("GET")["requests"]

    @property
    def fired(self) -> list[str]:
        """Return the requests with a fault, each after the name of its fault."""
        return self.control("GET")["fired"]

    @property
    def answered(self) -> list[str]:
        """`status METHOD /path` of all responses of the server, including lost ones."""
        return self.control("GET")["answered"]

    @property
    def most_held(self) -> int:
        """The largest number of requests that `hold` had at the same time."""
        return self.control("GET")["most_held"]

    @property
    def left(self) -> list[str]:
        """Return the faults that have not fired yet."""
        return self.control("GET")["left"]

    def control(self, method: str, body: str = "") -> dict:
        request = Request(f"{self.address}{CONTROL}", body.encode(), method=method)  # noqa: S310
        with urlopen(request, timeout=60) as response:  # noqa: S310
            return json.load(response)


@contextmanager
def http_proxy(upstream: str, port: int = 0, module: str = __name__) -> Iterator[HttpProxy]:
    """Run a proxy in front of the server at a URL, by the program `module`."""
    command = [sys.executable, "-m", module, upstream, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield HttpProxy(int(process.stdout.readline()))
        finally:
            process.kill()


@dataclass
class Plan:
    """The state of the proxy's process."""

    upstream: Address
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    held: int = 0
    most_held: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_fault(self, line: str, body: bytes) -> Fault | None:
        """Return the fault for this request, if any, and count it as used."""
        text = f"{line}\n{body.decode('latin-1')}"
        with self.lock:
            self.requests.append(line)
            for fault in self.faults:
                if re.search(fault.on, text, re.DOTALL):
                    fault.requests = len(self.requests)
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    self.fired.append(f"{fault.act} {line}")
                    return fault
        return None


class Exchange(BaseHTTPRequestHandler):
    """The requests of one connection, one after the other."""

    protocol_version = "HTTP/1.1"
    plan: Plan
    fault: Fault | None
    body: bytes
    seconds: float = 0.0
    """Additional duration of the request."""
    waits_for_another: bool = False
    """Whether the request lasts until the same request has come again."""

    def log_message(self, *_: object) -> None:
        pass

    def handle_request(self) -> None:
        # One exchange serves all requests of a connection.
        self.seconds, self.waits_for_another = 0.0, False
        self.body = self.read_body()
        if self.path == CONTROL:
            self.control()
            return
        self.fault = self.plan.take_fault(f"{self.command} {self.path}", self.body)
        if self.fault:
            getattr(self, self.fault.act)()
        else:
            self.send(*self.forward())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_request  # noqa: N815

    def control(self) -> None:
        if self.command == "DELETE":
            self.plan.faults.clear()
        if self.command == "POST":
            self.plan.faults.append(Fault(*json.loads(self.body)))
        state = {
            "requests": self.plan.requests,
            "answered": self.plan.answered,
            "fired": self.plan.fired,
            "most_held": self.plan.most_held,
            "left": [f"{fault.act} {fault.on}" for fault in self.plan.faults],
        }
        self.send(200, {}, json.dumps(state).encode())

    def answer(self) -> None:
        """Answer in place of the server, without JSON, as Google's front ends do."""
        self.send(self.fault.status, self.fault.headers, b"made by the proxy")

    def reset(self) -> None:
        """Break the connection by a TCP reset before the server receives the request."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def lose_answer(self) -> None:
        """Forward the request, and break the connection instead of answering."""
        self.forward()
        self.reset()

    def cut_upload(self) -> None:
        """Break both connections after half of the request's body."""
        self.forward(0.5)
        self.reset()

    def cut_answer(self) -> None:
        """Send half of the declared body, then break the connection."""
        code, headers, body = self.forward()
        self.send(code, headers, body, len(body) // 2)
        self.wfile.flush()
        self.reset()

    def answer_in_html(self) -> None:
        """Forward the request, and answer 200 with a page, as a captive portal does."""
        self.forward()
        self.send(200, {"Content-Type": "text/html"}, b"<!doctype html><p>Please sign in")

    def cut_json(self) -> None:
        """Answer with half of the body, declared as complete."""
        code, headers, body = self.forward()
        self.send(code, headers, body[: len(body) // 2])

    def hold(self) -> None:
        """Answer after a second."""
        with self.plan.lock:
            self.plan.held += 1
            self.plan.most_held = max(self.plan.held, self.plan.most_held)
        self.seconds = 1.0
        try:
            answer = self.forward()
        finally:
            with self.plan.lock:
                self.plan.held -= 1
        self.send(*answer)

    def hold_for_another(self) -> None:
        """Answer a second after the same request has come again."""
        self.waits_for_another = True
        self.hold()

    def hang(self) -> None:
        """Never answer: wait until the client disconnects."""
        self.connection.recv(1)
        self.reset()

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def forward(self, share: float = 1.0) -> tuple[int, dict[str, str], bytes]:
        """Forward the request; with a share under 1, break the connection after that share."""
        connection = http.client.HTTPConnection(*self.plan.upstream, timeout=60)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(self.body)))
            connection.endheaders(self.body[: int(len(self.body) * share)])
            if share < 1:
                return 0, {}, b""
            response = connection.getresponse()
            self.pause()
            answer = response.status, dict(response.getheaders()), response.read()
            self.plan.answered.append(f"{response.status} {self.command} {self.path}")
            return answer
        finally:
            connection.close()

    def pause(self) -> None:
        """Wait as long as the fault of the request demands."""
        line, deadline = f"{self.command} {self.path}", time.monotonic() + 60
        while self.waits_for_another and time.monotonic() < deadline:
            assert self.fault
            self.waits_for_another = line not in self.plan.requests[self.fault.requests :]
            time.sleep(0.02)
        time.sleep(self.seconds)

    def send(
        self, code: int, headers: dict[str, str], body: bytes, max_bytes: int | None = None
    ) -> None:
        """Answer with at most `max_bytes` bytes of the declared body."""
        self.send_response_only(code)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:max_bytes])


def main(upstream: str, port: str, exchange: type[Exchange] = Exchange) -> None:
    """Print the port, and serve until killed."""
    parts = urlsplit(upstream)
    plan = Plan((str(parts.hostname), int(parts.port or 80)))
    handler = type("PlannedExchange", (exchange,), {"plan": plan, "wbufsize": -1})
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), handler)
    print(server.server_port, flush=True)  # noqa: T201 - for the process that started this one
    server.serve_forever()


@dataclass
class Cut:
    """A fault that fires once, `count` bytes after a client sent `after`."""

    after: bytes
    """Regular expressions with `.*` between them, each searched after the previous one."""
    count: int = 0
    act: Callable[[], object] | None = None
    """Called before the rest is forwarded; None breaks the connection."""
    lose_answer: bool = False
    """Break the connection after the response of the server, not before it."""


MAX_MATCH_BYTES = 64
"""Maximum length of a match, in bytes."""


@dataclass
class Search:
    """The search in the bytes of a client; each byte is searched once.

    A new search in all bytes for each part of 4 KiB took longer than the silence limit.
    """

    steps: list[bytes]
    """Remaining regular expressions."""
    tail: bytes = b""
    since: int = 0
    """Bytes after the last match."""

    def add(self, part: bytes) -> int:
        """Return the number of bytes since the last step; -1 if it has not been found yet."""
        if not self.steps:
            self.since += len(part)
            return self.since
        window, at = self.tail + part, 0
        while self.steps and (match := re.compile(self.steps[0]).search(window, at)):
            self.steps.pop(0)
            at = match.end()
        self.tail, self.since = window[at:][-MAX_MATCH_BYTES:], len(window) - at
        return -1 if self.steps else self.since


@dataclass
class TcpProxy:
    """Forwards bytes to `upstream`, except where a cut fires."""

    upstream: Address
    port: int = 0
    cuts: list[Cut] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a connection searches for its cut."""

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(self.upstream)
                except OSError:
                    client.close()
                    continue
                lost = threading.Event()
                for pump in (self.send_upstream, self.send_downstream):
                    threading.Thread(target=pump, args=(client, server, lost)).start()

    def send_upstream(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        """Forward and count the bytes of the client."""
        searches: dict[int, Search] = {}
        with suppress(OSError):
            while part := client.recv(1 << 12):
                cut = self.take_cut(part, searches)
                if cut and cut.lose_answer:
                    lost.set()
                elif cut and cut.act:
                    cut.act()
                elif cut:
                    _reset(client, server)
                    return
                server.sendall(part)
        with suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def take_cut(self, part: bytes, searches: dict[int, Search]) -> Cut | None:
        """Return the cut that is due, if any, and remove it."""
        with self.lock:
            sent = [
                (cut, searches.setdefault(id(cut), Search(cut.after.split(b".*"))).add(part))
                for cut in self.cuts
            ]
            due = next((cut for cut, count in sent if count >= cut.count), None)
            if due:
                self.cuts.remove(due)
        return due

    def send_downstream(
        self, client: socket.socket, server: socket.socket, lost: threading.Event
    ) -> None:
        """Forward the bytes of the server."""
        with suppress(OSError):
            while part := server.recv(1 << 16):
                if lost.is_set():
                    _reset(client, server)
                    return
                client.sendall(part)
        for end in (client, server):
            end.close()


def _reset(*ends: socket.socket) -> None:
    """Break connections with a TCP reset, and wake the threads that read from them."""
    for end in ends:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.shutdown(socket.SHUT_RD)
            end.close()


@contextmanager
def tcp_proxy(host: str, port: int) -> Iterator[TcpProxy]:
    """Run a proxy in front of the server at a port."""
    proxy = TcpProxy((host, port))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.port = listener.getsockname()[1]
        thread = threading.Thread(target=proxy.serve, args=[listener])
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
