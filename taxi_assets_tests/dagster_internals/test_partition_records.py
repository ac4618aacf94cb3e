"""A chunk records what single-day runs record, field by field, and rejections by day."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from taxi_assets.dagster_internals.partition_records import CheckResult, build_evaluation
from taxi_assets.definitions import build_defs
from taxi_assets.defs.io_managers.sealed_objects import open_sealed_zstd, write_sealed_zstd
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

GREEN = SERVICES["green"]
DAYS = [f"2021-02-{day:02d}" for day in range(26, 29)] + ["2021-03-01"]
# Differs between any two runs: pointers to events.
POINTERS = "dagster/input_event_pointer/"
# Not of the day: the duration, and the whole table's rows at that moment.
OF_THE_RUN = {"seconds", "dagster/row_count"}


@pytest.fixture(autouse=True)
def _own_bucket(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GCS_BUCKET", "records")
    yield
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS ny_taxi CASCADE")


def test_check_shows_no_empty_metadata() -> None:
    result = CheckResult("no_int96_times", passed=True, metadata={"columns": "", "rows": 0})
    assert set(build_evaluation(dg.AssetKey("trips"), result).metadata) == {"rows"}


def read_fields(event: dg.AssetMaterialization) -> dict[str, Any]:
    """Return every field of a materialization."""
    return {
        "metadata": {
            name: entry.value for name, entry in event.metadata.items() if name not in OF_THE_RUN
        },
        "tags": {k: v for k, v in (event.tags or {}).items() if not k.startswith(POINTERS)},
    }


def read_verdict(event: dg.AssetCheckEvaluation) -> dict[str, Any]:
    """Return every field of an evaluation."""
    assert event.target_materialization_data is not None
    return {
        "passed": event.passed,
        "severity": event.severity,
        "description": event.description,
        "blocking": event.blocking,
        "metadata": {name: entry.value for name, entry in event.metadata.items()},
    }


MONTHS = sorted({day[:7] for day in DAYS})


def test_chunk_over_a_month_boundary_records_what_single_days_record() -> None:
    runs = Runs()
    singles, single_checks = {}, {}
    for day in DAYS:
        result = runs.run("green", day)
        assert result.success
        singles |= runs.materializations(result.run_id)
        single_checks |= runs.evaluations(result.run_id)
    chunk = runs.run("green", DAYS[0], DAYS[-1])
    assert chunk.success

    recorded = runs.materializations(chunk.run_id)
    assert {key: read_fields(event) for key, event in recorded.items()} == {
        key: read_fields(event) for key, event in singles.items()
    }
    assert len(recorded) == 5 * len(DAYS)
    checked = runs.evaluations(chunk.run_id)
    # Results about month files appear once per run, without a partition.
    file_checks = {key: event for key, event in checked.items() if key[0] == "green/raw_trips"}
    assert {day for _, _, day in file_checks} == {None}
    months = [f"{month}: " for month in MONTHS]
    assert all(
        month in str(event.description) for event in file_checks.values() for month in months
    )
    assert {
        key: read_verdict(event) for key, event in checked.items() if key not in file_checks
    } == {
        key: read_verdict(event) for key, event in single_checks.items() if key not in file_checks
    }
    assert {day for _, _, day in checked} == {*DAYS, None}
    assert len({name for _, name, _ in checked}) == 17


def test_each_partition_of_a_check_has_its_own_status() -> None:
    runs = Runs()
    assert runs.run("green", DAYS[0], DAYS[1]).success
    key = dg.AssetCheckKey(dg.AssetKey(["green", "cleaned_trips"]), "no_zero_passengers")
    partitions = build_defs().resolve_asset_graph().get(key.asset_key).partitions_def
    statuses = {
        record.partition: record.status.value
        for record in runs.instance.event_log_storage.get_asset_check_execution_history(key, 10)
    }
    assert statuses[DAYS[0]] == statuses[DAYS[1]] == "SUCCEEDED"
    assert partitions is not None


def test_chunk_leaves_nothing_stale_and_a_changed_day_all_downstream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["2021-04-01", "2021-04-02"]
    monkeypatch.setenv(
        "TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-04", [*map(make_trip_line, days)])
    )
    runs = Runs()
    assert runs.run("green", *days).success

    def stale() -> set[tuple[str, str]]:
        graph = build_defs().resolve_asset_graph()
        resolver = CachingStaleStatusResolver(
            runs.instance, graph, LoadingContextForTest(runs.instance)
        )
        keys = [key for key in graph.executable_asset_keys if key.path[0] == "green"]
        return {
            (key.path[1], day)
            for key in keys
            for day in days
            if resolver.get_status(key, day) == StaleStatus.STALE
        }

    assert stale() == set()
    # The second day is restated; raw_trips loads both days again, as for a restated month.
    write_month(
        tmp_path, GREEN, "2021-04", [make_trip_line(days[0]), make_trip_line(days[1], 99.0)]
    )
    job = build_defs().resolve_job_def("green_daily")
    tags = dict(zip(("start", "end"), days, strict=True))
    raw_only = job.execute_in_process(
        asset_selection=[dg.AssetKey(["green", "raw_trips"])],
        tags={f"dagster/asset_partition_range_{end}": day for end, day in tags.items()},
        instance=runs.instance,
    )
    assert raw_only.success
    assert stale() == {("cleaned_trips", days[1])}


def test_month_file_is_present_once_a_run_has_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["2021-09-01", "2021-09-02"]

    def publish(total: float) -> None:
        lines = [make_trip_line(day, total) for day in days]
        monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-09", lines))

    def list_reported() -> list[tuple[str, str | None]]:
        month = dg.AssetRecordsFilter(file, asset_partitions=["2021-09-01"])
        return [
            (record.run_id, (record.asset_materialization.tags or {}).get("dagster/data_version"))
            for record in runs.instance.fetch_materializations(month, limit=10).records
            if record.asset_materialization
        ]

    def list_stale_days() -> list[str]:
        graph = build_defs().resolve_asset_graph()
        context = LoadingContextForTest(runs.instance)
        resolver = CachingStaleStatusResolver(runs.instance, graph, context)
        raw = dg.AssetKey(["green", "raw_trips"])
        return [day for day in days if resolver.get_status(raw, day) == StaleStatus.STALE]

    file, runs = dg.AssetKey(["green", "trip_file"]), Runs()
    publish(10.0)
    result = runs.run("green", *days)
    assert result.success
    (reported,) = list_reported()
    assert reported[0] == ""
    assert "2021-09-01" in runs.instance.get_materialized_partitions(file)
    assert "green/trip_file" not in {name for name, _ in runs.materializations(result.run_id)}
    # The same version is reported once, however often it is read.
    assert runs.run("green", days[0]).success
    assert list_reported() == [reported]
    assert list_stale_days() == []
    # A restated month is reported again; a day of the former file is stale until it is read again.
    publish(20.0)
    assert runs.run("green", days[0]).success
    assert len(list_reported()) == 2
    assert len(set(list_reported())) == 2
    assert list_stale_days() == [days[1]]


def test_bad_day_in_a_chunk_is_rejected_and_the_others_land(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = ["2021-05-01", "2021-05-02", "2021-05-03"]
    template = write_month(tmp_path, GREEN, "2021-05", [make_trip_line(day) for day in days * 2])
    monkeypatch.setenv("TAXI_SOURCE", template)
    runs = Runs()
    assert runs.run("green", *days[:3:2]).success
    totals_before = stores.store_totals(GREEN)

    # Between raw_trips and cleaned_trips the second day's slice loses a line.
    job = build_defs().resolve_job_def("green_daily")
    remove_last_line(stores.lake() / "_raw/green/2021/05/02/trips.csv.zst")
    tags = {
        "dagster/asset_partition_range_start": days[0],
        "dagster/asset_partition_range_end": days[-1],
    }
    downstream = [
        dg.AssetKey(["green", f"{name}_trips"])
        for name in ("cleaned", "postgres", "gcs", "bigquery")
    ]
    result = job.execute_in_process(
        asset_selection=downstream, tags=tags, instance=runs.instance, raise_on_error=False
    )
    assert not result.success
    message = stores.failure(result)
    assert "2021-05-02" in message
    assert "1 of 3 days not stored; the other 2 are stored" in message

    recorded = runs.materializations(result.run_id)
    assert {day for _, day in recorded} == {days[0], days[2]}
    assert len(recorded) == 2 * len(downstream)
    failed = {key for key, event in runs.evaluations(result.run_id).items() if not event.passed}
    assert failed == {("green/cleaned_trips", "rows_accounted_for", days[1])}
    assert stores.store_totals(GREEN) == totals_before

    # Once fixed, the day alone is enough.
    second_result = runs.run("green", days[1])
    assert second_result.success
    assert date(2021, 5, 2) in stores.store_totals(GREEN)["postgres"]


def remove_last_line(path: Path) -> None:
    """Rewrite a raw slice without its last line and with its old metadata."""
    packed = pa.py_buffer(path.read_bytes())
    lines = pa.CompressedInputStream(pa.BufferReader(packed), "zstd").read()
    remaining = b"".join(lines.splitlines(keepends=True)[:-1])
    metadata, _ = open_sealed_zstd(packed)
    path.write_bytes(
        write_sealed_zstd(metadata, pa.Codec("zstd").compress(remaining, asbytes=True))
    )


def test_single_rejected_day_is_recorded_as_failed_and_stores_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = write_month(tmp_path, GREEN, "2021-06", [make_trip_line("2021-06-01")])
    monkeypatch.setenv("TAXI_SOURCE", template)
    runs = Runs()
    job = build_defs().resolve_job_def("green_daily")
    raw = dg.AssetKey(["green", "raw_trips"])
    options: dict[str, Any] = {"partition_key": "2021-06-01", "instance": runs.instance}
    assert job.execute_in_process(asset_selection=[raw], **options).success
    remove_last_line(stores.lake() / "_raw/green/2021/06/01/trips.csv.zst")
    others = [key for key in job.asset_layer.executable_asset_keys if key != raw]
    result = job.execute_in_process(asset_selection=others, raise_on_error=False, **options)
    assert not result.success
    assert runs.materializations(result.run_id) == {}
    evaluated = runs.evaluations(result.run_id)
    assert not evaluated["green/cleaned_trips", "rows_accounted_for", "2021-06-01"].passed
    assert evaluated["green/cleaned_trips", "no_zero_passengers", "2021-06-01"].passed
    assert not any(event.is_step_up_for_retry for event in result.all_events)


def test_raw_slices_of_a_month_hold_each_line_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        make_trip_line("2021-07-01"),
        make_trip_line("2021-06-30"),
        make_trip_line("2021-07-02"),
        make_trip_line("2021-07-01", 2),
    ]
    lines += [make_trip_line("2021-07-31", n) for n in range(200)] + ["1,2021-07-05", ""]
    monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-07", lines))
    assert Runs().run("green", "2021-07-01", "2021-07-31").success
    published = gzip.decompress((tmp_path / "green_tripdata_2021-07.csv.gz").read_bytes())
    header, *published_lines = published.splitlines(keepends=True)
    slice_lines = []
    for path in (stores.lake() / "_raw/green/2021/07").rglob("*.csv.zst"):
        text = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd").read()
        slice_header, *more_lines = text.splitlines(keepends=True)
        assert slice_header == header
        slice_lines += more_lines
    assert sorted(slice_lines) == sorted(published_lines)
    reasons = stores.lake() / "_raw/green/2021/07/unreadable.csv.zst.reasons.csv"
    assert reasons.read_text().splitlines() == ["line,reason", "206,2 fields instead of 20"]


def test_chunk_opens_its_month_file_as_often_as_a_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = [f"2021-09-{day:02d}" for day in range(1, 11)]
    monkeypatch.setenv(
        "TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-09", [*map(make_trip_line, days)])
    )
    opened_paths: list[str] = []

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).endswith("green_tripdata_2021-09.csv.gz"):
            opened_paths.append(str(arguments[0]))

    sys.addaudithook(audit)
    runs = Runs()
    # The first run also hashes the file, once and for all.
    assert runs.run("green", days[0]).success
    opened_paths.clear()
    assert runs.run("green", days[1]).success
    for_a_day = len(opened_paths)
    opened_paths.clear()
    assert runs.run("green", days[0], days[-1]).success
    assert len(opened_paths) == for_a_day > 0
