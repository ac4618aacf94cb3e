"""HTTP sessions in which nothing waits without bound.

requests bounds the silence between two bytes, not the time until an answer: a server that sends a
byte of its headers every few seconds holds a caller for ever, and so does one that redirects with
an endless body.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Event, Timer
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

MAX_REDIRECTS = 10


class LimitedSession(requests.Session):
    """A session whose answers begin within `header_seconds`, and which another thread can end."""

    def __init__(self, header_seconds: float, total_seconds: float | None = None) -> None:
        super().__init__()
        self.max_redirects = MAX_REDIRECTS
        self.headers["Accept-Encoding"] = "identity"
        self.headers["User-Agent"] = "taxi_assets"
        self.hooks["response"].append(_close_redirect)
        self.expired = Event()
        """Set when `total_seconds` have passed: every connection is cut then."""
        self._sockets: list[socket.socket] = []
        self._timer = Timer(total_seconds, self._close_sockets) if total_seconds else None
        adapter = _LimitedAdapter(header_seconds, self.expired, self._sockets)
        for scheme in ("http://", "https://"):
            self.mount(scheme, adapter)

    def __enter__(self) -> Self:
        if self._timer is not None:
            self._timer.daemon = True
            self._timer.start()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().__exit__(*error)

    def _close_sockets(self) -> None:
        self.expired.set()
        for connected in self._sockets:
            close_socket(connected)


def close_socket(connected: socket.socket) -> None:
    """End a connection in which another thread may be waiting."""
    with suppress(OSError):
        # Of the plain socket: an SSL socket's own method forgets its state under the reader.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _LimitedAdapter(HTTPAdapter):
    """Makes connections that bound the time until the headers are there."""

    def __init__(self, header_seconds: float, expired: Event, sockets: list[socket.socket]) -> None:
        members = {"header_seconds": header_seconds, "expired": expired, "sockets": sockets}
        plain = type("LimitedHTTPConnection", (_Limited, HTTPConnection), members)
        secure = type("LimitedHTTPSConnection", (_Limited, HTTPSConnection), members)
        self.pools = {
            "http": type("LimitedHTTPPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("LimitedHTTPSPool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **options)
        manager.pool_classes_by_scheme = self.pools
        return manager


class _Limited:
    """Mixed into urllib3's connections."""

    header_seconds: float
    expired: Event
    sockets: list[socket.socket]
    sock: Any

    def getresponse(self) -> Any:
        """Return the answer once its headers are there.

        Raises:
            TimeoutError: they did not come in time; urllib3 makes its own error of it.
        """
        late, connected = Event(), self.sock

        def expire() -> None:
            late.set()
            close_socket(connected)

        self.sockets.append(connected)
        timer = Timer(self.header_seconds, expire)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()  # type: ignore[misc]
        except Exception:
            if not (late.is_set() or self.expired.is_set()):
                raise
        finally:
            timer.cancel()
        if (
            late.is_set() or self.expired.is_set()
        ):  # http.client takes headers that were cut off for whole ones
            raise TimeoutError(f"no headers within {self.header_seconds:g} s")
        return response


def _close_redirect(response: requests.Response, **_: Any) -> None:
    """Close a redirect before requests reads its body, which nothing bounds."""
    if response.is_redirect:
        response.close()
