"""A month's file as it is kept on this machine: its note, its lock, its name."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from taxi_assets.date_ranges import Month
from taxi_assets.errors import UnavailableError
from taxi_assets.settings.private_folders import make_private_folder
from taxi_assets.tlc.download import Progress, SourceLocation, start_sha256
from taxi_assets.tlc.schema import Service

LOCK = ".lock"
LOCK_SECONDS = 3600.0
"""Longest wait for another run's download, or for its look at a local file."""
POLL_SECONDS = 0.1
BESIDE = ("{}", "{}.json", "{}.json.part", "{}.part", "{}.part.json", "part-{}")
"""What there may be of a month: the file, notes, and what a killed run left of either."""


@dataclass(frozen=True)
class MonthFile:
    """A month's file on this machine, whole and checked (a local one: as far as its ends tell)."""

    service: Service
    month: Month
    path: Path
    url: str
    """URL or absolute path it came from, without credentials."""
    size: int
    """Bytes."""
    sha256: str
    """Of the file's bytes, hexadecimal."""
    etag: str | None
    last_modified: str | None
    """As the server said it; of a file on this machine its mtime, ISO, UTC."""
    synthetic: bool
    mtime_ns: int | None = None
    """When it was written here."""

    def reject_replaced(self) -> None:
        """Look whether the file on this machine still is the one that was checked.

        Raises:
            UnavailableError: another run fetched a restated month meanwhile, or it was deleted.
        """
        try:
            now: int | None = self.path.stat().st_mtime_ns
        except FileNotFoundError:
            now = None
        if self.mtime_ns not in (None, now):
            raise UnavailableError(
                f"{self.service.name} {self.month}: {self.path} was replaced while it was read: "
                "again, with the new one"
            )


@contextmanager
def hold_download_lock(
    path: Path, label: str, progress: Progress, max_seconds: float = LOCK_SECONDS
) -> Generator[None]:
    """Hold the lock file beside `path`; it dies with the process that holds it.

    Raises:
        UnavailableError: another run holds it for longer than bringing the file may take.
    """
    make_private_folder(path.parent)
    lock = FileLock(path.with_name(f"{path.name}{LOCK}"), poll_interval=POLL_SECONDS)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        progress(f"{label}: another run is bringing {path.name}; waiting for it")
        try:
            lock.acquire(timeout=max_seconds)
        except Timeout:
            raise UnavailableError(
                f"{label}: another run has held {lock.lock_file} for {max_seconds:g} s: see "
                "whether its process hangs, and end it"
            ) from None
    try:
        os.utime(lock.lock_file)
        yield
    finally:
        lock.release()


def evict_unused(downloads: Path, keep: timedelta | None) -> None:
    """Remove what no run asked for since: the lock file beside each month tells when it was.

    What another run holds is left alone, and so is what a link leads to.
    """
    if keep is None or downloads.is_symlink():
        return
    oldest = time.time() - keep.total_seconds()
    for folder, _, names in os.walk(downloads):
        for name in names:
            path = Path(folder, name.removesuffix(LOCK))
            if name.endswith(LOCK) and Path(folder, name).lstat().st_mtime < oldest:
                _evict_file(path, oldest)


def _evict_file(path: Path, oldest: float) -> None:
    """Remove a month's file and what lies beside it, but the lock that others may wait for."""
    lock = path.with_name(f"{path.name}{LOCK}")
    with suppress(Timeout), FileLock(lock, blocking=False):
        if lock.stat().st_mtime < oldest:
            for pattern in BESIDE:
                path.with_name(pattern.format(path.name)).unlink(missing_ok=True)


def _build_sidecar_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """Read what is noted of `path`; empty where nothing readable is."""
    try:
        note: object = json.loads(_build_sidecar_path(path).read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", note) if isinstance(note, dict) else {}


def _write_sidecar(path: Path, note: Mapping[str, object]) -> None:
    part = path.with_name(f"{path.name}.json.part")
    part.write_text(json.dumps(note, indent=1))
    part.replace(_build_sidecar_path(path))


def commit_to_cache(part: Path, file: MonthFile) -> MonthFile:
    """Give the finished `part` its name. The note comes first: a named file always has its own.

    A restated month's old file goes before, or a crash could leave it under the new one's note.
    """
    file.path.unlink(missing_ok=True)
    commit_sidecar(file)
    _sync_to_disk(part)
    part.replace(file.path)
    _sync_to_disk(file.path.parent)
    return file


def commit_sidecar(file: MonthFile) -> MonthFile:
    """Note what is known of a file that is kept."""
    names = ("url", "size", "sha256", "etag", "last_modified")
    _write_sidecar(file.path, {name: getattr(file, name) for name in names})
    return file


def _sync_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def get_cached_sha256(path: Path, memory: Path, location: SourceLocation) -> str:
    """Return the SHA-256 of a local file, cached by path and times (500 MB take 1 s)."""

    def state() -> dict[str, object]:
        stat = path.stat()
        # `cp -p`, rsync and touch set size and mtime as before; nobody sets ctime.
        return {
            "path": str(path),
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "ctime_ns": stat.st_ctime_ns,
            "inode": stat.st_ino,
        }

    before = state()
    note = read_sidecar(memory)
    if {**note, **before} == note:
        return str(note["sha256"])
    sha256 = start_sha256(path).hexdigest()
    if state() != before:
        raise location.build_error("changed while it was read", "run again when it is written")
    _write_sidecar(memory, {**before, "sha256": sha256})
    return sha256
