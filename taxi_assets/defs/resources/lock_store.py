"""Locks in a lake: who holds one, and what a place that keeps them can do.

`folder_lock` and `bucket_lock` are such places. What a lock stands for is not their business.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

FOLDER = "_locks"


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
        """Return whether the lock is still held."""

    def close(self) -> None:
        """Give it up."""


class LockStore(Protocol):
    """Where locks lie."""

    @property
    def poll_seconds(self) -> float:
        """Between two tries of a run that waits."""

    def try_acquire(self, name: str, owner: Owner) -> HeldLock | Owner:
        """Take a lock, or share the one that the same run holds; else return who holds it."""
