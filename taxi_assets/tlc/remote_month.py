"""A month file on a server: download it into the cache, and confirm a cached one.

Each use sends one HEAD request for the version of the file, and downloads a new version. If the
server does not respond, the cached file is used.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from taxi_assets.tlc.download import MIB, Progress, Transfer, download_file, hash_file
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
    downloads: Path
    progress: Progress
    must_confirm: bool
    limits: LimitSettings

    @property
    def label(self) -> str:
        """Service and month, for messages."""
        return f"{self.service.name} {self.month}"

    def fetch(self, template: str, url: str) -> MonthFile:
        """Return the cached file if the server confirms it, and download it otherwise."""
        location = SourceLocation(self.label, redact_value(url), url)
        parts = urlsplit(template)
        folder = self.downloads / self.service.name / choose_folder(parts)
        pattern = PurePosixPath(parts.path).name
        path = folder / build_file_name(pattern, self.service, self.month, location)
        seconds = self.limits.download_timeout_seconds
        with hold_download_lock(path, self.label, self.progress, seconds):
            part = Partial(path.with_name(f"{path.name}.part"))
            cached = find_cached_file(self.service, self.month, path)
            if cached is None:
                self._discard_unconfirmed(part, location)
                return self._download(location, part, path)
            differs = self._has_changed(cached, location)
            if differs is False:
                return cached
            try:
                return self._download(location, part, path, cached)
            except (SourceError, SourceUnavailableError) as error:
                if differs or self.must_confirm:
                    raise
                self.progress(f"{error}; the cached file is used")
                return cached

    def _download(
        self, location: SourceLocation, part: Partial, path: Path, cached: MonthFile | None = None
    ) -> MonthFile:
        """Download the file, and commit it to the cache if it differs from the cached one."""
        transfer = self._transfer_checked(location, part, find_suffix(path.name, location))
        version = transfer.version
        stamps = (transfer.size, transfer.sha256, version.etag, version.last_modified)
        if cached and cached.sha256 == transfer.sha256:
            part.discard()
            self.progress(f"{self.label}: {location.public} has not changed")
            same = replace(cached, etag=version.etag, last_modified=version.last_modified)
            return commit_sidecar(same)
        mtime_ns = part.path.stat().st_mtime_ns
        file = MonthFile(self.service, self.month, path, location.public, *stamps, False, mtime_ns)
        commit_to_cache(part.path, file)
        part.discard()
        return file

    def _discard_unconfirmed(self, part: Partial, location: SourceLocation) -> None:
        """Discard a complete download of a killed run, unless the server confirms its version."""
        if not part.is_complete():
            return
        _, version = part.read_state()
        try:
            now = send_head_request(location, version)
        except (SourceError, SourceUnavailableError):
            if self.must_confirm:
                raise
            return
        if now is None or now.differs_from(version) is not False:
            part.discard()

    def _has_changed(self, cached: MonthFile, location: SourceLocation) -> bool | None:
        """Return whether the server has another version than the cached one; None if unknown."""
        before = RemoteVersion(cached.etag, cached.last_modified, cached.size)
        try:
            now = send_head_request(location, before)
            if now is None:
                raise location.build_error("the server no longer has it", "check TAXI_SOURCE")
        except (SourceError, SourceUnavailableError) as error:
            if self.must_confirm:
                raise
            self.progress(f"{error}; the cached file is used")
            return False
        differs = now.differs_from(before)
        if differs:
            when = f", {now.last_modified}" if now.last_modified else ""
            self.progress(f"{self.label}: {location.public} was restated{when}: fetching it again")
        elif differs is None:
            self.progress(
                f"{self.label}: {location.public} has no ETag or time that could confirm the "
                f"cached file: downloading it again ({cached.size / MIB:.1f} MiB) to compare"
            )
        return differs

    def _transfer_checked(self, location: SourceLocation, part: Partial, suffix: str) -> Transfer:
        """Download and check a file; one that fails the check is not resumed."""

        def check_start() -> None:
            with _discard_on_error(part):
                check_file_start(part.path, suffix, location, self.service, self.month)

        def attempt() -> Transfer:
            transfer = download_file(location, part, self.progress, check_start, self.limits)
            with _discard_on_error(part):
                if transfer.encoding == "gzip" and is_content_encoded(part.path, suffix):
                    transfer = self._decode_transfer(location, part, transfer)
                check_complete(part.path, suffix, location, self.service, self.month)
            return transfer

        is_resumed = part.read_state()[0] > 0
        try:
            return attempt()
        except SourceError as error:
            if not is_resumed or part.path.exists():
                raise
            self.progress(f"{error}; its first part came from an earlier run: starting over")
        return attempt()

    def _decode_transfer(
        self, location: SourceLocation, part: Partial, transfer: Transfer
    ) -> Transfer:
        """Undo the Content-Encoding of a server that ignored the request for identity."""
        plain = part.path.with_name(f"part-{part.path.name.removesuffix('.part')}")
        try:
            decode_content(part.path, plain, self.limits.max_download_bytes, location)
            part.discard()  # Its sidecar describes the encoded bytes.
            plain.replace(part.path)
        finally:
            plain.unlink(missing_ok=True)
        size, sha256 = part.path.stat().st_size, hash_file(part.path)
        return replace(transfer, size=size, sha256=sha256)


@contextmanager
def _discard_on_error(part: Partial) -> Generator[None]:
    try:
        yield
    except SourceError:
        part.discard()
        raise
