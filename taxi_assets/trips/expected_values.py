"""What a row's values should be, by the one schema: allowed codes, ranges, and times in order.

Published files break all of these now and then. So the check `values_expected` goes by the share of
rows, and TAXI_DROP leaves such rows out only if it names the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache, reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.column import Column
from taxi_assets.tlc.schema import Service

DAY = pa.scalar(timedelta(days=1), pa.duration("us"))
EXAMPLES = 5
"""Rows of each expectation that are shown."""

UNKNOWN_CODE, OUTSIDE_LIMITS = "unknown_code", "outside_limits"
DROPOFF_BEFORE_PICKUP, OVER_A_DAY = "dropoff_before_pickup", "over_a_day"
DESCRIPTIONS = {
    UNKNOWN_CODE: "a code is none of TLC's dictionary",
    OUTSIDE_LIMITS: "an amount, a number of passengers or a zone is outside of its range",
    DROPOFF_BEFORE_PICKUP: "the trip ends before it begins",
    OVER_A_DAY: "the trip takes a day or longer",
}
"""By the name that TAXI_DROP knows."""


@dataclass(frozen=True)
class Expectation:
    """What holds for each row of a service; null breaks nothing."""

    rule: str
    columns: tuple[str, ...]
    words: str
    """What is wrong with rows that break it."""
    broken: Callable[[pa.Table], Any]
    """Whether each row breaks it."""


@dataclass(frozen=True)
class Broken:
    """Rows of a day that break an expectation."""

    expectation: Expectation
    rows: int
    examples: list[dict[str, Any]]
    """Values of its columns in the first rows."""


@cache
def list_expectations(service: Service) -> tuple[Expectation, ...]:
    """Derive what holds for a service's rows from its columns."""
    found = [_of_codes(column) for column in service.columns if column.codes]
    found += [_of_limits(column) for column in service.columns if column.limits]
    pickup, dropoff = service.pickup_column, service.find_role("dropoff")
    if dropoff is not None:
        pair = (pickup, dropoff)

        def takes(table: pa.Table) -> Any:
            return pc.subtract(table[dropoff], table[pickup])

        zero = pa.scalar(timedelta(0), pa.duration("us"))
        found += [
            Expectation(
                DROPOFF_BEFORE_PICKUP,
                pair,
                f"have a {dropoff} before their {pickup}",
                lambda table: pc.less(takes(table), zero),
            ),
            Expectation(
                OVER_A_DAY,
                pair,
                "take a day or longer",
                lambda table: pc.greater_equal(takes(table), DAY),
            ),
        ]
    return tuple(found)


def find_broken(table: pa.Table, service: Service) -> list[Broken]:
    """Return the expectations that rows of a day break, each with its rows and examples."""
    found = []
    for expectation in list_expectations(service):
        mask = pc.fill_null(expectation.broken(table), False)
        rows = int(pc.sum(mask).as_py() or 0)
        if rows:
            examples = table.select(list(expectation.columns)).filter(mask).slice(0, EXAMPLES)
            found.append(Broken(expectation, rows, examples.to_pylist()))
    return found


def list_columns(service: Service, rule: str) -> list[str]:
    """Return the columns that a rule reads of a service."""
    return sorted(
        {name for one in list_expectations(service) if one.rule == rule for name in one.columns}
    )


def mask_broken(table: pa.Table, service: Service, rule: str) -> Any:
    """Return whether each row breaks any expectation of a rule."""
    masks: Sequence[Any] = [
        pc.fill_null(one.broken(table), False)
        for one in list_expectations(service)
        if one.rule == rule
    ]
    return reduce(pc.or_, masks)


def _of_codes(column: Column) -> Expectation:
    codes = pa.array(column.codes, column.arrow)
    shown = ", ".join(map(str, column.codes))
    return Expectation(
        UNKNOWN_CODE,
        (column.name,),
        f"have a {column.name} that is none of {shown}",
        lambda table: pc.and_(
            pc.is_valid(table[column.name]),
            pc.invert(pc.is_in(table[column.name], value_set=codes)),
        ),
    )


def _of_limits(column: Column) -> Expectation:
    least, largest = column.limits or (0, 0)
    unit = f" {column.unit}" if column.unit else ""
    return Expectation(
        OUTSIDE_LIMITS,
        (column.name,),
        f"have a {column.name} outside of {least:g} to {largest:g}{unit}",
        lambda table: pc.or_(
            pc.less(table[column.name], least), pc.greater(table[column.name], largest)
        ),
    )
