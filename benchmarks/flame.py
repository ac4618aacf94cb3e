"""Where a run's time goes: py-spy's flame graph and the busiest functions, or else cProfile's.

py-spy (`pip install py-spy`) sees all threads and costs next to nothing; cProfile, of the standard
library, sees the main thread alone and doubles the time of code with many calls.
"""

from __future__ import annotations

import pstats
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import tables
from benchmarks.measure import run

if TYPE_CHECKING:
    from benchmarks.bench import Bench, DaySpan

RATE = 200
"""Samples a second."""
MOST = 30


def profile(bench: Bench, what: str, days: DaySpan) -> str:
    """Profile one run; returns what to print."""
    command = bench.job_command(days)
    if what == "noop":
        command = [*command[:3], "-m", "benchmarks.noop", "-j", "nothing_job"]
    bench.empty()
    if what == "rewrite":
        bench.job(days, "first")
    staged = {what: [bench.noop() if what == "noop" else bench.job(days, what)]}
    shown = [tables.stages(staged)]
    py_spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{bench.env['PATH']}")
    if py_spy is None:
        _empty_for(bench, what)
        shown.append(_with_cprofile(bench, command))
        return "\n\n".join(shown)
    for form in ("raw", "flamegraph"):
        _empty_for(bench, what)
        target = bench.work / f"profile-{what}.{'txt' if form == 'raw' else 'svg'}"
        recorder = [py_spy, "record", "-f", form, "-r", str(RATE), "-o", str(target), "--"]
        run([*recorder, *command], bench.env, bench.logs / "profile.log")
        if form == "raw":
            shown += busiest(target)
        else:
            shown.append(f"flame graph: {target}")
    return "\n\n".join(shown)


def busiest(path: Path) -> list[str]:
    """Tables of functions by their own time and by time with what they call, from folded stacks."""
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_without_line(frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in set(frames):
            with_callees[frame] += int(count)
    ours = Counter({name: n for name, n in with_callees.items() if "taxi_assets" in name})
    titled = {"own": own, "the package's, with callees": ours, "all, with callees": with_callees}
    return [
        tables.markdown(
            (title, "thread s"),
            [(name, f"{count / RATE:.2f}") for name, count in counts.most_common(MOST)],
        )
        for title, counts in titled.items()
    ]


def _without_line(frame: str) -> str:
    return frame.rpartition(":")[0] + ")" if ":" in frame else frame or "(no Python frame)"


def _empty_for(bench: Bench, what: str) -> None:
    if what == "first":
        bench.empty()


def _with_cprofile(bench: Bench, command: list[str]) -> str:
    target, text = bench.work / "profile.pstats", bench.work / "profile.txt"
    run([sys.executable, "-m", "cProfile", "-o", str(target), *command], bench.env, text)
    with text.open("w") as stream:
        pstats.Stats(str(target), stream=stream).sort_stats("tottime").print_stats(MOST)
    return f"py-spy is not installed; cProfile of the main thread:\n{text.read_text()}"
