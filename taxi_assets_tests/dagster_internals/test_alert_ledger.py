"""The ledger of alerts survives the death of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets.dagster_internals.alert_ledger import RETENTION_SECONDS, AlertLedger

NOW = 1_600_000_000.0


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as opened:
        yield opened


def load_ledger(instance: dg.DagsterInstance, now: float = NOW) -> AlertLedger:
    """Load the ledger as another process does."""
    return AlertLedger.load(instance, now)


def test_sent_alert_is_not_sent_again_by_another_process(instance: dg.DagsterInstance) -> None:
    ledger = load_ledger(instance)
    assert ledger.begin("one", NOW)
    ledger.finish("one", NOW)
    assert not load_ledger(instance).begin("one", NOW)
    assert load_ledger(instance).begin("two", NOW)


def test_alert_interrupted_while_sending_is_retried_once(instance: dg.DagsterInstance) -> None:
    assert [load_ledger(instance).begin("one", NOW) for _ in range(4)] == [True, True, False, False]


def test_events_before_the_first_tick_are_not_reported(instance: dg.DagsterInstance) -> None:
    load_ledger(instance).save(NOW)
    assert load_ledger(instance, NOW + 500).since == NOW


def test_condition_lasts_from_its_first_observation(instance: dg.DagsterInstance) -> None:
    ledger = load_ledger(instance)
    assert ledger.measure_duration("late", NOW) == 0
    ledger.save(NOW)
    assert load_ledger(instance).measure_duration("late", NOW + 60) == 60
    reloaded = load_ledger(instance)
    reloaded.clear("late")
    reloaded.save(NOW)
    assert load_ledger(instance).measure_duration("late", NOW + 60) == 0


def test_ledger_has_a_maximum_size(instance: dg.DagsterInstance) -> None:
    ledger = load_ledger(instance)
    for number in range(100):
        ledger.finish(str(number), NOW)
    ledger.finish("new", NOW + RETENTION_SECONDS)
    assert set(load_ledger(instance).sent) == {"new"}
