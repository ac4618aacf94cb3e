"""Locks as objects in a bucket.

GCS creates and replaces an object under a precondition on its generation, so only one of two runs
succeeds. The object is a lease: its holder rewrites it six times in `lease_seconds`; if it was not
written for that long by the server's clock, another run may take it over. The holder measures from
before its request, by a clock that cannot be set and that continues while the machine sleeps, so it
always stops before another run can take over.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from threading import Event, Lock, Thread
from typing import Any

from google.api_core.exceptions import Forbidden, GoogleAPIError, NotFound, PreconditionFailed
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Blob, Bucket, Client
from google.cloud.storage.retry import DEFAULT_RETRY
from requests import RequestException

from taxi_assets.defs.resources.lock_store import FOLDER, HeldLock, Owner
from taxi_assets.errors import StoreError

LEASE_SECONDS = 180.0
"""pyarrow can block all of Python's threads while it waits for GCS, up to two minutes."""
MARGIN_SECONDS = 10.0
"""Largest difference between clocks of Google's servers."""
REQUEST_SECONDS = 20
RETRY = DEFAULT_RETRY.with_timeout(60)
"""If the response of an attempt was lost, the next attempt fails its precondition; the object then
names its owner."""
CLOSE_SECONDS = 3.0
CLOSE_RETRY = DEFAULT_RETRY.with_timeout(CLOSE_SECONDS)
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's monotonic clock stops while the machine is suspended; that of macOS does not."""
# An unreachable network does not end a lease: the next attempt may renew it in time.
TRANSIENT_ERRORS = (GoogleAPIError, RequestException, OSError)


@dataclass(frozen=True)
class BucketLocks:
    """Locks in a bucket, for all machines that use it."""

    bucket: Bucket
    lease_seconds: float = LEASE_SECONDS
    poll_seconds: float = 2.0

    def try_acquire(self, name: str, owner: Owner) -> HeldLock | Owner:
        """Create the object, share that of the same run, or take over an expired one.

        Raises:
            StoreError: the bucket does not exist, or this account may not write to it.
        """
        lock = BucketLock(self, f"{FOLDER}/{name}.json", owner)
        try:
            lock.write(0, [])
        except NotFound as error:
            raise StoreError(
                f"there is no bucket gs://{self.bucket.name}: create the bucket, or check "
                "GCS_BUCKET and TAXI_LAKE, then run again"
            ) from error
        except Forbidden as error:
            raise StoreError(
                f"cannot write gs://{self.bucket.name}/{lock.key}, the lock of a month: give this "
                "account Storage Object Admin on the bucket, then run again"
            ) from error
        except PreconditionFailed as rejected:
            blob = self.bucket.get_blob(lock.key)
            if blob is None:
                return self.try_acquire(name, owner)
            holder, holders = _read_owner(blob)
            is_same_run = holder.run_id == owner.run_id
            if not is_same_run and not self._has_expired(blob, rejected):
                return holder
            try:
                lock.write(blob.generation, holders if is_same_run else [])
            except PreconditionFailed:
                return self.try_acquire(name, owner)
        lock.start_renewing()
        return lock

    def _has_expired(self, blob: Blob, rejected: PreconditionFailed) -> bool:
        now = parsedate_to_datetime(rejected.response.headers["Date"])
        lease = float((blob.metadata or {}).get("lease_seconds", self.lease_seconds))
        return (now - blob.updated).total_seconds() > lease + MARGIN_SECONDS


@dataclass
class BucketLock:
    """A lock object of this process, which a thread renews."""

    locks: BucketLocks
    key: str
    owner: Owner
    token: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    """Identifies this process: several processes of a run may share the object."""
    holders: list[str] = field(default_factory=list[str])
    generation: int = 0
    valid_until: float = 0.0
    """End of the lease by `CLOCK`."""
    _ended: Event = field(default_factory=Event)
    _one_request: Lock = field(default_factory=Lock)
    _thread: Thread | None = None

    def is_held(self) -> bool:
        """Return whether the lease is still valid."""
        return time.clock_gettime(CLOCK) < self.valid_until

    def write(self, generation: int, holders: list[str]) -> None:
        """Replace one generation of the object, which restarts the lease.

        Raises:
            PreconditionFailed: the object has another generation.
        """
        requested = time.clock_gettime(CLOCK)
        blob = self.locks.bucket.blob(self.key)
        holders = [*(holder for holder in holders if holder != self.token), self.token]
        blob.metadata = vars(self.owner) | {
            "holders": " ".join(holders),
            "lease_seconds": str(self.locks.lease_seconds),
        }
        self._upload_lease(blob, generation)
        self.holders, self.generation = holders, int(blob.generation)
        self.valid_until = requested + self.locks.lease_seconds

    def start_renewing(self) -> None:
        """Start a thread that renews the lease until the lock is closed."""
        self._thread = Thread(target=self._renew_until_lost, name=f"renew {self.key}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop renewing; remove the object, or leave it to the run's other processes.

        An unreachable bucket delays a cancelled run by one request at most; the lease then expires.
        """
        self._ended.set()
        if self._one_request.acquire(timeout=CLOSE_SECONDS):
            try:
                with suppress(*TRANSIENT_ERRORS):
                    while self.is_held() and not self._is_released():
                        pass
            finally:
                self._one_request.release()

    def _is_released(self) -> bool:
        """Try once to remove this process from the holders; return False if another was faster."""
        in_time: dict[str, Any] = {"timeout": CLOSE_SECONDS, "retry": CLOSE_RETRY}
        blob = self.locks.bucket.get_blob(self.key, **in_time)
        holders = self._find_holders(blob)
        if holders is None:
            return True
        holders.remove(self.token)
        try:
            if holders:
                blob.metadata = {**blob.metadata, "holders": " ".join(holders)}
                self._upload_lease(blob, blob.generation, **in_time)
            else:
                blob.delete(if_generation_match=blob.generation, **in_time)
        except PreconditionFailed:
            return False
        return True

    def _renew_until_lost(self) -> None:
        while not self._ended.wait(self.locks.lease_seconds / 6) and self.is_held():
            with self._one_request, suppress(*TRANSIENT_ERRORS):
                if self._ended.is_set():
                    return
                self._renew_lease()

    def _renew_lease(self) -> None:
        try:
            self.write(self.generation, self.holders)
        except (PreconditionFailed, NotFound):
            blob = self.locks.bucket.get_blob(self.key)
            holders = self._find_holders(blob)
            if holders is None:
                self.valid_until = 0.0  # Another run has taken over.
                return
            self.write(blob.generation, holders)  # Another process of this run was faster.

    def _find_holders(self, blob: Blob | None) -> list[str] | None:
        """Return the processes that share the object; None if this one no longer does."""
        holder, holders = _read_owner(blob) if blob else (None, [])
        is_ours = holder and holder.run_id == self.owner.run_id and self.token in holders
        return holders if is_ours else None

    @staticmethod
    def _upload_lease(
        blob: Blob, generation: int, timeout: float = REQUEST_SECONDS, retry: Retry = RETRY
    ) -> None:
        blob.upload_from_string(b"", if_generation_match=generation, timeout=timeout, retry=retry)


def open_bucket_locks(bucket: str) -> BucketLocks:
    """Return the locks of a bucket, on the emulator at STORAGE_EMULATOR_HOST if that is set."""
    options: dict[str, Any] = {}
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        options = {"project": "emulator", "credentials": AnonymousCredentials()}
    return BucketLocks(Client(**options).bucket(bucket))


def _read_owner(blob: Blob) -> tuple[Owner, list[str]]:
    """Return the holder of a lock, and the processes of its run."""
    metadata = blob.metadata or {}
    owner = Owner(*(str(metadata.get(name, "?")) for name in ("run_id", "host", "since")))
    return owner, str(metadata.get("holders", "")).split()
