"""One run at a time on a service's month, on every machine that shares the lake.

A stage reads what the stage before left in the lake. Beside a run of the same days that has other
rows (a restated month, other rules) it would read the other's, and the stores would differ. So the
lock lies in the lake itself, under `_locks/`: a locked file in a folder, which the kernel frees
with its process, or an object in a bucket, whose lease runs out. Steps of one run in several
processes share their run's lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import dagster as dg

from taxi_assets.dagster_internals.cancellation import ending_the_run
from taxi_assets.date_ranges import by_month
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.errors import StoreError
from taxi_assets.settings import lock_timeout
from taxi_assets.settings.private_folders import make_private
from taxi_assets.tlc.schema import Service

FOLDER = "_locks"
GATE_SECONDS = 30.0
"""For a few calls of another process."""
CLOSE_SECONDS = 3.0
"""The same, at the end of a run: a file that is left behind locks nothing."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lock, for those who wait."""

    run_id: str
    host: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")

    def __str__(self) -> str:
        return f"run {self.run_id} on {self.host}, since {self.since}"


class HeldLock(Protocol):
    """A lock that this process holds."""

    def is_held(self) -> bool:
        """Whether nobody else can have it now."""

    def close(self) -> None:
        """Give it up."""


class LockStore(Protocol):
    """Where locks lie."""

    @property
    def poll_seconds(self) -> float:
        """Between two tries of a run that waits."""

    def try_acquire(self, name: str, owner: Owner) -> HeldLock | Owner:
        """Take a lock, or share the one that the same run holds; else return who holds it."""


class MonthLocks:
    """The locks that a run holds in this process, until its end."""

    def __init__(self, run_id: str, open_store: Callable[[], LockStore]) -> None:
        self.owner = Owner(run_id)
        self._open_store = open_store
        self._store: LockStore | None = None
        self._held: dict[str, HeldLock] = {}
        self._one_thread = Lock()

    def acquire(self, service: Service, days: Sequence[date], log: Callable[[str], Any]) -> None:
        """Wait until no other run works on these months; they are this run's until its end.

        All runs take their months in order, so that no two wait for each other.

        Raises:
            StoreError: another run has not ended within TAXI_LOCK_TIMEOUT.
        """
        with self._one_thread, ending_the_run():
            self._store = self._store or self._open_store()
            for month in sorted(by_month(days), key=str):
                name = f"{service.name}-{month}"
                if name not in self._held:
                    self._held[name] = self._wait(self._store, name, f"{service.name} {month}", log)

    def check(self) -> None:
        """Stop a run that no longer holds what it works under, before it writes.

        Raises:
            StoreError: the lease of a lock ran out, and another run may have taken it.
        """
        lost = [name for name, lock in self._held.items() if not lock.is_held()]
        if lost:
            raise StoreError(
                f"run {self.owner.run_id} lost the lock of {', '.join(lost)}: it could not renew "
                "its lease in time, or somebody deleted the lock, and another run may work there "
                "now. Nothing more is written; run again"
            )

    def close(self) -> None:
        """Release all locks, at once: a bucket that does not answer is waited for once."""
        if self._held:
            with ThreadPoolExecutor(len(self._held)) as pool:
                list(pool.map(lambda held: held.close(), self._held.values()))
            self._held.clear()

    def _wait(self, store: LockStore, name: str, what: str, log: Callable[[str], Any]) -> HeldLock:
        deadline, shown = time.monotonic() + lock_timeout(), None
        while isinstance(found := store.try_acquire(name, self.owner), Owner):
            if found != shown:
                log(f"another run is at work on {what} ({found}): waiting for its end")
                shown = found
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{what} is still locked by {found} after {lock_timeout():g} s: end that run, "
                    "or raise TAXI_LOCK_TIMEOUT"
                )
            time.sleep(store.poll_seconds)
        return found


@dataclass(frozen=True)
class FileLock:
    """A locked file; the lock ends with the process, however it ends."""

    path: Path
    handle: int

    def is_held(self) -> bool:
        """Whether the locked file is the one that others would lock: somebody may delete it."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.handle))
        except OSError:
            return False

    def close(self) -> None:
        """Unlock, and remove the file with its last holder, unless the folder is gone."""
        try:
            with suppress(OSError), _gate(self.path.parent, CLOSE_SECONDS):
                fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self.is_held():
                    self.path.unlink()
        finally:
            os.close(self.handle)


@dataclass(frozen=True)
class FolderLocks:
    """Locks in a lake that is a folder, for all machines and accounts that mount it."""

    folder: Path
    poll_seconds: float = 0.2

    def try_acquire(self, name: str, owner: Owner) -> HeldLock | Owner:
        """Lock the month's file: alone at first, then shared with processes of the same run.

        Raises:
            StoreError: the lake's folder cannot be written.
        """
        path = self.folder / f"{name}.lock"
        try:
            make_private(self.folder)
            with _gate(self.folder):
                return _lock_file(path, owner)
        except OSError as error:
            raise StoreError(
                f"cannot lock {path} ({error.strerror}): runs lock a month in the lake, make that "
                "folder writable"
            ) from error


def _lock_file(path: Path, owner: Owner) -> HeldLock | Owner:
    with ExitStack() as stack:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(path)
            if holder.run_id != owner.run_id:
                return holder
        else:
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(vars(owner)).encode(), 0)
        fcntl.flock(handle, fcntl.LOCK_SH)
        stack.pop_all()
        return FileLock(path, handle)


def _read(path: Path) -> Owner:
    """Return who holds a lock; somebody else may have locked or edited the file."""
    try:
        facts = json.loads(path.read_text())
        return Owner(*(str(facts[name]) for name in ("run_id", "host", "since")))
    except (ValueError, LookupError, TypeError):
        return Owner("unknown", "an unknown machine", "an unknown time")


@contextmanager
def _gate(folder: Path, seconds: float | None = None) -> Iterator[None]:
    """Let one process at a time look at locks and change them.

    It never waits inside, so that only one that is halted there keeps others out.
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


def open_locks(lake: Lake) -> LockStore:
    """Return the locks of a lake."""
    if lake.local:
        return FolderLocks(Path(lake.root, FOLDER))
    from taxi_assets.defs.resources.bucket_lock import open_bucket_locks  # noqa: PLC0415 - heavy at import

    return open_bucket_locks(lake.bucket)


@contextmanager
def _of_run(context: dg.InitResourceContext) -> Iterator[MonthLocks]:
    run_id = context.run.run_id if context.run else uuid.uuid4().hex
    lake = context.resources.lake
    with closing(MonthLocks(run_id, lambda: open_locks(lake.lake))) as locks:
        yield locks


month_locks = dg.ResourceDefinition(_of_run, required_resource_keys={"lake"})
"""The resource: a run's locks, released at its end."""
