"""The environment of a benchmark: month files, embedded stack, DAGSTER_HOME and its commands."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks import steps
from benchmarks.measure import BenchmarkError, Sample, run

CHECKOUT = Path(__file__).parents[1]
SERVICE = "yellow"
ROWS = 1_369_765
"""Rows that TLC published for yellow in January 2021."""
FIRST_MONTH = date(2021, 1, 1)
PREFIXES = ("TAXI_", "POSTGRES_", "BIGQUERY_", "GCP_", "GCS_", "GOOGLE_", "DAGSTER_", "STORAGE_")
"""Prefixes of variables that measured runs must not inherit from the user."""
PACKAGES = "taxi_assets.definitions"
OUTSIDE_HOME = Path("/var/lib/taxi_assets")
"""Data of root's embedded Postgres if its user cannot access the home directory."""


@dataclass(frozen=True)
class DaySpan:
    """The days of a run, both ends inclusive."""

    first: date
    last: date

    @classmethod
    def months(cls, count: int) -> DaySpan:
        """Return the days of the first months."""
        return cls(FIRST_MONTH, month_start(count) - timedelta(days=1))

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def tags(self) -> str:
        """Dagster's run tags."""
        if self.first == self.last:
            return json.dumps({"dagster/partition": str(self.first)})
        start, end = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
        return json.dumps({start: str(self.first), end: str(self.last)})


@dataclass(frozen=True)
class Measured:
    """A run and the duration of its stages."""

    sample: Sample
    stages: dict[str, float]
    """Seconds by stage, in order."""


def month_start(index: int) -> date:
    """Return the first day of the month `index` months after the first."""
    year, month = divmod(FIRST_MONTH.month - 1 + index, 12)
    return date(FIRST_MONTH.year + year, month + 1, 1)


class Bench:
    """Shared state of the measured commands; a context manager that starts and stops the stack."""

    service = SERVICE
    file_name = "{service}_tripdata_{year}-{month}.csv.gz"
    baseline_module = "benchmarks.baseline"

    def __init__(self, work: Path, rows: int) -> None:
        self.work = work.absolute()
        self.rows = rows
        self.home = self.work / "home"
        self.dagster_home = self.work / "dagster_home"
        self.logs = self.work / "logs"
        self.months = self.work / f"months-{rows}"
        self.dagster = Path(sys.executable).parent / "dagster"
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(PREFIXES)
        }
        source = self.months / self.file_name
        self.env = inherited | {
            "PYTHONPATH": str(CHECKOUT),
            "TAXI_ENV_FILE": "none",
            "TAXI_SERVICES": self.service,
            "TAXI_HOME": str(self.home),
            "TAXI_SOURCE": str(source),
            "DAGSTER_HOME": str(self.dagster_home),
        }
        self.stores: dict[str, str] = {}
        self.servers: list[int] = []

    def __enter__(self) -> Self:
        self.clean()
        for folder in (self.home, self.dagster_home, self.logs, self.months):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / "dagster.yaml", self.dagster_home)
        # Dagster's commands would let a .env of the current folder override the environment.
        os.chdir(self.work)
        self._python("-m", "taxi_assets.local", "up")
        lines = self._python("-m", "taxi_assets.local", "env").splitlines()
        named = (line.removeprefix("export ").split("=", 1) for line in lines)
        self.stores = {name: shlex.split(value)[0] if value else "" for name, value in named}
        self.servers = self._servers()
        return self

    def __exit__(self, *_: object) -> None:
        self._python("-m", "taxi_assets.local", "down")

    def clean(self) -> None:
        """Stop the servers of an earlier benchmark and remove its data, except months and logs."""
        if self.home.is_dir():
            self._python("-m", "taxi_assets.local", "down")
            status = json.loads(self._python("-m", "taxi_assets.local", "status", "--json"))
            database = Path(status["postgres"]["folder"]).parent
            if OUTSIDE_HOME in database.parents:
                shutil.rmtree(database)
            shutil.rmtree(self.home)
        shutil.rmtree(self.dagster_home, ignore_errors=True)

    def month_file(self, index: int) -> Path:
        """Return the file of a month, generating it if it does not exist."""
        month = f"{month_start(index):%Y-%m}"
        year, number = month.split("-")
        path = self.months / self.file_name.format(service=self.service, year=year, month=number)
        if not path.exists():
            self.make_month(month, path)
        return path

    def make_month(self, month: str, path: Path) -> None:
        """Write a month file."""
        self._python("-m", "benchmarks.months", self.service, month, str(path), str(self.rows))

    def empty_stores(self) -> None:
        """Remove the service from all stores, including the baseline's, and settle."""
        self._python("-m", "benchmarks.stores", "empty", self.service, env=self._env("baseline"))
        self._python("-m", "benchmarks.stores", "empty", self.service, env=self._env("ny_taxi"))

    def run_baseline(self) -> Measured:
        """Run the straight-line script over the first month."""
        self.settle()
        month, path = f"{FIRST_MONTH:%Y-%m}", str(self.month_file(0))
        command = ["-m", self.baseline_module, self.service, month, path]
        log = self.logs / "baseline.log"
        sample = run([sys.executable, *command], self._env("baseline"), log, self.servers)
        return Measured(sample, json.loads(log.read_text().splitlines()[-1]))

    def run_job(self, days: DaySpan, name: str) -> Measured:
        """Run the service's job over the days."""
        job = ("-m", PACKAGES, "-j", f"{self.service}_daily", "--tags", days.tags)
        return self._execute(job, name)

    def measure_growing_table(
        self, rows: int, repeats: int, months: Sequence[int]
    ) -> dict[str, dict[str, Any]]:
        """Rewrite a day in Postgres tables of several sizes; return seconds by months."""
        arguments = (self.service, str(rows), str(repeats), *map(str, months))
        return json.loads(
            self._python("-m", "benchmarks.years", *arguments, env=self._env("years"))
        )

    def run_noop(self) -> Measured:
        """Run a job with one empty asset among the same definitions."""
        return self._execute(("-m", "benchmarks.noop", "-j", "nothing_job"), "noop")

    def run_bare(self) -> Measured:
        """Run a job with one empty asset and none of the package's definitions."""
        return self._execute(("-m", "benchmarks.bare", "-j", "nothing_job"), "bare")

    def job_command(self, days: DaySpan) -> list[str]:
        """Return the command of `run_job`, for a profiler."""
        job = ["-m", PACKAGES, "-j", f"{self.service}_daily", "--tags", days.tags]
        return [str(self.dagster), "job", "execute", *job]

    def verify(self, days: DaySpan, stores: str = "ny_taxi") -> int:
        """Return the number of rows, which is the same in all stores.

        Raises:
            BenchmarkError: the rows of a store differ from those of the month files.
        """
        months = (days.last.year - FIRST_MONTH.year) * 12 + days.last.month
        files = [str(self.month_file(index)) for index in range(months)]
        arguments = (
            "-m",
            "benchmarks.verify",
            self.service,
            str(days.first),
            str(days.last),
            *files,
        )
        digests = json.loads(self._python(*arguments, env=self._env(stores)))
        if len(set(digests.values())) != 1:
            raise BenchmarkError(f"{days.first} to {days.last}: the stores differ: {digests}")
        return int(digests["files"].split(":")[0])

    def _execute(self, job: Sequence[str], name: str) -> Measured:
        self.settle()
        log = self.logs / f"{name}.log"
        began = time.time()
        sample = run([self.dagster, "job", "execute", *job], self.env, log, self.servers)
        (run_id,) = steps.last_runs(self.dagster_home, 1)
        stages = steps.durations(self.dagster_home, run_id, began, began + sample.wall)
        return Measured(sample, stages)

    def settle(self) -> None:
        """Write dirty pages of earlier runs to disk."""
        self._python("-m", "benchmarks.stores", "settle", env=self._env("ny_taxi"))

    def _env(self, stores: str) -> dict[str, str]:
        """Return the stores' addresses, with tables and a bucket for the baseline."""
        names = {"POSTGRES_SCHEMA": stores, "BIGQUERY_DATASET": stores}
        bucket = Path(self.stores["TAXI_LAKE"])
        if stores != "ny_taxi":
            names["TAXI_LAKE"] = str(bucket.with_name(stores))
        return self.env | self.stores | names

    def _servers(self) -> list[int]:
        """Return the process ids of Postgres and the emulator, digests by their ports."""
        ports = {
            int(self.stores["POSTGRES_PORT"]),
            int(self.stores["BIGQUERY_ENDPOINT"].rpartition(":")[2]),
        }
        listening = {
            connection.laddr.port: connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
            and connection.laddr.port in ports
            and connection.pid
        }
        if set(listening) != ports:
            raise BenchmarkError(f"only {listening} listen at {ports}")
        return list(listening.values())

    def _python(self, *arguments: str, env: dict[str, str] | None = None) -> str:
        """Run Python without measuring it, and return its output."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env=env or self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
        return done.stdout


def describe_machine() -> dict[str, Any]:
    """Return the hardware and versions on which the numbers depend."""
    names = ("dagster", "pandas", "pyarrow", "psycopg", "pgpq", "duckdb", "bqemulator")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": sys.version.split()[0],
        **{name: version(name) for name in names},
    }
