"""Guard the BigQuery emulator: a request needs its token, one of its host names, and JSON.

The emulator has no authentication: any user of the machine, and any page in a browser, could read
and write with its owner's rights. Only `/healthz` and `/readyz`, which show no data, need no
token.
"""

from __future__ import annotations

import hmac
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, MutableMapping
    from typing import Any

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
OPEN = frozenset({"/healthz", "/readyz"})
# Types that a page may send to any server without a preflight request (Fetch standard, CORS).
FORMS = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
UPLOADS = "/upload/"
MIN_TOKEN = 16


class Guard:
    """ASGI middleware that rejects requests without the token."""

    def __init__(self, app: App, token: str, hosts: Collection[str] = ()) -> None:
        """Guard an ASGI application; `hosts` are additional host names of clients."""
        self.app = app
        self.expected = f"Bearer {token}".encode()
        self.hosts = LOOPBACK | set(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        rejection = self.find_rejection(scope)
        if rejection is None:
            await self.app(scope, receive, send)
            return
        code, message = rejection
        body = json.dumps({"error": {"code": code, "message": message, "errors": []}}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        if code == 401:  # noqa: PLR2004 - HTTP's own number
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def find_rejection(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason if the request must not reach the emulator, else None."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = headers.get(b"host", [])
        if len(host) != 1 or _parse_host_name(b"//" + host[0]) not in self.hosts:
            return 403, "this is not a host name of the emulator (header Host)"
        origins = headers.get(b"origin", [])
        if any(_parse_host_name(origin) not in self.hosts for origin in origins):
            return 403, "pages of other sites have no access (header Origin)"
        if scope["path"] in OPEN and scope["method"] in ("GET", "HEAD"):
            return None
        tokens = headers.get(b"authorization", [])
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self.expected):
            return 401, (
                "the emulator needs its token: `python -m taxi_assets.local env` prints "
                "BIGQUERY_TOKEN; with docker-compose it is the one in .env"
            )
        return self._find_type_rejection(scope["path"], headers)

    def _find_type_rejection(
        self, path: str, headers: dict[bytes, list[bytes]]
    ) -> tuple[int, str] | None:
        is_empty = headers.get(b"content-length", [b"0"]) == [b"0"]
        if is_empty and b"transfer-encoding" not in headers:
            return None
        types = headers.get(b"content-type", [b""])
        kind = types[0].decode("latin-1").partition(";")[0].strip().lower()
        is_invalid = kind in FORMS if path.startswith(UPLOADS) else kind != "application/json"
        if len(types) != 1 or is_invalid:
            return 415, f"send application/json, not {kind or 'nothing'} (header Content-Type)"
        return None


def _parse_host_name(address: bytes) -> str | None:
    try:
        return urlsplit(address.decode("latin-1")).hostname
    except ValueError:
        return None
