"""A rejected day stays rejected, however it is run again, until good data arrives for it."""

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
from taxi_assets_tests.defs.jobs.test_daily import trip, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

GREEN = SERVICES["green"]
DAYS = ["2022-03-01", "2022-03-02", "2022-03-03"]
BAD = DAYS[1]
RANGE = {
    "dagster/asset_partition_range_start": DAYS[0],
    "dagster/asset_partition_range_end": DAYS[-1],
}
ALONE = {"dagster/partition": BAD}
ASSETS = ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips")
AGREE = dg.AssetCheckKey(dg.AssetKey(["green", "bigquery_trips"]), "stores_agree")
CAUSE = "values_readable failed"


def key_of(name: str) -> dg.AssetKey:
    return dg.AssetKey(["green", name])


def green_daily() -> dg.JobDefinition:
    return build_defs().resolve_job_def("green_daily")


def reconstruct(build: Callable[[], dg.JobDefinition]) -> Any:
    """Return a job for Dagster's executors, without the one of another test's environment."""
    job = dg.reconstructable(build)
    type(job).get_definition.cache_clear()
    type(job).get_repository_definition.cache_clear()
    return job


def only_stores_agree() -> dg.JobDefinition:
    job = dg.define_asset_job("agree", selection=dg.AssetSelection.checks(AGREE))
    defs = dg.Definitions.merge(build_defs(), dg.Definitions(jobs=[job]))
    return defs.resolve_job_def("agree")


def totals(first: float, second: float | None, third: float) -> dict[str, Any]:
    """What every store holds: a trip a day."""
    days = zip(DAYS, (first, second, third), strict=True)
    held = {date.fromisoformat(day): (1, total) for day, total in days if total is not None}
    return {"postgres": held, "lake": held, "bigquery": held}


@dataclass
class Month:
    """A month file of three days, published again and again."""

    folder: Path
    runs: Runs

    def publish(self, *values: object) -> str:
        """One trip a day with these totals; a word in place of a number is not readable."""
        lines = [trip(day, value) for day, value in zip(DAYS, values, strict=True)]  # type: ignore[arg-type]
        return write_month(self.folder, GREEN, "2022-03", lines)

    def run(self, tags: dict[str, str], *names: str) -> dg.ExecuteInProcessResult:
        """A new run, of some assets alone."""
        return green_daily().execute_in_process(
            asset_selection=[key_of(name) for name in names or ASSETS],
            tags=tags,
            instance=self.runs.instance,
            raise_on_error=False,
        )

    def agree(self, tags: dict[str, str]) -> dg.ExecuteInProcessResult:
        """A new run of `stores_agree` alone."""
        return only_stores_agree().execute_in_process(
            tags=tags, instance=self.runs.instance, raise_on_error=False
        )

    def again(self, parent: str, steps: list[str] | None, tags: dict[str, str]) -> str:
        """Re-execute a run from failure, or some steps of it; the new run's id."""
        instance = self.runs.instance
        options = (
            dg.ReexecutionOptions.from_failure(parent, instance)
            if steps is None
            else dg.ReexecutionOptions(parent_run_id=parent, step_selection=steps)
        )
        job = reconstruct(green_daily)
        with dg.execute_job(job, instance, tags=tags, reexecution_options=options) as result:
            return result.run_id

    def assert_rejected(self, run_id: str, *others: str) -> None:
        """The run failed, and names the day and the cause; of the others it may tell more."""
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
        read_back = {
            day
            for _, name, day in self.runs.evaluations(run_id)
            if name in ("matches_cleaned", "stores_agree")
        }
        assert BAD not in read_back


@pytest.fixture
def month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Month:
    # A history of its own: what other tests rejected would stay so.
    (tmp_path / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "dagster")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    found = Month(tmp_path, Runs())
    monkeypatch.setenv("TAXI_SOURCE", found.publish(10, 10, 10))
    return found


STEPS = {
    "cleaned": ["green__cleaned_trips"],
    "postgres": ["green__postgres_trips"],
    "lake": ["green__gcs_trips"],
    "bigquery": ["green__bigquery_trips"],
    "lake and on": ["green__gcs_trips", "green__bigquery_trips", "green_stores_agree"],
    "agree": ["green_stores_agree"],
    "from failure": None,
}


def test_a_rejected_day_of_a_range_stays_rejected_until_good_data_arrives(month: Month) -> None:
    assert month.run(RANGE).success
    assert stores.store_totals(GREEN) == totals(10, 10, 10)
    month.publish(20, "abc", 20)
    job = reconstruct(green_daily)
    failed = dg.execute_job(job, month.runs.instance, tags=RANGE).run_id
    month.assert_rejected(failed, DAYS[0], DAYS[2])
    assert stores.store_totals(GREEN) == totals(20, 10, 20)
    # What can be compared is.
    agreed = {
        day: event.passed
        for (_, name, day), event in month.runs.evaluations(failed).items()
        if name == "stores_agree"
    }
    assert agreed == {DAYS[0]: True, DAYS[2]: True}
    # Seen on the partition's page of every asset that the day was kept from.
    for name in ASSETS[1:]:
        seen = month.runs.instance.fetch_observations(
            dg.AssetRecordsFilter(key_of(name), asset_partitions=[BAD]), limit=10
        )
        latest = seen.records[0]
        assert latest.run_id == failed
        assert latest.asset_observation is not None
        assert CAUSE in str(latest.asset_observation.metadata["rejected"].value)

    for steps in STEPS.values():
        month.assert_rejected(month.again(failed, steps, RANGE), DAYS[0], DAYS[2])
    for name in ASSETS[1:]:
        month.assert_rejected(month.run(RANGE, name).run_id, DAYS[0], DAYS[2])
        month.assert_rejected(month.run(ALONE, name).run_id)
    month.assert_rejected(month.run(ALONE, *ASSETS[2:]).run_id)
    month.assert_rejected(month.agree(RANGE).run_id)
    month.assert_rejected(month.agree(ALONE).run_id)
    assert stores.store_totals(GREEN) == totals(20, 10, 20)

    month.publish(20, 30, 20)
    assert month.run(ALONE).success
    last = month.runs.instance.get_run_by_id(month.again(failed, None, RANGE))
    assert last is not None
    assert last.status == dg.DagsterRunStatus.SUCCESS
    assert stores.store_totals(GREEN) == totals(20, 30, 20)


def test_a_rejected_day_run_alone_stays_rejected(month: Month) -> None:
    assert month.run(RANGE).success
    month.publish(20, "abc", 20)
    job = reconstruct(green_daily)
    failed = dg.execute_job(job, month.runs.instance, tags=ALONE).run_id
    assert {name for name, _ in month.runs.materializations(failed)} == {"green/raw_trips"}
    again = month.again(failed, None, ALONE)
    month.assert_rejected(again)
    for name in ASSETS[2:]:
        month.assert_rejected(month.run(ALONE, name).run_id)
    assert stores.store_totals(GREEN) == totals(10, 10, 10)


def test_the_later_of_rejection_and_materialization_counts(month: Month) -> None:
    instance = month.runs.instance
    assert month.run(ALONE).success
    bad = date.fromisoformat(BAD)
    assert find_rejected_days(instance, key_of("bigquery_trips"), [bad]) == {}
    month.publish(20, "abc", 20)
    assert not month.run(ALONE).success
    for name in ASSETS:
        found = find_rejected_days(instance, key_of(name), [bad])
        assert list(found) == ([] if name == "raw_trips" else [bad])
    # Cleaned by hand and reported so: what people say counts, too.
    instance.report_runless_asset_event(
        dg.AssetMaterialization(key_of("cleaned_trips"), partition=BAD)
    )
    assert find_rejected_days(instance, key_of("bigquery_trips"), [bad]) == {}


@pytest.mark.parametrize("name", ASSETS[1:])
@pytest.mark.parametrize("tags", [ALONE, RANGE], ids=["day", "range"])
def test_an_asset_alone_says_what_to_load_first(
    name: str, tags: dict[str, str], month: Month
) -> None:
    upstream = list_upstream_chain(key_of(name))[-2].to_user_string()
    result = month.run(tags, name)
    assert not result.success
    message = stores.failure(result)
    assert f"{BAD}: {BAD} is not in " in message
    assert f"materialize {upstream} for that day first" in message
    assert month.runs.materializations(result.run_id) == {}
    # Nothing is known against the day.
    assert find_rejected_days(month.runs.instance, key_of(name), [date.fromisoformat(BAD)]) == {}


def test_stores_agree_alone_says_what_to_load_first(month: Month) -> None:
    result = month.agree(ALONE)
    assert not result.success
    assert f"materialize green/bigquery_trips for {BAD} first" in stores.failure(result)
    assert month.runs.evaluations(result.run_id) == {}
    assert month.run({"dagster/partition": DAYS[0]}).success
    ranged = month.agree(RANGE)
    assert not ranged.success
    assert "2 of 3 days not stored; the other 1 are stored" in stores.failure(ranged)
    assert {day for _, _, day in month.runs.evaluations(ranged.run_id)} == {DAYS[0]}


def test_stores_agree_fails_where_a_store_lost_the_day(month: Month) -> None:
    assert month.run(ALONE).success
    stores.drop_tables()
    result = month.agree(ALONE)
    assert result.success
    (event,) = month.runs.evaluations(result.run_id).values()
    assert not event.passed
    assert event.metadata["gcs_trips_rows"].value == 1
    for name in ("postgres", "bigquery"):
        assert event.metadata[f"{name}_trips_rows"].value == 0


def test_stores_agree_alone_waits_for_a_run_that_loads_the_month(
    month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert month.run(ALONE).success
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
            wait_until(waits, 60)
            load(10)
        finally:
            other.close()

    other = MonthLocks("other", lambda: open_lock_store(LakeResource().lake))
    other.acquire(GREEN, [date.fromisoformat(BAD)], pytest.fail)
    load(20)
    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load_meanwhile)
        result = month.agree(ALONE)
        loaded.result(60)
    (event,) = month.runs.evaluations(result.run_id).values()
    assert (result.success, event.passed) == (True, True), event.metadata


def over_the_bad_day(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a fault that one day's rows bring out."""

    def faulty(*arguments: Any, **named: Any) -> Any:
        if date.fromisoformat(BAD) in arguments:
            raise ZeroDivisionError("no fare at all")
        return function(*arguments, **named)

    return faulty


STAGES = {
    "raw": ("taxi_assets.defs.io_managers.raw_trips", "build_raw_key"),
    "checks": ("taxi_assets.defs.daily_assets", "check_cleaned_day"),
    "picture": ("taxi_assets.defs.metadata.day_metadata", "draw_day_picture"),
    "lake": ("taxi_assets.defs.io_managers.lake_parquet", "build_trips_key"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_over_one_days_rows_rejects_this_day_only(
    stage: str, month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, name = STAGES[stage]
    place = importlib.import_module(module)
    monkeypatch.setattr(place, name, over_the_bad_day(getattr(place, name)))
    result = month.run(RANGE)
    assert not result.success
    message = stores.failure(result)
    assert f"{BAD}: " in message
    assert "ZeroDivisionError: no fare at all" in message
    assert "1 of 3 days not stored; the other 2 are stored" in message
    landed = stores.store_totals(GREEN)
    good = totals(10, None, 10)
    assert {landed[name] == good[name] for name in ("lake", "bigquery")} == {True}
    assert landed["postgres"] == (totals(10, 10, 10) if stage == "lake" else good)["postgres"]
    assert not any(event.is_step_up_for_retry for event in result.all_events)


def test_a_value_that_postgres_cannot_store_rejects_its_day_there(
    month: Month, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_a_nul(table: pa.Table, schema: pa.Schema) -> pa.Table:
        table = add_missing_columns(table, schema)
        if str(table["lpep_pickup_datetime"][0].as_py().date()) != BAD:
            return table
        at = schema.get_field_index("store_and_fwd_flag")
        return table.set_column(at, schema.field(at), pa.array(["\0"] * len(table), pa.string()))

    assert month.run(RANGE).success
    month.publish(20, 20, 20)
    monkeypatch.setattr("taxi_assets.defs.io_managers.postgres.add_missing_columns", with_a_nul)
    result = month.run(RANGE)
    assert not result.success
    message = stores.failure(result)
    assert f"1 of 3 days not stored; the other 2 are stored. {BAD}: " in message
    assert "green/postgres_trips: 1 of 3" in message
    assert "invalid byte sequence" in message
    landed = stores.store_totals(GREEN)
    assert landed["postgres"] == totals(20, 10, 20)["postgres"]
    assert landed["bigquery"] == totals(20, 20, 20)["bigquery"]
    # The stores do not agree on that day, and the check says so.
    agreed = {
        day: event.passed
        for (_, name, day), event in month.runs.evaluations(result.run_id).items()
        if name == "stores_agree"
    }
    assert agreed == {DAYS[0]: True, BAD: False, DAYS[2]: True}


def test_a_fault_that_hits_every_day_fails_with_its_traceback(
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


def test_what_comes_after_an_asset() -> None:
    others = {"green__postgres_trips", "green__gcs_trips", "green__bigquery_trips"}
    assert list_later_steps(key_of("raw_trips")) == {
        "green__cleaned_trips",
        "green_stores_agree",
        *others,
    }
    assert list_later_steps(key_of("cleaned_trips")) == {"green_stores_agree", *others}
    assert list_later_steps(key_of("gcs_trips")) == {"green__bigquery_trips", "green_stores_agree"}
    assert list_later_steps(key_of("postgres_trips")) == {"green_stores_agree"}
    # The lineage that this goes by is the assets' own.
    graph = build_defs().resolve_asset_graph()
    for name in ASSETS[1:]:
        (parent,) = graph.get(key_of(name)).parent_keys
        assert list_upstream_chain(key_of(name))[-2] == parent
