"""How long a month takes through all five assets, beside the baseline for the same outputs.

Measured on a stack of its own; each figure is that of a fresh process, rows are verified after
each. `first load`: all three stores were emptied before (table dropped in Postgres, table deleted
in BigQuery, the service's folders removed from the lake). `rewrite`: the same month again.
`baseline`: one script without Dagster for the same outputs. `noop`: a Dagster job with
one empty asset among the same definitions; `bare`: without them. `day`: single days on the running
stack, one run each. `growth`: more months in one run, and one month rewritten beside the others.
`table`: one day rewritten in Postgres tables of 1, 12 and 33 months (1,004 days).
"""

from __future__ import annotations

import argparse
import compileall
import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import flame, peers, tables
from benchmarks.bench import CHECKOUT, FIRST_MONTH, ROWS, Bench, DaySpan, Measured, facts
from benchmarks.measure import BenchmarkError

NAMES = ("bare", "noop", "baseline", "first", "rewrite", "day", "growth", "table")
PEERS = {"duckdb": "DuckDB, two stores", "dlt": "dlt with ADBC, two stores"}
"""Measured if they are named; pip installs them at the first time."""
SINGLE_DAYS = 5
TABLE_MONTHS = (1, 12, 33)
TABLE_ROWS = 4_000
"""A day; 33 months of them are 0.6 GiB."""
TABLE_REPEATS = 9
MONTH = DaySpan.months(1)
NOTE = (
    "`first load` begins with emptied stores: table dropped in Postgres and deleted in BigQuery, "
    "lake folders removed. Data work: wall less that of `noop`; the baseline's is the sum of its "
    "stages, without imports. RSS is the process's, not the servers'. Dirty pages are written out "
    "before each run, rows are verified after it."
)


@dataclass
class Found:
    """Everything measured so far, by name, one entry a repeat."""

    runs: dict[str, list[Measured]] = field(default_factory=dict[str, list[Measured]])
    growth: dict[int, list[Measured]] = field(default_factory=dict[int, list[Measured]])
    years: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    stored_rows: int = 0

    def add(self, name: str, measured: Measured) -> None:
        """Note one repeat."""
        self.runs.setdefault(name, []).append(measured)
        self.say(name, measured)

    def add_growth(self, months: int, measured: Measured) -> None:
        """Note one repeat of a run of so many months."""
        self.growth.setdefault(months, []).append(measured)
        self.say(f"{months} months", measured)

    @staticmethod
    def say(name: str, measured: Measured) -> None:
        """Say what was measured while the others are waited for."""
        sample = measured.sample
        print(
            f"# {name}: {sample.wall:.2f} s, {sample.rss / tables.MIB:.0f} MiB, "
            f"others {sample.others:.2f} cores",
            file=sys.stderr,
            flush=True,
        )

    def as_json(self) -> str:
        """All samples."""
        every = self.runs | {f"growth {months}": runs for months, runs in self.growth.items()}
        samples = {
            name: [{**run.sample.facts(), "stages": run.stages} for run in runs]
            for name, runs in every.items()
        }
        return json.dumps({"facts": facts(), "samples": samples, "years": self.years}, indent=1)


def month_runs(bench: Bench, only: set[str], found: Found) -> None:
    """One repeat of everything about a single month; taken in turns, so that all see the same."""
    if "bare" in only:
        found.add("bare", bench.bare())
    if "noop" in only:
        found.add("noop", bench.noop())
    if "baseline" in only:
        bench.empty()
        found.add("baseline", bench.baseline())
        bench.verify(MONTH, "baseline")
    for name, title in PEERS.items():
        if name in only:
            found.add(title, peers.measure(bench, name))
    if only & {"first", "rewrite"}:
        bench.empty()
        first = bench.job(MONTH, "first")
        found.stored_rows = bench.verify(MONTH)
        if "first" in only:
            found.add("first load", first)
    if "rewrite" in only:
        found.add("rewrite", bench.job(MONTH, "rewrite"))
        bench.verify(MONTH)


def day_runs(bench: Bench, found: Found) -> None:
    """Single days into empty stores, one run each."""
    bench.empty()
    for offset in range(SINGLE_DAYS):
        day = FIRST_MONTH + timedelta(days=offset)
        found.add("one day", bench.job(DaySpan(day, day), "day"))
        bench.verify(DaySpan(FIRST_MONTH, day))


def growth_runs(bench: Bench, months: list[int], repeats: int, found: Found) -> None:
    """First loads of more and more months in turns, each time one month rewritten beside them."""
    for index in range(max(months)):
        bench.month_file(index)
    for _ in range(repeats):
        for count in months:
            bench.empty()
            days = DaySpan.months(count)
            measured = bench.job(days, f"growth-{count}")
            bench.verify(days)
            found.add_growth(count, measured)
        if max(months) > 1:
            name = f"rewrite of one month of {max(months)}"
            found.add(name, bench.job(MONTH, "rewrite-among"))
            bench.verify(DaySpan.months(max(months)))


def other_runs(bench: Bench, only: set[str], months: list[int], repeats: int, found: Found) -> None:
    """Run the benchmarks that are not about a single month."""
    if "day" in only:
        day_runs(bench, found)
    if "table" in only:
        found.years = bench.table(TABLE_ROWS, TABLE_REPEATS, TABLE_MONTHS)
    if "growth" in only:
        growth_runs(bench, months, repeats, found)


def report(found: Found, repeats: int, rows: int) -> str:
    """All tables."""
    at = f"{datetime.now(tz=UTC):%Y-%m-%d}"
    known = ", ".join(f"{name} {value}" for name, value in facts().items())
    stored = f", {found.stored_rows:,} stored" if found.stored_rows else ""
    title = (
        f"A month of yellow: {rows:,} rows in the file"
        f"{stored}; median (min..max) of {repeats}; {at}; {known}"
    )
    text = [title]
    if found.runs:
        whole = {name: rows for name in found.runs if whole_month(name)}
        text += ["", tables.costs(found.runs, whole), "", NOTE]
    apart = [
        {name: found.runs[name]} for name in ("baseline", *PEERS.values()) if name in found.runs
    ]
    staged = {name: runs for name, runs in found.runs.items() if {name: runs} not in apart}
    for part in (*apart, staged):
        text += ["", tables.stages(part)] if part else []
    noop = tables.spread(found.runs["noop"], "wall").middle if "noop" in found.runs else 0.0
    if "one day" in found.runs:
        text += ["", day_mode(found, noop)]
    if found.years:
        text += ["", tables.years(found.years)]
    if found.growth:
        text += ["", tables.growth(found.growth, noop, rows)]
    return "\n".join(text)


def whole_month(name: str) -> bool:
    """Whether a measured command moves one whole month."""
    return name not in {"bare", "noop", "one day"}


def day_mode(found: Found, noop: float) -> str:
    """Day mode against chunk mode."""
    each = tables.spread(found.runs["one day"], "wall").middle
    text = f"One day: {each:.2f} s, of which {each - noop:.2f} s beyond a no-op run. "
    text += f"31 runs of a day would take {31 * each:.0f} s (scaled from {SINGLE_DAYS})"
    if "first load" in found.runs:
        chunk = tables.spread(found.runs["first load"], "wall").middle
        text += f", one run of 31 days takes {chunk:.1f} s: {31 * each / chunk:.1f} times as fast"
    return f"{text}."


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument(
        "--months", default="1,3,6", metavar="N,N", help="sizes for `growth` (default 1,3,6)"
    )
    parser.add_argument("--only", nargs="+", choices=(*NAMES, *PEERS),
                        default=list(NAMES), metavar="NAME",
                        help=f"measure only these: {', '.join((*NAMES, *PEERS))}")  # fmt: skip
    parser.add_argument("--rows", type=int, default=ROWS, help=f"rows a month (default {ROWS})")
    parser.add_argument(
        "--work",
        type=Path,
        default=CHECKOUT / ".taxi" / "bench",
        help="folder for month files (kept for the next time), stores and logs",
    )
    parser.add_argument("--keep", action="store_true", help="keep the stores, servers stopped")
    parser.add_argument(
        "--profile", choices=("first", "rewrite", "noop"), help="no table: profile this run instead"
    )
    return parser.parse_args()


def main() -> int:
    """Measure and print."""
    asked = options()
    only, months = set(asked.only), sorted(map(int, asked.months.split(",")))
    bench, found = Bench(asked.work, asked.rows), Found()
    error: BenchmarkError | None = None
    # As pip does for a package that is installed; an editable one is compiled at every start.
    compileall.compile_dir("taxi_assets", quiet=1)
    try:
        with bench:
            if only != {"table"}:
                bench.month_file(0)
            bench.noop()  # Dagster makes its SQLite files at the first run: nobody's cost
            if asked.profile:
                print(flame.profile(bench, asked.profile, MONTH))
                return 0
            for _ in range(asked.repeats):
                month_runs(bench, only, found)
            other_runs(bench, only, months, asked.repeats, found)
    except BenchmarkError as raised:
        error = raised
    finally:
        if found.runs or found.years:
            (bench.work / "results.json").write_text(found.as_json())
        if not asked.keep:
            bench.clean()
    if found.runs or found.years:
        print(report(found, asked.repeats, asked.rows))
    if error:
        print(f"stopped early: {error}", file=sys.stderr)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
