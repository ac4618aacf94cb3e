"""Measure 1, 2 and 4 concurrent runs: `python -m benchmarks.at_once`.

Each run loads a different month into empty stores, by `dagster job execute`, which bypasses the
run queue and its pools. BigQuery is the emulator. The stores are verified after each set of runs.
Everything shares one machine: CPU seconds show the cost of a run, step seconds the waiting time.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from statistics import mean

from benchmarks import steps
from benchmarks.bench import (
    CHECKOUT,
    PACKAGES,
    SERVICE,
    Bench,
    DaySpan,
    describe_machine,
    month_start,
)
from benchmarks.measure import Sample, cpu_of, run

STORES = ("postgres", "gcs", "bigquery")
HEADER = "runs at once | wall s | rows/s | CPU s a run | servers' CPU s a run"


@dataclass(frozen=True)
class Together:
    """Runs that started at the same time."""

    rows: int
    """Rows in every store afterwards."""
    wall: float
    """Seconds from the first start to the last end."""
    servers: float
    """CPU seconds of Postgres and the emulator during the runs."""
    samples: list[Sample]
    seconds: dict[str, list[float]]
    """Seconds of each run's step, with its checks, by store."""

    def row(self) -> str:
        """Format a row of the table."""
        count = len(self.samples)
        cells = [
            f"{count}",
            f"{self.wall:.1f}",
            f"{self.rows / self.wall:,.0f}",
            f"{mean(sample.cpu for sample in self.samples):.1f}",
            f"{self.servers / count:.1f}",
        ]
        for store in STORES:
            took = self.seconds[store]
            cells.append(f"{mean(took):.1f} ({min(took):.1f} to {max(took):.1f})")
        return " | ".join(cells)


def together(bench: Bench, count: int) -> Together:
    """Load `count` months at once into empty stores."""
    bench.empty_stores()
    bench.settle()
    months = [DaySpan(month_start(index), _last_day(index)) for index in range(count)]
    before, began = cpu_of(bench.servers), time.time()
    with ThreadPoolExecutor(count) as threads:
        samples = list(threads.map(lambda days: _execute(bench, days), months))
    wall, servers = time.time() - began, cpu_of(bench.servers) - before
    runs = [
        steps.durations(bench.dagster_home, run_id, began, began + wall)
        for run_id in steps.last_runs(bench.dagster_home, count)
    ]
    seconds = {store: [_step(stages, store) for stages in runs] for store in STORES}
    return Together(bench.verify(DaySpan.months(count)), wall, servers, samples, seconds)


def _execute(bench: Bench, days: DaySpan) -> Sample:
    log = bench.logs / f"at-once-{days.first}.log"
    return run(bench.job_command(days), bench.env, log)


def _last_day(index: int) -> date:
    return month_start(index + 1) - timedelta(days=1)


def _step(stages: dict[str, float], store: str) -> float:
    step = f"{SERVICE}__{store}_trips"
    return stages[step] + stages[f"{step}: checks"]


def main() -> None:
    """Run the benchmark and print its table."""
    parser = argparse.ArgumentParser("python -m benchmarks.at_once", description=__doc__)
    parser.add_argument("--runs", default="1,2,4", metavar="N,N", help="runs at once")
    parser.add_argument("--rows", type=int, default=100_000, help="rows a month")
    parser.add_argument("--work", type=Path, default=CHECKOUT / ".taxi" / "bench-at-once")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.runs.split(",")]
    bench = Bench(arguments.work, arguments.rows)
    try:
        with bench:
            for index in range(max(counts)):
                bench.month_file(index)
            print(f"{arguments.rows:,} rows a month; {describe_machine()}; job of {PACKAGES}")
            print(HEADER, *(f"{store} step s" for store in STORES), sep=" | ", flush=True)
            for count in counts:
                print(together(bench, count).row(), flush=True)
    finally:
        bench.clean()


if __name__ == "__main__":
    sys.exit(main())
