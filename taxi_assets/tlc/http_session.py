"""HTTP sessions in which every wait has a limit.

The timeout of requests limits the silence between two bytes, not the time until a response: a
server that sends a byte of its headers every few seconds blocks the caller forever, and so does a
redirect with an endless body.
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
    """A session that limits the time until a response's headers and its own lifetime."""

    def __init__(self, header_seconds: float, total_seconds: float) -> None:
        super().__init__()
        self.max_redirects = MAX_REDIRECTS
        self.headers["Accept-Encoding"] = "identity"
        self.headers["User-Agent"] = "taxi_assets"
        self.hooks["response"].append(_close_redirect)
        self.expired = Event()
        """Set after `total_seconds`, when every connection is closed."""
        self._sockets: list[socket.socket] = []
        self._timer = Timer(total_seconds, self._close_sockets)
        self._timer.daemon = True
        adapter = _LimitedAdapter(header_seconds, self.expired, self._sockets)
        for scheme in ("http://", "https://"):
            self.mount(scheme, adapter)

    def __enter__(self) -> Self:
        self._timer.start()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        super().__exit__(*error)

    def _close_sockets(self) -> None:
        self.expired.set()
        for connected in self._sockets:
            close_socket(connected)


def close_socket(connected: socket.socket) -> None:
    """Close a connection on which another thread may be waiting."""
    with suppress(OSError):
        # The plain socket's method: that of an SSL socket drops the state that the reader needs.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _LimitedAdapter(HTTPAdapter):
    """Makes connections that limit the time until the response's headers."""

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
    """A mixin for urllib3's connections."""

    header_seconds: float
    expired: Event
    sockets: list[socket.socket]
    sock: Any

    def getresponse(self) -> Any:
        """Return the response once its headers have arrived.

        Raises:
            TimeoutError: they did not arrive in time; urllib3 wraps it in its own error.
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
        # http.client accepts truncated headers as complete.
        if late.is_set() or self.expired.is_set():
            raise TimeoutError(f"no headers within {self.header_seconds:g} s")
        return response


def _close_redirect(response: requests.Response, **_: Any) -> None:
    """Close a redirect before requests reads its body, which has no limit."""
    if response.is_redirect:
        response.close()
