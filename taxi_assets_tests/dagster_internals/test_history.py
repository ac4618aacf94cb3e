"""Pruned history: old runs go with what they logged, and what they recorded of assets stays."""

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
from taxi_assets_tests.dagster_internals.copied_runs import copy_run, folder_bytes
from taxi_assets_tests.dagster_internals.instances import dagster_home
from taxi_assets_tests.defs.automation.ticks import add_tick, ephemeral_sensor
from taxi_assets_tests.defs.jobs.test_daily import trip, write_month
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


def publish(folder: Path, *totals: object) -> str:
    lines = [trip(day, total) for day, total in zip(DAYS, totals, strict=True)]  # type: ignore[arg-type]
    return write_month(folder, GREEN, "2022-06", lines)


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=5)


def statuses(instance: dg.DagsterInstance) -> dict[str, Any]:
    graph = build_defs().resolve_asset_graph()
    return {
        key.to_user_string(): instance.get_status_by_partition(
            key, DAYS, graph.get(key).partitions_def
        )
        for key in ASSETS
    }


def latest(instance: dg.DagsterInstance) -> dict[tuple[str, str], dg.AssetMaterialization]:
    """The latest materialization of each partition of each asset."""
    found = {}
    for key in ASSETS:
        for day in DAYS:
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(key, asset_partitions=[day]), limit=1
            ).records
            for record in records:
                found[key.to_user_string(), day] = record.asset_materialization
    return found


def checks(instance: dg.DagsterInstance) -> dict[tuple[str, str], tuple[str, str]]:
    """The latest result of each check of cleaned_trips, by partition."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for spec in build_defs().resolve_asset_graph().get_check_keys_for_assets({CLEANED}):
        history = instance.event_log_storage.get_asset_check_execution_history(spec, limit=100)
        for record in history:
            value = (record.status.value, record.run_id)
            found.setdefault((spec.name, record.partition or ""), value)
    return found


def read_by_graphql() -> dict[str, Any]:
    """What the UI shows; DAGSTER_HOME is the test's."""
    command = [str(Path(sys.executable).with_name("dagster-graphql"))]
    done = subprocess.run(
        [*command, "-m", "taxi_assets.definitions", "-t", QUERY],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result, _ = json.JSONDecoder().raw_decode(done.stdout, done.stdout.index("{"))
    assert "errors" not in result, result
    return result["data"]


def test_old_runs_go_and_what_they_recorded_stays(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = runs.instance
    monkeypatch.setenv("TAXI_SOURCE", publish(tmp_path, 10, 10, 10))
    first = runs.run("green", DAYS[0], DAYS[1]).run_id
    publish(tmp_path, 20, "abc", "abc")
    again = runs.run("green", DAYS[0]).run_id
    rejected = runs.run("green", DAYS[2]).run_id
    young = runs.run("green", DAYS[1]).run_id
    publish(tmp_path, 20, 30, "abc")
    repaired = runs.run("green", DAYS[1]).run_id
    before = (statuses(instance), latest(instance), checks(instance), read_by_graphql())

    assert prune_history(instance, soon()) == 4
    # The day that stands as failed keeps its run; the one that was repaired does not.
    assert [run.run_id for run in instance.get_runs()] == [rejected]
    assert young not in instance.get_run_ids()
    after = (statuses(instance), latest(instance), checks(instance), read_by_graphql())
    assert after[:3] == before[:3]
    node = after[3]["assetNodeOrError"]
    assert node == before[3]["assetNodeOrError"]
    assert node["partitionStats"] == {"numMaterialized": 2, "numFailed": 1}
    (materialization,) = node["latestMaterializationByPartition"]
    assert materialization["runId"] == again
    pictures = {entry["label"]: entry.get("mdStr") for entry in materialization["metadataEntries"]}
    assert "data:image/png;base64," in pictures["picture"]
    assert [run["runId"] for run in after[3]["runsOrError"]["results"]] == [rejected]

    # Nothing else of them is left, and the day that stands as failed goes once it is loaded.
    gone = {first, again, young, repaired}
    home = Path(instance.root_directory)
    assert not [path for path in home.rglob("*") if path.name.removesuffix(".db") in gone]
    with unwrap_event_log(instance.event_log_storage).index_connection() as connection:
        query = sa.text("SELECT run_id, dagster_event_type FROM event_logs")
        kinds = {kind for run_id, kind in connection.execute(query) if run_id in gone}
    assert kinds == {"ASSET_MATERIALIZATION", "ASSET_OBSERVATION"}
    publish(tmp_path, 20, 30, 40)
    assert runs.run("green", DAYS[2]).success
    assert prune_history(instance, soon()) == 2
    assert instance.get_run_ids() == []
    assert {*map(str, stores.store_totals(GREEN)["lake"])} == {*DAYS}


def test_young_and_unfinished_runs_stay(runs: Runs) -> None:
    instance = runs.instance
    old = create_run_for_test(instance, job_name="none", status=dg.DagsterRunStatus.SUCCESS)
    for status in ("NOT_STARTED", "STARTING", "STARTED", "CANCELING"):
        create_run_for_test(instance, job_name="none", status=dg.DagsterRunStatus(status))
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    assert prune_history(instance, hour_ago) == 0
    assert prune_history(instance, soon()) == 1
    assert old.run_id not in instance.get_run_ids()
    assert len(instance.get_run_ids()) == 4


def test_with_other_tables_than_ours_nothing_goes(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_run_for_test(runs.instance, job_name="none", status=dg.DagsterRunStatus.SUCCESS)
    monkeypatch.setattr(private_names.PrivateName, "find", lambda self: self.warn())
    with pytest.warns(RuntimeWarning, match="SqlEventLogStorageTable: old runs are not deleted"):
        assert prune_history(runs.instance, soon()) == 0
    assert len(runs.instance.get_run_ids()) == 1


def test_a_thousand_daily_runs_stay_below_200_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days of the sample, which have pictures and tables as large as those of published ones."""
    monkeypatch.setenv("TAXI_SERVICES", ",".join(SERVICES))
    count = len(SERVICES) * (COPIES + 1)
    with dagster_home(tmp_path, "sqlite", ours=True) as folder:
        monkeypatch.setenv("DAGSTER_HOME", str(folder))
        with dg.DagsterInstance.get() as instance:
            ticks = ticks_bytes(instance)
        empty = folder_bytes(folder)
        with dg.DagsterInstance.get() as instance:
            for service in SERVICES:
                result = Runs(instance=instance).run(service, "2022-06-01")
                assert result.success
                for number in range(COPIES):
                    copy_run(instance, result.run_id, "2022-06-01", number)
        unpruned = folder_bytes(folder)
        with dg.DagsterInstance.get() as instance:
            assert prune_history(instance, soon()) == count
        kept = folder_bytes(folder)
    young, old = (unpruned - empty) / count, (kept - empty) / count
    assert young < MAX_YOUNG_BYTES
    assert old < MAX_OLD_BYTES
    for services in range(1, len(SERVICES) + 1):
        latest = services * RETENTION_DAYS
        total = empty + ticks + latest * young + (1000 - latest) * old
        assert total < MAX_BYTES, (services, empty, ticks, young, old)


def ticks_bytes(instance: dg.DagsterInstance) -> float:
    """What the sensors that alert keep of their ticks, by what some of them take."""
    size, count = folder_bytes(Path(instance.root_directory)), 500
    sensor = ephemeral_sensor(instance, "operations_alert")
    for number in range(count):
        add_tick(instance, sensor, TickStatus.SKIPPED, number)
    each = (folder_bytes(Path(instance.root_directory)) - size) / count
    kept = instance.get_tick_retention_settings(InstigatorType.SENSOR)[TickStatus.SKIPPED]
    sensors = [*build_alert_sensors(), build_operations_sensor({})]
    ticks = sum(86_400 / (one.minimum_interval_seconds or 30) for one in sensors)
    return kept * ticks * each


def test_the_index_gives_its_free_pages_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", publish(tmp_path, 10, 10, 10))
    with dagster_home(tmp_path, "sqlite", ours=True) as folder:
        monkeypatch.setenv("DAGSTER_HOME", str(folder))
        with dg.DagsterInstance.get() as instance:
            runs = Runs(instance=instance)
            for _ in range(2):
                assert runs.run("green", DAYS[0]).success
            path = unwrap_event_log(instance.event_log_storage).path_for_shard("index")
            prune_history(instance, soon())
        with closing(connect(path)) as connection:
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
    assert free <= pages / 10


def test_the_sensor_is_there_when_the_setting_is(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "run_retention_sensor" not in {it.name for it in build_defs().sensors or []}
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
