"""Months of other years and services, in Parquet, end to end into real stores."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from taxi_assets.definitions import build_defs
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import RealRows
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.tlc.test_sample import BOATS

GREEN = SERVICES["green"]
ASSET_NAMES = ["bigquery_trips", "cleaned_trips", "gcs_trips", "postgres_trips", "raw_trips"]
PARQUET = "{service}_tripdata_{year}-{month}.parquet"
CSV = "{service}_tripdata_{year}-{month}.csv.gz"


pytestmark = pytest.mark.usefixtures("empty_stores")


def make_trips(days: dict[str, float], **columns: Any) -> pa.Table:
    """Return green trips in the types of TLC's Parquet of 2023-12, one a day with its total."""
    pickups = [datetime.fromisoformat(f"{day} 08:00:00") for day in days]
    value_of_kind = {"id": 1, "amount": 2.5, "text": "N"}
    values = {
        column.published: pickups
        if column.kind == "time"
        else [value_of_kind[column.kind]] * len(days)
        for column in GREEN.header_columns
    }
    table = pa.table({**values, "total_amount": list(days.values()), **columns})
    for name in ("VendorID", "PULocationID"):
        table = table.set_column(
            table.schema.get_field_index(name), name, table[name].cast(pa.int32())
        )
    index = table.schema.get_field_index("store_and_fwd_flag")
    return table.set_column(
        index, "store_and_fwd_flag", table.column(index).cast(pa.large_string())
    )


def list_stale_partitions(runs: Runs, days: list[str]) -> set[tuple[str, str]]:
    """Return assets and days that the UI shows as stale, without the month's report."""
    graph = build_defs().resolve_asset_graph()
    resolver = CachingStaleStatusResolver(
        runs.instance, graph, LoadingContextForTest(runs.instance)
    )
    return {
        (name, day)
        for name in ASSET_NAMES
        for day in days
        if resolver.get_status(dg.AssetKey(["green", name]), day) == StaleStatus.STALE
    }


def run_assets(runs: Runs, names: list[str], days: list[str]) -> dg.ExecuteInProcessResult:
    """Run some of green's assets for a range of days."""
    job = build_defs().resolve_job_def("green_daily")
    return job.execute_in_process(
        asset_selection=[dg.AssetKey(["green", name]) for name in names],
        tags={
            "dagster/asset_partition_range_start": days[0],
            "dagster/asset_partition_range_end": days[-1],
        },
        instance=runs.instance,
    )


def test_csv_and_parquet_of_a_month_land_the_same_rows(
    real_rows: RealRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Green 2020-12: TLC filled `VendorID` in 36,838 rows; all of them lack the passengers too."""
    runs = Runs()
    monkeypatch.setenv("TAXI_DROP", "none")
    loads = []
    for name in (CSV, PARQUET):
        monkeypatch.setenv("TAXI_SOURCE", str(real_rows.folder / "{service}" / name))
        result = runs.run("green", "2020-12-01", "2020-12-31")
        assert result.success, stores.failure(result)
        raw = stores.lake() / "_raw/green/2020/12"
        endings = {"csv.zst": 33, "parquet": 0} if name == CSV else {"csv.zst": 0, "parquet": 33}
        assert {end: len(list(raw.rglob(f"*.{end}"))) for end in endings} == endings
        checks = runs.evaluations(result.run_id)
        assert checks["green/raw_trips", "rows_outside_month", None].metadata["rows"].value == 3
        loads.append(stores.store_rows(GREEN))
    for store in ("postgres", "lake", "bigquery"):
        csv, parquet = (rows_of_stores[store].drop(columns="vendorid") for rows_of_stores in loads)
        assert len(csv) == 83_130 - 3
        order = list(csv.columns)
        csv, parquet = (
            rows_of_stores.sort_values(order, ignore_index=True)
            for rows_of_stores in (csv, parquet)
        )
        pd.testing.assert_frame_equal(csv, parquet)
        csv_rows, parquet_rows = (rows_of_stores[store] for rows_of_stores in loads)
        assert (
            csv_rows["vendorid"].isna().sum() == csv_rows["passenger_count"].isna().sum() == 36_838
        )
        assert parquet_rows["vendorid"].isna().sum() == 0


def test_new_service_needs_one_entry_and_runs_through_all_assets(home: Path) -> None:
    service = dataclasses.replace(
        BOATS,
        name="ferries",
        columns=tuple(
            new_service for new_service in BOATS.columns if new_service.published != "Riders"
        ),
    )
    for new_service in (
        service,
        dataclasses.replace(service, name="free", columns=service.columns[:-1]),
    ):
        runs = Runs(services={**SERVICES, new_service.name: new_service})
        result = runs.run(new_service.name, "2021-01-05")
        assert result.success, stores.failure(result)
        recorded = runs.materializations(result.run_id)
        assert sorted(key for key, _ in recorded) == [
            f"{new_service.name}/{name}" for name in ASSET_NAMES
        ]
        rows = recorded[f"{new_service.name}/raw_trips", "2021-01-05"].metadata["rows"].value
        assert rows > 100
        for name in ASSET_NAMES[:4]:
            assert (
                recorded[f"{new_service.name}/{name}", "2021-01-05"].metadata["rows"].value == rows
            )
        assert all(
            event.passed
            for event in runs.evaluations(result.run_id).values()
            if event.severity == dg.AssetCheckSeverity.ERROR
        )
    totals = stores.store_totals(service)
    assert totals["postgres"] == totals["lake"] == totals["bigquery"]
    assert totals["postgres"][date(2021, 1, 5)][0] > 100


def test_only_changed_days_of_a_restated_month_become_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["2023-04-01", "2023-04-02", "2023-04-03"]
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / PARQUET))
    path = tmp_path / "green_tripdata_2023-04.parquet"
    totals = dict.fromkeys(days * 1, 9.0)
    table = pa.concat_tables([make_trips(totals), make_trips(totals)])
    pq.write_table(table, path)
    runs = Runs()
    result = runs.run("green", days[0], days[-1])
    assert result.success, stores.failure(result)
    assert list_stale_partitions(runs, days) == set()

    # The same rows in another file, of other row groups.
    pq.write_table(table, path, row_group_size=1, compression="gzip")
    assert run_assets(runs, ["raw_trips"], days).success
    assert list_stale_partitions(runs, days) == set()

    # One day is restated.
    table = pa.concat_tables([make_trips(totals), make_trips({**totals, days[1]: 8.0})])
    pq.write_table(table, path)
    assert run_assets(runs, ["raw_trips"], days).success
    assert list_stale_partitions(runs, days) == {("cleaned_trips", days[1])}
    assert run_assets(runs, ASSET_NAMES, [days[1]]).success
    assert list_stale_partitions(runs, days) == set()


def test_other_rules_make_only_changed_days_stale_in_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["2023-05-01", "2023-05-02"]
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / PARQUET))
    table = make_trips(dict.fromkeys(days, 9.0), trip_distance=[0.0, 1.0])
    pq.write_table(table, tmp_path / "green_tripdata_2023-05.parquet")
    runs = Runs()
    assert runs.run("green", *days).success
    assert list_stale_partitions(runs, days) == set()

    monkeypatch.setenv("TAXI_DROP", "zero_passengers,null_passengers,zero_distance")
    assert list_stale_partitions(runs, days) == {("cleaned_trips", day) for day in days}
    result = run_assets(runs, ["cleaned_trips"], days)
    assert list_stale_partitions(runs, days) == {
        ("postgres_trips", days[0]),
        ("gcs_trips", days[0]),
    }
    cleaned = runs.materializations(result.run_id)["green/cleaned_trips", days[0]].metadata
    assert (cleaned["dropped_zero_distance"].value, cleaned["rows"].value) == (1, 0)


def test_unknown_rule_is_rejected_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAXI_DROP", "zero_passengers,typo")
    result = Runs().run("green", "2021-01-05")
    assert not result.success
    assert "TAXI_DROP names 'typo': the rules are zero_passengers" in stores.failure(result)


def test_new_column_is_named_and_stays_in_raw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / PARQUET))
    table = make_trips({"2023-06-01": 9.0}, cbd_congestion_fee=[0.75], robot_fee=[1.5])
    pq.write_table(table, tmp_path / "green_tripdata_2023-06.parquet")
    runs = Runs()
    result = runs.run("green", "2023-06-01")
    assert result.success, stores.failure(result)
    check = runs.evaluations(result.run_id)["green/raw_trips", "known_columns", None]
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.metadata["unknown"].value == "robot_fee"
    raw = pq.read_table(stores.lake() / "_raw/green/2023/06/01/trips.parquet")
    assert raw.schema.remove_metadata() == table.schema
    assert raw["robot_fee"].to_pylist() == [1.5]
    for frame in stores.store_rows(GREEN).values():
        assert frame["cbd_congestion_fee"].tolist() == [0.75]


def remove_last_column(service: Service) -> Service:
    """Return the service as it was before its last column."""
    return dataclasses.replace(
        service, columns=service.columns[:-1], schema_versions=service.schema_versions[:-1]
    )


def read_partition_file() -> Any:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_relation_filenode('ny_taxi.green_cab_data_2021_01')")
        return cursor.fetchone()


def test_stores_add_new_columns_without_a_rewrite() -> None:
    runs = Runs(services={"green": remove_last_column(GREEN)})
    assert runs.run("green", "2021-01-05").success
    totals_before, partition_file_before = stores.store_totals(GREEN), read_partition_file()

    second_runs = Runs()
    result = second_runs.run("green", "2021-01-06")
    assert result.success, stores.failure(result)
    assert read_partition_file() == partition_file_before
    totals_after = stores.store_totals(GREEN)
    for store, totals in totals_before.items():
        assert totals.items() <= totals_after[store].items()
        assert len(totals_after[store]) == 2
    client = stores.bigquery()
    names = [field.name for field in client.get_table("ny_taxi.green_cab_data").schema]
    assert names == [
        *(column.name for column in remove_last_column(GREEN).columns),
        GREEN.day_column,
        "cbd_congestion_fee",
    ]

    # Days cleaned before the column was added can still be stored.
    assert run_assets(
        second_runs, ["postgres_trips", "gcs_trips", "bigquery_trips"], ["2021-01-05"]
    ).success
    assert stores.store_totals(GREEN) == totals_after
    listed = duckdb.sql(
        f"SELECT count(*) FROM read_parquet('{stores.lake()}/green/*/*.parquet',"
        " union_by_name=true) WHERE cbd_congestion_fee IS NULL"
    )
    assert listed.fetchone() == (sum(rows for rows, _ in totals_after["lake"].values()),)
