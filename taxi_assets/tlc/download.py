"""Download one file over HTTP(S), and resume it where it broke off.

This module does not interpret the content; `integrity` checks it.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import cast

import requests
import urllib3

from taxi_assets.settings.areas import LimitSettings
from taxi_assets.tlc.http_session import LimitedSession
from taxi_assets.tlc.partial_file import Partial
from taxi_assets.tlc.remote_version import (
    TRANSIENT_STATUS,
    RemoteVersion,
    SourceLocation,
    build_status_error,
    parse_content_range,
    parse_version,
    translate_request_errors,
)

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
"""Longest silence of the server; not a limit on the download."""
HEADER_SECONDS = 60.0
"""Longest time until the headers of a response are complete."""
MIN_BYTES_PER_SECOND = 1024
"""A connection that is slower over `RATE_SECONDS` is closed; a modem was seven times as fast."""
RATE_SECONDS = 60.0
ATTEMPTS = 6
BACKOFF_SECONDS = 1.0
"""Pause before the second attempt; it doubles with each attempt, less up to half at random."""
RETRY_AFTER_SECONDS = 60.0
"""Longest Retry-After that is honoured."""
PROGRESS_SECONDS = 2.0
CHUNK = 1 << 18
"""Bytes per read: the most that a connection which falls silent can lose."""
FIRST_CHECK_BYTES = 1 << 16
"""Bytes after which the start of a file is checked, so that a wrong 500 MB is not fetched."""
MIB = 1 << 20

Progress = Callable[[str], None]


class _BrokenOffError(Exception):
    """One attempt ended before the file did. `wait`: seconds of the server's Retry-After."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Meter:
    """Reports the progress of a download, at most every `PROGRESS_SECONDS` and at the end."""

    def __init__(self, label: str, progress: Progress) -> None:
        self.label = label
        self.progress = progress
        self.reported = time.monotonic()

    def report(self, size: int, total: int | None, *, end: bool = False) -> None:
        """Report that `size` bytes of `total` have arrived."""
        now = time.monotonic()
        if not end and now - self.reported < PROGRESS_SECONDS:
            return
        self.reported = now
        share = f" of {total / MIB:.1f} MiB ({100 * size // total} %)" if total else " MiB"
        self.progress(f"{self.label}: {size / MIB:.1f}{share}")


def download_file(
    location: SourceLocation,
    part: Partial,
    progress: Progress,
    check_start: Callable[[], None],
    limits: LimitSettings,
) -> RemoteVersion:
    """Download `location.url` to `part.path`, from where an earlier attempt stopped.

    Return the version that the server declared. `check_start` is called once the first
    `FIRST_CHECK_BYTES` bytes are there, and may raise.

    Raises:
        SourceError: the server rejects the request (4xx), a retry cannot help, or the file is
            larger than a month may be.
        SourceUnavailableError: `ATTEMPTS` attempts failed, or the time limit passed; the partial
            file stays.

    """
    reason, end = "", time.monotonic() + limits.download_timeout_seconds
    meter = Meter(location.label, progress)
    with LimitedSession(HEADER_SECONDS, limits.download_timeout_seconds) as session:
        download = _Download(session, location, part, meter, check_start, limits.max_download_bytes)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return download.attempt()
            except _BrokenOffError as broken:
                reason, wait = str(broken), broken.wait
            pause = _choose_pause(attempt, wait)
            if session.expired.is_set() or time.monotonic() + pause > end:
                problem = f"not downloaded within {limits.download_timeout_seconds:g} s ({reason})"
                size, _ = part.read_state()
                raise location.build_unavailable(
                    problem,
                    f"run again to resume after {size / MIB:.1f} MiB, or raise "
                    "TAXI_DOWNLOAD_TIMEOUT_SECONDS",
                )
            if attempt < ATTEMPTS:
                retry = f"attempt {attempt + 1} of {ATTEMPTS} in {pause:.1f} s"
                progress(f"{location.label}: {reason}; {retry}")
                time.sleep(pause)
    raise location.build_unavailable(
        f"{reason}, at the last of {ATTEMPTS} attempts", "run again later to resume the download"
    )


def _choose_pause(attempt: int, wait: float | None) -> float:
    backoff = BACKOFF_SECONDS * 2.0 ** (attempt - 1) * random.uniform(0.5, 1)  # noqa: S311
    return max(backoff, min(wait or 0, RETRY_AFTER_SECONDS))


@dataclass(frozen=True)
class _Download:
    """The attempts to download one file, which share a session and a partial file."""

    session: LimitedSession
    location: SourceLocation
    part: Partial
    meter: Meter
    check_start: Callable[[], None]
    max_bytes: int

    def attempt(self) -> RemoteVersion:
        size, version = self.part.read_state()
        if self.part.is_complete():
            return version
        with self.get(size, version) as response:
            start, now = _check_response(response, self.location)
            resumed = response.status_code == HTTPStatus.PARTIAL_CONTENT and size > 0
            if start != (size if resumed else 0) or (resumed and now.differs_from(version)):
                self.part.discard()
                raise _BrokenOffError("the file changed on the server: starting over")
            if resumed:  # A 206 need not repeat the headers of the version.
                now = replace(version, total=now.total or version.total)
            else:
                self.part.begin(now, _get_content_encoding(response))
            self.reject_larger(now.total or 0)
            end = self.receive(response, start, now.total)
        if now.total is not None and end != now.total:
            raise _BrokenOffError(f"only {end} of {now.total} bytes arrived")
        self.meter.report(end, now.total, end=True)
        return now

    def get(self, size: int, version: RemoteVersion) -> requests.Response:
        # The session requests the encoding `identity`: a .csv.gz must arrive as published.
        headers = {}
        if size and version.validator:
            headers = {"Range": f"bytes={size}-", "If-Range": version.validator}
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        with translate_request_errors(self.location, _BrokenOffError):
            return self.session.get(
                self.location.url, headers=headers, stream=True, timeout=timeout
            )

    def receive(self, response: requests.Response, size: int, total: int | None) -> int:
        """Append the undecoded body to the `size` bytes, and return the new size."""
        is_unchecked, pace = size < FIRST_CHECK_BYTES and not self.part.encoding, _Pace()
        raw = cast("urllib3.HTTPResponse", response.raw)
        try:
            with self.part.path.open("ab") as file:
                # read1 returns available bytes; read would wait until there are CHUNK of them.
                while chunk := raw.read1(CHUNK, decode_content=False):
                    file.write(chunk)
                    file.flush()  # A kill loses no bytes that have arrived.
                    size += len(chunk)
                    self.reject_larger(size)
                    self.meter.report(size, total)
                    if is_unchecked and size >= FIRST_CHECK_BYTES:
                        self.check_start()
                        is_unchecked = False
                    pace.add(len(chunk))
        except urllib3.exceptions.HTTPError as error:
            name = type(error).__name__
            raise _BrokenOffError(f"the connection broke at {size} bytes ({name})") from None
        if self.session.expired.is_set():
            raise _BrokenOffError(f"the time limit passed at {size} bytes")
        return size

    def reject_larger(self, size: int) -> None:
        """Reject a file that is larger than a month may be, and discard it."""
        if size > self.max_bytes:
            self.part.discard()
            raise self.location.build_error(
                f"{size:,} bytes or more, over the limit of {self.max_bytes:,} for a month",
                "check TAXI_SOURCE, or raise TAXI_MAX_DOWNLOAD_BYTES",
            )


class _Pace:
    """Closes a connection that is too slow."""

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
                f"only {self.bytes:,} bytes arrived in {seconds:.0f} s, under "
                f"{MIN_BYTES_PER_SECOND:,} a second"
            )
        self.since, self.bytes = time.monotonic(), 0


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_response(
    response: requests.Response, location: SourceLocation
) -> tuple[int, RemoteVersion]:
    """Return the offset of the body's first byte (-1: unusable) and its version."""
    status = response.status_code
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return -1, RemoteVersion()
    if status in TRANSIENT_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _BrokenOffError(f"the server answered {status}", _parse_retry_after(response))
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise build_status_error(status, location)
    headers = response.headers
    encoding = _get_content_encoding(response)
    if encoding not in (None, "gzip") and not location.public.lower().endswith(".gz"):
        raise location.build_error(
            f"has Content-Encoding {encoding} though identity was requested",
            "download it by hand and set TAXI_SOURCE to its path",
        )
    start, total = parse_content_range(
        status, headers.get("Content-Length"), headers.get("Content-Range")
    )
    return start, parse_version(headers, total)


def _get_content_encoding(response: requests.Response) -> str | None:
    """Return the Content-Encoding of a body; None for identity."""
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    return {"": None, "identity": None, "x-gzip": "gzip"}.get(encoding, encoding[:20])


def _parse_retry_after(response: requests.Response) -> float | None:
    try:
        return urllib3.Retry().get_retry_after(response.raw)
    except urllib3.exceptions.InvalidHeader:
        return None
