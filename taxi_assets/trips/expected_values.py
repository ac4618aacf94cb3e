"""The expectations that the schema implies: allowed codes, ranges, and times in order.

Published files violate each of them occasionally. So the check `values_expected` compares the share
of rows with a limit, and such rows are dropped only if TAXI_DROP names the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.column import Column
from taxi_assets.tlc.schema import Service

DAY = timedelta(days=1)
EXAMPLES = 5
"""Number of rows shown for each expectation."""

UNKNOWN_CODE, OUTSIDE_LIMITS = "unknown_code", "outside_limits"
DROPOFF_BEFORE_PICKUP, OVER_A_DAY = "dropoff_before_pickup", "over_a_day"
DESCRIPTIONS = {
    UNKNOWN_CODE: "a code is not in TLC's dictionary",
    OUTSIDE_LIMITS: "an amount, a number of passengers or a zone is out of range",
    DROPOFF_BEFORE_PICKUP: "the trip ends before it begins",
    OVER_A_DAY: "the trip takes a day or longer",
}
"""Descriptions by rule name."""


@dataclass(frozen=True)
class Expectation:
    """A condition that each row of a service should meet; null meets every condition."""

    rule: str
    columns: tuple[str, ...]
    description: str
    """Predicate for the rows that violate it."""
    is_violated: Callable[[pa.Table], Any]
    """Returns for each row whether it violates the condition."""


@dataclass(frozen=True)
class Violation:
    """The rows of a day that violate an expectation."""

    expectation: Expectation
    rows: int
    examples: list[dict[str, Any]]
    """Values of the columns in the first of these rows."""


@cache
def list_expectations(service: Service) -> tuple[Expectation, ...]:
    """Derive the expectations for a service's rows from its columns."""
    expectations = [_expect_codes(column) for column in service.columns if column.codes]
    expectations += [_expect_limits(column) for column in service.columns if column.limits]
    pickup, dropoff = service.pickup_column, service.find_role("dropoff")
    if dropoff is not None:
        pair = (pickup, dropoff)

        def measure_duration(table: pa.Table) -> Any:
            return pc.subtract(table[dropoff], table[pickup])

        zero = pa.scalar(timedelta(0), pa.duration("us"))
        expectations += [
            Expectation(
                DROPOFF_BEFORE_PICKUP,
                pair,
                f"have a {dropoff} before their {pickup}",
                lambda table: pc.less(measure_duration(table), zero),
            ),
            Expectation(
                OVER_A_DAY,
                pair,
                "take a day or longer",
                lambda table: pc.greater_equal(measure_duration(table), DAY),
            ),
        ]
    return tuple(expectations)


def find_violations(table: pa.Table, service: Service) -> list[Violation]:
    """Return the violated expectations, each with its number of rows and examples."""
    violations = []
    for expectation in list_expectations(service):
        mask = expectation.is_violated(table)
        rows = int(pc.sum(mask).as_py() or 0)
        if rows:
            examples = table.select(list(expectation.columns)).filter(mask).slice(0, EXAMPLES)
            violations.append(Violation(expectation, rows, examples.to_pylist()))
    return violations


def _expect_codes(column: Column) -> Expectation:
    codes = pa.array(column.codes, column.arrow)
    code_list = ", ".join(map(str, column.codes))
    return Expectation(
        UNKNOWN_CODE,
        (column.name,),
        f"have a {column.name} that is not one of {code_list}",
        lambda table: pc.and_(
            pc.is_valid(table[column.name]),
            pc.invert(pc.is_in(table[column.name], value_set=codes)),
        ),
    )


def _expect_limits(column: Column) -> Expectation:
    minimum, maximum = column.limits or (0, 0)
    unit = f" {column.unit}" if column.unit else ""
    return Expectation(
        OUTSIDE_LIMITS,
        (column.name,),
        f"have a {column.name} outside {minimum:g} to {maximum:g}{unit}",
        lambda table: pc.or_(
            pc.less(table[column.name], minimum), pc.greater(table[column.name], maximum)
        ),
    )
