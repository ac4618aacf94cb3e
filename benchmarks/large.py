"""Measure time and memory of a high-volume month of 20 million rows, compared with a baseline.

`python -m benchmarks.large` generates a Parquet month of 24 columns and loads it through all five
assets in one run of 31 days, and by a straight-line script with the same outputs. Rows are counted
in every store after each. The limits hold for an otherwise idle machine with two cores; `others` is
the number of cores that everything else used.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.bench import CHECKOUT, Bench, DaySpan, Measured, describe_machine
from benchmarks.measure import BenchmarkError
from benchmarks.tables import MIB
from taxi_assets.tlc.services import FHVHV

ROWS = 20_000_000
MAX_SECONDS, MAX_MIB = 150, 1_229
"""Of the run through all five assets."""
MONTH = DaySpan.months(1)


class LargeBench(Bench):
    """The benchmark's stack for a large Parquet month."""

    service = FHVHV.name
    file_name = "{service}_tripdata_{year}-{month}.parquet"
    baseline_module = "benchmarks.large_baseline"

    def make_month(self, month: str, path: Path) -> None:
        """Write a month file."""
        self._python("-m", "benchmarks.large_month", month, str(path), str(self.rows))

    def count(self, where: str) -> int:
        """Return the number of rows, which is the same in every store.

        Raises:
            BenchmarkError: the stores hold different numbers of rows.
        """
        rows_by_store = json.loads(
            self._python("-m", "benchmarks.stores", "count", self.service, env=self._env(where))
        )
        if len(set(rows_by_store.values())) != 1:
            raise BenchmarkError(f"{where}: the stores differ: {rows_by_store}")
        return int(rows_by_store["postgres"])


def format_row(name: str, rows: int, measured: Measured) -> str:
    """Format a row of the table."""
    sample = measured.sample
    return (
        f"| {name} | {rows:,} | {sample.wall:.0f} | {sample.cpu:.0f} | {sample.servers:.0f} "
        f"| {sample.rss / MIB:,.0f} | {sample.others:.2f} |"
    )


def main() -> int:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser("python -m benchmarks.large", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--work", type=Path, default=CHECKOUT / ".taxi" / "bench-large")
    parser.add_argument("--skip-baseline", action="store_true")
    arguments = parser.parse_args()
    lines = list[str]()
    bench = LargeBench(arguments.work, arguments.rows)
    with bench:
        bench.month_file(0)
        bench.run_noop()
        if not arguments.skip_baseline:
            bench.empty_stores()
            baseline = bench.run_baseline()
            lines.append(format_row("baseline", bench.count("baseline"), baseline))
            lines += [f"|   {name} | | {s:.0f} | | | | |" for name, s in baseline.stages.items()]
        bench.empty_stores()
        run = bench.run_job(MONTH, "large")
        lines.append(format_row("all five assets", bench.count("ny_taxi"), run))
        lines += [f"|   {name} | | {seconds:.0f} | | | | |" for name, seconds in run.stages.items()]
    bench.clean()
    print(", ".join(f"{name} {value}" for name, value in describe_machine().items()))
    print("| run | rows | wall s | CPU s | servers' CPU s | peak RSS MiB | others, cores |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    print("\n".join(lines))
    good = run.sample.wall <= MAX_SECONDS and run.sample.rss <= MAX_MIB * MIB
    print(f"{'within' if good else 'above'} {MAX_SECONDS} s and {MAX_MIB:,} MiB")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
