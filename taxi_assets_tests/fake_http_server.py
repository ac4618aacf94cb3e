"""A real HTTP server of month files on this machine that misbehaves on request."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from taxi_assets.tlc import download
from taxi_assets.tlc.services import YELLOW

NAME = "{service}_tripdata_{year}-{month}.csv.gz"
HEADER = ",".join(YELLOW.header).encode() + b"\n"
NOISE = hashlib.shake_256(b"trips").hexdigest(600_000).encode()
PLAIN = HEADER + NOISE
PACKED = gzip.compress(PLAIN, 1, mtime=0)
RESTATED = gzip.compress(HEADER + NOISE[::-1], 1, mtime=0)

Fault = Callable[["Handler"], None]


@dataclass
class Site:
    """Contents and faults of the server; each request consumes one of the faults of its method."""

    address: str = ""
    body: bytes = PACKED
    etag: str | None = '"one"'
    modified: str | None = None
    get_faults: list[Fault] = field(default_factory=list)
    get_requests: list[dict[str, str]] = field(default_factory=list)
    """Headers and path of each GET."""
    head_faults: list[Fault] = field(default_factory=list)
    head_paths: list[str] = field(default_factory=list)
    """Path of each HEAD."""
    months: dict[str, bytes] | None = None
    """Bodies by path, each with its own ETag; any other path is 404. None: every path has `body`
    and `etag`."""
    new_etag_each_time: bool = False
    """As with some CDNs."""
    sends_length: bool = True
    supports_range: bool = True
    resume: threading.Event = field(default_factory=threading.Event)

    @property
    def template(self) -> str:
        return f"{self.address}/{{service}}/{NAME}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.get_requests]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.site.get_requests.append({**self.headers, "path": self.path})
        fault = self.site.get_faults.pop(0) if self.site.get_faults else serve
        fault(self)

    def do_HEAD(self) -> None:
        self.site.head_paths.append(self.path)
        fault = self.site.head_faults.pop(0) if self.site.head_faults else serve
        fault(self)

    def start(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if self.etag:
            self.send_header("ETag", self.etag)
        if self.site.modified:
            self.send_header("Last-Modified", self.site.modified)
        self.send_header("Connection", "close")
        if length is not None and self.site.sends_length:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.close_connection = True

    @property
    def body(self) -> bytes:
        return self.site.body if self.site.months is None else self.site.months[self.path]

    @property
    def etag(self) -> str | None:
        if self.site.new_etag_each_time:
            return f'"{len(self.site.get_requests)}-{len(self.site.head_paths)}"'
        if self.site.months is None:
            return self.site.etag
        body = self.site.months.get(self.path)
        return None if body is None else f'"{hashlib.sha256(body).hexdigest()[:16]}"'

    def parse_range(self) -> tuple[int, int] | None:
        """Return start and end of the requested range; None for the whole body."""
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if not wanted or not self.site.supports_range:
            return None
        if condition is not None and condition not in (self.etag, self.site.modified):
            return None
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) + 1 if last else len(self.body), len(self.body))

    def begin(self) -> bytes:
        """Send the headers of the body or the requested range, and return that part."""
        size, requested = len(self.body), self.parse_range()
        if requested is None:
            self.start(200, size)
            return self.body
        first, end = requested
        if first >= end:
            self.start(416, 0, Content_Range=f"bytes */{size}")
            return b""
        self.start(206, end - first, Content_Range=f"bytes {first}-{end - 1}/{size}")
        return self.body[first:end]


def serve(handler: Handler) -> None:
    if handler.site.months is not None and handler.path not in handler.site.months:
        handler.start(404, 0)
        return
    rest = handler.begin()
    if handler.command == "GET":
        handler.wfile.write(rest)


def cut(handler: Handler) -> None:
    rest = handler.begin()
    handler.wfile.write(rest[: len(rest) // 2])


def stall(handler: Handler) -> None:
    """Send 2 of the client's chunks, then pause until `resume` is set."""
    rest = handler.begin()
    handler.wfile.write(rest[: 2 * download.CHUNK])
    handler.wfile.flush()
    handler.site.resume.wait(120)
    with suppress(OSError):  # the client should have disconnected
        handler.wfile.write(rest[2 * download.CHUNK :])


def answer(status: int, **headers: str) -> Fault:
    return lambda handler: handler.start(status, 0, **headers)


def text(content: bytes, status: int = 200, **headers: str) -> Fault:
    """Answer with a body that is not the month's."""

    def respond(handler: Handler) -> None:
        handler.start(status, len(content), **headers)
        if handler.command == "GET":
            handler.wfile.write(content)

    return respond


def drip(handler: Handler) -> None:
    """Send the body a byte at a time, and never all of it."""
    rest = handler.begin()
    with suppress(OSError):
        for at in range(len(rest)):
            handler.wfile.write(rest[at : at + 1])
            handler.wfile.flush()
            if handler.site.resume.wait(0.02):
                return


def drip_headers(handler: Handler) -> None:
    """Send one byte of a header at a time, without end."""
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not handler.site.resume.wait(0.02):
            handler.wfile.write(b"X")
            handler.wfile.flush()
    handler.close_connection = True


def endless(status: int, **headers: str) -> Fault:
    """Answer with a body that has no end."""

    def respond(handler: Handler) -> None:
        handler.start(status, None, **headers)
        with suppress(OSError):
            handler.wfile.write(HEADER)
            while not handler.site.resume.is_set():
                handler.wfile.write(NOISE)

    return respond


def claim(size: int) -> Fault:
    """Serve the body under a wrong Content-Length."""

    def respond(handler: Handler) -> None:
        handler.start(200, size)
        if handler.command == "GET":
            with suppress(OSError):
                handler.wfile.write(handler.body)

    return respond


def changed(handler: Handler) -> None:
    """Serve this request, then switch to another version."""
    handler.site.etag = '"two"'
    handler.site.body = RESTATED
    serve(handler)


def other_range(handler: Handler) -> None:
    """Ignore If-Range and send a range of another version."""
    handler.site.etag = '"two"'
    body = handler.site.body = gzip.compress(PLAIN + b"more", 1, mtime=0)
    first = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
    handler.start(
        206, len(body) - first, Content_Range=f"bytes {first}-{len(body) - 1}/{len(body)}"
    )
    handler.wfile.write(body[first:])


@contextmanager
def serving() -> Iterator[Site]:
    """Run a server on a free port."""
    site = Site()
    handler = type("SiteHandler", (Handler,), {"site": site})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        site.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            site.resume.set()
            server.shutdown()
            thread.join()
