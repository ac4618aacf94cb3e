"""The event log beside Dagster's own: what is stored when, and where."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from taxi_assets.event_log import BatchedSqliteEventLogStorage, one_transaction


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as instance:
        yield instance


def test_a_batch_of_events_is_its_threads_own_and_outlives_an_error(
    instance: dg.DagsterInstance,
) -> None:
    assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage)
    run_id = create_run_for_test(instance, job_name="none").run_id

    def stored() -> list[str]:
        return [log.message for log in instance.all_logs(run_id)]

    def tell(text: str) -> None:
        instance.report_engine_event(text, run_id=run_id, job_name="none")

    def lost_in_the_middle() -> None:
        with one_transaction(instance, run_id):
            tell("in the batch")
            other = threading.Thread(target=tell, args=["beside it"])
            other.start()
            other.join(30)
            assert stored() == ["beside it"]
            raise ConnectionError

    with pytest.raises(ConnectionError):
        lost_in_the_middle()
    assert stored() == ["beside it", "in the batch"]
