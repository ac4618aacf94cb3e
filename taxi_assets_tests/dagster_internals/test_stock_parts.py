"""The main jobs on Dagster's own event logs and executors: each of our parts is optional."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob

from taxi_assets.dagster_internals.event_batches import Batches
from taxi_assets.dagster_internals.event_log import unwrap_event_log
from taxi_assets.partitions import daily_partitions
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.dagster_internals.instances import dagster_home
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

GREEN = SERVICES["green"]
DAYS = ["2022-05-01", "2022-05-02", "2022-05-03"]
BAD = DAYS[1]
DAY = {"dagster/partition": DAYS[0]}
MONTH = {
    "dagster/asset_partition_range_start": DAYS[0],
    "dagster/asset_partition_range_end": DAYS[-1],
}
LATER = ("cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips")
JOB = """
import dagster as dg
from taxi_assets.definitions import build_defs

def job():
    return build_defs(executor=dg.{executor}).resolve_job_def("green_daily")
"""
PARTS = [
    ("stock", "sqlite", "in_process_executor"),
    ("stock", "postgres", "in_process_executor"),
    ("stock", "sqlite", "multiprocess_executor"),
    ("ours", "postgres", "in_process_executor"),
    ("ours", "wrapped sqlite", "in_process_executor"),
]


@pytest.fixture(params=PARTS, ids=" ".join)
def runs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Runs]:
    whose, storage, executor = request.param
    (tmp_path / "stock_parts.py").write_text(JOB.format(executor=executor))
    with dagster_home(tmp_path, storage, ours=whose == "ours") as folder:
        monkeypatch.setenv("DAGSTER_HOME", str(folder))
        with dg.DagsterInstance.get() as instance:
            if "wrapped" not in storage:
                assert isinstance(instance.event_log_storage, Batches) == (whose == "ours")
            yield Runs(instance=instance)


def publish_month(folder: Path, *totals: object) -> str:
    """Write one trip a day with these totals; a value that is not a number is unreadable."""
    lines = [make_trip_line(day, total) for day, total in zip(DAYS, totals, strict=True)]  # type: ignore[arg-type]
    return write_month(folder, GREEN, "2022-05", lines)


def make_totals(first: float, second: float, third: float) -> dict[str, Any]:
    """Return the totals of every store with a trip a day."""
    days = zip(DAYS, (first, second, third), strict=True)
    totals = {date.fromisoformat(day): (1, total) for day, total in days}
    return {"postgres": totals, "lake": totals, "bigquery": totals}


def list_failed_assets(instance: dg.DagsterInstance) -> set[str]:
    """Return the assets of which the bad day is failed in Dagster's UI."""
    failed = set()
    for name in ("raw_trips", *LATER):
        key = dg.AssetKey(["green", name])
        statuses = instance.get_status_by_partition(key, [BAD], daily_partitions())
        assert statuses is not None
        status = statuses[BAD]
        failed |= {name} if status is not None and status.value == "FAILED" else set()
    return failed


def test_day_month_rejected_day_and_re_execution(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = ReconstructableJob.for_file(str(tmp_path / "stock_parts.py"), "job")

    def execute(tags: dict[str, str], parent: str | None = None) -> tuple[str, bool]:
        options = dg.ReexecutionOptions.from_failure(parent, runs.instance) if parent else None
        with dg.execute_job(job, runs.instance, tags=tags, reexecution_options=options) as result:
            return result.run_id, result.success

    monkeypatch.setenv("TAXI_SOURCE", publish_month(tmp_path, 10, 10, 10))
    month, succeeded = execute(MONTH)
    assert succeeded
    assert stores.store_totals(GREEN) == make_totals(10, 10, 10)
    assert len(runs.materializations(month)) == 5 * len(DAYS)
    assert {day for _, _, day in runs.evaluations(month)} == {*DAYS, None}

    publish_month(tmp_path, 20, "abc", 20)
    rejected, succeeded = execute(MONTH)
    assert not succeeded
    assert stores.store_totals(GREEN) == make_totals(20, 10, 20)
    stored_days = {day for name, day in runs.materializations(rejected) if "raw_trips" not in name}
    assert stored_days == {DAYS[0], DAYS[2]}
    is_ours = isinstance(unwrap_event_log(runs.instance.event_log_storage), Batches)
    assert list_failed_assets(runs.instance) == ({"cleaned_trips"} if is_ours else {*LATER})

    reexecuted, succeeded = execute(MONTH, parent=rejected)
    assert not succeeded
    assert BAD not in {day for name, day in runs.materializations(reexecuted)}
    assert stores.store_totals(GREEN) == make_totals(20, 10, 20)

    publish_month(tmp_path, 30, 30, 30)
    day, succeeded = execute(DAY)
    assert succeeded
    assert stores.store_totals(GREEN) == make_totals(30, 10, 20)
    assert len(runs.materializations(day)) == 5
