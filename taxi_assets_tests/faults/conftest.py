"""Real servers behind proxies that break what passes, and a day that is stored already."""

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
    """Takes the place of Dagster's."""

    def info(self, *args: object) -> None:
        """Say nothing."""

    warning = info


@dataclass
class Steps:
    """Runs of single assets of yellow's day."""

    runs: Runs = field(default_factory=Runs)

    def run(self, *names: str) -> dg.ExecuteInProcessResult:
        """Materialize these assets, or all."""
        keys = [dg.AssetKey(["yellow", name]) for name in names]
        more = {"asset_selection": keys} if keys else {}
        return self.runs.run("yellow", DAY, **more)

    def succeeds(self, *names: str) -> int:
        """Materialize; it has to succeed. How often a step was tried again."""
        result = self.run(*names)
        assert result.success, stores.failure(result)
        return tries_of(result)

    def fails_at_once(self, *names: str) -> str:
        """Materialize; it has to fail without a retry. The message."""
        result = self.run(*names)
        assert not result.success
        assert tries_of(result) == 0
        return stores.failure(result)


def tries_of(result: dg.ExecuteInProcessResult) -> int:
    """How often a step was tried again."""
    return sum(event.is_step_up_for_retry for event in result.all_events)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_RETRY_DELAY", "0.05")


@pytest.fixture(scope="module")
def undisturbed(home: Path) -> Iterator[Mapping[str, pd.DataFrame]]:
    """All rows of a day that was stored without a fault, by store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCS_BUCKET", "faults")
        stores.drop_tables()
        assert Runs().run("yellow", DAY).success
        yield stores.store_rows(YELLOW)


def assert_left(expected: Mapping[str, pd.DataFrame]) -> None:
    """Every store holds exactly these rows, and nothing temporary is left."""
    for name, frame in stores.store_rows(YELLOW).items():
        pd.testing.assert_frame_equal(frame, expected[name])
    tables = {table.table_id for table in stores.bigquery().list_tables("ny_taxi")}
    assert tables == {"yellow_cab_data"}
    assert not list((stores.lake() / "_tmp").iterdir())
