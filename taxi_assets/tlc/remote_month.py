"""A month file on a server: download it into the cache, and confirm a cached one.

Each use sends one HEAD request for the version of the file, and downloads a new version. If the
server does not respond, the cached file is used.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError
from taxi_assets.redaction import redact_value
from taxi_assets.settings.areas import LimitSettings
from taxi_assets.tlc.cache import (
    MonthFile,
    commit_sidecar,
    commit_to_cache,
    find_cached_file,
    hold_download_lock,
)
from taxi_assets.tlc.download import MIB, Progress, download_file, hash_file
from taxi_assets.tlc.integrity import (
    check_complete,
    check_file_start,
    decode_content,
    is_content_encoded,
)
from taxi_assets.tlc.month_address import build_file_name, choose_folder, find_suffix
from taxi_assets.tlc.partial_file import Partial
from taxi_assets.tlc.probe import send_head_request
from taxi_assets.tlc.remote_version import (
    RemoteVersion,
    SourceLocation,
    SourceUnavailableError,
)
from taxi_assets.tlc.schema import Service


@dataclass(frozen=True)
class RemoteMonth:
    """One fetch of a month file from a server."""

    service: Service
    month: Month
    template: str
    url: str
    """The address of the month: the template with its placeholders replaced."""
    downloads: Path
    progress: Progress
    must_confirm: bool
    limits: LimitSettings

    @cached_property
    def location(self) -> SourceLocation:
        """The URL, and its form in messages."""
        return SourceLocation(f"{self.service.name} {self.month}", redact_value(self.url), self.url)

    @cached_property
    def path(self) -> Path:
        """Path of the file in the cache."""
        parts = urlsplit(self.template)
        folder = self.downloads / self.service.name / choose_folder(parts)
        pattern = PurePosixPath(parts.path).name
        return folder / build_file_name(pattern, self.service, self.month, self.location)

    @property
    def part(self) -> Partial:
        """The unfinished download."""
        return Partial(self.path.with_name(f"{self.path.name}.part"))

    def fetch(self) -> MonthFile:
        """Return the cached file if the server confirms it, and download it otherwise."""
        seconds = self.limits.download_timeout_seconds
        with hold_download_lock(self.path, self.location.label, self.progress, seconds):
            cached = find_cached_file(self.service, self.month, self.path)
            if cached is None:
                self._discard_unconfirmed()
                return self._download()
            differs = self._has_changed(cached)
            if differs is False:
                return cached
            try:
                return self._download(cached)
            except (SourceError, SourceUnavailableError) as error:
                if differs or self.must_confirm:
                    raise
                self.progress(f"{error}; the cached file is used")
                return cached

    def _download(self, cached: MonthFile | None = None) -> MonthFile:
        """Download the file, and commit it to the cache if it differs from the cached one."""
        version, part = self._transfer_checked(), self.part
        sha256, stat = hash_file(part.path), part.path.stat()
        if cached and cached.sha256 == sha256:
            part.discard()
            self.progress(f"{self.location.label}: {self.location.public} has not changed")
            same = replace(cached, etag=version.etag, last_modified=version.last_modified)
            return commit_sidecar(same)
        place = (self.service, self.month, self.path, self.location.public)
        stamps = (stat.st_size, sha256, version.etag, version.last_modified)
        file = MonthFile(*place, *stamps, synthetic=False, mtime_ns=stat.st_mtime_ns)
        commit_to_cache(part.path, file)
        part.discard()
        return file

    def _discard_unconfirmed(self) -> None:
        """Discard a complete download of a killed run, unless the server confirms its version."""
        if not self.part.is_complete():
            return
        _, version = self.part.read_state()
        try:
            now = send_head_request(self.location, version)
        except (SourceError, SourceUnavailableError):
            if self.must_confirm:
                raise
            return
        if now is None or now.differs_from(version) is not False:
            self.part.discard()

    def _has_changed(self, cached: MonthFile) -> bool | None:
        """Return whether the server has another version than the cached one; None if unknown."""
        before = RemoteVersion(cached.etag, cached.last_modified, cached.size)
        try:
            now = send_head_request(self.location, before)
            if now is None:
                raise self.location.build_error("the server no longer has it", "check TAXI_SOURCE")
        except (SourceError, SourceUnavailableError) as error:
            if self.must_confirm:
                raise
            self.progress(f"{error}; the cached file is used")
            return False
        differs, subject = (
            now.differs_from(before),
            f"{self.location.label}: {self.location.public}",
        )
        if differs:
            when = f", {now.last_modified}" if now.last_modified else ""
            self.progress(f"{subject} was restated{when}: fetching it again")
        elif differs is None:
            self.progress(
                f"{subject} has no ETag or time that could confirm the cached file: downloading "
                f"it again ({cached.size / MIB:.1f} MiB) to compare"
            )
        return differs

    def _transfer_checked(self) -> RemoteVersion:
        """Download and check a file; one that fails the check is not resumed."""
        is_resumed = self.part.read_state()[0] > 0
        try:
            return self._attempt()
        except SourceError as error:
            if not is_resumed or self.part.path.exists():
                raise
            self.progress(f"{error}; its first part came from an earlier run: starting over")
        return self._attempt()

    def _attempt(self) -> RemoteVersion:
        part, location = self.part, self.location
        suffix = find_suffix(self.path.name, location)

        def check_start() -> None:
            with _discard_on_error(part):
                check_file_start(part.path, suffix, location, self.service, self.month)

        version = download_file(location, part, self.progress, check_start, self.limits)
        with _discard_on_error(part):
            if part.encoding == "gzip" and is_content_encoded(part.path, suffix):
                self._decode_content()
            check_complete(part.path, suffix, location, self.service, self.month)
        return version

    def _decode_content(self) -> None:
        """Undo the Content-Encoding of a server that ignored the request for identity."""
        plain = self.path.with_name(f"part-{self.path.name}")
        try:
            decode_content(self.part.path, plain, self.limits.max_download_bytes, self.location)
            self.part.discard()  # Its sidecar describes the encoded bytes.
            plain.replace(self.part.path)
        finally:
            plain.unlink(missing_ok=True)


@contextmanager
def _discard_on_error(part: Partial) -> Generator[None]:
    try:
        yield
    except SourceError:
        part.discard()
        raise
