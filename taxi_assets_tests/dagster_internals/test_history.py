"""Pruned history: old runs go with their logs, and their asset records stay."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import connect
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.scheduler.instigation import InstigatorType, TickStatus
from dagster._core.test_utils import create_run_for_test

from taxi_assets.dagster_internals import private_names
from taxi_assets.dagster_internals.event_log import unwrap_event_log
from taxi_assets.dagster_internals.history import prune_history
from taxi_assets.definitions import build_defs
from taxi_assets.defs.alerts.alert_sensors import build_alert_sensors
from taxi_assets.defs.alerts.operations_sensor import build_operations_sensor
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.dagster_internals.copied_runs import copy_run, measure_folder
from taxi_assets_tests.dagster_internals.instances import dagster_home
from taxi_assets_tests.defs.automation.ticks import add_sensor, add_tick
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

GREEN = SERVICES["green"]
DAYS = ["2022-06-01", "2022-06-02", "2022-06-03"]
CLEANED = dg.AssetKey(["green", "cleaned_trips"])
ASSETS = [
    dg.AssetKey(["green", name])
    for name in ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips")
]
COPIES = 5
MAX_BYTES = 200_000_000
"""Of DAGSTER_HOME after 1,000 runs, a run a day and service."""
RETENTION_DAYS = 30
"""TAXI_RUN_RETENTION_DAYS as the docs advise it."""
MAX_YOUNG_BYTES, MAX_OLD_BYTES = 460_000, 130_000
"""Of a run before and after it was pruned."""
QUERY = """
{
  runsOrError { ... on Runs { results { runId } } }
  assetNodeOrError(assetKey: {path: ["green", "cleaned_trips"]}) {
    ... on AssetNode {
      partitionStats { numMaterialized numFailed }
      latestMaterializationByPartition(partitions: ["2022-06-01"]) {
        runId
        metadataEntries { label ... on MarkdownMetadataEntry { mdStr } }
      }
      assetChecksOrError {
        ... on AssetChecks {
          checks { name executionForLatestMaterialization { status evaluation { success } } }
        }
      }
    }
  }
}
"""


@pytest.fixture(params=["sqlite", "postgres"])
def runs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Runs]:
    with dagster_home(tmp_path, request.param, ours=True) as folder:
        monkeypatch.setenv("DAGSTER_HOME", str(folder))
        with dg.DagsterInstance.get() as instance:
            yield Runs(instance=instance)


def publish_month(folder: Path, *totals: object) -> str:
    lines = [make_trip_line(day, total) for day, total in zip(DAYS, totals, strict=True)]  # type: ignore[arg-type]
    return write_month(folder, GREEN, "2022-06", lines)


def one_minute_ahead() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=5)


def read_statuses(instance: dg.DagsterInstance) -> dict[str, Any]:
    graph = build_defs().resolve_asset_graph()
    return {
        key.to_user_string(): instance.get_status_by_partition(
            key, DAYS, graph.get(key).partitions_def
        )
        for key in ASSETS
    }


def read_latest_materializations(
    instance: dg.DagsterInstance,
) -> dict[tuple[str, str], dg.AssetMaterialization]:
    """Return the latest materialization of each partition of each asset."""
    materializations = {}
    for key in ASSETS:
        for day in DAYS:
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(key, asset_partitions=[day]), limit=1
            ).records
            for record in records:
                materializations[key.to_user_string(), day] = record.asset_materialization
    return materializations


def read_latest_checks(instance: dg.DagsterInstance) -> dict[tuple[str, str], tuple[str, str]]:
    """Return the latest result of each check of cleaned_trips, by partition."""
    results: dict[tuple[str, str], tuple[str, str]] = {}
    for spec in build_defs().resolve_asset_graph().get_check_keys_for_assets({CLEANED}):
        history = instance.event_log_storage.get_asset_check_execution_history(spec, limit=100)
        for record in history:
            value = (record.status.value, record.run_id)
            results.setdefault((spec.name, record.partition or ""), value)
    return results


def read_by_graphql() -> dict[str, Any]:
    """Return the UI's view of the assets; DAGSTER_HOME is the test's."""
    command = [str(Path(sys.executable).with_name("dagster-graphql"))]
    completed = subprocess.run(
        [*command, "-m", "taxi_assets.definitions", "-t", QUERY],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert completed.returncode == 0, completed.stderr[-2000:]
    result, _ = json.JSONDecoder().raw_decode(completed.stdout, completed.stdout.index("{"))
    assert "errors" not in result, result
    return result["data"]


def test_old_runs_go_and_their_asset_records_stay(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = runs.instance
    monkeypatch.setenv("TAXI_SOURCE", publish_month(tmp_path, 10, 10, 10))
    first_run = runs.run("green", DAYS[0], DAYS[1]).run_id
    publish_month(tmp_path, 20, "abc", "abc")
    second_run = runs.run("green", DAYS[0]).run_id
    rejected = runs.run("green", DAYS[2]).run_id
    young = runs.run("green", DAYS[1]).run_id
    publish_month(tmp_path, 20, 30, "abc")
    repaired = runs.run("green", DAYS[1]).run_id
    records_before = (
        read_statuses(instance),
        read_latest_materializations(instance),
        read_latest_checks(instance),
        read_by_graphql(),
    )

    assert prune_history(instance, one_minute_ahead()) == 4
    # The day whose last check failed keeps its run; the repaired day does not.
    assert [run.run_id for run in instance.get_runs()] == [rejected]
    assert young not in instance.get_run_ids()
    records_after = (
        read_statuses(instance),
        read_latest_materializations(instance),
        read_latest_checks(instance),
        read_by_graphql(),
    )
    assert records_after[:3] == records_before[:3]
    node = records_after[3]["assetNodeOrError"]
    assert node == records_before[3]["assetNodeOrError"]
    assert node["partitionStats"] == {"numMaterialized": 2, "numFailed": 1}
    (materialization,) = node["latestMaterializationByPartition"]
    assert materialization["runId"] == second_run
    pictures = {entry["label"]: entry.get("mdStr") for entry in materialization["metadataEntries"]}
    assert "data:image/png;base64," in pictures["picture"]
    assert [run["runId"] for run in records_after[3]["runsOrError"]["results"]] == [rejected]

    # Nothing else of them is left, and the failed day's run goes once the day is loaded.
    pruned_runs = {first_run, second_run, young, repaired}
    home = Path(instance.root_directory)
    assert not [path for path in home.rglob("*") if path.name.removesuffix(".db") in pruned_runs]
    with unwrap_event_log(instance.event_log_storage).index_connection() as connection:
        query = sa.text("SELECT run_id, dagster_event_type FROM event_logs")
        kinds = {kind for run_id, kind in connection.execute(query) if run_id in pruned_runs}
    assert kinds == {"ASSET_MATERIALIZATION", "ASSET_OBSERVATION"}
    publish_month(tmp_path, 20, 30, 40)
    assert runs.run("green", DAYS[2]).success
    assert prune_history(instance, one_minute_ahead()) == 2
    assert instance.get_run_ids() == []
    assert {*map(str, stores.store_totals(GREEN)["lake"])} == {*DAYS}


def test_young_and_unfinished_runs_stay(runs: Runs) -> None:
    instance = runs.instance
    old_run = create_run_for_test(instance, job_name="none", status=dg.DagsterRunStatus.SUCCESS)
    for status in ("NOT_STARTED", "STARTING", "STARTED", "CANCELING"):
        create_run_for_test(instance, job_name="none", status=dg.DagsterRunStatus(status))
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert prune_history(instance, hour_ago) == 0
    assert prune_history(instance, one_minute_ahead()) == 1
    assert old_run.run_id not in instance.get_run_ids()
    assert len(instance.get_run_ids()) == 4


def test_nothing_is_pruned_from_unknown_tables(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    create_run_for_test(runs.instance, job_name="none", status=dg.DagsterRunStatus.SUCCESS)
    monkeypatch.setattr(private_names.PrivateName, "find", lambda self: self.warn())
    with pytest.warns(RuntimeWarning, match="SqlEventLogStorageTable: old runs are not deleted"):
        assert prune_history(runs.instance, one_minute_ahead()) == 0
    assert len(runs.instance.get_run_ids()) == 1


def test_a_thousand_daily_runs_stay_below_200_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use days of the sample, whose pictures and tables are as large as those of published days."""
    monkeypatch.setenv("TAXI_SERVICES", ",".join(SERVICES))
    count = len(SERVICES) * (COPIES + 1)
    with dagster_home(tmp_path, "sqlite", ours=True) as folder:
        monkeypatch.setenv("DAGSTER_HOME", str(folder))
        with dg.DagsterInstance.get() as instance:
            ticks = estimate_ticks_bytes(instance)
        empty_bytes = measure_folder(folder)
        with dg.DagsterInstance.get() as instance:
            for service in SERVICES:
                result = Runs(instance=instance).run(service, "2022-06-01")
                assert result.success
                for number in range(COPIES):
                    copy_run(instance, result.run_id, "2022-06-01", number)
        unpruned = measure_folder(folder)
        with dg.DagsterInstance.get() as instance:
            assert prune_history(instance, one_minute_ahead()) == count
        pruned_bytes = measure_folder(folder)
    young_run_bytes, old_run_bytes = (
        (unpruned - empty_bytes) / count,
        (pruned_bytes - empty_bytes) / count,
    )
    assert young_run_bytes < MAX_YOUNG_BYTES
    assert old_run_bytes < MAX_OLD_BYTES
    for services in range(1, len(SERVICES) + 1):
        latest = services * RETENTION_DAYS
        total = empty_bytes + ticks + latest * young_run_bytes + (1000 - latest) * old_run_bytes
        assert total < MAX_BYTES, (services, empty_bytes, ticks, young_run_bytes, old_run_bytes)


def estimate_ticks_bytes(instance: dg.DagsterInstance) -> float:
    """Estimate the bytes of the alert sensors' stored ticks from some of them."""
    size, count = measure_folder(Path(instance.root_directory)), 500
    sensor = add_sensor(instance, "operations_alert")
    for number in range(count):
        add_tick(instance, sensor, TickStatus.SKIPPED, number)
    bytes_per_tick = (measure_folder(Path(instance.root_directory)) - size) / count
    retention_days = instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED]
    sensors = [*build_alert_sensors(), build_operations_sensor({})]
    ticks = sum(86_400 / (sensor.minimum_interval_seconds or 30) for sensor in sensors)
    return retention_days * ticks * bytes_per_tick


def test_index_returns_its_free_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_SOURCE", publish_month(tmp_path, 10, 10, 10))
    with dagster_home(tmp_path, "sqlite", ours=True) as folder:
        monkeypatch.setenv("DAGSTER_HOME", str(folder))
        with dg.DagsterInstance.get() as instance:
            runs = Runs(instance=instance)
            for _ in range(2):
                assert runs.run("green", DAYS[0]).success
            path = unwrap_event_log(instance.event_log_storage).path_for_shard("index")
            prune_history(instance, one_minute_ahead())
        with closing(connect(path)) as connection:
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
    assert free <= pages / 10


def test_sensor_exists_only_with_its_setting(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "run_retention_sensor" not in {sensor.name for sensor in build_defs().sensors or []}
    monkeypatch.setenv("TAXI_RUN_RETENTION_DAYS", "1")
    sensor = build_defs().resolve_sensor_def("run_retention_sensor")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    with (
        dagster_home(tmp_path, "sqlite", ours=True) as folder,
        dg.DagsterInstance.from_config(str(folder)) as instance,
        dg.build_sensor_context(instance) as context,
    ):
        create_run_for_test(instance, job_name="none", status=dg.DagsterRunStatus.SUCCESS)
        skipped = sensor.evaluate_tick(context).skip_message
        assert len(instance.get_run_ids()) == 1
    assert skipped is not None
    assert skipped.startswith("0 runs")
