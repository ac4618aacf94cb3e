"""The location of a file, its version as a server describes it, and the errors of requesting it.

Code that downloads and probes share belongs here. Code that transfers or reads the file does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import requests

from taxi_assets.errors import SourceError

DAY = 86_400
CLOCK_SLACK = 60
"""Seconds: a Last-Modified this close to the Date of its response is the time of the response."""

TRANSIENT_STATUS = frozenset({408, 425, 429})
REMEDIES = {
    401: "set the user and password in TAXI_SOURCE or ~/.netrc",
    403: "TLC's server answers this for unpublished months; else check the URL's credentials",
    404: "the month is not published (TLC is about two months behind), or check TAXI_SOURCE",
    410: "the server has removed the file: set TAXI_SOURCE to its new location",
}
INVALID_URL_ERRORS = (
    requests.exceptions.InvalidSchema,  # also a redirect to file:// or ftp://
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.TooManyRedirects,
)


class SourceUnavailableError(Exception):
    """The server did not deliver the file. Transient; a partial download is resumed."""


@dataclass(frozen=True)
class SourceLocation:
    """The location of a file, and its form in messages."""

    label: str
    """Service and month."""
    public: str
    """URL without credentials, or absolute path."""
    url: str = field(default="", repr=False)
    """URL with credentials, for requests only."""

    def build_error(self, problem: str, remedy: str) -> SourceError:
        """Build a one-line error for a missing, incomplete or invalid file."""
        return SourceError(f"{self.label}: {self.public}: {problem}; {remedy}")

    def build_unavailable(self, problem: str, remedy: str) -> SourceUnavailableError:
        """Build a one-line error for a server that did not deliver the file."""
        return SourceUnavailableError(f"{self.label}: {self.public}: {problem}; {remedy}")


@dataclass(frozen=True)
class RemoteVersion:
    """The version of a file; a field is None if the server does not declare it."""

    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None
    """Size of the complete file in bytes."""

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, else the time of the last change."""
        strong = self.etag and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified

    def differs_from(self, other: RemoteVersion) -> bool | None:
        """Return whether it is another version; None if neither ETag nor time decides.

        Equal sizes prove nothing. ETags are compared weakly, because a server may mark the same
        ETag as weak in one response and not in the next.
        """
        if None not in (self.total, other.total) and self.total != other.total:
            return True
        if self.etag and other.etag:
            return self.etag.removeprefix("W/") != other.etag.removeprefix("W/")
        if self.last_modified and other.last_modified:
            return self.last_modified != other.last_modified
        return None


@contextmanager
def translate_request_errors(
    location: SourceLocation, build_transient: Callable[[str], Exception]
) -> Iterator[None]:
    """Raise a request's errors as terminal ones of its URL, or as transient ones by their names.

    Messages of requests contain the full URL: only the names of its errors are passed on.
    """
    try:
        yield
    except (*INVALID_URL_ERRORS, requests.RequestException, ValueError) as error:
        # urllib raises ValueError for a redirect to http://[
        is_transient = isinstance(error, requests.RequestException)
        if is_transient and not isinstance(error, INVALID_URL_ERRORS):
            raise build_transient(f"no answer ({_find_root_cause(error)})") from None
        raise location.build_error(
            f"has an invalid URL or redirects to one ({type(error).__name__})", "check TAXI_SOURCE"
        ) from None


def build_status_error(status: int, location: SourceLocation) -> SourceError:
    """Build the error for a status that waiting does not change."""
    return location.build_error(
        f"the server answered {status}", REMEDIES.get(status, "check TAXI_SOURCE")
    )


def _find_root_cause(error: Exception) -> str:
    """Return the name of the innermost error that requests wrapped, such as NameResolutionError."""
    inner: object = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    return type(inner if isinstance(inner, Exception) else error).__name__


def parse_version(headers: Mapping[str, str], total: int | None) -> RemoteVersion:
    """Return the version in a response's headers, without values that identify nothing.

    Those are an empty ETag, and a Last-Modified that is not a date, is in 1970, or is the time of
    the response (RFC 9110, 8.8.2.1), which servers send that do not know the time.
    """
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    time, now = _parse_http_date(modified), _parse_http_date(headers.get("Date", ""))
    has_time = time is not None and time > DAY and (now is None or time < now - CLOCK_SLACK)
    has_tag = bool(etag.removeprefix("W/").strip('" '))
    return RemoteVersion(etag if has_tag else None, modified if has_time else None, total)


def _parse_http_date(value: str) -> float | None:
    """Return the seconds since 1970 of a header's date; None if it is invalid."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def parse_content_range(
    status: int, length: str | None, content_range: str | None
) -> tuple[int, int | None]:
    """Return a body's first byte (-1: unknown) and the size of the complete file, if declared."""
    body = int(length) if length and length.isdecimal() else None
    if status == HTTPStatus.OK:
        return 0, body
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", (content_range or "").strip())
    if not match:
        return -1, None
    # If the size is unknown (`*`), the requested range extends to the end.
    return int(match[1]), int(match[2]) + 1 if match[3] == "*" else int(match[3])
