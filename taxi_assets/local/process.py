"""Identify processes by pid and start time, stop them, and end them with their parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator

PR_SET_PDEATHSIG = 1
LINUX = sys.platform == "linux"


@dataclass(frozen=True)
class Identity:
    """One process: a pid is reused, a pid with its start time is not."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """Return the identity of a living process; None for a missing one or a zombie."""
        started = _read_start_time(pid)
        return None if started is None else cls(pid, started)

    def alive(self) -> bool:
        """Return whether this process is still running."""
        return _read_start_time(self.pid) == self.started


def _read_start_time(pid: int) -> str | None:
    if LINUX:
        try:
            # The command name, in parentheses, may itself hold spaces and parentheses.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, ValueError):
            return None
        return None if fields[0] in "ZX" else f"{boot}/{fields[19]}"
    return _run_ps(pid, "lstart=")


def read_command_line(pid: int) -> list[str]:
    """Return the arguments of a process; empty if it ended or is hidden from us."""
    if LINUX:
        try:
            return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0").split("\0")
        except (OSError, ValueError):
            return []
    return (_run_ps(pid, "command=") or "").split()


def runs_in_folder(pid: int, folder: Path) -> bool:
    """Return whether the working directory of a process is this folder, even after a move.

    Where the kernel does not show it, the arguments must name the folder.
    """
    try:
        return os.path.samestat(Path(f"/proc/{pid}/cwd").stat(), folder.stat())
    except OSError:
        return str(folder) in read_command_line(pid)


def _run_ps(pid: int, column: str) -> str | None:
    shown = subprocess.run(  # noqa: S603  a number and one of our own column names
        ["/bin/ps", "-o", column, "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None


def stop_process(
    target: Identity, signals: tuple[signal.Signals, ...], seconds_each: float
) -> bool:
    """Send the signals in turn until the process ends; return whether it did."""
    for number in signals:
        if not target.alive():
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(target.pid, number)
        if wait_until(lambda: not target.alive(), seconds_each):
            return True
    return not target.alive()


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

    The tie is to the parent's *thread*: spawn from the main one. None where the kernel cannot do
    it (macOS); there the next supervisor finds leftover servers by their `Identity`.
    """
    if not LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here: importing after the fork is unsafe
    parent = os.getpid()

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return tie
