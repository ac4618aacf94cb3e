"""Measure how long a month takes through all five assets, compared with a baseline.

Every run is a new process on a separate stack, and its rows are verified. `first` load: all three
stores are empty (table dropped in Postgres and deleted in BigQuery, the service's folders removed
from the lake). `rewrite`: the same month again. `baseline`: a script without Dagster that has the
same outputs. `noop`: a Dagster job with one empty asset among the package's definitions; `bare`:
without them. `day`: one run per day. `growth`: several months in one run, and one of them
rewritten. `table`: a day rewritten in Postgres tables of 1, 12 and 33 months (1,004 days).
"""

from __future__ import annotations

import argparse
import compileall
import json
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks import flame, peers, tables
from benchmarks.bench import CHECKOUT, FIRST_MONTH, ROWS, Bench, DaySpan, Measured, describe_machine
from benchmarks.measure import BenchmarkError

NAMES = ("bare", "noop", "baseline", "first", "rewrite", "day", "growth", "table")
PEERS = {"duckdb": "DuckDB, two stores", "dlt": "dlt with ADBC, two stores"}
"""Measured only if `--only` names them; pip installs them the first time."""
SINGLE_DAYS = 7
TABLE_MONTHS = (1, 12, 33)
TABLE_ROWS = 4_000
"""Per day; 33 months are 0.6 GiB."""
TABLE_REPEATS = 9
MONTH = DaySpan.months(1)
DAY = DaySpan(FIRST_MONTH, FIRST_MONTH)
NOTE = (
    "`first load` starts with empty stores: table dropped in Postgres and deleted in BigQuery, "
    "lake folders removed. Data work: wall time minus that of `noop`; for the baseline, the sum of "
    "its stages, without imports. RSS is that of the process, not of the servers. Dirty pages are "
    "written to disk before each run; rows are verified after it."
)


@dataclass
class Results:
    """All measurements so far, by name, with one entry per repeat."""

    runs: dict[str, list[Measured]] = field(default_factory=dict[str, list[Measured]])
    growth: dict[int, list[Measured]] = field(default_factory=dict[int, list[Measured]])
    years: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    stored_rows: int = 0

    def add(self, name: str, measured: Measured) -> None:
        """Add a repeat."""
        self.runs.setdefault(name, []).append(measured)
        self.print_progress(name, measured)

    def add_growth(self, months: int, measured: Measured) -> None:
        """Add a repeat of a run of several months."""
        self.growth.setdefault(months, []).append(measured)
        self.print_progress(f"{months} months", measured)

    @staticmethod
    def print_progress(name: str, measured: Measured) -> None:
        """Print a measurement to stderr as soon as it is known."""
        sample = measured.sample
        print(
            f"# {name}: {sample.wall:.2f} s, {sample.rss / tables.MIB:.0f} MiB, "
            f"others {sample.others:.2f} cores",
            file=sys.stderr,
            flush=True,
        )

    def as_json(self) -> str:
        """Return all samples as JSON."""
        every = self.runs | {f"growth {months}": runs for months, runs in self.growth.items()}
        samples = {
            name: [{**asdict(run.sample), "stages": run.stages} for run in runs]
            for name, runs in every.items()
        }
        return json.dumps(
            {"machine": describe_machine(), "samples": samples, "years": self.years}, indent=1
        )


def empty_runs(bench: Bench, only: set[str], results: Results) -> None:
    """Run an empty job once, without the package's definitions and with them."""
    if "bare" in only:
        results.add("bare", bench.run_bare())
    if "noop" in only:
        results.add("noop", bench.run_noop())


def month_runs(bench: Bench, only: set[str], results: Results) -> None:
    """Run each benchmark of a single month once; repeats are interleaved."""
    empty_runs(bench, only, results)
    if "baseline" in only:
        bench.empty_stores()
        results.add("baseline", bench.run_baseline())
        bench.verify(MONTH, "baseline")
    for name, title in PEERS.items():
        if name in only:
            results.add(title, peers.measure(bench, name))
    if only & {"first", "rewrite"}:
        bench.empty_stores()
        first = bench.run_job(MONTH, "first")
        results.stored_rows = bench.verify(MONTH)
        if "first" in only:
            results.add("first load", first)
    if "rewrite" in only:
        results.add("rewrite", bench.run_job(MONTH, "rewrite"))
        bench.verify(MONTH)


def day_runs(bench: Bench, only: set[str], results: Results) -> None:
    """Load single days into empty stores, one run per day, interleaved with empty runs."""
    bench.empty_stores()
    for offset in range(SINGLE_DAYS):
        empty_runs(bench, only, results)
        day = FIRST_MONTH + timedelta(days=offset)
        results.add("one day", bench.run_job(DaySpan(day, day), "day"))
        bench.verify(DaySpan(FIRST_MONTH, day))


def growth_runs(bench: Bench, months: list[int], repeats: int, results: Results) -> None:
    """Load 1, 3, ... months in one run, interleaved, and rewrite one month after each round."""
    for index in range(max(months)):
        bench.month_file(index)
    for _ in range(repeats):
        for count in months:
            bench.empty_stores()
            days = DaySpan.months(count)
            measured = bench.run_job(days, f"growth-{count}")
            bench.verify(days)
            results.add_growth(count, measured)
        if max(months) > 1:
            name = f"rewrite of one month of {max(months)}"
            results.add(name, bench.run_job(MONTH, "rewrite-among"))
            bench.verify(DaySpan.months(max(months)))


def other_runs(
    bench: Bench, only: set[str], months: list[int], repeats: int, results: Results
) -> None:
    """Run the benchmarks that are not about a single month."""
    if "day" in only:
        day_runs(bench, only, results)
    if "table" in only:
        results.years = bench.measure_growing_table(TABLE_ROWS, TABLE_REPEATS, TABLE_MONTHS)
    if "growth" in only:
        growth_runs(bench, months, repeats, results)


def report(results: Results, repeats: int, rows: int) -> str:
    """Return all tables."""
    at = f"{datetime.now(tz=UTC):%Y-%m-%d}"
    known = ", ".join(f"{name} {value}" for name, value in describe_machine().items())
    stored = f", {results.stored_rows:,} stored" if results.stored_rows else ""
    title = (
        f"A month of yellow: {rows:,} rows in the file"
        f"{stored}; median (min..max) of {repeats}; {at}; {known}"
    )
    text = [title]
    if results.runs:
        file_rows = {name: rows for name in results.runs if is_month(name)}
        text += ["", tables.format_costs(results.runs, file_rows), "", NOTE]
    apart = [
        {name: results.runs[name]} for name in ("baseline", *PEERS.values()) if name in results.runs
    ]
    staged = {name: runs for name, runs in results.runs.items() if {name: runs} not in apart}
    for part in (*apart, staged):
        text += ["", tables.format_stages(part)] if part else []
    noop = (
        tables.compute_spread(results.runs["noop"], "wall").middle
        if "noop" in results.runs
        else 0.0
    )
    if "one day" in results.runs:
        text += ["", day_mode(results, noop)]
    if results.years:
        text += ["", tables.format_years(results.years)]
    if results.growth:
        text += ["", tables.format_growth(results.growth, noop, rows)]
    return "\n".join(text)


def is_month(name: str) -> bool:
    """Return whether a benchmark loads a month."""
    return name not in {"bare", "noop", "one day"}


def day_mode(results: Results, noop: float) -> str:
    """Compare runs of one day with a run of a month."""
    each = tables.compute_spread(results.runs["one day"], "wall").middle
    text = f"One day: {each:.2f} s, of which {each - noop:.2f} s beyond a no-op run. "
    text += f"31 runs of a day would take {31 * each:.0f} s (scaled from {SINGLE_DAYS})"
    if "first load" in results.runs:
        chunk = tables.compute_spread(results.runs["first load"], "wall").middle
        text += f", one run of 31 days takes {chunk:.1f} s: {31 * each / chunk:.1f} times as fast"
    return f"{text}."


def parse_arguments() -> argparse.Namespace:
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
        help="folder for month files (reused by the next benchmark), stores and logs",
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the stores, with their servers stopped"
    )
    parser.add_argument(
        "--profile",
        choices=("first", "rewrite", "noop", "day"),
        help="profile this run instead of measuring",
    )
    return parser.parse_args()


def main() -> int:
    """Run the benchmarks and print their tables."""
    arguments = parse_arguments()
    only, months = set(arguments.only), sorted(map(int, arguments.months.split(",")))
    bench, results = Bench(arguments.work, arguments.rows), Results()
    error: BenchmarkError | None = None
    # pip compiles an installed package; an editable one would be compiled at every start.
    compileall.compile_dir("taxi_assets", quiet=1)
    try:
        with bench:
            if only != {"table"}:
                bench.month_file(0)
            # Dagster creates its SQLite files in the first run, which is not measured.
            bench.run_noop()
            if arguments.profile:
                days = DAY if arguments.profile == "day" else MONTH
                print(flame.profile(bench, arguments.profile, days))
                return 0
            for _ in range(arguments.repeats):
                month_runs(bench, only, results)
            other_runs(bench, only, months, arguments.repeats, results)
    except BenchmarkError as raised:
        error = raised
    finally:
        if results.runs or results.years:
            (bench.work / "results.json").write_text(results.as_json())
        if not arguments.keep:
            bench.clean()
    if results.runs or results.years:
        print(report(results, arguments.repeats, arguments.rows))
    if error:
        print(f"stopped early: {error}", file=sys.stderr)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
