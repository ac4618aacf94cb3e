"""Proxies in front of real servers that break what passes through them, on command.

`HttpProxy` knows requests and answers. It is a process of its own: pyarrow holds the interpreter's
lock while it waits for GCS. `TcpProxy` only knows bytes. A fault fires as often as it says, then
everything passes. Both listen on the loopback interface only.
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
    """What happens to the next requests that match."""

    on: str
    """Regular expression, searched in `METHOD /path` and, after a line break, the body."""
    act: str
    """Name of a method of `Exchange`."""
    times: int = 1
    status: int = 503
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class HttpProxy:
    """The running proxy, as a test sees it."""

    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, on: str, act: str, times: int = 1, status: int = 503, **headers: str) -> None:
        """Break the next requests that match `on`; underscores in `headers` are hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.control("POST", json.dumps([on, act, times, status, named]))

    def answer(self, on: str, *codes: int) -> None:
        """Answer the next requests that match with these, one each."""
        for code in codes:
            self.add(on, "answer", status=code)

    def clear(self) -> None:
        """Break nothing from now on."""
        self.control("DELETE")

    @property
    def requests(self) -> list[str]:
        """`METHOD /path` of all requests, in order."""
        return self.control("GET")["requests"]

    @property
    def fired(self) -> list[str]:
        """The requests that met a fault, each after the fault's name."""
        return self.control("GET")["fired"]

    @property
    def answered(self) -> list[str]:
        """`status METHOD /path` of all that the server answered, lost answers too."""
        return self.control("GET")["answered"]

    @property
    def left(self) -> list[str]:
        """Faults that have not fired yet."""
        return self.control("GET")["left"]

    def control(self, method: str, body: str = "") -> dict:
        request = Request(f"{self.address}{CONTROL}", body.encode(), method=method)  # noqa: S310
        with urlopen(request, timeout=10) as response:  # noqa: S310
            return json.load(response)


@contextmanager
def http_proxy(upstream: str, port: int = 0, module: str = __name__) -> Iterator[HttpProxy]:
    """A proxy in front of the server at a URL; `module` is the program that it runs."""
    command = [sys.executable, "-m", module, upstream, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield HttpProxy(int(process.stdout.readline()))
        finally:
            process.kill()


@dataclass
class Plan:
    """What the proxy's process knows."""

    upstream: Address
    faults: list[Fault] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    fired: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault_for(self, line: str, body: bytes) -> Fault | None:
        """The fault that this request meets, used up."""
        text = f"{line}\n{body.decode('latin-1')}"
        with self.lock:
            self.requests.append(line)
            for fault in self.faults:
                if re.search(fault.on, text, re.DOTALL):
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    self.fired.append(f"{fault.act} {line}")
                    return fault
        return None


class Exchange(BaseHTTPRequestHandler):
    """One client's requests, one after the other."""

    protocol_version = "HTTP/1.1"
    plan: Plan
    fault: Fault | None
    body: bytes
    seconds: float = 0.0
    """How long the server works on it."""

    def log_message(self, *_: object) -> None:
        pass

    def pass_on(self) -> None:
        # One exchange serves all requests of a connection.
        self.seconds = 0.0
        self.body = self.read_body()
        if self.path == CONTROL:
            self.obey()
            return
        self.fault = self.plan.fault_for(f"{self.command} {self.path}", self.body)
        if self.fault:
            getattr(self, self.fault.act)()
        else:
            self.send(*self.forward())

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = pass_on  # noqa: N815

    def obey(self) -> None:
        if self.command == "DELETE":
            self.plan.faults.clear()
        if self.command == "POST":
            self.plan.faults.append(Fault(*json.loads(self.body)))
        state = {
            "requests": self.plan.requests,
            "answered": self.plan.answered,
            "fired": self.plan.fired,
            "left": [f"{fault.act} {fault.on}" for fault in self.plan.faults],
        }
        self.send(200, {}, json.dumps(state).encode())

    def answer(self) -> None:
        """Answer in the server's place, as Google's front ends do: no JSON."""
        self.send(self.fault.status, self.fault.headers, b"made by the proxy")

    def reset(self) -> None:
        """Break the connection, with a TCP reset, before the server heard of the request."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def lose_answer(self) -> None:
        """Let the server do what was asked, and break the connection instead of answering."""
        self.forward()
        self.reset()

    def cut_upload(self) -> None:
        """Break both connections with half of the request's body on its way."""
        self.forward(0.5)
        self.reset()

    def cut_answer(self) -> None:
        """Send half of the body that was announced, then break the connection."""
        code, headers, body = self.forward()
        self.send(code, headers, body, len(body) // 2)
        self.wfile.flush()
        self.reset()

    def answer_in_html(self) -> None:
        """Let the server do what was asked, and answer 200 with a page, as a captive portal."""
        self.forward()
        self.send(200, {"Content-Type": "text/html"}, b"<!doctype html><p>Please sign in")

    def cut_json(self) -> None:
        """Answer with half of the body, as if it were whole."""
        code, headers, body = self.forward()
        self.send(code, headers, body[: len(body) // 2])

    def hold(self) -> None:
        """Take a second over it."""
        self.seconds = 1.0
        self.send(*self.forward())

    def hang(self) -> None:
        """Never answer: wait until the client has gone."""
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
        """Ask the server; with a share under 1 the connection breaks after that much body."""
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
            time.sleep(self.seconds)
            answer = response.status, dict(response.getheaders()), response.read()
            self.plan.answered.append(f"{response.status} {self.command} {self.path}")
            return answer
        finally:
            connection.close()

    def send(
        self, code: int, headers: dict[str, str], body: bytes, most: int | None = None
    ) -> None:
        """Answer, with at most `most` bytes of the body that is announced."""
        self.send_response_only(code)
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:most])


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
    """What happens, once, `count` bytes after a connection's client sent `after`."""

    after: bytes
    """Regular expressions with `.*` between them, each searched after the previous one."""
    count: int = 0
    act: Callable[[], object] | None = None
    """Called before the rest goes on; None breaks the connection."""
    lose_answer: bool = False
    """Break it not before the server has answered."""


LONGEST = 64
"""Bytes that a regular expression matches at most."""


@dataclass
class Search:
    """The search in what a connection's client sends; each byte is searched once.

    A search in all that was sent, at each part of 4 KiB, took longer than a server may be silent.
    """

    steps: list[bytes]
    """Regular expressions that are left."""
    tail: bytes = b""
    since: int = 0
    """Bytes after the last match."""

    def add(self, part: bytes) -> int:
        """Return the number of bytes since the last step was found; -1 if it was not."""
        if not self.steps:
            self.since += len(part)
            return self.since
        window, at = self.tail + part, 0
        while self.steps and (found := re.compile(self.steps[0]).search(window, at)):
            self.steps.pop(0)
            at = found.end()
        self.tail, self.since = window[at:][-LONGEST:], len(window) - at
        return -1 if self.steps else self.since


@dataclass
class TcpProxy:
    """Forwards bytes to `upstream`, if no cut says otherwise."""

    upstream: Address
    port: int = 0
    cuts: list[Cut] = field(default_factory=list)

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
                for pump in (self.up, self.down):
                    threading.Thread(target=pump, args=(client, server, lost)).start()

    def up(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        """From the client to the server, counting."""
        searches: dict[int, Search] = {}
        with suppress(OSError):
            while part := client.recv(1 << 12):
                cut = self.met(part, searches)
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

    def met(self, part: bytes, searches: dict[int, Search]) -> Cut | None:
        """The cut whose time has come, used up."""
        sent = [
            searches.setdefault(id(cut), Search(cut.after.split(b".*"))).add(part)
            for cut in self.cuts
        ]
        due = [cut for cut, count in zip(self.cuts, sent, strict=True) if count >= cut.count]
        if not due:
            return None
        self.cuts.remove(due[0])
        return due[0]

    def down(self, client: socket.socket, server: socket.socket, lost: threading.Event) -> None:
        """From the server to the client."""
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
    """A proxy in front of the server at a port."""
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
