"""docs/extending.md, followed: a column, a service, a rule, a store, in a copy of the package."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES, YELLOW
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.stores import Runs

PAGE = REPOSITORY / "docs" / "extending.md"
BLOCK = re.compile(r"^( *)```(diff|python)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"`(taxi_assets/[\w/]+\.py)`")
DAY = "2021-01-05"
ENTRY = "FHV = Service("
"""The example of a service is one that the package has."""
SHUTTLE = Service(
    name="shuttle",
    pickup="pickup_at",
    columns=(
        Column("pickup_at", "time", ""),
        Column("stop_id", "id", ""),
        Column("total_amount", "amount", "", roles=("total",)),
    ),
)


def changed(text: str, diff: str) -> str:
    """Return a file's text after a diff, whose context must occur once."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        assert text.count(before) == 1, f"the page changes what is not there once: {before}"
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a checkout with all changes of the page."""
    checkout = tmp_path_factory.mktemp("extended")
    shutil.copytree(REPOSITORY / "taxi_assets", checkout / "taxi_assets")
    page = PAGE.read_text()
    for block in BLOCK.finditer(page):
        (name,) = FILE.findall(page, 0, block.start())[-1:]
        path, content = checkout / name, textwrap.dedent(block[3])
        if ENTRY in content:
            take_out(checkout, path, content)
        path.write_text(changed(path.read_text(), content) if block[2] == "diff" else content)
    return checkout


def take_out(checkout: Path, path: Path, diff: str) -> None:
    """Undo a diff that the package already has, which removes one service."""
    signs = {"+": "-", "-": "+"}
    undo = "".join(
        line if line == "@@\n" else signs.get(line[0], line[0]) + line[1:]
        for line in diff.splitlines(keepends=True)
    )
    path.write_text(changed(path.read_text(), undo))
    command = (
        "from taxi_assets.definitions import defs; print(len(defs.schedules), defs.jobs[0].name)"
    )
    for services, expected in (("yellow", "yellow_daily"), ("fhv", "TAXI_SERVICES names 'fhv'")):
        completed = subprocess.run(
            [sys.executable, "-P", "-c", command],
            env=os.environ | {"PYTHONPATH": str(checkout), "TAXI_SERVICES": services},
            capture_output=True,
            text=True,
            check=False,
            cwd=checkout,
        )
        assert expected in completed.stdout + completed.stderr


def run(checkout: Path, service: str, template: Path, *more: str) -> None:
    tags = json.dumps({"dagster/partition": DAY})
    job = ["-m", "taxi_assets.definitions", "-j", f"{service}_daily", "--tags", tags]
    completed = subprocess.run(
        [sys.executable, "-P", "-m", "dagster", "job", "execute", *job, *more],
        env=os.environ
        | {"PYTHONPATH": str(checkout), "TAXI_SOURCE": str(template)}
        | {"TAXI_DROP": "zero_passengers,null_passengers,absurd_distance"}
        | {"TAXI_SERVICES": "yellow,fhv,shuttle"}
        | {"POSTGRES_SCHEMA": "extended", "BIGQUERY_DATASET": "extended"},
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]


def with_fee_and_a_long_trip(sample: Path, month: Path) -> None:
    """Return the sample with a column `night_fee` and one absurdly long trip on the day."""
    with gzip.open(sample, "rt", newline="") as rows, gzip.open(month, "wt", newline="") as file:
        reader, writer = csv.reader(rows), csv.writer(file, lineterminator="\n")
        names = next(reader)
        writer.writerow([*names, "night_fee"])
        pickup, distance, people = map(
            names.index, ("tpep_pickup_datetime", "trip_distance", "passenger_count")
        )
        long = False
        for row in reader:
            if not long and row[pickup].startswith(DAY) and row[people] not in ("", "0"):
                row[distance], long = "9999", True
            writer.writerow([*row, "1.5"])
        assert long


def test_documented_changes_work(
    extended: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_BUCKET", "extended")
    template = tmp_path / "{service}_{year}-{month}.csv.gz"
    write_sample_month(YELLOW, Month(2021, 1), tmp_path / "sample.csv.gz")
    with_fee_and_a_long_trip(tmp_path / "sample.csv.gz", tmp_path / "yellow_2021-01.csv.gz")
    write_sample_month(SHUTTLE, Month(2021, 1), tmp_path / "shuttle_2021-01.csv.gz")
    write_sample_month(SERVICES["fhv"], Month(2021, 1), tmp_path / "fhv_2021-01.csv.gz")
    for service in ("yellow", "yellow", "fhv", "shuttle"):
        run(extended, service, template)

    runs = Runs()
    for service, run_record in zip(
        ("shuttle", "fhv", "yellow"), runs.instance.get_run_records(limit=3), strict=True
    ):
        run_id = run_record.dagster_run.run_id
        assert run_record.dagster_run.job_name == f"{service}_daily"
        days = {key: event.metadata for (key, _), event in runs.materializations(run_id).items()}
        names = ("raw", "cleaned", "postgres", "gcs", "bigquery", "duckdb")
        assert set(days) == {f"{service}/{name}_trips" for name in names}
        rows = days[f"{service}/duckdb_trips"]["rows"].value
        assert rows > 100
        assert rows == days[f"{service}/cleaned_trips"]["rows"].value
        dropped = days[f"{service}/cleaned_trips"].get("dropped_absurd_distance")
        assert (dropped.value if dropped else None) == (1 if service == "yellow" else None)
        with duckdb.connect(home / "taxi" / "trips.duckdb", read_only=True) as connection:
            table = f"{service}_{'trip' if service == 'fhv' else 'cab'}_data"
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            assert row == (rows,)
        for evaluation in runs.evaluations(run_id).values():
            assert evaluation.passed or evaluation.severity.value == "WARN"
    lake = home / "taxi" / "lake" / "extended" / "yellow"
    fees = duckdb.sql(f"SELECT DISTINCT night_fee FROM read_parquet('{lake}/*/*.parquet')")
    assert fees.fetchall() == [(1.5,)]
