"""The UI's plots by partition show the partitions that exist."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import PartitionLoadingContext
from dagster._core.definitions.temporal_context import TemporalContext

from taxi_assets.dagster_internals.latest_partitions import end_with_last_partition
from taxi_assets.partitions import daily_partitions, monthly_partitions

NOW = datetime(2021, 5, 10, 12, tzinfo=UTC)


def list_latest(partitions: Any, limit: int = 2) -> list[str]:
    """Return the partitions that the UI plots."""
    temporal = TemporalContext(effective_dt=NOW, last_event_id=None)
    context = PartitionLoadingContext(temporal_context=temporal, dynamic_partitions_store=None)
    page = partitions.get_paginated_partition_keys(context=context, limit=limit, ascending=False)
    return list(page.results)


@pytest.mark.parametrize(
    ("end", "days", "months"),
    [
        ("2021-03-14", ["2021-03-14", "2021-03-13"], ["2021-03-01", "2021-02-01"]),
        ("2021-01-01", ["2021-01-01"], ["2021-01-01"]),
        ("2030-01-01", ["2021-05-09", "2021-05-08"], ["2021-05-01", "2021-04-01"]),
        ("", ["2021-05-09", "2021-05-08"], ["2021-05-01", "2021-04-01"]),
    ],
)
def test_latest_partitions_end_with_the_last_one(
    end: str, days: list[str], months: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-01")
    monkeypatch.setenv("TAXI_END_DATE", end)
    stock = dg.TimeWindowPartitionsDefinition.get_paginated_partition_keys
    monkeypatch.setattr(dg.TimeWindowPartitionsDefinition, stock.__name__, stock)  # restores it
    end_with_last_partition.cache_clear()
    end_with_last_partition()
    assert list_latest(daily_partitions()) == days
    assert list_latest(monthly_partitions()) == months
