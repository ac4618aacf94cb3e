"""What the ledger of alerts remembers over the death of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets.dagster_internals.alert_ledger import RETENTION_SECONDS, AlertLedger

NOW = 1_600_000_000.0


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


def load(instance: dg.DagsterInstance, now: float = NOW) -> AlertLedger:
    """As another process does."""
    return AlertLedger.load(instance, now)


def test_what_was_sent_is_not_sent_again_by_another_process(instance: dg.DagsterInstance) -> None:
    ledger = load(instance)
    assert ledger.begin("one", NOW)
    ledger.finish("one", NOW)
    assert not load(instance).begin("one", NOW)
    assert load(instance).begin("two", NOW)


def test_one_that_died_while_it_was_sent_is_tried_once_more(instance: dg.DagsterInstance) -> None:
    assert [load(instance).begin("one", NOW) for _ in range(4)] == [True, True, False, False]


def test_what_happened_before_the_first_tick_is_not_reported(instance: dg.DagsterInstance) -> None:
    load(instance).save(NOW)
    assert load(instance, NOW + 500).since == NOW


def test_a_condition_lasts_from_when_it_was_first_seen(instance: dg.DagsterInstance) -> None:
    ledger = load(instance)
    assert ledger.measure_duration("late", NOW) == 0
    ledger.save(NOW)
    assert load(instance).measure_duration("late", NOW + 60) == 60
    again = load(instance)
    again.clear("late")
    again.save(NOW)
    assert load(instance).measure_duration("late", NOW + 60) == 0


def test_it_does_not_grow_for_ever(instance: dg.DagsterInstance) -> None:
    ledger = load(instance)
    for number in range(100):
        ledger.finish(str(number), NOW)
    ledger.finish("new", NOW + RETENTION_SECONDS)
    assert set(load(instance).sent) == {"new"}
