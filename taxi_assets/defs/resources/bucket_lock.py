"""The lock of a month as an object in a bucket.

GCS creates and replaces an object under a precondition on its generation, so of two runs one wins.
The object is a lease: its holder writes it again six times in `lease_seconds`; one that was not
written for that long by the server's clock may be taken over. The holder measures from before its
request, and by a clock that nobody sets and that goes on while the machine sleeps, so that it stops
earlier than anybody can take over.
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
from google.cloud.storage import Blob, Bucket, Client
from google.cloud.storage.retry import DEFAULT_RETRY
from requests import RequestException

from taxi_assets.defs.resources.lock_store import FOLDER, HeldLock, Owner
from taxi_assets.errors import StoreError

LEASE_SECONDS = 180.0
"""pyarrow keeps Python's threads waiting while it waits for GCS, up to two minutes."""
MARGIN_SECONDS = 10.0
"""By which clocks of Google's servers may differ."""
REQUEST_SECONDS = 20
RETRY = DEFAULT_RETRY.with_timeout(60)
"""An attempt whose answer was lost makes the next one fail its precondition; the object then shows
whose it is."""
CLOSE_SECONDS = 3.0
CLOSE_RETRY = DEFAULT_RETRY.with_timeout(CLOSE_SECONDS)
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux's monotonic clock stands still while the machine is suspended; macOS's does not."""
# A network that is away does not end a lease: the next try may renew it in time.
PASSING = (GoogleAPIError, RequestException, OSError)


@dataclass(frozen=True)
class BucketLocks:
    """Locks in a bucket, for all machines that use it."""

    bucket: Bucket
    lease_seconds: float = LEASE_SECONDS
    poll_seconds: float = 2.0

    def try_acquire(self, name: str, owner: Owner) -> HeldLock | Owner:
        """Create the object, share the same run's, or take over one whose lease ran out.

        Raises:
            StoreError: there is no such bucket, or this account may not write to it.
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
                f"gs://{self.bucket.name}/{lock.key} cannot be written, where runs lock a month: "
                "give this account Storage Object Admin on the bucket, then run again"
            ) from error
        except PreconditionFailed as refused:
            found = self.bucket.get_blob(lock.key)
            if found is None:
                return self.try_acquire(name, owner)
            holder, holders = _read_owner(found)
            ours = holder.run_id == owner.run_id
            if not ours and not self._has_expired(found, refused):
                return holder
            try:
                lock.write(found.generation, holders if ours else [])
            except PreconditionFailed:
                return self.try_acquire(name, owner)
        lock.start_renewing()
        return lock

    def _has_expired(self, found: Blob, refused: PreconditionFailed) -> bool:
        now = parsedate_to_datetime(refused.response.headers["Date"])
        lease = float((found.metadata or {}).get("lease_seconds", self.lease_seconds))
        return (now - found.updated).total_seconds() > lease + MARGIN_SECONDS


@dataclass
class BucketLock:
    """One held object, which a thread renews."""

    locks: BucketLocks
    key: str
    owner: Owner
    token: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    """Of this process: several of one run may hold the same object."""
    holders: list[str] = field(default_factory=list[str])
    generation: int = 0
    valid_until: float = 0.0
    """By `CLOCK`."""
    _ended: Event = field(default_factory=Event)
    _one_request: Lock = field(default_factory=Lock)
    _thread: Thread | None = None

    def is_held(self) -> bool:
        """Return whether the lease is still valid."""
        return time.clock_gettime(CLOCK) < self.valid_until

    def write(self, generation: int, holders: list[str]) -> None:
        """Write the object in place of one generation, which starts the lease again.

        Raises:
            PreconditionFailed: the object is of another generation.
        """
        asked = time.clock_gettime(CLOCK)
        blob = self.locks.bucket.blob(self.key)
        holders = [*(one for one in holders if one != self.token), self.token]
        blob.metadata = vars(self.owner) | {
            "holders": " ".join(holders),
            "lease_seconds": str(self.locks.lease_seconds),
        }
        self._upload_lease(blob, generation)
        self.holders, self.generation = holders, int(blob.generation)
        self.valid_until = asked + self.locks.lease_seconds

    def start_renewing(self) -> None:
        """Renew until it is closed."""
        self._thread = Thread(target=self._renew_until_lost, name=f"renew {self.key}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop renewing; remove the object, or leave it to the run's other processes.

        A bucket that does not answer holds a cancelled run for no longer than a request may take;
        the lease then runs out.
        """
        self._ended.set()
        if self._one_request.acquire(timeout=CLOSE_SECONDS):
            try:
                with suppress(*PASSING):
                    while self.is_held() and not self._is_released():
                        pass
            finally:
                self._one_request.release()

    def _is_released(self) -> bool:
        """Try once to take this process out of the holders; False where another one was faster."""
        in_time: dict[str, Any] = {"timeout": CLOSE_SECONDS, "retry": CLOSE_RETRY}
        found = self.locks.bucket.get_blob(self.key, **in_time)
        if found is None:
            return True
        holder, holders = _read_owner(found)
        if holder.run_id != self.owner.run_id or self.token not in holders:
            return True
        holders.remove(self.token)
        try:
            if holders:
                found.metadata = {**found.metadata, "holders": " ".join(holders)}
                self._upload_lease(found, found.generation, **in_time)
            else:
                found.delete(if_generation_match=found.generation, **in_time)
        except PreconditionFailed:
            return False
        return True

    def _renew_until_lost(self) -> None:
        while not self._ended.wait(self.locks.lease_seconds / 6) and self.is_held():
            with self._one_request, suppress(*PASSING):
                if self._ended.is_set():
                    return
                self._renew_lease()

    def _renew_lease(self) -> None:
        try:
            self.write(self.generation, self.holders)
        except (PreconditionFailed, NotFound):
            found = self.locks.bucket.get_blob(self.key)
            holder, holders = _read_owner(found) if found else (None, [])
            if holder is None or holder.run_id != self.owner.run_id or self.token not in holders:
                self.valid_until = 0.0  # taken over
                return
            self.write(found.generation, holders)  # another process of this run was faster

    @staticmethod
    def _upload_lease(
        blob: Blob, generation: int, timeout: float = REQUEST_SECONDS, retry: Retry = RETRY
    ) -> None:
        blob.upload_from_string(b"", if_generation_match=generation, timeout=timeout, retry=retry)


def open_bucket_locks(bucket: str) -> BucketLocks:
    """Return the locks of a bucket; STORAGE_EMULATOR_HOST leads to an emulator."""
    options: dict[str, Any] = {}
    if os.environ.get("STORAGE_EMULATOR_HOST"):
        from google.auth.credentials import AnonymousCredentials  # noqa: PLC0415

        options = {"project": "emulator", "credentials": AnonymousCredentials()}
    return BucketLocks(Client(**options).bucket(bucket))


def _read_owner(blob: Blob) -> tuple[Owner, list[str]]:
    """Return who holds a lock, and the processes of that run."""
    facts = blob.metadata or {}
    owner = Owner(*(str(facts.get(name, "?")) for name in ("run_id", "host", "since")))
    return owner, str(facts.get("holders", "")).split()
