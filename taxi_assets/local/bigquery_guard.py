"""Guard the BigQuery emulator: a request needs its token, one of its host names, and JSON.

The emulator has no authentication: any user of the machine, and any page in a browser, could read
and write with its owner's rights. Only `/healthz` and `/readyz`, which show no data, need no
token.
"""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from taxi_assets.settings.addresses import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN = frozenset({"/healthz", "/readyz"})
# Types that a page may send to any server without a preflight request (Fetch standard, CORS).
FORMS = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
UPLOADS = "/upload/"
MIN_TOKEN = 16


class Guard:
    """ASGI middleware that rejects requests without the token."""

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str] = ()) -> None:
        """Guard an ASGI application; `hosts` are additional host names of clients."""
        self.app = app
        self.expected = f"Bearer {token}".encode()
        self.hosts = LOOPBACK | set(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        app, rejection = self.app, self.find_rejection(scope, Headers(scope=scope))
        if rejection is not None:
            code, message = rejection
            app = JSONResponse(
                {"error": {"code": code, "message": message, "errors": []}},
                code,
                {"connection": "close", "www-authenticate": "Bearer"},
            )
        await app(scope, receive, send)

    def find_rejection(self, scope: Scope, headers: Headers) -> tuple[HTTPStatus, str] | None:
        """Return status and reason if the request must not reach the emulator, else None."""
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _parse_host_name(f"//{hosts[0]}") not in self.hosts:
            return HTTPStatus.FORBIDDEN, "this is not a host name of the emulator (header Host)"
        if any(_parse_host_name(url) not in self.hosts for url in headers.getlist("origin")):
            return HTTPStatus.FORBIDDEN, "pages of other sites have no access (header Origin)"
        if scope["path"] in OPEN and scope["method"] in ("GET", "HEAD"):
            return None
        tokens = [token.encode("latin-1") for token in headers.getlist("authorization")]
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self.expected):
            return HTTPStatus.UNAUTHORIZED, (
                "the emulator needs its token, which `python -m taxi_assets.local env` prints as "
                "BIGQUERY_TOKEN; with docker-compose it is the one in .env"
            )
        return _find_type_rejection(scope["path"], headers)


def _find_type_rejection(path: str, headers: Headers) -> tuple[HTTPStatus, str] | None:
    if headers.getlist("content-length") in ([], ["0"]) and "transfer-encoding" not in headers:
        return None
    types = headers.getlist("content-type")
    kind = "".join(types).partition(";")[0].strip().lower()
    is_invalid = kind in FORMS if path.startswith(UPLOADS) else kind != "application/json"
    if len(types) > 1 or is_invalid:
        message = f"send application/json, not {kind or 'nothing'} (header Content-Type)"
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, message
    return None


def _parse_host_name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
