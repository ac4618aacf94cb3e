"""`export_parquet` from a lake folder: whole or not at all, days named that are missing."""

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
from taxi_assets_tests.defs.jobs.jobs import refused, shown

DAYS = [date(2021, 1, 5) + timedelta(days=number) for number in range(4)]
MISSING = DAYS[2]


def put_day(lake: Lake, service: Service, day: date, rows: int) -> None:
    """A day's object; made before the newest column was."""
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
    """Three of four days of each service."""
    monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("TAXI_LAKE_LAYOUT", getattr(request, "param", "hive"))
    lake = open_lake(Settings.from_env().lake)
    for service in SERVICES.values():
        for rows, day in enumerate(DAYS, 1):
            if day != MISSING:
                put_day(lake, service, day, rows)
    return lake


def asked(service: str, **more: object) -> dict[str, object]:
    return {"service": service, "first_day": str(DAYS[0]), "last_day": str(DAYS[1]), **more}


def temporary(lake: Lake) -> list[Path]:
    return list(Path(lake.root, "_tmp").iterdir())


@pytest.mark.parametrize("lake", ["hive", "date"], indirect=True)
@pytest.mark.parametrize("name", SERVICES)
def test_a_range_of_days_is_one_object(name: str, lake: Lake) -> None:
    service = SERVICES[name]
    found = shown("export_parquet", **asked(name))
    path = Path(lake.root, "nyc_taxi_data.parquet")
    assert (found["rows"], found["days"], found["missing_days"]) == (3, 2, 0)
    assert (found["bytes"], found["dagster/uri"]) == (path.stat().st_size, str(path))
    assert [column.name for column in found["columns"].columns][-1] == service.day_column
    frame = pd.read_parquet(path)
    assert list(frame.columns) == [*(one.name for one in service.columns), service.day_column]
    assert list(frame[service.day_column]) == [DAYS[0], DAYS[1], DAYS[1]]
    assert list(frame[service.pickup_column].dt.date) == list(frame[service.day_column])
    assert service.total is None or frame[service.total].sum() == 30
    assert pq.ParquetFile(path).num_row_groups == 2
    assert temporary(lake) == []


def test_missing_days_are_named(lake: Lake) -> None:
    said = refused("export_parquet", **asked("green", last_day=str(DAYS[3])))
    assert said == (
        f"{lake.root}/green does not have 1 of 4 days: {MISSING}. Materialize green/gcs_trips "
        "for them, or set skip_missing_days"
    )
    said = refused("export_parquet", **asked("green", last_day="2021-12-31"))
    assert "does not have 358 of 361 days: 2021-01-07, 2021-01-09" in said
    assert " and 353 more. Materialize" in said
    assert not Path(lake.root, "nyc_taxi_data.parquet").exists()


def test_missing_days_may_be_left_out_but_not_all(lake: Lake) -> None:
    more = {"last_day": str(DAYS[3]), "skip_missing_days": True, "object": "exports/green.parquet"}
    found = shown("export_parquet", **asked("green", **more))
    assert (found["rows"], found["days"], found["missing_days"]) == (7, 3, 1)
    none = {"first_day": str(MISSING), "last_day": str(MISSING), "skip_missing_days": True}
    assert "does not have 1 of 1 days" in refused("export_parquet", **asked("green", **none))


def test_an_export_that_fails_leaves_what_was_there(lake: Lake) -> None:
    shown("export_parquet", **asked("green"))
    before = lake.get("nyc_taxi_data.parquet")
    lake.put(build_trips_key(SERVICES["green"], DAYS[1], lake.layout), b"PAR1 no more PAR1")
    refused("export_parquet", **asked("green"))
    assert lake.get("nyc_taxi_data.parquet") == before
    assert temporary(lake) == []
    shown("export_parquet", **asked("green", last_day=str(DAYS[0])))
    assert pq.read_metadata(Path(lake.root, "nyc_taxi_data.parquet")).num_rows == 1


def test_an_export_is_sealed_and_a_damaged_day_is_named(lake: Lake) -> None:
    shown("export_parquet", **asked("green"))
    content = lake.get("nyc_taxi_data.parquet")
    assert content is not None
    _, facts = open_parquet(content)
    assert facts["partition"] == f"{DAYS[0]} to {DAYS[1]}"
    day = Path(lake.root, build_trips_key(SERVICES["green"], DAYS[1], lake.layout))
    day.write_bytes(day.read_bytes()[:-1])
    said = refused("export_parquet", **asked("green"))
    assert said.startswith(f"green/gcs_trips {DAYS[1]}: {day} is truncated")
    assert said.endswith(f"materialize green/gcs_trips for {DAYS[1]} again")
    assert lake.get("nyc_taxi_data.parquet") == content


@pytest.mark.parametrize(
    ("key", "said"),
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
def test_an_export_goes_beside_the_assets(key: str, said: str, lake: Lake) -> None:
    Path(lake.root, "link").symlink_to(Path(lake.root).parent)
    Path(lake.root, "to_green").symlink_to("green")
    assert said in refused("export_parquet", **asked("green", object=key))
    assert not (Path(lake.root).parent / "out.parquet").exists()


@pytest.mark.parametrize(
    ("config", "said"),
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
def test_wrong_config_is_named(config: dict[str, object], said: str, lake: Lake) -> None:
    assert said in refused("export_parquet", **{**asked("green"), **config})


def test_days_are_held_one_at_a_time(lake: Lake) -> None:
    for day in DAYS:
        put_day(lake, SERVICES["green"], day, 60_000)
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        shown("export_parquet", **asked("green", last_day=str(DAYS[0])))
        of_one_day = pool.max_memory()
        shown("export_parquet", **asked("green", last_day=str(DAYS[3])))
    finally:
        pa.set_memory_pool(before)
    assert 0 < pool.max_memory() < 1.5 * of_one_day
