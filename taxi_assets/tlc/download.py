"""One file over HTTP(S), resumed where it broke: requests, a partial file, and a note beside it.

What the bytes mean is not known here; `source` looks at them. A partial file outlives a killed
process: its note holds the ETag, Last-Modified and size that the server gave, so that the next
attempt asks for the rest only, and only of the same version (RFC 9110, Range with If-Range).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, cast

import requests
import urllib3

from taxi_assets.errors import SourceError
from taxi_assets.settings.areas import LimitSettings
from taxi_assets.tlc.http_session import LimitedSession

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
"""Longest silence of the server, not longest download."""
HEADER_SECONDS = 60.0
"""Until the headers of an answer are there, however many bytes of them come."""
MIN_BYTES_PER_SECOND = 1024
"""A connection that brings less over `RATE_SECONDS` is broken off; a modem brought seven times as
much."""
RATE_SECONDS = 60.0
ATTEMPTS = 6
BACKOFF_SECONDS = 1.0
"""Pause before the second attempt; doubles with each further one, less up to half by chance."""
RETRY_AFTER_SECONDS = 60.0
"""Longest Retry-After that is waited for."""
PROGRESS_SECONDS = 2.0
CHUNK = 1 << 18
"""Bytes a read; what a silent connection can lose."""
FIRST_CHECK_BYTES = 1 << 16
"""Bytes after which the start of a file is looked at, so that a wrong 500 MB is not fetched."""
DAY = 86_400
CLOCK_SLACK = 60
"""Seconds before an answer in which its file is not taken to have been written."""
MIB = 1 << 20

TRANSIENT_STATUS = frozenset({408, 425, 429})
REMEDIES = {
    401: "give the user and password in TAXI_SOURCE or ~/.netrc",
    403: "TLC's server says this of months not published yet; else check the URL's credentials",
    404: "the month is not published there (TLC is about two months behind), or check TAXI_SOURCE",
    410: "the server took the file away: set TAXI_SOURCE to where it is now",
}
INVALID_URL_ERRORS = (
    requests.exceptions.InvalidSchema,  # also a redirect to file:// or ftp://
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.TooManyRedirects,
)
Progress = Callable[[str], None]


class Digest(Protocol):
    """One of hashlib's objects, whose class has no public name."""

    def update(self, chunk: bytes, /) -> None:
        """Go on with `chunk`."""
        ...

    def hexdigest(self) -> str:
        """Return the digest of the bytes so far."""
        ...


class SourceUnavailableError(Exception):
    """The server did not deliver, in several attempts; what came is kept. Later may help."""


class _BrokenOffError(Exception):
    """One attempt ended before the file did. `wait`: seconds the server asked for."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


@dataclass(frozen=True)
class SourceLocation:
    """Where a month's file comes from, and how messages speak of it."""

    label: str
    """Service and month."""
    public: str
    """URL without credentials, or absolute path."""
    url: str = field(default="", repr=False)
    """What to ask the server for, credentials and all: for no message."""

    def build_error(self, found: str, remedy: str) -> SourceError:
        """Build a one-line error for a missing, incomplete or wrong file."""
        return SourceError(f"{self.label}: {self.public}: {found}; {remedy}")


@dataclass(frozen=True)
class RemoteVersion:
    """What the server says of the file; None where it says nothing."""

    etag: str | None = None
    last_modified: str | None = None
    total: int | None = None
    """Bytes of the whole file."""

    @property
    def validator(self) -> str | None:
        """What If-Range may carry: a strong ETag, else the time."""
        strong = self.etag and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified

    def differs_from(self, other: RemoteVersion) -> bool | None:
        """Return whether it is another file; None if neither ETag nor time tells.

        A size that is the same proves nothing. ETags are compared weakly: one server may mark an
        ETag as weak in one answer and not in the next.
        """
        if None not in (self.total, other.total) and self.total != other.total:
            return True
        if self.etag and other.etag:
            return self.etag.removeprefix("W/") != other.etag.removeprefix("W/")
        if self.last_modified and other.last_modified:
            return self.last_modified != other.last_modified
        return None


@dataclass(frozen=True)
class Transfer:
    """A file that came whole, as far as its length tells."""

    size: int
    sha256: str
    version: RemoteVersion
    resumed: bool
    """Whether its bytes are of more than one response."""
    encoding: str | None = None
    """Content-Encoding in which the bytes came."""


@dataclass(frozen=True)
class Partial:
    """An unfinished file and the note of which version it is part of."""

    path: Path

    @property
    def note(self) -> Path:
        """JSON of the `Version`."""
        return self.path.with_name(self.path.name + ".json")

    def begin(self, version: RemoteVersion, encoding: str | None = None) -> None:
        """Start from zero: the note never describes bytes of another version."""
        self.discard()
        self.path.touch()
        self.note.write_text(json.dumps({**asdict(version), "encoding": encoding}))

    def discard(self) -> None:
        """Leave nothing to resume."""
        self.note.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def kept(self) -> tuple[int, RemoteVersion]:
        """Return the bytes to resume from and their version; 0 if there are none."""
        try:
            fields = self._read_sidecar()
            fields.pop("encoding", None)
            version = RemoteVersion(**fields)
            size = self.path.stat().st_size
        except (OSError, ValueError, TypeError):
            return 0, RemoteVersion()
        return (size, version) if version.validator else (0, RemoteVersion())

    @property
    def encoding(self) -> str | None:
        """Content-Encoding of the bytes; None where the note does not name one."""
        try:
            return cast("str | None", self._read_sidecar().get("encoding"))
        except (OSError, ValueError):
            return None

    def is_complete(self) -> bool:
        """Return whether all bytes arrived: a process may have been killed before the rename."""
        size, version = self.kept()
        return size > 0 and size == version.total

    def _read_sidecar(self) -> dict[str, Any]:
        fields: object = json.loads(self.note.read_text())
        if not isinstance(fields, dict):
            raise ValueError("no note")  # noqa: TRY004 - as of text that is no JSON
        return cast("dict[str, Any]", fields)


class Meter:
    """Tells how far a download is, at most every `PROGRESS_SECONDS` and at the end."""

    def __init__(self, label: str, progress: Progress) -> None:
        self.label = label
        self.progress = progress
        self.told = time.monotonic()

    def at(self, size: int, total: int | None, *, end: bool = False) -> None:
        """Record that `size` bytes arrived in total."""
        now = time.monotonic()
        if not end and now - self.told < PROGRESS_SECONDS:
            return
        self.told = now
        whole = f" of {total / MIB:.1f} MiB ({100 * size // total} %)" if total else " MiB"
        self.progress(f"{self.label}: {size / MIB:.1f}{whole}")


def download_file(
    location: SourceLocation,
    part: Partial,
    progress: Progress,
    look: Callable[[], None],
    limits: LimitSettings,
) -> Transfer:
    """Bring `origin.url` to `part.path`, going on from what is there.

    `look` is called once the first `FIRST_CHECK_BYTES` bytes are there, and may raise.

    Raises:
        SourceError: the server refuses (4xx), answers what no repetition makes better, or the file
            is larger than a month may be.
        SourceUnavailableError: `ATTEMPTS` attempts failed, or the time is over; the partial file
            stays.

    """
    why, end = "", time.monotonic() + limits.download_timeout_seconds
    meter = Meter(location.label, progress)
    with LimitedSession(HEADER_SECONDS, limits.download_timeout_seconds) as session:
        run = _Download(session, location, part, meter, look, limits.max_download_bytes)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return run.attempt()
            except _BrokenOffError as broken:
                why, wait = str(broken), broken.wait
            pause = _choose_pause(attempt, wait)
            if session.expired.is_set() or time.monotonic() + pause > end:
                raise _build_overdue_error(location, part, why, limits.download_timeout_seconds)
            if attempt < ATTEMPTS:
                again = f"attempt {attempt + 1} of {ATTEMPTS} in {pause:.1f} s"
                progress(f"{location.label}: {why}; {again}")
                time.sleep(pause)
    raise SourceUnavailableError(
        f"{location.label}: {location.public}: {why}, at the last of {ATTEMPTS} attempts; "
        "what came is kept: run again later and it goes on from there"
    )


def _build_overdue_error(
    location: SourceLocation, part: Partial, why: str, seconds: float
) -> SourceUnavailableError:
    size, _ = part.kept()
    return SourceUnavailableError(
        f"{location.label}: {location.public}: not here within {seconds:g} s ({why}); "
        f"{size / MIB:.1f} MiB are kept: run again and it goes on from there, or raise "
        "TAXI_DOWNLOAD_TIMEOUT_SECONDS"
    )


def _choose_pause(attempt: int, wait: float | None) -> float:
    backoff = BACKOFF_SECONDS * 2.0 ** (attempt - 1) * random.uniform(0.5, 1)  # noqa: S311
    return max(backoff, min(wait or 0, RETRY_AFTER_SECONDS))


@dataclass(frozen=True)
class _Download:
    """One file's attempts, which share a session and a partial file."""

    session: LimitedSession
    location: SourceLocation
    part: Partial
    meter: Meter
    look: Callable[[], None]
    max_bytes: int

    def attempt(self) -> Transfer:
        size, version = self.part.kept()
        if self.part.is_complete():
            sha256 = start_sha256(self.part.path).hexdigest()
            return Transfer(size, sha256, version, True, self.part.encoding)
        with self.get(size, version) as response:
            start, now = _check_response(response, self.location)
            resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT and size > 0
            if start != (size if resumed else 0) or (resumed and now.differs_from(version)):
                self.part.discard()
                raise _BrokenOffError("the file changed on the server: again from the start")
            if resumed:  # a 206 need not repeat what is known of the version
                now = replace(version, total=now.total or version.total)
            else:
                self.part.begin(now, _get_content_encoding(response))
            self.reject_larger(now.total or 0)
            digest = start_sha256(self.part.path)
            end = self.receive(response, digest, start, now.total)
        if now.total is not None and end != now.total:
            raise _BrokenOffError(f"only {end} of {now.total} bytes came")
        self.meter.at(end, now.total, end=True)
        return Transfer(end, digest.hexdigest(), now, resumed, self.part.encoding)

    def get(self, size: int, version: RemoteVersion) -> requests.Response:
        # The session asks for identity: a .csv.gz must arrive as published.
        headers = {}
        if size and version.validator:
            headers = {"Range": f"bytes={size}-", "If-Range": version.validator}
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        try:
            return self.session.get(
                self.location.url, headers=headers, stream=True, timeout=timeout
            )
        # Messages of requests hold the whole URL: only the names of its errors are passed on.
        except INVALID_URL_ERRORS as error:
            raise build_url_error(error, self.location) from None
        except requests.RequestException as error:
            raise _BrokenOffError(f"no answer ({find_root_cause(error)})") from None
        except ValueError as error:  # urllib's own, of a redirect to http://[
            raise build_url_error(error, self.location) from None

    def receive(
        self, response: requests.Response, digest: Digest, size: int, total: int | None
    ) -> int:
        """Append the body, as it is on the wire, to the `size` bytes; their number then."""
        unseen, pace = size < FIRST_CHECK_BYTES and not self.part.encoding, _Pace()
        raw = cast("urllib3.HTTPResponse", response.raw)
        try:
            with self.part.path.open("ab") as file:
                # read1 returns what is there: a read of CHUNK bytes would wait for the last of them
                while chunk := raw.read1(CHUNK, decode_content=False):
                    file.write(chunk)
                    file.flush()  # a kill loses nothing that came
                    digest.update(chunk)
                    size += len(chunk)
                    self.reject_larger(size)
                    self.meter.at(size, total)
                    if unseen and size >= FIRST_CHECK_BYTES:
                        self.look()
                        unseen = False
                    pace.add(len(chunk))
        except urllib3.exceptions.HTTPError as error:
            name = type(error).__name__
            raise _BrokenOffError(f"the connection broke at {size} bytes ({name})") from None
        if self.session.expired.is_set():
            raise _BrokenOffError(f"the time was over at {size} bytes")
        return size

    def reject_larger(self, size: int) -> None:
        """Reject a file of more bytes than a month may have, and leave nothing of it."""
        if size > self.max_bytes:
            self.part.discard()
            raise self.location.build_error(
                f"{size:,} bytes or more, over the {self.max_bytes:,} that a month may have",
                "check TAXI_SOURCE, or raise TAXI_MAX_DOWNLOAD_BYTES",
            )


class _Pace:
    """Breaks a connection off that brings too little."""

    def __init__(self) -> None:
        self.since, self.bytes = time.monotonic(), 0

    def add(self, size: int) -> None:
        """Record `size` more bytes."""
        self.bytes += size
        seconds = time.monotonic() - self.since
        if seconds < RATE_SECONDS:
            return
        if self.bytes < MIN_BYTES_PER_SECOND * seconds:
            raise _BrokenOffError(
                f"only {self.bytes:,} bytes came in {seconds:.0f} s, under "
                f"{MIN_BYTES_PER_SECOND:,} a second"
            )
        self.since, self.bytes = time.monotonic(), 0


def start_sha256(path: Path) -> Digest:
    """Return a SHA-256 of a file's bytes, to read or to continue."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


def build_url_error(error: Exception, location: SourceLocation) -> SourceError:
    """Build the error for a URL or redirect that cannot be requested."""
    return location.build_error(
        f"cannot be asked for, or redirects where it must not ({type(error).__name__})",
        "check TAXI_SOURCE",
    )


def parse_version(headers: Mapping[str, str], total: int | None) -> RemoteVersion:
    """Return what an answer says of its file, without what says nothing.

    That is an ETag of no characters, a Last-Modified that is no date, and one of 1970 or of the
    moment of the answer (RFC 9110, 8.8.2.1), as servers write that do not know the time.
    """
    etag, modified = headers.get("ETag", ""), headers.get("Last-Modified", "")
    time, now = _parse_http_date(modified), _parse_http_date(headers.get("Date", ""))
    is_known = time is not None and time > DAY and (now is None or time < now - CLOCK_SLACK)
    is_tag = bool(etag.removeprefix("W/").strip('" '))
    return RemoteVersion(etag if is_tag else None, modified if is_known else None, total)


def _parse_http_date(value: str) -> float | None:
    """Return the seconds since 1970 of a header's date; None if it is invalid."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None


def find_root_cause(error: Exception) -> str:
    """Name of the innermost error that requests and urllib3 wrapped, e.g. NameResolutionError."""
    inner: object = error.args[0] if error.args else error
    inner = getattr(inner, "reason", inner)
    return type(inner if isinstance(inner, Exception) else error).__name__


def _check_response(
    response: requests.Response, location: SourceLocation
) -> tuple[int, RemoteVersion]:
    """Return the first byte of the body (-1: unusable) and its version."""
    status = response.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return -1, RemoteVersion()
    if status in TRANSIENT_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _BrokenOffError(f"the server answered {status}", _parse_retry_after(response))
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        remedy = REMEDIES.get(status, "check TAXI_SOURCE")
        raise location.build_error(f"the server answered {status}", remedy)
    headers = response.headers
    encoding = _get_content_encoding(response)
    if encoding not in (None, "gzip") and not location.public.lower().endswith(".gz"):
        raise location.build_error(
            f"comes as Content-Encoding {encoding} though identity was asked for",
            "download it by hand and set TAXI_SOURCE to its path",
        )
    start, total = parse_content_range(
        status, headers.get("Content-Length"), headers.get("Content-Range")
    )
    return start, parse_version(headers, total)


def parse_content_range(
    status: int, length: str | None, content_range: str | None
) -> tuple[int, int | None]:
    """Return the first byte of a body (-1: unknown) and the bytes of the whole file, if given."""
    body = int(length) if length and length.isdecimal() else None
    if status == HTTPStatus.OK:
        return 0, body
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", (content_range or "").strip())
    if not found:
        return -1, None
    # of an unknown whole (`*`) the range asked for reaches to the end
    return int(found[1]), int(found[2]) + 1 if found[3] == "*" else int(found[3])


def _get_content_encoding(response: requests.Response) -> str | None:
    """Return the Content-Encoding of a body; None for identity."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    return {"": None, "identity": None, "x-gzip": "gzip"}.get(encoding, encoding[:20])


def _parse_retry_after(response: requests.Response) -> float | None:
    try:
        return urllib3.Retry().get_retry_after(response.raw)
    except urllib3.exceptions.InvalidHeader:
        return None
