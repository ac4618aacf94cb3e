"""What a server or a folder has of a month, without bringing it: one HEAD, or one stat."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import requests

from taxi_assets.trips.download import (
    REMEDIES,
    TRANSIENT_STATUS,
    UNASKABLE,
    Origin,
    SourceUnavailableError,
    Version,
    cause_of,
)

TIMEOUT = (5.0, 10.0)
"""Seconds to connect, and of silence."""
ABSENT = frozenset({403, 404, 410})
"""What servers say of a file that is not there. TLC's says 403."""
NO_HEAD = frozenset({405, 501})


def look_at(origin: Origin) -> Version | None:
    """What the server has under `origin.url`; None where it has nothing.

    Raises:
        SourceError: it refuses, for a reason that waiting does not change.
        SourceUnavailableError: it does not answer now.
    """
    headers = {"Accept-Encoding": "identity", "User-Agent": "taxi_assets"}
    response = _ask("HEAD", origin, headers)
    if response.status_code in NO_HEAD:
        response = _ask("GET", origin, headers)
    status = response.status_code
    if status in ABSENT:
        return None
    if status in TRANSIENT_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise SourceUnavailableError(
            f"{origin.label}: {origin.public}: the server answered {status}; it may later"
        )
    if status != HTTPStatus.OK:
        remedy = REMEDIES.get(status, "check TAXI_SOURCE")
        raise origin.refusal(f"the server answered {status}", remedy)
    length = response.headers.get("Content-Length", "")
    return Version(
        response.headers.get("ETag"),
        response.headers.get("Last-Modified"),
        int(length) if length.isdecimal() else None,
    )


def _ask(method: str, origin: Origin, headers: dict[str, str]) -> requests.Response:
    """The answer without its body."""
    try:
        with requests.request(
            method, origin.url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=True
        ) as response:
            return response
    except UNASKABLE as error:
        name = type(error).__name__
        raise origin.refusal(
            f"cannot be asked for, or redirects where it must not ({name})", "check TAXI_SOURCE"
        ) from None
    except requests.RequestException as error:
        raise SourceUnavailableError(
            f"{origin.label}: {origin.public}: no answer ({cause_of(error)}); it may come later"
        ) from None


def stat_of(path: Path) -> Version | None:
    """A file on this machine: its mtime (ISO, UTC) and size; None where there is none."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Version(None, modified_at(stat.st_mtime), stat.st_size)


def modified_at(mtime: float) -> str:
    """A file's time as it is kept and compared: ISO, UTC, whole seconds."""
    return datetime.fromtimestamp(int(mtime), UTC).isoformat()
