"""Measure the events of a month in Dagster's event logs and in ours, on SQLite and on Postgres.

    python -m benchmarks.events [ROUNDS]

The month has one row per day, so the time is almost entirely Dagster's. The four storages are
interleaved; each run is `dagster job execute` on an empty history.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import yaml

from benchmarks.measure import Sample, Spread, run
from taxi_assets import local
from taxi_assets.tlc.services import SERVICES

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
GREEN = SERVICES["green"]
MONTH, DAYS = "2021-01", 31
STORAGES = ("stock SQLite", "ours SQLite", "stock Postgres", "ours Postgres")


def main() -> None:
    """Print a table of wall and CPU seconds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    folder = Path(tempfile.mkdtemp(prefix="taxi-events-"))
    env = {key: value for key, value in os.environ.items() if not key.startswith("TAXI_")}
    env |= {"TAXI_HOME": str(folder / "taxi"), "TAXI_SOURCE": write_month(folder)}
    with running_stack(env, folder):
        samples: dict[str, list[Sample]] = {storage: [] for storage in STORAGES}
        for number in range(rounds):
            for storage, measured in samples.items():
                home = folder / f"{storage} {number}"
                write_settings(home, storage, Path(env["TAXI_HOME"]))
                measured.append(load_month(env | {"DAGSTER_HOME": str(home)}, home))
    shutil.rmtree(folder)
    print("| event log | wall s | CPU s |\n| --- | --: | --: |")
    for storage, measured in samples.items():
        columns = (
            Spread.of([getattr(sample, name) for sample in measured]).text(1)
            for name in ("wall", "cpu")
        )
        print(f"| {storage} | {' | '.join(columns)} |")


def write_month(folder: Path) -> str:
    """Write a month file with one trip per day, and return its TAXI_SOURCE."""
    rest = "N,1,74,42,1,1.50,6.5,0.5,0.5,0,0,,0.3,10.0,1,1,0"
    lines = [
        f"2,{MONTH}-{day:02d} 08:00:00,{MONTH}-{day:02d} 08:10:00,{rest}"
        for day in range(1, DAYS + 1)
    ]
    text = "\n".join([",".join(GREEN.header), *lines]) + "\n"
    (folder / f"green_tripdata_{MONTH}.csv.gz").write_bytes(gzip.compress(text.encode()))
    return str(folder / "{service}_tripdata_{year}-{month}.csv.gz")


@contextmanager
def running_stack(env: dict[str, str], folder: Path) -> Iterator[None]:
    """Run a separate embedded stack."""
    command = [sys.executable, "-m", "taxi_assets.local"]
    subprocess.run([*command, "up"], env=env, cwd=folder, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run([*command, "down"], env=env, cwd=folder, check=True, capture_output=True)


def write_settings(home: Path, storage: str, taxi_home: Path) -> None:
    """Write a DAGSTER_HOME with the repository's settings; create a database on Postgres."""
    settings = dict(SETTINGS)
    if storage.startswith("stock"):
        del settings["instance_class"]
    if storage.endswith("Postgres"):
        stack = local.ensure_stack_running(taxi_home)
        database = storage.replace(" ", "_").lower()
        url = (
            f"postgresql://{stack.postgres_user}:{stack.postgres_password}@{stack.postgres_host}"
            f":{stack.postgres_port}"
        )
        with psycopg.connect(f"{url}/{stack.postgres_dbname}", autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {database}")
            connection.execute(f"CREATE DATABASE {database}")
        settings["storage"] = {"postgres": {"postgres_url": f"{url}/{database}"}}
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))


def load_month(env: dict[str, str], home: Path) -> Sample:
    """Load the month once."""
    tags = {
        "dagster/asset_partition_range_start": f"{MONTH}-01",
        "dagster/asset_partition_range_end": f"{MONTH}-{DAYS}",
    }
    dagster = Path(sys.executable).with_name("dagster")
    job = ["job", "execute", "-m", "taxi_assets.definitions", "-j", "green_daily"]
    return run([dagster, *job, "--tags", json.dumps(tags)], env, home / "log")


if __name__ == "__main__":
    main()
