"""One run at a time on a service's month, on every machine that shares the lake.

A stage reads what the stage before left in the lake. Beside a run of the same days that has other
rows (a restated month, other rules) it would read the other's, and the stores would differ. So the
lock lies in the lake itself, under `_locks/`: a locked file in a folder, which the kernel frees
with its process, or an object in a bucket, whose lease runs out. Steps of one run in several
processes share their run's lock.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from threading import Lock
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.cancellation import interrupt_on_cancel
from taxi_assets.date_ranges import group_days_by_month
from taxi_assets.defs.resources.folder_lock import FolderLocks
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.lock_store import FOLDER, HeldLock, LockStore, Owner
from taxi_assets.errors import StoreError
from taxi_assets.settings.areas import RunSettings
from taxi_assets.tlc.schema import Service


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
        with self._one_thread, interrupt_on_cancel():
            self._store = self._store or self._open_store()
            for month in sorted(group_days_by_month(days), key=str):
                name = f"{service.name}-{month}"
                if name not in self._held:
                    self._held[name] = self._wait_for_lock(
                        self._store, name, f"{service.name} {month}", log
                    )

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

    def _wait_for_lock(
        self, store: LockStore, name: str, what: str, log: Callable[[str], Any]
    ) -> HeldLock:
        timeout = RunSettings.from_env().lock_timeout
        deadline, shown = time.monotonic() + timeout, None
        while isinstance(found := store.try_acquire(name, self.owner), Owner):
            if found != shown:
                log(f"another run is at work on {what} ({found}): waiting for its end")
                shown = found
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{what} is still locked by {found} after {timeout} s: end that run, "
                    "or raise TAXI_LOCK_TIMEOUT"
                )
            time.sleep(store.poll_seconds)
        return found


def open_lock_store(lake: Lake) -> LockStore:
    """Return the locks of a lake."""
    if lake.local:
        return FolderLocks(Path(lake.root, FOLDER))
    from taxi_assets.defs.resources.bucket_lock import open_bucket_locks  # noqa: PLC0415

    return open_bucket_locks(lake.bucket)


@contextmanager
def _hold_run_locks(context: dg.InitResourceContext) -> Iterator[MonthLocks]:
    run_id = context.run.run_id if context.run else uuid.uuid4().hex
    lake = context.resources.lake
    with closing(MonthLocks(run_id, lambda: open_lock_store(lake.lake))) as locks:
        yield locks


month_locks = dg.ResourceDefinition(_hold_run_locks, required_resource_keys={"lake"})
"""The resource: a run's locks, released at its end."""
