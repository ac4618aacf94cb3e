"""Probe a server or a folder for a month file without fetching it: one HEAD, or one stat."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path

import requests

from taxi_assets.tlc.http_session import LimitedSession
from taxi_assets.tlc.remote_version import (
    TRANSIENT_STATUS,
    RemoteVersion,
    SourceLocation,
    build_status_error,
    parse_version,
    translate_request_errors,
)

TIMEOUT = (5.0, 10.0)
"""Seconds to connect, and seconds of silence."""
TOTAL_SECONDS = 20.0
"""Limit of one request with its redirects: a sensor's tick has 60 s for all its months."""
ABSENT = frozenset({403, 404, 410})
"""Statuses for a file that does not exist. TLC's server answers 403."""
FIRST_BYTE = {"Range": "bytes=0-0"}
RETRIED = "it will be retried"


def send_head_request(
    location: SourceLocation, before: RemoteVersion | None = None
) -> RemoteVersion | None:
    """Return the version at the location's URL; None if the file does not exist.

    If the ETag differs from that of `before`, a second request confirms it. An ETag that changes
    with each response, as those of some CDNs do, does not identify the file and is left out.

    Raises:
        SourceError: the server rejects the request for a reason that waiting does not change.
        SourceUnavailableError: the server does not answer.
    """
    now = _request_version(location)
    if now is None or before is None or not (now.etag and before.etag):
        return now
    if now.total in (None, before.total) and now.differs_from(before):
        again = _request_version(location)
        if again is not None and again.etag != now.etag:
            return replace(again, etag=None)
    return now


def _request_version(location: SourceLocation) -> RemoteVersion | None:
    response = _send_request("HEAD", location, {})
    if _is_rejected(response.status_code):
        response = _send_request("GET", location, FIRST_BYTE)
    status = response.status_code
    if status in ABSENT:
        return None
    if status in TRANSIENT_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise location.build_unavailable(f"the server answered {status}", RETRIED)
    if status not in (
        HTTPStatus.OK,
        HTTPStatus.PARTIAL_CONTENT,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,  # an empty file has no first byte
    ):
        raise build_status_error(status, location)
    return parse_version(response.headers, _get_total_size(response))


def _is_rejected(status: int) -> bool:
    """Return whether the status of a HEAD request must be confirmed by GET.

    A presigned URL is signed for GET alone: its HEAD is forbidden or a bad request. Servers without
    HEAD answer 404, 405 or 501.
    """
    is_client_error = HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR
    return status == HTTPStatus.NOT_IMPLEMENTED or (
        is_client_error and status not in TRANSIENT_STATUS
    )


def _get_total_size(response: requests.Response) -> int | None:
    """Return the size of the file in bytes; None if the response does not declare it.

    The length of an encoded body is not that of the file, and servers that do not know the length
    answer HEAD with 0.
    """
    headers = response.headers
    if response.status_code != HTTPStatus.OK:
        total = headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdecimal() else None
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        return None
    length = headers.get("Content-Length", "")
    return int(length) or None if length.isdecimal() else None


def _send_request(
    method: str, location: SourceLocation, headers: dict[str, str]
) -> requests.Response:
    """Return the response with its body closed unread."""
    with (
        translate_request_errors(
            location, lambda problem: location.build_unavailable(problem, RETRIED)
        ),
        LimitedSession(TOTAL_SECONDS, TOTAL_SECONDS) as session,
        session.request(
            method,
            location.url,
            headers=headers,
            stream=True,
            timeout=TIMEOUT,
            allow_redirects=True,
        ) as response,
    ):
        return response


def stat_local_file(path: Path) -> RemoteVersion | None:
    """Return the mtime (ISO, UTC) and size of a local file; None if it does not exist."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return RemoteVersion(None, get_modification_time(stat.st_mtime), stat.st_size)


def get_modification_time(mtime: float) -> str:
    """Return a file's modification time in ISO format, UTC, whole seconds."""
    return datetime.fromtimestamp(int(mtime), UTC).isoformat()
