"""Who may use the BigQuery emulator: whoever knows its token, by its own name, with JSON.

The emulator itself asks nobody who they are: any user of the machine could have it read and write
with its owner's rights, and so could any page in a browser. Only `/healthz` and `/readyz` answer
without the token; they show no data.
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
# What a page may send anywhere without asking first (the Fetch standard's CORS-safelisted types).
FORMS = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
UPLOADS = "/upload/"
MIN_TOKEN = 16


class Guard:
    """Passes a request on, or answers in the emulator's place."""

    def __init__(self, app: App, token: str, hosts: Collection[str] = ()) -> None:
        """Guard an ASGI application; `hosts` are names by which clients call it."""
        self.app = app
        self.expected = f"Bearer {token}".encode()
        self.hosts = LOOPBACK | set(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        refusal = self.refuse(scope)
        if refusal is None:
            await self.app(scope, receive, send)
            return
        code, message = refusal
        body = json.dumps({"error": {"code": code, "message": message, "errors": []}}).encode()
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        if code == 401:  # noqa: PLR2004 - HTTP's own number
            headers.append((b"www-authenticate", b"Bearer"))
        await send({"type": "http.response.start", "status": code, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def refuse(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason if the request must not reach the emulator."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        host = headers.get(b"host", [])
        if len(host) != 1 or _parse_host_name(b"//" + host[0]) not in self.hosts:
            return 403, "this is not a name of the emulator (header Host)"
        if any(_parse_host_name(it) not in self.hosts for it in headers.get(b"origin", [])):
            return 403, "pages of other sites have no business here (header Origin)"
        if scope["path"] in OPEN and scope["method"] in ("GET", "HEAD"):
            return None
        sent = headers.get(b"authorization", [])
        if len(sent) != 1 or not hmac.compare_digest(sent[0], self.expected):
            return 401, (
                "the emulator wants its token: `python -m taxi_assets.local env` prints "
                "BIGQUERY_TOKEN; with docker-compose it is the one in .env"
            )
        return self._reject_type(scope["path"], headers)

    def _reject_type(self, path: str, headers: dict[bytes, list[bytes]]) -> tuple[int, str] | None:
        empty = headers.get(b"content-length", [b"0"]) == [b"0"]
        if empty and b"transfer-encoding" not in headers:
            return None
        sent = headers.get(b"content-type", [b""])
        kind = sent[0].decode("latin-1").partition(";")[0].strip().lower()
        wrong = kind in FORMS if path.startswith(UPLOADS) else kind != "application/json"
        if len(sent) != 1 or wrong:
            return 415, f"write application/json, not {kind or 'nothing'} (header Content-Type)"
        return None


def _parse_host_name(address: bytes) -> str | None:
    try:
        return urlsplit(address.decode("latin-1")).hostname
    except ValueError:
        return None
