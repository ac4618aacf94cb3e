"""`export_parquet` from a lake folder is complete or absent, and names missing days."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.defs.io_managers.partition_data import encode_trips
from taxi_assets.defs.io_managers.sealed_objects import open_parquet
from taxi_assets.defs.resources.lake import Lake, open_lake
from taxi_assets.defs.resources.lake_keys import build_trips_key
from taxi_assets.settings import Settings
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.defs.jobs.jobs import run_and_read_failure, run_and_read_metadata

DAYS = [date(2021, 1, 5) + timedelta(days=number) for number in range(4)]
MISSING = DAYS[2]


def put_day(lake: Lake, service: Service, day: date, rows: int) -> None:
    """Store a day's object without the newest column."""
    times = pd.date_range(f"{day} 08:00", periods=rows, freq="10ms")
    arrays = {
        field.name: pa.array(times).cast(field.type)
        if field.name == service.pickup_column
        else pa.nulls(rows, field.type)
        for field in list(service.arrow_schema)[:-1]
    }
    if service.total:
        arrays[service.total] = pa.array([10.0] * rows)
    lake.put(build_trips_key(service, day, lake.layout), encode_trips(pa.table(arrays), {}))


@pytest.fixture
def lake(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Store three of four days of each service."""
    monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("TAXI_LAKE_LAYOUT", getattr(request, "param", "hive"))
    lake = open_lake(Settings.from_env().lake)
    for service in SERVICES.values():
        for rows, day in enumerate(DAYS, 1):
            if day != MISSING:
                put_day(lake, service, day, rows)
    return lake


def build_config(service: str, **more: object) -> dict[str, object]:
    return {"service": service, "first_day": str(DAYS[0]), "last_day": str(DAYS[1]), **more}


def list_temporary_files(lake: Lake) -> list[Path]:
    return list(Path(lake.root, "_tmp").iterdir())


@pytest.mark.parametrize("lake", ["hive", "date"], indirect=True)
@pytest.mark.parametrize("name", SERVICES)
def test_range_of_days_becomes_one_object(name: str, lake: Lake) -> None:
    service = SERVICES[name]
    metadata = run_and_read_metadata("export_parquet", **build_config(name))
    path = Path(lake.root, "nyc_taxi_data.parquet")
    assert (metadata["rows"], metadata["days"], metadata["missing_days"]) == (3, 2, 0)
    assert (metadata["bytes"], metadata["dagster/uri"]) == (path.stat().st_size, str(path))
    assert [column.name for column in metadata["columns"].columns][-1] == service.day_column
    frame = pd.read_parquet(path)
    assert list(frame.columns) == [*(column.name for column in service.columns), service.day_column]
    assert list(frame[service.day_column]) == [DAYS[0], DAYS[1], DAYS[1]]
    assert list(frame[service.pickup_column].dt.date) == list(frame[service.day_column])
    assert service.total is None or frame[service.total].sum() == 30
    assert pq.ParquetFile(path).num_row_groups == 2
    assert list_temporary_files(lake) == []


def test_missing_days_are_named(lake: Lake) -> None:
    message = run_and_read_failure("export_parquet", **build_config("green", last_day=str(DAYS[3])))
    assert message == (
        f"{lake.root}/green does not have 1 of 4 days: {MISSING}. Materialize green/gcs_trips "
        "for them, or set skip_missing_days"
    )
    message = run_and_read_failure("export_parquet", **build_config("green", last_day="2021-12-31"))
    assert "does not have 358 of 361 days: 2021-01-07, 2021-01-09" in message
    assert " and 353 more. Materialize" in message
    assert not Path(lake.root, "nyc_taxi_data.parquet").exists()


def test_missing_days_can_be_skipped_but_not_all(lake: Lake) -> None:
    options = {
        "last_day": str(DAYS[3]),
        "skip_missing_days": True,
        "object": "exports/green.parquet",
    }
    metadata = run_and_read_metadata("export_parquet", **build_config("green", **options))
    assert (metadata["rows"], metadata["days"], metadata["missing_days"]) == (7, 3, 1)
    none = {"first_day": str(MISSING), "last_day": str(MISSING), "skip_missing_days": True}
    assert "does not have 1 of 1 day" in run_and_read_failure(
        "export_parquet", **build_config("green", **none)
    )


def test_failed_export_leaves_the_previous_object(lake: Lake) -> None:
    run_and_read_metadata("export_parquet", **build_config("green"))
    previous_content = lake.get("nyc_taxi_data.parquet")
    lake.put(build_trips_key(SERVICES["green"], DAYS[1], lake.layout), b"PAR1 no more PAR1")
    run_and_read_failure("export_parquet", **build_config("green"))
    assert lake.get("nyc_taxi_data.parquet") == previous_content
    assert list_temporary_files(lake) == []
    run_and_read_metadata("export_parquet", **build_config("green", last_day=str(DAYS[0])))
    assert pq.read_metadata(Path(lake.root, "nyc_taxi_data.parquet")).num_rows == 1


def test_export_is_sealed_and_damaged_days_are_named(lake: Lake) -> None:
    run_and_read_metadata("export_parquet", **build_config("green"))
    content = lake.get("nyc_taxi_data.parquet")
    assert content is not None
    _, metadata = open_parquet(content)
    assert metadata["partition"] == f"{DAYS[0]} to {DAYS[1]}"
    day = Path(lake.root, build_trips_key(SERVICES["green"], DAYS[1], lake.layout))
    day.write_bytes(day.read_bytes()[:-1])
    message = run_and_read_failure("export_parquet", **build_config("green"))
    assert message.startswith(f"green/gcs_trips {DAYS[1]}: {day} is truncated")
    assert message.endswith(f"materialize green/gcs_trips for {DAYS[1]} again")
    assert lake.get("nyc_taxi_data.parquet") == content


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("../out.parquet", "is outside the lake's folder"),
        ("/out.parquet", "is outside the lake's folder"),
        ("link/out.parquet", "is outside the lake's folder"),
        ("gs://elsewhere/out.parquet", "is not a key in the lake"),
        ("out.csv", "is not a key in the lake"),
        ("green/all.parquet", "is in green/, which belongs to the assets"),
        ("to_green/all.parquet", "is in green/, which belongs to the assets"),
        ("_cleaned/green/2021/01/05/trips.parquet", "is in _cleaned/, which belongs to the"),
    ],
)
def test_export_cannot_overwrite_assets(key: str, expected: str, lake: Lake) -> None:
    Path(lake.root, "link").symlink_to(Path(lake.root).parent)
    Path(lake.root, "to_green").symlink_to("green")
    assert expected in run_and_read_failure("export_parquet", **build_config("green", object=key))
    assert not (Path(lake.root).parent / "out.parquet").exists()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"service": "uber"}, f"service 'uber' is none of {', '.join(SERVICES)}"),
        (
            {"first_day": "05/01/2021"},
            "first_day '05/01/2021' to last_day",
        ),
        (
            {"first_day": "2021-01-07"},
            "to last_day '2021-01-06' is not a range of days",
        ),
        ({"last_day": "9999-12-31"}, "is not a range of days"),
    ],
)
def test_invalid_config_is_named(config: dict[str, object], expected: str, lake: Lake) -> None:
    assert expected in run_and_read_failure("export_parquet", **{**build_config("green"), **config})


def test_export_holds_one_day_at_a_time(lake: Lake) -> None:
    for day in DAYS:
        put_day(lake, SERVICES["green"], day, 60_000)
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        run_and_read_metadata("export_parquet", **build_config("green", last_day=str(DAYS[0])))
        of_one_day = pool.max_memory()
        run_and_read_metadata("export_parquet", **build_config("green", last_day=str(DAYS[3])))
    finally:
        pa.set_memory_pool(before)
    assert 0 < pool.max_memory() < 1.5 * of_one_day
