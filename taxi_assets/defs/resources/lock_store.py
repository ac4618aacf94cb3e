"""The interface of locks in a lake, which `folder_lock` and `bucket_lock` implement."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

FOLDER = "_locks"


@dataclass(frozen=True)
class Owner:
    """The holder of a lock, for messages of waiting runs."""

    run_id: str
    host: str = field(default_factory=socket.gethostname)
    since: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")

    def __str__(self) -> str:
        return f"run {self.run_id} on {self.host}, since {self.since}"


class HeldLock(Protocol):
    """A lock that this process holds."""

    def is_held(self) -> bool:
        """Return whether the lock is still held."""

    def close(self) -> None:
        """Release the lock."""


class LockStore(Protocol):
    """A place for locks."""

    @property
    def poll_seconds(self) -> float:
        """Interval between two attempts of a waiting run."""

    def try_acquire(self, name: str, owner: Owner) -> HeldLock | Owner:
        """Acquire a lock, or share that of the same run; otherwise return its holder."""
