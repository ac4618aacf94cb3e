"""One run at a time on a service's month: past the run queue, the second waits for the first.

A stage reads what the stage before left in the lake. Beside a run of the same days that has other
rows (a restated month, other rules) it would read the other's, and the stores would differ. Lock
files beside the downloads, which a read-only container can write, too, hold for the runs of one
machine and end with their process, however it ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from threading import Lock
from typing import Any

from taxi_assets.private import make_private
from taxi_assets.services import Service
from taxi_assets.settings import Settings
from taxi_assets.windows import by_month


@dataclass(frozen=True)
class _Turns:
    """What a run holds."""

    one_step: Lock = field(default_factory=Lock)
    """Its steps may be side by side: what one of them waits for, the other has not got yet."""
    files: dict[str, int] = field(default_factory=dict[str, int])
    """Open lock files by name."""


_HELD: dict[str, _Turns] = {}
"""By run."""


def take_turn(
    run_id: str, service: Service, days: Sequence[date], say: Callable[[str], Any]
) -> None:
    """Wait until no other run is at work on these months; they are this run's until its end.

    All runs take their months in order, so that no two wait for each other.
    """
    turns = _HELD.setdefault(run_id, _Turns())
    folder = Settings.from_env().home / "downloads" / "turns"
    with turns.one_step:
        for month in sorted(by_month(days), key=str):
            name = f"{service.name}-{month}.lock"
            if name in turns.files:
                continue
            make_private(folder.parent)
            make_private(folder)
            file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            turns.files[name] = file
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another run is at work on {service.name} {month}: waiting for its end")
                fcntl.flock(file, fcntl.LOCK_EX)


@contextmanager
def turns_of(run_id: str) -> Iterator[None]:
    """Gives up a run's turns at the end of the block."""
    try:
        yield
    finally:
        for file in _HELD.pop(run_id, _Turns()).files.values():
            os.close(file)
