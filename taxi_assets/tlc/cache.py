"""The download cache: a month file, its sidecar with metadata, and its lock."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError, UnavailableError, format_one_line
from taxi_assets.settings.private_folders import make_private_folder
from taxi_assets.tlc.download import Progress, hash_file
from taxi_assets.tlc.partial_file import build_sidecar_path, read_sidecar
from taxi_assets.tlc.probe import get_modification_time
from taxi_assets.tlc.remote_version import SourceLocation
from taxi_assets.tlc.schema import Service

LOCK = ".lock"
LOCK_SECONDS = 3600.0
"""Longest wait for another run that downloads or hashes the same file."""
POLL_SECONDS = 0.1
CACHE_FILES = ("{}", "{}.json", "{}.json.part", "{}.part", "{}.part.json", "part-{}")
"""The files of a month: the download, sidecars, and leftovers of killed runs."""


@dataclass(frozen=True)
class MonthFile:
    """A month file on this machine, complete and checked; of a local CSV only the start is."""

    service: Service
    month: Month
    path: Path
    url: str
    """Source: URL without credentials, or absolute path."""
    size: int
    """Bytes."""
    sha256: str
    """Digest of the file's bytes, hexadecimal."""
    etag: str | None
    last_modified: str | None
    """Last-Modified header of the server; for a local file its mtime, ISO, UTC."""
    synthetic: bool
    mtime_ns: int | None = None
    """Modification time of the file on this machine."""

    @property
    def label(self) -> str:
        """Service and month, for messages."""
        return f"{self.service.name} {self.month}"

    def build_error(self, problem: str) -> SourceError:
        """Build a one-line error about the file; `problem` continues the sentence."""
        return SourceError(f"{self.label}: {self.url} {problem}")

    def build_damage_error(self, error: Exception, damage: str = "damaged") -> SourceError:
        """Build the error for a file that a library cannot read."""
        return self.build_error(
            f"is {damage} ({format_one_line(error)[:200]}): fetch it again "
            f"(delete {self.path} if it was downloaded)"
        )

    def reject_replaced(self) -> None:
        """Check that the file on this machine is still the one that was checked.

        Raises:
            UnavailableError: another run has replaced it by a restated month, or it was deleted.
        """
        try:
            now: int | None = self.path.stat().st_mtime_ns
        except FileNotFoundError:
            now = None
        if self.mtime_ns not in (None, now):
            raise UnavailableError(
                f"{self.label}: {self.path} was replaced while it was read; "
                "the next attempt reads the new one"
            )


@contextmanager
def hold_download_lock(
    path: Path, label: str, progress: Progress, max_seconds: float = LOCK_SECONDS
) -> Generator[None]:
    """Hold the lock file beside `path`; the operating system frees it when its process ends.

    Raises:
        UnavailableError: another run has held it for `max_seconds`.
    """
    make_private_folder(path.parent)
    lock = FileLock(path.with_name(f"{path.name}{LOCK}"), poll_interval=POLL_SECONDS)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress(f"{label}: another run is fetching {path.name}; waiting for it")
        try:
            lock.acquire(timeout=max_seconds)
        except Timeout:
            raise UnavailableError(
                f"{label}: another run has held {lock.lock_file} for {max_seconds:g} s: if its "
                "process hangs, end it"
            ) from None
    try:
        os.utime(lock.lock_file)
        yield
    finally:
        lock.release()


def evict_unused(downloads: Path, retention: timedelta | None) -> None:
    """Remove cached files that no run has used within `retention`, by the mtime of their locks.

    Files that another run has locked stay, and a symbolic link is not followed.
    """
    if retention is None or downloads.is_symlink():
        return
    oldest = time.time() - retention.total_seconds()
    for folder, _, names in os.walk(downloads):
        for name in names:
            path = Path(folder, name.removesuffix(LOCK))
            if name.endswith(LOCK) and Path(folder, name).lstat().st_mtime < oldest:
                _evict_file(path, oldest)


def _evict_file(path: Path, oldest: float) -> None:
    """Remove the cache files of a month, except the lock, which another run may wait for."""
    lock = path.with_name(f"{path.name}{LOCK}")
    with suppress(Timeout), FileLock(lock, blocking=False):
        if lock.stat().st_mtime < oldest:
            for pattern in CACHE_FILES:
                path.with_name(pattern.format(path.name)).unlink(missing_ok=True)


def _write_sidecar(path: Path, metadata: Mapping[str, object]) -> None:
    part = path.with_name(f"{path.name}.json.part")
    part.write_text(json.dumps(metadata, indent=1))
    part.replace(build_sidecar_path(path))


def commit_to_cache(part: Path, file: MonthFile) -> MonthFile:
    """Write the sidecar, then give the finished `part` its final name.

    The old file of a restated month is removed first, because a crash could otherwise leave it
    with the new file's sidecar.
    """
    file.path.unlink(missing_ok=True)
    commit_sidecar(file)
    _sync_to_disk(part)
    part.replace(file.path)
    _sync_to_disk(file.path.parent)
    return file


def commit_sidecar(file: MonthFile) -> MonthFile:
    """Write the sidecar of a cached file."""
    names = ("url", "size", "sha256", "etag", "last_modified")
    _write_sidecar(file.path, {name: getattr(file, name) for name in names})
    return file


def find_cached_file(
    service: Service, month: Month, path: Path, *, synthetic: bool = False
) -> MonthFile | None:
    """Return the cached file of an earlier run, if it has the recorded size."""
    try:
        metadata, stat = read_sidecar(path), path.stat()
        if stat.st_size == metadata["size"]:
            file = MonthFile(service, month, path, synthetic=synthetic, **metadata)
            return replace(file, mtime_ns=stat.st_mtime_ns)
    except (OSError, KeyError, TypeError):
        pass
    return None


def describe_local_file(
    service: Service, month: Month, path: Path, url: str, sha256: str
) -> MonthFile:
    """Return the metadata of a file that was not downloaded."""
    stat = path.stat()
    stamps = (stat.st_size, sha256, None, get_modification_time(stat.st_mtime))
    return MonthFile(service, month, path, url, *stamps, False, mtime_ns=stat.st_mtime_ns)


def _sync_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def get_cached_sha256(path: Path, memory: Path, location: SourceLocation) -> str:
    """Return the SHA-256 of a local file, cached by path and times (500 MB take 1 s)."""

    def stat_file() -> dict[str, object]:
        stat = path.stat()
        # `cp -p`, rsync and touch can restore size and mtime, but not ctime.
        return {
            "path": str(path),
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "ctime_ns": stat.st_ctime_ns,
            "inode": stat.st_ino,
        }

    before = stat_file()
    metadata = read_sidecar(memory)
    if {**metadata, **before} == metadata:
        return str(metadata["sha256"])
    sha256 = hash_file(path)
    if stat_file() != before:
        raise location.build_error(
            "changed while it was read", "run again when it is completely written"
        )
    _write_sidecar(memory, {**before, "sha256": sha256})
    return sha256
