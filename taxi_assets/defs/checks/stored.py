"""The check of a stored day: the store's rows and total against the cleaned day's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.defs.checks.specs import ERROR
from taxi_assets.defs.io_managers.base import Totals
from taxi_assets.defs.io_managers.partition_data import StoredTrips


def check_stored_days(
    partitions: Mapping[date, StoredTrips], totals: Totals
) -> dict[date, list[CheckResult]]:
    """Compare the rows and totals of a store with those of the cleaned days."""
    return {
        day: [_check_stored_day(trips, *totals.get(day, (0, 0.0)))]
        for day, trips in partitions.items()
    }


def _check_stored_day(trips: StoredTrips, rows: int, total: float) -> CheckResult:
    dollars = f", ${total:,.2f} of ${trips.total:,.2f}" if trips.total_column else ""
    return CheckResult(
        "matches_cleaned",
        are_amounts_equal((trips.rows, trips.total), (rows, total)),
        {
            "rows": rows,
            **dict.fromkeys(trips.total_metadata, round(total, 2)),
            "cleaned_rows": trips.rows,
            **{f"cleaned_{name}": round(of, 2) for name, of in trips.total_metadata.items()},
        },
        ERROR,
        f"{rows:,} of {trips.rows:,} rows{dollars}",
    )


def are_amounts_equal(expected: tuple[int, float], actual: tuple[int, float]) -> bool:
    """Return whether counts are equal, and sums equal to the displayed cent.

    Stores add floats in different orders, and half a cent may be rounded either way.
    """
    is_close = math.isclose(expected[1], actual[1], rel_tol=1e-9, abs_tol=0.015)
    return expected[0] == actual[0] and is_close
