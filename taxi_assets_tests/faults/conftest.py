"""Real servers behind proxies that break connections, and a day that is already stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.stores import Runs

YELLOW = SERVICES["yellow"]
DAY = "2021-01-05"


class Log:
    """A silent log in place of Dagster's."""

    def info(self, *args: object) -> None:
        """Discard the message."""

    warning = info


@dataclass
class Steps:
    """Runs single assets of yellow's day."""

    runs: Runs = field(default_factory=Runs)

    def run(self, *names: str) -> dg.ExecuteInProcessResult:
        """Materialize these assets, or all."""
        keys = [dg.AssetKey(["yellow", name]) for name in names]
        more = {"asset_selection": keys} if keys else {}
        return self.runs.run("yellow", DAY, **more)

    def succeeds(self, *names: str) -> int:
        """Materialize with success; return how often a step was retried."""
        result = self.run(*names)
        assert result.success, stores.failure(result)
        return count_retries(result)

    def fails_at_once(self, *names: str) -> str:
        """Materialize with a failure and no retry; return the message."""
        result = self.run(*names)
        assert not result.success
        assert count_retries(result) == 0
        return stores.failure(result)


def count_retries(result: dg.ExecuteInProcessResult) -> int:
    """Count how often a step was retried."""
    return sum(event.is_step_up_for_retry for event in result.all_events)


@pytest.fixture(autouse=True)
def _shorten_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_RETRY_DELAY", "0.05")


@pytest.fixture(scope="module")
def undisturbed(home: Path) -> Iterator[Mapping[str, pd.DataFrame]]:
    """Return all rows of a day that was stored without a fault, by store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCS_BUCKET", "faults")
        stores.drop_tables()
        assert Runs().run("yellow", DAY).success
        yield stores.store_rows(YELLOW)


def assert_stores_hold(expected: Mapping[str, pd.DataFrame]) -> None:
    """Assert that every store holds exactly these rows and nothing temporary."""
    for name, frame in stores.store_rows(YELLOW).items():
        pd.testing.assert_frame_equal(frame, expected[name])
    tables = {table.table_id for table in stores.bigquery().list_tables("ny_taxi")}
    assert tables == {"yellow_cab_data"}
    assert not list((stores.lake() / "_tmp").iterdir())
