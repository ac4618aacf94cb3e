"""Locks as files in a lake folder; the kernel frees them with their process."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from taxi_assets.defs.resources.lock_store import HeldLock, Owner
from taxi_assets.errors import StoreError
from taxi_assets.settings.private_folders import make_private_folder

GATE_SECONDS = 30.0
"""Longest wait for another process in the gate."""
CLOSE_SECONDS = 3.0
"""The same limit at the end of a run: a file that stays behind locks nothing."""


@dataclass(frozen=True)
class FileLock:
    """A locked file; the lock ends with the process."""

    path: Path
    handle: int

    def is_held(self) -> bool:
        """Return whether the locked file still exists and was not replaced."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.handle))
        except OSError:
            return False

    def close(self) -> None:
        """Unlock the file, and remove it if this is its last holder."""
        try:
            with suppress(OSError), _hold_gate(self.path.parent, CLOSE_SECONDS):
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self.is_held():
                    self.path.unlink()
        finally:
            os.close(self.handle)


@dataclass(frozen=True)
class FolderLocks:
    """Locks in a lake folder, for all machines and accounts that mount it."""

    folder: Path
    poll_seconds: float = 0.2

    def try_acquire(self, name: str, owner: Owner) -> HeldLock | Owner:
        """Lock the month's file: exclusively at first, then shared with processes of the same run.

        Raises:
            StoreError: the lake's folder cannot be written.
        """
        path = self.folder / f"{name}.lock"
        try:
            make_private_folder(self.folder)
            with _hold_gate(self.folder):
                return _lock_file(path, owner)
        except OSError as error:
            raise StoreError(
                f"cannot lock {path} ({error.strerror}): runs lock a month in the lake; make this "
                "folder writable"
            ) from error


def _lock_file(path: Path, owner: Owner) -> HeldLock | Owner:
    with ExitStack() as stack:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read_owner(path)
            if holder.run_id != owner.run_id:
                return holder
        else:
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(vars(owner)).encode(), 0)
        fcntl.flock(handle, fcntl.LOCK_SH)
        stack.pop_all()
        return FileLock(path, handle)


def _read_owner(path: Path) -> Owner:
    """Return the holder of a lock; another program may have locked or edited the file."""
    try:
        fields = json.loads(path.read_text())
        return Owner(*(str(fields[name]) for name in ("run_id", "host", "since")))
    except (ValueError, LookupError, TypeError):
        return Owner("unknown", "an unknown machine", "an unknown time")


@contextmanager
def _hold_gate(folder: Path, seconds: float | None = None) -> Iterator[None]:
    """Let one process at a time read and change locks.

    No process waits inside, so only a suspended one can block others.
    """
    handle = os.open(folder / ".gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + (GATE_SECONDS if seconds is None else seconds)
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)
