"""Dagster's event logs with batches: when events are stored and watchers notified."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster import DagsterEventType
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    StepMaterializationData,
)
from dagster._core.test_utils import create_run_for_test

from taxi_assets.dagster_internals.event_batches import Batches, batch_transaction
from taxi_assets.dagster_internals.event_log import unwrap_event_log
from taxi_assets.dagster_internals.postgres_event_log import PostgresBatches
from taxi_assets.dagster_internals.sqlite_event_log import SqliteBatches
from taxi_assets_tests.dagster_internals.instances import STORAGES, dagster_home


@pytest.fixture(params=STORAGES)
def instance(
    request: pytest.FixtureRequest, home: Path, tmp_path: Path
) -> Iterator[dg.DagsterInstance]:
    with ExitStack() as stack:
        folder = stack.enter_context(dagster_home(tmp_path, request.param, ours=True))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(folder)))
        kind = PostgresBatches if "postgres" in request.param else SqliteBatches
        assert isinstance(unwrap_event_log(instance.event_log_storage), kind)
        yield instance


@pytest.fixture
def run_id(instance: dg.DagsterInstance) -> str:
    return create_run_for_test(instance, job_name="none").run_id


def log_observation(instance: dg.DagsterInstance, run_id: str, text: str) -> None:
    """Log an event of an asset, which may be batched."""
    event = DagsterEvent(
        DagsterEventType.ASSET_OBSERVATION.value,
        "none",
        event_specific_data=AssetObservationData(dg.AssetObservation("seen", partition=text)),
        message=text,
    )
    instance.report_dagster_event(event, run_id)


def list_stored_texts(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [log.get_dagster_event().message or "" for log in instance.all_logs(run_id)]


def test_wrapped_event_log_answers_as_dagsters_own(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    own = unwrap_event_log(storage)
    assert own.has_instance
    assert storage.supports_global_concurrency_limits
    assert storage.is_run_sharded is own.is_run_sharded
    assert storage.alembic_version() == own.alembic_version() != (None, None)
    assert storage.get_maximum_record_id() == own.get_maximum_record_id()


def test_batch_belongs_to_its_thread_and_survives_an_error(
    instance: dg.DagsterInstance, run_id: str
) -> None:
    def lost_in_the_middle() -> None:
        with batch_transaction():
            log_observation(instance, run_id, "in the batch")
            other_thread = threading.Thread(
                target=log_observation, args=[instance, run_id, "beside it"]
            )
            other_thread.start()
            other_thread.join(30)
            assert list_stored_texts(instance, run_id) == ["beside it"]
            raise ConnectionError

    with pytest.raises(ConnectionError):
        lost_in_the_middle()
    assert list_stored_texts(instance, run_id) == ["beside it", "in the batch"]


def test_progress_is_stored_immediately_and_in_order(
    instance: dg.DagsterInstance, run_id: str
) -> None:
    with batch_transaction():
        log_observation(instance, run_id, "first day")
        log_observation(instance, run_id, "second day")
        assert list_stored_texts(instance, run_id) == []
        instance.report_engine_event("two days", run_id=run_id, job_name="none")
        assert list_stored_texts(instance, run_id) == ["first day", "second day", "two days"]
        log_observation(instance, run_id, "third day")
    assert list_stored_texts(instance, run_id) == [
        "first day",
        "second day",
        "two days",
        "third day",
    ]
    key = dg.AssetKey("seen")
    observations = instance.fetch_observations(dg.AssetRecordsFilter(key), limit=3).records
    assert [record.partition_key for record in observations] == [
        "third day",
        "second day",
        "first day",
    ]


def materialize(instance: dg.DagsterInstance, run_id: str, asset: str, day: str) -> None:
    """Log a materialization, which may wait."""
    materialization = dg.AssetMaterialization(asset, partition=day)
    event = DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION.value,
        "none",
        event_specific_data=StepMaterializationData(materialization, []),
    )
    instance.report_dagster_event(event, run_id)


def plan(instance: dg.DagsterInstance, run_id: str, asset: str, days: Sequence[str]) -> None:
    """Log planned materializations as Dagster does when it creates a run of several days."""
    kind = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    entries = []
    for day in days:
        planned = AssetMaterializationPlannedData(dg.AssetKey(asset), partition=day)
        event = DagsterEvent(kind.value, "none", event_specific_data=planned)
        entries.append(dg.EventLogEntry(None, 10, "", run_id, time.time(), dagster_event=event))
    unwrap_event_log(instance.event_log_storage).store_event_batch(entries)


@contextmanager
def noted_writes(table: str) -> Iterator[list[str]]:
    """Collect the statements that write to a table."""
    written: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if f"INTO {table} " in statement or f"UPDATE {table} " in statement:
            written.append(statement.split(maxsplit=1)[0])

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield written
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


def test_batch_takes_one_transaction_per_asset(instance: dg.DagsterInstance, run_id: str) -> None:
    """Connections and commits are the cost of an event, however many a batch has."""
    commits: list[object] = []
    record = partial(materialize, instance, run_id)

    def count(connection: sa.Connection) -> None:
        commits.append(connection)

    record("first", "whose files are made and whose tables are looked up")
    files = 1 if isinstance(unwrap_event_log(instance.event_log_storage), PostgresBatches) else 2
    sa.event.listen(sa.Engine, "commit", count)
    try:
        with batch_transaction():
            for day in map(str, range(20)):
                record("first", day)
            for day in map(str, range(20)):
                record("second", day)
    finally:
        sa.event.remove(sa.Engine, "commit", count)
    assert len(commits) == 2 * files
    for asset in ("first", "second"):
        days = instance.get_materialized_partitions(dg.AssetKey(asset))
        assert days >= set(map(str, range(20)))


def test_the_row_of_an_asset_is_written_once_in_a_batch_and_names_the_last_day(
    instance: dg.DagsterInstance, run_id: str
) -> None:
    """Dagster's row of an asset has all of its last event, so 31 days would be 31 pictures."""
    materialize(instance, run_id, "first", "earlier")
    with noted_writes("asset_keys") as written, batch_transaction():
        for day in map(str, range(20)):
            materialize(instance, run_id, "first", day)
    assert written in (["INSERT"], ["INSERT", "UPDATE"])
    latest = instance.get_latest_materialization_event(dg.AssetKey("first"))
    assert latest is not None
    assert latest.get_dagster_event().partition == "19"
    (record,) = instance.get_asset_records([dg.AssetKey("first")])
    assert record.asset_entry.last_run_id == run_id
    records = instance.fetch_materializations(dg.AssetKey("first"), limit=30).records
    assert [record.partition_key for record in records] == [
        *map(str, reversed(range(20))),
        "earlier",
    ]
    assert record.asset_entry.last_materialization_storage_id == records[0].storage_id


def test_planned_days_of_sqlite_write_the_row_of_their_asset_once(
    instance: dg.DagsterInstance, run_id: str
) -> None:
    if isinstance(unwrap_event_log(instance.event_log_storage), PostgresBatches):
        pytest.skip("Dagster's batch on Postgres is for materializations alone")
    with noted_writes("asset_keys") as written:
        plan(instance, run_id, "first", ["1", "2", "3"])
        plan(instance, run_id, "second", ["1", "2"])
    assert written == ["INSERT", "INSERT"]
    kind = DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    planned = [one.get_dagster_event().partition for one in instance.all_logs(run_id, of_type=kind)]
    assert planned == ["1", "2", "3", "1", "2"]
    for asset in ("first", "second"):
        (record,) = instance.get_asset_records([dg.AssetKey(asset)])
        assert record.asset_entry.last_run_id == run_id
        info = instance.get_latest_planned_materialization_info(dg.AssetKey(asset), partition="2")
        assert info is not None
        assert info.run_id == run_id


def test_only_the_index_is_flushed_at_each_commit(home: Path, tmp_path: Path) -> None:
    """A power cut must not take a materialization or a rejection, which the index has."""
    with ExitStack() as stack:
        folder = stack.enter_context(dagster_home(tmp_path, "sqlite", ours=True))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(folder)))
        run_id = create_run_for_test(instance, job_name="none").run_id
        log_observation(instance, run_id, "a day")
        storage = unwrap_event_log(instance.event_log_storage)
        levels = []
        for connect in (storage.index_connection(), storage.run_connection(run_id)):
            with connect as connection:
                levels.append(connection.exec_driver_sql("PRAGMA synchronous").scalar())
    full, normal = 2, 1
    assert levels == [full, normal]


def test_only_the_failed_transaction_is_retried(
    instance: dg.DagsterInstance, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, away = Batches.store_events, ["second"]

    def store_events(self: Batches, run_id: str, events: Sequence[dg.EventLogEntry]) -> None:
        if away and str(events[0].get_dagster_event().asset_key).count(away[0]):
            away.clear()
            raise ConnectionError
        store(self, run_id, events)

    def lost_in_the_middle() -> None:
        with batch_transaction():
            for asset in ("first", "second"):
                event = DagsterEvent(
                    DagsterEventType.ASSET_OBSERVATION.value,
                    "none",
                    event_specific_data=AssetObservationData(dg.AssetObservation(asset)),
                    message=asset,
                )
                instance.report_dagster_event(event, run_id)
            instance.report_engine_event("progress", run_id=run_id, job_name="none")

    monkeypatch.setattr(Batches, "store_events", store_events)
    with pytest.raises(ConnectionError):
        lost_in_the_middle()
    assert list_stored_texts(instance, run_id) == ["first", "second"]


def watch_events(instance: dg.DagsterInstance) -> float:
    """Log events of a run, and return the longest time until its watcher got one."""
    run_id = create_run_for_test(instance, job_name="none").run_id
    heard: SimpleQueue[tuple[str, float]] = SimpleQueue()

    def note(event: dg.EventLogEntry, _: str) -> None:
        heard.put((event.get_dagster_event().message or "", time.monotonic()))

    seconds = []

    def wait_for(expected: str, since: float) -> None:
        message, at = heard.get(timeout=60)
        assert message == expected
        seconds.append(at - since)

    # Another instance, like the webserver's; the run's instance keeps the files open meanwhile.
    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        other.watch_event_logs(run_id, None, note)
        for number in range(3):
            instance.report_engine_event(f"{number}", run_id=run_id, job_name="none")
            wait_for(f"{number}", time.monotonic())
        with batch_transaction():
            log_observation(instance, run_id, "a day")
            with pytest.raises(Empty):
                heard.get(timeout=0.5)
        wait_for("a day", time.monotonic())
    return max(seconds)


def test_watcher_of_a_run_gets_each_event_within_three_seconds(
    instance: dg.DagsterInstance,
) -> None:
    # A busy machine may delay one run's watcher, but not three times.
    assert any(watch_events(instance) < 3 for _ in range(3))


def test_runs_that_record_assets_in_opposite_order_do_not_deadlock(
    instance: dg.DagsterInstance,
) -> None:
    """One transaction for all assets would deadlock on Postgres."""
    errors: list[Exception] = []

    def record(assets: list[str]) -> None:
        run_id = create_run_for_test(instance, job_name="none").run_id
        try:
            for round_ in range(5):
                with batch_transaction():
                    for asset in assets:
                        observation = dg.AssetObservation(asset, partition=f"{round_}")
                        event = DagsterEvent(
                            DagsterEventType.ASSET_OBSERVATION.value,
                            "none",
                            event_specific_data=AssetObservationData(observation),
                        )
                        instance.report_dagster_event(event, run_id)
        except Exception as error:  # noqa: BLE001 - the thread's, told to the test
            errors.append(error)

    assets = [f"asset {number}" for number in range(8)]
    threads = [
        threading.Thread(target=record, args=[order]) for order in (assets, list(reversed(assets)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_wiped_run_can_be_logged_again(instance: dg.DagsterInstance, run_id: str) -> None:
    log_observation(instance, run_id, "before")
    instance.event_log_storage.wipe()
    assert list_stored_texts(instance, run_id) == []
    log_observation(instance, run_id, "after")
    assert list_stored_texts(instance, run_id) == ["after"]
