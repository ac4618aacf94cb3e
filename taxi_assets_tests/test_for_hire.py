"""For-hire trips through all assets: what has no column is not checked, compared or reported."""

from __future__ import annotations

import gzip
from pathlib import Path

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.definitions import build_defs
from taxi_assets.errors import SettingsError
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.stores import Runs

FHV, FHVHV = SERVICES["fhv"], SERVICES["fhvhv"]
DAY = "2021-01-05"
STORES = ("postgres", "gcs", "bigquery")

pytestmark = pytest.mark.usefixtures("empty_stores")


def read_metadata(runs: Runs, run_id: str) -> dict[str, dict[str, object]]:
    """Return the metadata of the materializations, by asset."""
    return {
        key: {name: getattr(value, "value", value) for name, value in event.metadata.items()}
        for (key, _), event in runs.materializations(run_id).items()
    }


def read_checks(runs: Runs, run_id: str) -> dict[str, dg.AssetCheckEvaluation]:
    """Return the checks of a run by `asset check`; assert that none failed with ERROR."""
    evaluations = runs.evaluations(run_id)
    for evaluation in evaluations.values():
        assert evaluation.passed or evaluation.severity.value == "WARN", evaluation
    return {
        f"{key.split('/')[1]} {name}": evaluation
        for (key, name, _), evaluation in evaluations.items()
    }


def read_report(service: str) -> str:
    """Return a service's report of the month."""
    runs = Runs(services=SERVICES)
    result = (
        build_defs(runs.services)
        .resolve_job_def(f"{service}_monthly_report")
        .execute_in_process(partition_key="2021-01-01", instance=runs.instance)
    )
    assert result.success, stores.failure(result)
    return (stores.lake() / "_reports" / service / "2021-01.html").read_text()


def test_services_without_money_compare_rows_only() -> None:
    runs = Runs(services=SERVICES)
    result = runs.run("fhv", DAY)
    assert result.success, stores.failure(result)
    days = read_metadata(runs, result.run_id)
    rows = days["fhv/cleaned_trips"]["rows"]
    assert rows > 100
    assert rows == days["fhv/raw_trips"]["rows"]
    assert not any("total" in name or "$" in str(day) for day in days.values() for name in day)
    assert "$" not in str(days["fhv/cleaned_trips"]["summary"])
    assert days["fhv/cleaned_trips"]["median_trip_minutes"] > 1
    for name in STORES:
        assert days[f"fhv/{name}_trips"]["rows"] == rows
    rows_by_store = stores.store_rows(FHV)
    pd.testing.assert_frame_equal(rows_by_store["postgres"], rows_by_store["lake"])
    pd.testing.assert_frame_equal(rows_by_store["postgres"], rows_by_store["bigquery"])
    assert len(rows_by_store["lake"]) == rows
    check_results = read_checks(runs, result.run_id)
    assert not {"cleaned_trips negative_totals", "cleaned_trips no_zero_passengers"} & set(
        check_results
    )
    for name in STORES:
        assert set(check_results[f"{name}_trips matches_cleaned"].metadata) == {
            "rows",
            "cleaned_rows",
        }
    agree = check_results["bigquery_trips stores_agree"].metadata
    assert set(agree) == {f"{name}_trips_rows" for name in STORES}
    page = read_report("fhv")
    assert "For-hire vehicle trips, January 2021" in page
    assert "Mean trip</" in page
    assert not any(word in page for word in ("$", "Revenue", "Average", "Driver pay"))


def test_high_volume_report_shows_fares_waiting_pay_and_shared_rides() -> None:
    runs = Runs(services=SERVICES)
    result = runs.run("fhvhv", DAY)
    assert result.success, stores.failure(result)
    days = read_metadata(runs, result.run_id)
    rows_by_store = stores.store_rows(FHVHV)
    pd.testing.assert_frame_equal(rows_by_store["postgres"], rows_by_store["lake"])
    pd.testing.assert_frame_equal(rows_by_store["postgres"], rows_by_store["bigquery"])
    frame = rows_by_store["lake"]
    cleaned = days["fhvhv/cleaned_trips"]
    total = round(float(frame["base_passenger_fare"].sum()), 2)
    assert (cleaned["rows"], cleaned["base_passenger_fare"]) == (len(frame), pytest.approx(total))
    waited = (frame["pickup_datetime"] - frame["request_datetime"]).dt.total_seconds() / 60
    assert cleaned["median_waiting_minutes"] == pytest.approx(waited.median(), abs=0.01)
    assert cleaned["median_driver_pay"] == pytest.approx(frame["driver_pay"].median())
    shared = int((frame["shared_match_flag"] == "Y").sum())
    assert cleaned["shared_rides"] == shared > 0
    assert "shared" in str(cleaned["picture"]) or cleaned["picture"]
    check_results = read_checks(runs, result.run_id)
    assert "cleaned_trips negative_totals" in check_results
    assert "cleaned_trips no_zero_passengers" not in check_results
    for name in STORES:
        check_metadata = check_results[f"{name}_trips matches_cleaned"].metadata
        assert check_metadata["base_passenger_fare"].value == pytest.approx(total)
    page = read_report("fhvhv")
    pay = frame["driver_pay"].sum()
    for text in ("Driver pay", "Shared rides", "Mean waiting for the car", "base passenger fare"):
        assert text in page
    assert f"{100 * shared / len(frame):.1f}%" in page
    assert f"{waited.mean():.1f} min" in page
    assert f"${pay / 1000:.1f}k" in page


def test_month_before_published_fares_shows_no_money(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """High-volume CSV months of 2019 to 2021 have seven columns."""
    write_sample_month(FHVHV, Month(2021, 1), tmp_path / "all.csv.gz")
    table = pa_csv.read_csv(tmp_path / "all.csv.gz")
    columns = [name for name in FHVHV.header if name in table.schema.names]
    table = table.select(columns).append_column("SR_Flag", pa.nulls(table.num_rows, pa.int64()))
    with gzip.open(tmp_path / "fhvhv_2021-01.csv.gz", "wb") as file:
        pa_csv.write_csv(table, file)
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_{year}-{month}.csv.gz"))
    runs = Runs(services=SERVICES)
    result = runs.run("fhvhv", DAY)
    assert result.success, stores.failure(result)
    cleaned = read_metadata(runs, result.run_id)["fhvhv/cleaned_trips"]
    assert "base_passenger_fare" not in cleaned
    assert "$" not in str(cleaned["summary"])
    read_checks(runs, result.run_id)
    page = read_report("fhvhv")
    assert not any(word in page for word in ("$", "Revenue", "Driver pay", "Waiting"))


def test_raw_parquet_rows_keep_types_and_small_jobs_know_services(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample_month(FHV, Month(2021, 1), tmp_path / "all.csv.gz")
    table = pa_csv.read_csv(tmp_path / "all.csv.gz")
    flags = table["SR_Flag"].cast(pa.float64())
    bases = table["dispatching_base_num"].combine_chunks().dictionary_encode()
    table = table.set_column(5, "SR_Flag", flags).set_column(0, "dispatching_base_num", bases)
    table = table.rename_columns({"dropoff_datetime": "dropOff_datetime"})
    pq.write_table(table, tmp_path / "fhv_2021-01.parquet", row_group_size=table.num_rows)
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_{year}-{month}.parquet"))
    monkeypatch.setenv("TAXI_SERVICES", "fhv,green")
    runs = Runs()
    result = runs.run("fhv", DAY)
    assert result.success, stores.failure(result)
    raw = pq.read_schema(stores.lake() / "_raw/fhv/2021/01/05/trips.parquet")
    published = pq.read_schema(tmp_path / "fhv_2021-01.parquet")
    assert raw.remove_metadata() == published.remove_metadata()
    config = {"service": "fhv", "first_day": DAY, "last_day": DAY, "object": "fhv.parquet"}
    exported = (
        build_defs(runs.services)
        .resolve_job_def("export_parquet")
        .execute_in_process(
            run_config={"ops": {"export": {"config": config}}}, instance=runs.instance
        )
    )
    assert exported.success, stores.failure(exported)
    frame = pd.read_parquet(stores.lake() / "fhv.parquet")
    assert len(frame) == len(stores.store_rows(FHV)["lake"])
    assert set(frame["pickup_date"].astype(str)) == {DAY}


def test_loaded_services_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded() -> list[str]:
        defs = build_defs()
        names = {key.path[0] for key in defs.resolve_asset_graph().get_all_asset_keys()}
        schedules = {schedule.name for schedule in defs.schedules or ()}
        assert schedules == {f"{name}_daily_schedule" for name in names}
        return sorted(names)

    monkeypatch.delenv("TAXI_SERVICES", raising=False)
    assert loaded() == ["green", "yellow"]
    monkeypatch.setenv("TAXI_SERVICES", "fhvhv, fhv")
    assert loaded() == ["fhv", "fhvhv"]
    monkeypatch.setenv("TAXI_SERVICES", "fhv,purple")
    with pytest.raises(SettingsError, match="'purple': the services are yellow, green, fhv, fhvhv"):
        build_defs()


def test_requested_rule_without_its_column_is_rejected() -> None:
    runs = Runs(services=SERVICES)
    drop = ["zero_passengers", "zero_distance"]
    result = (
        build_defs(runs.services)
        .resolve_job_def("fhvhv_daily")
        .execute_in_process(
            run_config={"resources": {"cleaning": {"config": {"drop": drop}}}},
            partition_key=DAY,
            instance=runs.instance,
            raise_on_error=False,
            asset_selection=[
                dg.AssetKey(["fhvhv", name]) for name in ("raw_trips", "cleaned_trips")
            ],
        )
    )
    assert not result.success
    message = stores.failure(result)
    assert "cleaning.drop names zero_passengers (uses passengers): fhvhv publishes no" in message
    assert "rules that apply to fhvhv: zero_distance, negative_total, outside_fare" in message
