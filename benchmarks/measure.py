"""Measure a process: wall time, CPU time, memory, and the CPU time of its servers.

The process that calls `run` must stay small: a child inherits the peak memory of its parent, since
the kernel counts the address space before the exec, and a parent of 500 MB would hide a run of
400 MB. Everything that imports pandas, DuckDB or Dagster therefore runs in a separate process.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

LAST_LINES = 25


class BenchmarkError(Exception):
    """A measured command failed or stored wrong rows; the message names the log."""


@dataclass(frozen=True)
class Sample:
    """One measured run of a command."""

    wall: float
    """Seconds from start to exit."""
    cpu: float
    """User and system seconds of the process and the children it waited for."""
    servers: float
    """CPU seconds of Postgres and the BigQuery emulator during the run."""
    rss: int
    """Peak resident memory of the process in bytes, without the servers."""
    others: float
    """Cores used by everything else on the machine; above 0.1 the wall time is not reliable."""


@dataclass(frozen=True)
class Spread:
    """Median and extremes of one figure over the repeats."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of one or more values."""
        return cls(median(values), min(values), max(values))

    def text(self, digits: int = 2) -> str:
        """Format as `4.10 (4.02..4.31)`, or as `4.10` if all values are equal."""
        middle = f"{self.middle:,.{digits}f}"
        if self.low == self.high:
            return middle
        return f"{middle} ({self.low:,.{digits}f}..{self.high:,.{digits}f})"


def run(
    command: Sequence[str | Path], env: Mapping[str, str], log: Path, servers: Sequence[int] = ()
) -> Sample:
    """Run a command with its output in `log`, and measure it; `servers` are process ids.

    Raises:
        BenchmarkError: the exit code is not 0; the message has the last lines of the log.
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
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LAST_LINES:])
        raise BenchmarkError(
            f"{' '.join(map(str, command))} exited with {process.returncode}, see {log}:\n{tail}"
        )
    cpu, serving = usage.ru_utime + usage.ru_stime, cpu_of(servers) - served
    others = max(0.0, _busy() - busy - cpu - serving) / wall
    return Sample(wall, cpu, serving, usage.ru_maxrss * 1024, others)


def _busy() -> float:
    """Return the CPU seconds of the machine since its start."""
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # `user` includes the time of guests.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - guests)


def cpu_of(servers: Sequence[int]) -> float:
    """Return the CPU seconds of servers, including descendants and ended children."""
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
