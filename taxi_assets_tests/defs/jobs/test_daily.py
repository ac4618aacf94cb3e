"""The main jobs, end to end, into a real Postgres, a lake and the BigQuery emulator."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import RealRows
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

DAGSTER = str(Path(sys.executable).with_name("dagster"))
GREEN = SERVICES["green"]
ASSET_NAMES = ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips")

# Rows of the file; with a pickup in another month; with zero passengers; without passengers.
GREEN_MONTHS = {
    "2020-10": (95_120, 9, 259, 42_510),
    "2020-11": (88_605, 2, 192, 40_114),
    "2020-12": (83_130, 3, 210, 36_838),
}


def write_month(folder: Path, service: Service, month: str, lines: list[str]) -> str:
    """Write a month file of given lines; return its TAXI_SOURCE."""
    text = "\n".join([",".join(service.header), *lines]) + "\n"
    path = folder / f"{service.name}_tripdata_{month}.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    return str(folder / "{service}_tripdata_{year}-{month}.csv.gz")


def make_trip_line(day: str, total: float = 10.0, passengers: str = "1") -> str:
    """Return a green line."""
    times = f"{day} 08:00:00,{day} 08:10:00"
    return f"2,{times},N,1,74,42,{passengers},1.50,6.5,0.5,0.5,0,0,,0.3,{total},1,1,0"


def test_real_day_from_the_command_line(
    real_rows: RealRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", real_rows.template)
    completed = subprocess.run(
        [DAGSTER, "job", "execute", "-m", "taxi_assets.definitions", "-j", "green_daily"]
        + ["--tags", json.dumps({"dagster/partition": "2020-10-05"})],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr[-3000:]
    day = date(2020, 10, 5)
    expected = stores.pandas_totals(real_rows.path("green", "2020-10"), GREEN)[day]
    expected_totals = {day: expected}
    totals = stores.store_totals(GREEN)
    assert totals == {
        "postgres": expected_totals,
        "lake": expected_totals,
        "bigquery": expected_totals,
    }


@pytest.mark.parametrize("month", GREEN_MONTHS)
def test_real_month_lands_in_every_store_as_counted_by_pandas(
    month: str, real_rows: RealRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", real_rows.template)
    runs = Runs()
    days = pd.Period(month).days_in_month
    result = runs.run("green", f"{month}-01", f"{month}-{days}")
    assert result.success, stores.failure(result)

    expected = stores.pandas_totals(real_rows.path("green", month), GREEN)
    stored_totals = stores.store_totals(GREEN)
    assert stored_totals["postgres"] == expected
    assert stored_totals["bigquery"] == expected
    assert {
        day: totals for day, totals in stored_totals["lake"].items() if f"{day:%Y-%m}" == month
    } == (expected)

    recorded = runs.materializations(result.run_id)
    assert len(recorded) == 5 * days
    rows, outside, zero, null = GREEN_MONTHS[month]

    def total(asset: str, entry: str) -> int:
        return sum(
            event.metadata[entry].value
            for (key, _), event in recorded.items()
            if key == f"green/{asset}"
        )

    assert total("raw_trips", "rows") == rows - outside
    assert total("cleaned_trips", "dropped_zero_passengers") == zero
    assert total("cleaned_trips", "dropped_null_passengers") == null
    raw = recorded["green/raw_trips", f"{month}-01"].metadata
    assert (raw["month_file_rows"].value, raw["rows_outside_month"].value) == (rows, outside)


def test_rows_columns_and_types_are_the_same_in_every_store() -> None:
    assert Runs().run("green", "2021-01-05").success
    rows_by_store = stores.store_rows(GREEN)
    assert len(rows_by_store["postgres"]) > 50
    for name in ("lake", "bigquery"):
        lake = rows_by_store[name]
        if name == "lake":
            lake = lake[lake["lpep_pickup_datetime"].dt.date == date(2021, 1, 5)]
        pd.testing.assert_frame_equal(
            rows_by_store["postgres"], lake.reset_index(drop=True), check_dtype=False
        )
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, upper(data_type) FROM information_schema.columns"
            " WHERE table_name = 'green_cab_data' ORDER BY ordinal_position"
        )
        columns = [(column.name, column.postgres) for column in GREEN.columns]
        assert cursor.fetchall() == [*columns, (GREEN.day_column, "DATE")]
    fields = stores.bigquery().get_table("ny_taxi.green_cab_data").schema
    assert [field.name for field in fields] == [
        *(column.name for column in GREEN.columns),
        GREEN.day_column,
    ]
    assert {field.name: field.field_type for field in fields}["lpep_pickup_datetime"] == "DATETIME"


def test_second_materialization_changes_nothing() -> None:
    runs = Runs()
    assert runs.run("green", "2021-01-05").success
    rows_after_first = stores.store_rows(GREEN)
    assert runs.run("green", "2021-01-05").success
    rows_after_second = stores.store_rows(GREEN)
    for name, frame in rows_after_first.items():
        pd.testing.assert_frame_equal(frame, rows_after_second[name])


def test_day_restated_to_no_rows_becomes_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [f"2021-03-{day:02d}" for day in (1, 2, 3)]
    monkeypatch.setenv(
        "TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-03", list(map(make_trip_line, days)))
    )
    runs = Runs()
    assert runs.run("green", days[0], days[-1]).success
    write_month(tmp_path, GREEN, "2021-03", [make_trip_line(days[0]), make_trip_line(days[2])])
    assert runs.run("green", days[1]).success
    expected = {date.fromisoformat(day): (1, 10.0) for day in (days[0], days[2])}
    totals = stores.store_totals(GREEN)
    assert totals["postgres"] == expected
    assert totals["bigquery"] == expected
    frame = pd.read_parquet(stores.lake() / "green")
    assert sorted(frame["lpep_pickup_date"].astype(str)) == [days[0], days[2]]


def test_sample_is_marked_as_synthetic_everywhere() -> None:
    runs = Runs()
    result = runs.run("yellow", "2021-01-05")
    assert result.success
    recorded = runs.materializations(result.run_id)
    assert {key for key, _ in recorded} == {f"yellow/{name}" for name in ASSET_NAMES}
    for event in recorded.values():
        assert "synthetic sample" in event.metadata
        assert "synthetic sample" in event.metadata["source"].value
