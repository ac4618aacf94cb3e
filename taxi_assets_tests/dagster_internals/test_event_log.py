"""The event log beside Dagster's own: what is stored when, and who hears of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.events import AssetObservationData, DagsterEvent
from dagster._core.test_utils import create_run_for_test

from taxi_assets.dagster_internals.event_log import BatchedSqliteEventLogStorage, batch_transaction


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage)
        yield instance


@pytest.fixture
def run_id(instance: dg.DagsterInstance) -> str:
    return create_run_for_test(instance, job_name="none").run_id


def observe(instance: dg.DagsterInstance, run_id: str, text: str) -> None:
    """Log an event of an asset, which may wait."""
    event = DagsterEvent(
        DagsterEventType.ASSET_OBSERVATION.value,
        "none",
        event_specific_data=AssetObservationData(dg.AssetObservation("seen", partition=text)),
        message=text,
    )
    instance.report_dagster_event(event, run_id)


def stored(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [log.get_dagster_event().message or "" for log in instance.all_logs(run_id)]


def test_a_batch_of_events_is_its_threads_own_and_outlives_an_error(
    instance: dg.DagsterInstance, run_id: str
) -> None:
    def lost_in_the_middle() -> None:
        with batch_transaction(instance, run_id):
            observe(instance, run_id, "in the batch")
            other = threading.Thread(target=observe, args=[instance, run_id, "beside it"])
            other.start()
            other.join(30)
            assert stored(instance, run_id) == ["beside it"]
            raise ConnectionError

    with pytest.raises(ConnectionError):
        lost_in_the_middle()
    assert stored(instance, run_id) == ["beside it", "in the batch"]


def test_progress_is_stored_at_once_and_after_what_came_before(
    instance: dg.DagsterInstance, run_id: str
) -> None:
    with batch_transaction(instance, run_id):
        observe(instance, run_id, "first day")
        observe(instance, run_id, "second day")
        assert stored(instance, run_id) == []
        instance.report_engine_event("two days", run_id=run_id, job_name="none")
        assert stored(instance, run_id) == ["first day", "second day", "two days"]
        observe(instance, run_id, "third day")
    assert stored(instance, run_id) == ["first day", "second day", "two days", "third day"]
    key = dg.AssetKey("seen")
    seen = instance.fetch_observations(dg.AssetRecordsFilter(key), limit=3).records
    assert [record.partition_key for record in seen] == ["third day", "second day", "first day"]


def test_who_watches_a_run_hears_of_each_event_within_three_seconds(
    instance: dg.DagsterInstance, run_id: str
) -> None:
    heard: SimpleQueue[str] = SimpleQueue()
    # Another instance, as the webserver has; the run's one keeps the files open meanwhile.
    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        other.watch_event_logs(
            run_id, None, lambda event, _: heard.put(event.get_dagster_event().message or "")
        )
        for number in range(3):
            instance.report_engine_event(f"{number}", run_id=run_id, job_name="none")
            assert heard.get(timeout=3) == f"{number}"
        with batch_transaction(instance, run_id):
            observe(instance, run_id, "a day")
            with pytest.raises(Empty):
                heard.get(timeout=0.5)
        assert heard.get(timeout=3) == "a day"
