"""Identify processes by pid and start time, stop them, and end them with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator

PR_SET_PDEATHSIG = 1
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Identity:
    """The identity of a process: pids are reused, but not together with a start time."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the identity of a living process; None for a missing one or a zombie."""
        started = _read_start_time(pid)
        return None if started is None else cls(pid, started)

    def is_alive(self) -> bool:
        """Return whether this process is still running."""
        return _read_start_time(self.pid) == self.started


def _read_start_time(pid: int) -> str | None:
    """Return the start time of a process, which identifies it together with the pid.

    On Linux it is read from /proc: psutil derives it from the clock, which can be set.
    """
    try:
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        if not LINUX:
            return str(process.create_time())
        # The command name, in parentheses, may contain any bytes, parentheses included.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{fields[19].decode()}"
    except (psutil.Error, OSError, ValueError):
        return None


def runs_in_folder(pid: int, folder: Path) -> bool:
    """Return whether the working directory of a process is this folder, even after a move.

    If the kernel does not show it, the arguments must name the folder.
    """
    try:
        process = psutil.Process(pid)
        with contextlib.suppress(psutil.AccessDenied):
            return os.path.samestat(Path(process.cwd()).stat(), folder.stat())
        return str(folder) in process.cmdline()
    except (psutil.Error, OSError, ValueError):
        return False


def stop_process(
    target: Identity, signals: tuple[signal.Signals, ...], seconds_each: float
) -> bool:
    """Send the signals in turn until the process ends; return whether it did."""
    for number in signals:
        if not target.is_alive():
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(target.pid, number)
        if wait_until(lambda: not target.is_alive(), seconds_each):
            return True
    return not target.is_alive()


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.02) -> bool:
    """Poll until the condition holds; return False after `seconds`."""
    return any(condition() for _ in iterate_ticks(seconds, every))


def iterate_ticks(seconds: float, every: float = 0.02) -> Iterator[None]:
    """Yield at once and then every `every` seconds, for `seconds`."""
    deadline = time.monotonic() + seconds
    yield
    while time.monotonic() < deadline:
        time.sleep(every)
        yield


def die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Return a `preexec_fn` after which the kernel sends `number` when the parent dies.

    The signal depends on the parent's *thread*: spawn from the main one. None if the kernel does
    not support it (macOS); there the next supervisor finds leftover servers by their `Identity`.
    """
    if not LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here, because importing after the fork is unsafe
    parent = os.getpid()

    def set_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return set_death_signal
