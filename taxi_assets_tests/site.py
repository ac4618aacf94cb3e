"""A real HTTP server of month files on this machine, which misbehaves on command."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from taxi_assets.trips import download

NAME = "{service}_tripdata_{year}-{month}.csv.gz"
PLAIN = b"VendorID,tpep_pickup_datetime\n" + hashlib.shake_256(b"trips").hexdigest(600_000).encode()
PACKED = gzip.compress(PLAIN, 1, mtime=0)

Act = Callable[["Handler"], None]


@dataclass
class Site:
    """What the server has and does; `acts` are used up one a request, then it behaves."""

    address: str = ""
    body: bytes = PACKED
    etag: str | None = '"one"'
    modified: str | None = None
    acts: list[Act] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    looks: list[Act] = field(default_factory=list)
    """As `acts`, for HEAD."""
    looked: list[str] = field(default_factory=list)
    """Paths that HEAD was asked of."""
    months: dict[str, bytes] | None = None
    """Bodies by path, with an ETag of their own; another path is answered 404. None: `body` and
    `etag` are everywhere."""
    go_on: threading.Event = field(default_factory=threading.Event)

    @property
    def template(self) -> str:
        return f"{self.address}/{{service}}/{NAME}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.asked]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.site.asked.append({**self.headers, "path": self.path})
        act = self.site.acts.pop(0) if self.site.acts else serve
        act(self)

    def do_HEAD(self) -> None:
        self.site.looked.append(self.path)
        act = self.site.looks.pop(0) if self.site.looks else serve
        act(self)

    def start(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if self.etag:
            self.send_header("ETag", self.etag)
        if self.site.modified:
            self.send_header("Last-Modified", self.site.modified)
        self.send_header("Connection", "close")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.close_connection = True

    @property
    def body(self) -> bytes:
        return self.site.body if self.site.months is None else self.site.months[self.path]

    @property
    def etag(self) -> str | None:
        if self.site.months is None:
            return self.site.etag
        body = self.site.months.get(self.path)
        return None if body is None else f'"{hashlib.sha256(body).hexdigest()[:16]}"'

    def first_byte(self) -> int:
        """Where the body starts: 0 unless Range and If-Range ask for the rest of this version."""
        wanted = self.headers.get("Range")
        same = self.headers.get("If-Range") in (self.etag, self.site.modified)
        return int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and same else 0

    def begin(self) -> bytes:
        """Send the headers of the body or its rest, which is returned."""
        first, size = self.first_byte(), len(self.body)
        rest = self.body[first:]
        if first:
            self.start(206, len(rest), Content_Range=f"bytes {first}-{size - 1}/{size}")
        else:
            self.start(200, len(rest))
        return rest


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
    """Send 2 of the client's chunks, then nothing until told to go on."""
    rest = handler.begin()
    handler.wfile.write(rest[: 2 * download.CHUNK])
    handler.wfile.flush()
    handler.site.go_on.wait(20)
    with suppress(OSError):  # the client may have gone, as it should
        handler.wfile.write(rest[2 * download.CHUNK :])


def answer(status: int, **headers: str) -> Act:
    return lambda handler: handler.start(status, 0, **headers)


def changed(handler: Handler) -> None:
    """Another version from now on; this request is served."""
    handler.site.etag = '"two"'
    handler.site.body = gzip.compress(PLAIN[::-1], 1, mtime=0)
    serve(handler)


def other_range(handler: Handler) -> None:
    """Ignore If-Range: a range of another version."""
    handler.site.etag = '"two"'
    body = handler.site.body = gzip.compress(PLAIN + b"more", 1, mtime=0)
    first = int(handler.headers["Range"].removeprefix("bytes=").rstrip("-"))
    handler.start(
        206, len(body) - first, Content_Range=f"bytes {first}-{len(body) - 1}/{len(body)}"
    )
    handler.wfile.write(body[first:])


@contextmanager
def serving() -> Iterator[Site]:
    """A server on a free port, until the end."""
    here = Site()
    handler = type("SiteHandler", (Handler,), {"site": here})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        here.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield here
        finally:
            here.go_on.set()
            server.shutdown()
            thread.join()
