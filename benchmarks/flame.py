"""Profile a run with py-spy (flame graph and busiest functions), or else with cProfile.

py-spy (`pip install py-spy`) samples all threads with almost no overhead; cProfile, from the
standard library, covers only the main thread and doubles the time of code with many calls.
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
"""Samples per second."""
MAX_FUNCTIONS = 30


def profile(bench: Bench, what: str, days: DaySpan) -> str:
    """Profile a run, and return the text to print."""
    command = bench.job_command(days)
    if what == "noop":
        command = [*command[:3], "-m", "benchmarks.noop", "-j", "nothing_job"]
    bench.empty_stores()
    if what == "rewrite":
        bench.run_job(days, "first")
    staged = {what: [bench.run_noop() if what == "noop" else bench.run_job(days, what)]}
    texts = [tables.format_stages(staged)]
    py_spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:{bench.env['PATH']}")
    if py_spy is None:
        _empty_for(bench, what)
        texts.append(_with_cprofile(bench, command))
        return "\n\n".join(texts)
    for form in ("raw", "flamegraph"):
        _empty_for(bench, what)
        target = bench.work / f"profile-{what}.{'txt' if form == 'raw' else 'svg'}"
        recorder = [py_spy, "record", "-f", form, "-r", str(RATE), "-o", str(target), "--"]
        run([*recorder, *command], bench.env, bench.logs / "profile.log")
        if form == "raw":
            texts += busiest(target)
        else:
            texts.append(f"flame graph: {target}")
    return "\n\n".join(texts)


def busiest(path: Path) -> list[str]:
    """Return tables of functions by own and by cumulative time, from folded stacks."""
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
        tables.format_table(
            (title, "thread s"),
            [(name, f"{count / RATE:.2f}") for name, count in counts.most_common(MAX_FUNCTIONS)],
        )
        for title, counts in titled.items()
    ]


def _without_line(frame: str) -> str:
    return frame.rpartition(":")[0] + ")" if ":" in frame else frame or "(no Python frame)"


def _empty_for(bench: Bench, what: str) -> None:
    if what == "first":
        bench.empty_stores()


def _with_cprofile(bench: Bench, command: list[str]) -> str:
    target, text = bench.work / "profile.pstats", bench.work / "profile.txt"
    run([sys.executable, "-m", "cProfile", "-o", str(target), *command], bench.env, text)
    with text.open("w") as stream:
        pstats.Stats(str(target), stream=stream).sort_stats("tottime").print_stats(MAX_FUNCTIONS)
    return f"py-spy is not installed; cProfile of the main thread:\n{text.read_text()}"
