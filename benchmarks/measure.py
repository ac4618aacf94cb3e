"""What one process costs: wall, CPU, memory, and the CPU of the servers it talks to.

Whoever calls `run` must stay small: the kernel carries the peak memory of the process that starts
a program over to the program (it counts the address space before the exec), so a starter of
500 MB would hide a run of 400 MB. That is why everything that imports pandas, DuckDB or Dagster is
a process of its own here.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

LAST_LINES = 25


class BenchmarkError(Exception):
    """A measured command failed, or left wrong rows; the message says where to look."""


@dataclass(frozen=True)
class Sample:
    """One measured run of a command."""

    wall: float
    """Seconds from start to exit."""
    cpu: float
    """User and system seconds of the process and the children it waited for."""
    servers: float
    """CPU seconds of Postgres and the BigQuery emulator meanwhile."""
    rss: int
    """Peak resident memory of the process, bytes; the servers' is not in it."""
    others: float
    """Cores that everything else on the machine used meanwhile: above 0.1 the wall is not clean."""

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Spread:
    """Median and extremes of one figure over the repeats."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one value or more."""
        return cls(median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """`4.10 (4.02..4.31)`, or the one value."""
        middle = f"{self.middle:,.{digits}f}"
        if self.low == self.high:
            return middle
        return f"{middle} ({self.low:,.{digits}f}..{self.high:,.{digits}f})"


def run(
    command: Sequence[str | Path], env: Mapping[str, str], log: Path, servers: Sequence[int] = ()
) -> Sample:
    """Run a command to its end, its output in `log`; `servers` are process ids.

    Raises:
        BenchmarkError: it ended with another code than 0; the message has its last lines.
    """
    busy, served = _busy(), cpu_of(servers)
    began = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
        )
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        shown = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        raise BenchmarkError(
            f"{' '.join(map(str, command))} ended with {process.returncode}, see {log}:\n{shown}"
        )
    cpu, serving = usage.ru_utime + usage.ru_stime, cpu_of(servers) - served
    others = max(0.0, _busy() - busy - cpu - serving) / wall
    return Sample(wall, cpu, serving, usage.ru_maxrss * 1024, others)


def _busy() -> float:
    """CPU seconds of the whole machine since it started."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # A guest's time is in `user` already.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


def cpu_of(servers: Sequence[int]) -> float:
    """CPU seconds of servers: their own, their living descendants', and those of ended children."""
    total = 0.0
    for pid in servers:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total
