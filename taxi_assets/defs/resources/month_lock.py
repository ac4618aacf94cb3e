"""The lock of a service's month: one run at a time, on all machines that share the lake.

Each stage reads the output of the previous stage from the lake. A concurrent run of the same days
with other rows (a restated month, other rules) could replace it, and the stores would differ. So
the lock is in the lake itself, under `_locks/`: a locked file in a folder, which the kernel frees
with its process, or an object in a bucket with a lease. Steps of one run in several processes share
the lock of their run.
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
        """Wait until no other run works on these months, and lock them until the end of this run.

        All runs lock their months in order, so there is no deadlock.

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
        """Stop a run that has lost a lock, before it writes.

        Raises:
            StoreError: the lease of a lock expired, and another run may have acquired it.
        """
        lost = [name for name, lock in self._held.items() if not lock.is_held()]
        if lost:
            raise StoreError(
                f"run {self.owner.run_id} lost the lock of {', '.join(lost)}: it could not renew "
                "its lease in time, or the lock was deleted, and another run may be working there "
                "now. Nothing more is written; run again"
            )

    def close(self) -> None:
        """Release all locks in parallel, so that there is one wait for an unreachable bucket."""
        if self._held:
            with ThreadPoolExecutor(len(self._held)) as pool:
                list(pool.map(lambda lock: lock.close(), self._held.values()))
            self._held.clear()

    def _wait_for_lock(
        self, store: LockStore, name: str, label: str, log: Callable[[str], Any]
    ) -> HeldLock:
        timeout = RunSettings.from_env().lock_timeout
        deadline, reported = time.monotonic() + timeout, None
        while isinstance(result := store.try_acquire(name, self.owner), Owner):
            if result != reported:
                log(f"another run is working on {label} ({result}): waiting for its end")
                reported = result
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{label} is still locked by {result} after {timeout} s: end that run, "
                    "or raise TAXI_LOCK_TIMEOUT"
                )
            time.sleep(store.poll_seconds)
        return result


def open_lock_store(lake: Lake) -> LockStore:
    """Return the locks of a lake."""
    if lake.local:
        return FolderLocks(Path(lake.root, FOLDER))
    from taxi_assets.defs.resources.bucket_lock import open_bucket_locks  # noqa: PLC0415 - imports google

    return open_bucket_locks(lake.bucket)


@contextmanager
def _hold_run_locks(context: dg.InitResourceContext) -> Iterator[MonthLocks]:
    run_id = context.run.run_id if context.run else uuid.uuid4().hex
    lake = context.resources.lake
    with closing(MonthLocks(run_id, lambda: open_lock_store(lake.lake))) as locks:
        yield locks


month_locks = dg.ResourceDefinition(_hold_run_locks, required_resource_keys={"lake"})
"""The resource: a run's locks, released at its end."""
