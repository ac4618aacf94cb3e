"""A rejected day stays rejected, in every kind of run, until good data arrives for it."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from taxi_assets.dagster_internals.rejections import (
    find_rejected_days,
    list_later_steps,
    list_upstream_chain,
)
from taxi_assets.definitions import build_defs
from taxi_assets.defs.io_managers.partition_data import add_missing_columns
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.month_lock import MonthLocks, open_lock_store
from taxi_assets.local.process import wait_until
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

GREEN = SERVICES["green"]
DAYS = ["2022-03-01", "2022-03-02", "2022-03-03"]
BAD = DAYS[1]
RANGE = {
    "dagster/asset_partition_range_start": DAYS[0],
    "dagster/asset_partition_range_end": DAYS[-1],
}
SINGLE_DAY = {"dagster/partition": BAD}
ASSETS = ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips")
STORES_AGREE = dg.AssetCheckKey(dg.AssetKey(["green", "bigquery_trips"]), "stores_agree")
CAUSE = "values_readable failed"


def make_asset_key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["green", name])


def build_green_daily() -> dg.JobDefinition:
    return build_defs().resolve_job_def("green_daily")


def reconstruct(build: Callable[[], dg.JobDefinition]) -> Any:
    """Return a job that Dagster's executors can reconstruct, apart from other tests' jobs."""
    job = dg.reconstructable(build)
    type(job).get_definition.cache_clear()
    type(job).get_repository_definition.cache_clear()
    return job


def build_stores_agree_job() -> dg.JobDefinition:
    job = dg.define_asset_job("agree", selection=dg.AssetSelection.checks(STORES_AGREE))
    defs = dg.Definitions.merge(build_defs(), dg.Definitions(jobs=[job]))
    return defs.resolve_job_def("agree")


def make_totals(first: float, second: float | None, third: float) -> dict[str, Any]:
    """Return the totals of every store with a trip a day."""
    days = zip(DAYS, (first, second, third), strict=True)
    totals_by_day = {
        date.fromisoformat(day): (1, total) for day, total in days if total is not None
    }
    return {"postgres": totals_by_day, "lake": totals_by_day, "bigquery": totals_by_day}


@dataclass
class Month:
    """A month file of three days that is published several times."""

    folder: Path
    runs: Runs

    def publish(self, *values: object) -> str:
        """Write one trip a day with these totals; a value that is not a number is unreadable."""
        lines = [make_trip_line(day, value) for day, value in zip(DAYS, values, strict=True)]  # type: ignore[arg-type]
        return write_month(self.folder, GREEN, "2022-03", lines)

    def run(self, tags: dict[str, str], *names: str) -> dg.ExecuteInProcessResult:
        """Start a new run of some assets."""
        return build_green_daily().execute_in_process(
            asset_selection=[make_asset_key(name) for name in names or ASSETS],
            tags=tags,
            instance=self.runs.instance,
            raise_on_error=False,
        )

    def run_stores_agree(self, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
        """Start a new run of `stores_agree` alone."""
        return build_stores_agree_job().execute_in_process(
            tags=tags, instance=self.runs.instance, raise_on_error=False
        )

    def reexecute(self, parent: str, steps: list[str] | None, tags: dict[str, str]) -> str:
        """Re-execute a run from failure, or some of its steps; return the new run's id."""
        instance = self.runs.instance
        options = (
            dg.ReexecutionOptions.from_failure(parent, instance)
            if steps is None
            else dg.ReexecutionOptions(parent_run_id=parent, step_selection=steps)
        )
        job = reconstruct(build_green_daily)
        with dg.execute_job(job, instance, tags=tags, reexecution_options=options) as result:
            return result.run_id

    def assert_rejected(self, run_id: str, *others: str) -> None:
        """Assert that the run failed and names the day and the cause."""
        instance = self.runs.instance
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.FAILURE
        failures = [
            str(record.event_log_entry.get_dagster_event().step_failure_data.error)
            for record in instance.get_records_for_run(
                run_id, of_type=dg.DagsterEventType.STEP_FAILURE
            ).records
        ]
        assert any(f"{BAD}: " in text and CAUSE in text for text in failures), failures
        stored = {
            day for name, day in self.runs.materializations(run_id) if name != "green/raw_trips"
        }
        assert stored <= set(others)
        of_stores = {
            key: event
            for key, event in self.runs.evaluations(run_id).items()
            if key[1] in ("matches_cleaned", "stores_agree") and key[2] == BAD
        }
        # A planned check without a result would be shown as failed; nothing was read back.
        planned = {
            (event.asset_key.to_user_string(), event.check_name)
            for record in instance.get_records_for_run(
                run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED
            ).records
            if (event := record.event_log_entry.get_dagster_event().asset_check_planned_data)
        }
        assert {key[:2] for key in self.runs.evaluations(run_id)} >= planned
        for event in of_stores.values():
            assert event.passed
            assert event.metadata == {}
            assert event.description == "not checked: green/cleaned_trips rejected the day"
        self.assert_only_cleaned_trips_failed()

    def assert_only_cleaned_trips_failed(self) -> None:
        """Assert that the asset that rejected the day is the only one with a failed day."""
        job = build_green_daily()
        statuses = {
            name: self.runs.instance.get_status_by_partition(
                make_asset_key(name),
                [BAD],
                job.asset_layer.get(make_asset_key(name)).partitions_def,  # type: ignore[arg-type]
            )
            for name in ASSETS
        }
        failed = {
            name
            for name, of_days in statuses.items()
            if of_days and of_days[BAD] and of_days[BAD].value == "FAILED"
        }
        assert failed == {"cleaned_trips"}


@pytest.fixture
def month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Month:
    # A history of its own: rejections of other tests would persist.
    (tmp_path / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "dagster")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    month_file = Month(tmp_path, Runs())
    monkeypatch.setenv("TAXI_SOURCE", month_file.publish(10, 10, 10))
    return month_file


STEPS = {
    "cleaned": ["green__cleaned_trips"],
    "postgres": ["green__postgres_trips"],
    "lake": ["green__gcs_trips"],
    "bigquery": ["green__bigquery_trips"],
    "lake and on": ["green__gcs_trips", "green__bigquery_trips", "green_stores_agree"],
    "agree": ["green_stores_agree"],
    "from failure": None,
}


def test_rejected_day_of_a_range_stays_rejected_until_good_data_arrives(month: Month) -> None:
    assert month.run(RANGE).success
    assert stores.store_totals(GREEN) == make_totals(10, 10, 10)
    month.publish(20, "abc", 20)
    job = reconstruct(build_green_daily)
    failed = dg.execute_job(job, month.runs.instance, tags=RANGE).run_id
    month.assert_rejected(failed, DAYS[0], DAYS[2])
    assert stores.store_totals(GREEN) == make_totals(20, 10, 20)
    # The other days are compared.
    agreed = {
        day: event.passed
        for (_, name, day), event in month.runs.evaluations(failed).items()
        if name == "stores_agree" and event.metadata
    }
    assert agreed == {DAYS[0]: True, DAYS[2]: True}
    # Shown on the partition's page of every asset that the day did not reach.
    for name in ASSETS[1:]:
        observations = month.runs.instance.fetch_observations(
            dg.AssetRecordsFilter(make_asset_key(name), asset_partitions=[BAD]), limit=10
        )
        latest = observations.records[0]
        assert latest.run_id == failed
        assert latest.asset_observation is not None
        assert CAUSE in str(latest.asset_observation.metadata["rejected"].value)

    for steps in STEPS.values():
        month.assert_rejected(month.reexecute(failed, steps, RANGE), DAYS[0], DAYS[2])
    for name in ASSETS[1:]:
        month.assert_rejected(month.run(RANGE, name).run_id, DAYS[0], DAYS[2])
        month.assert_rejected(month.run(SINGLE_DAY, name).run_id)
    month.assert_rejected(month.run(SINGLE_DAY, *ASSETS[2:]).run_id)
    month.assert_rejected(month.run_stores_agree(RANGE).run_id)
    month.assert_rejected(month.run_stores_agree(SINGLE_DAY).run_id)
    assert stores.store_totals(GREEN) == make_totals(20, 10, 20)

    month.publish(20, 30, 20)
    assert month.run(SINGLE_DAY).success
    last_run = month.runs.instance.get_run_by_id(month.reexecute(failed, None, RANGE))
    assert last_run is not None
    assert last_run.status == dg.DagsterRunStatus.SUCCESS
    assert stores.store_totals(GREEN) == make_totals(20, 30, 20)


def test_rejected_day_stays_rejected_in_a_run_of_its_own(month: Month) -> None:
    assert month.run(RANGE).success
    month.publish(20, "abc", 20)
    job = reconstruct(build_green_daily)
    failed = dg.execute_job(job, month.runs.instance, tags=SINGLE_DAY).run_id
    assert {name for name, _ in month.runs.materializations(failed)} == {"green/raw_trips"}
    second_run = month.reexecute(failed, None, SINGLE_DAY)
    month.assert_rejected(second_run)
    for name in ASSETS[2:]:
        month.assert_rejected(month.run(SINGLE_DAY, name).run_id)
    assert stores.store_totals(GREEN) == make_totals(10, 10, 10)


def test_later_of_rejection_and_materialization_counts(month: Month) -> None:
    instance = month.runs.instance
    assert month.run(SINGLE_DAY).success
    bad = date.fromisoformat(BAD)
    assert find_rejected_days(instance, make_asset_key("bigquery_trips"), [bad]) == {}
    month.publish(20, "abc", 20)
    assert not month.run(SINGLE_DAY).success
    for name in ASSETS:
        rejected_days = find_rejected_days(instance, make_asset_key(name), [bad])
        assert list(rejected_days) == ([] if name == "raw_trips" else [bad])
    # Cleaned by hand and reported as materialized, which counts, too.
    instance.report_runless_asset_event(
        dg.AssetMaterialization(make_asset_key("cleaned_trips"), partition=BAD)
    )
    assert find_rejected_days(instance, make_asset_key("bigquery_trips"), [bad]) == {}


@pytest.mark.parametrize("name", ASSETS[1:])
@pytest.mark.parametrize("tags", [SINGLE_DAY, RANGE], ids=["day", "range"])
def test_single_asset_names_the_asset_to_load_first(
    name: str, tags: dict[str, str], month: Month
) -> None:
    upstream = list_upstream_chain(make_asset_key(name))[-2].to_user_string()
    result = month.run(tags, name)
    assert not result.success
    message = stores.failure(result)
    assert f"{BAD}: {BAD} is not in " in message
    assert f"materialize {upstream} for that day first" in message
    assert month.runs.materializations(result.run_id) == {}
    # No rejection of the day is recorded.
    assert (
        find_rejected_days(month.runs.instance, make_asset_key(name), [date.fromisoformat(BAD)])
        == {}
    )


def test_stores_agree_alone_names_the_asset_to_load_first(month: Month) -> None:
    result = month.run_stores_agree(SINGLE_DAY)
    assert not result.success
    assert f"materialize green/bigquery_trips for {BAD} first" in stores.failure(result)
    assert month.runs.evaluations(result.run_id) == {}
    assert month.run({"dagster/partition": DAYS[0]}).success
    ranged = month.run_stores_agree(RANGE)
    assert not ranged.success
    assert "2 of 3 days not stored; the other 1 are stored" in stores.failure(ranged)
    assert {day for _, _, day in month.runs.evaluations(ranged.run_id)} == {DAYS[0]}


def test_stores_agree_fails_if_a_store_lost_the_day(month: Month) -> None:
    assert month.run(SINGLE_DAY).success
    stores.drop_tables()
    result = month.run_stores_agree(SINGLE_DAY)
    assert result.success
    (event,) = month.runs.evaluations(result.run_id).values()
    assert not event.passed
    assert event.metadata["gcs_trips_rows"].value == 1
    for name in ("postgres", "bigquery"):
        assert event.metadata[f"{name}_trips_rows"].value == 0


def test_stores_agree_alone_waits_for_a_run_that_loads_the_month(
    month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert month.run(SINGLE_DAY).success
    monkeypatch.setenv("TAXI_LOCK_TIMEOUT", "120")
    instance = month.runs.instance

    def load(total: float) -> None:
        with stores.postgres() as connection, connection.cursor() as cursor:
            cursor.execute(f"UPDATE ny_taxi.green_cab_data SET total_amount = {total}")

    def waits() -> bool:
        (run,) = instance.get_runs(limit=1)
        return any(
            "another run is working" in log.user_message for log in instance.all_logs(run.run_id)
        )

    def load_meanwhile() -> None:
        try:
            wait_until(waits, 300)
            load(10)
        finally:
            other_locks.close()

    other_locks = MonthLocks("other", lambda: open_lock_store(LakeResource().lake))
    other_locks.acquire(GREEN, [date.fromisoformat(BAD)], pytest.fail)
    load(20)
    with ThreadPoolExecutor(1) as pool:
        load_future = pool.submit(load_meanwhile)
        result = month.run_stores_agree(SINGLE_DAY)
        load_future.result(300)
    (event,) = month.runs.evaluations(result.run_id).values()
    assert (result.success, event.passed) == (True, True), event.metadata


def fail_on_the_bad_day(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a fault that one day's rows trigger."""

    def faulty(*arguments: Any, **options: Any) -> Any:
        if date.fromisoformat(BAD) in arguments:
            raise ZeroDivisionError("no fare at all")
        return function(*arguments, **options)

    return faulty


STAGES = {
    "raw": ("taxi_assets.defs.io_managers.raw_trips", "build_raw_key"),
    "checks": ("taxi_assets.defs.daily_assets", "check_cleaned_day"),
    "picture": ("taxi_assets.defs.metadata.day_metadata", "draw_day_picture"),
    "lake": ("taxi_assets.defs.io_managers.lake_parquet", "build_trips_key"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_error_caused_by_one_days_rows_rejects_that_day_only(
    stage: str, month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = STAGES[stage]
    patched_module = importlib.import_module(module)
    monkeypatch.setattr(patched_module, name, fail_on_the_bad_day(getattr(patched_module, name)))
    result = month.run(RANGE)
    assert not result.success
    message = stores.failure(result)
    assert f"{BAD}: " in message
    assert "ZeroDivisionError: no fare at all" in message
    assert "1 of 3 days not stored; the other 2 are stored" in message
    stored_totals = stores.store_totals(GREEN)
    good = make_totals(10, None, 10)
    assert {stored_totals[name] == good[name] for name in ("lake", "bigquery")} == {True}
    assert (
        stored_totals["postgres"]
        == (make_totals(10, 10, 10) if stage == "lake" else good)["postgres"]
    )
    assert not any(event.is_step_up_for_retry for event in result.all_events)


def test_value_that_postgres_cannot_store_rejects_its_day(
    month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_nul(table: pa.Table, schema: pa.Schema) -> pa.Table:
        table = add_missing_columns(table, schema)
        if str(table["lpep_pickup_datetime"][0].as_py().date()) != BAD:
            return table
        index = schema.get_field_index("store_and_fwd_flag")
        return table.set_column(
            index, schema.field(index), pa.array(["\0"] * len(table), pa.string())
        )

    assert month.run(RANGE).success
    month.publish(20, 20, 20)
    monkeypatch.setattr("taxi_assets.defs.io_managers.postgres.add_missing_columns", with_a_nul)
    result = month.run(RANGE)
    assert not result.success
    message = stores.failure(result)
    assert f"1 of 3 days not stored; the other 2 are stored. {BAD}: " in message
    assert "green/postgres_trips: 1 of 3" in message
    assert "invalid byte sequence" in message
    stored_totals = stores.store_totals(GREEN)
    assert stored_totals["postgres"] == make_totals(20, 10, 20)["postgres"]
    assert stored_totals["bigquery"] == make_totals(20, 20, 20)["bigquery"]
    # The stores do not agree on that day, and the check fails.
    agreed = {
        day: event.passed
        for (_, name, day), event in month.runs.evaluations(result.run_id).items()
        if name == "stores_agree"
    }
    assert agreed == {DAYS[0]: True, BAD: False, DAYS[2]: True}


def test_fault_in_every_day_fails_with_its_traceback(
    month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object) -> None:
        raise ZeroDivisionError("in every day")

    monkeypatch.setattr("taxi_assets.defs.metadata.day_metadata.draw_day_picture", faulty)
    result = month.run(RANGE)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert failed.step_key == "green__cleaned_trips"
    error = failed.step_failure_data.error
    assert "3 of 3 days not stored" in str(error)
    assert "in faulty" in str(error)


def test_downstream_steps_of_an_asset() -> None:
    store_steps = {"green__postgres_trips", "green__gcs_trips", "green__bigquery_trips"}
    assert list_later_steps(make_asset_key("raw_trips")) == {
        "green__cleaned_trips",
        "green_stores_agree",
        *store_steps,
    }
    assert list_later_steps(make_asset_key("cleaned_trips")) == {"green_stores_agree", *store_steps}
    assert list_later_steps(make_asset_key("gcs_trips")) == {
        "green__bigquery_trips",
        "green_stores_agree",
    }
    assert list_later_steps(make_asset_key("postgres_trips")) == {"green_stores_agree"}
    # It follows the lineage of the assets.
    graph = build_defs().resolve_asset_graph()
    for name in ASSETS[1:]:
        (parent,) = graph.get(make_asset_key(name)).parent_keys
        assert list_upstream_chain(make_asset_key(name))[-2] == parent
