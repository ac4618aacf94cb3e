"""Cleaning rules by name: which rows of a day are left out, and under which name they count.

The default is what the old transformers had: keep rows with passengers. Null is not above 0, and
is counted apart from zero. A rule whose column a service lacks drops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.settings.rule_names import DEFAULT_RULES
from taxi_assets.tlc.column import Role
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.expected_values import DESCRIPTIONS, list_columns, mask_broken

FARES = (0, 500)
"""Dollars. The fare to Newark with hours of traffic stays below; typing errors are far above."""


class Rule(Protocol):
    """A reason to leave a row out."""

    @property
    def description(self) -> str:
        """What is wrong with the rows that it leaves out."""

    @property
    def reads(self) -> str:
        """What it reads, in words."""

    def columns(self, service: Service) -> list[str]:
        """Return the names of the columns that it reads; none where the service has none."""

    def mask(self, table: pa.Table, service: Service) -> Any:
        """Return whether each row is left out; null counts as no."""


@dataclass(frozen=True)
class ValueRule:
    """A rule on the values of one column."""

    description: str
    role: Role
    """Of the column that it reads."""
    drops: Callable[[pa.ChunkedArray], Any]
    """Whether each value of the column has its row left out; null counts as no."""

    @property
    def reads(self) -> str:
        """What it reads, in words."""
        return self.role

    def columns(self, service: Service) -> list[str]:
        """Return the name of the column that it reads; none where the service has none."""
        column = service.find_role(self.role)
        return [] if column is None else [column]

    def mask(self, table: pa.Table, service: Service) -> Any:
        """Return whether each row is left out."""
        return self.drops(table[self.columns(service)[0]])


@dataclass(frozen=True)
class SchemaRule:
    """A rule that the schema's codes, ranges and times are kept."""

    name: str

    @property
    def description(self) -> str:
        """What is wrong with the rows that it leaves out."""
        return DESCRIPTIONS[self.name]

    @property
    def reads(self) -> str:
        """What it reads, in words."""
        return "codes, ranges or a dropoff time of the schema"

    def columns(self, service: Service) -> list[str]:
        """Return the names of the columns that it reads."""
        return list_columns(service, self.name)

    def mask(self, table: pa.Table, service: Service) -> Any:
        """Return whether each row is left out."""
        return mask_broken(table, service, self.name)


RULES: dict[str, Rule] = {
    "zero_passengers": ValueRule(
        "passengers are 0 or fewer", "passengers", lambda v: pc.less(v, 1)
    ),
    "null_passengers": ValueRule("passengers are null", "passengers", pc.is_null),
    "zero_distance": ValueRule(
        "the distance is 0 miles or less",
        "distance",
        lambda values: pc.less_equal(values, 0.0),
    ),
    "negative_total": ValueRule(
        "the total is below 0 dollars (voids and refunds)",
        "total",
        lambda values: pc.less(values, 0.0),
    ),
    "outside_fare": ValueRule(
        f"the fare is below {FARES[0]} or above {FARES[1]} dollars",
        "fare",
        lambda values: pc.or_kleene(pc.less(values, FARES[0]), pc.greater(values, FARES[1])),
    ),
    "null_vendor": ValueRule("the vendor is null", "vendor", pc.is_null),
    **{name: SchemaRule(name) for name in DESCRIPTIONS},
}


def applies(name: str, service: Service) -> bool:
    """Return whether a service has the column that the rule of a name reads."""
    return name in RULES and bool(RULES[name].columns(service))


def describe_rules(names: Sequence[str], service: Service) -> str:
    """Describe the rules that apply to a service."""
    applied = [name for name in names if applies(name, service)]
    return "; ".join(f"{name}: {RULES[name].description}" for name in applied) or "none"


def apply_rules(
    table: pa.Table, service: Service, rules: Sequence[str] = DEFAULT_RULES
) -> tuple[pa.Table, dict[str, int]]:
    """Return the kept rows, and the number of dropped ones by the first rule that applies."""
    dropped: dict[str, int] = {}
    gone: Any = None
    for name in rules:
        if not applies(name, service):
            continue
        drops = pc.fill_null(RULES[name].mask(table, service), False)
        before = sum(dropped.values())
        gone = drops if gone is None else pc.or_(gone, drops)
        dropped[name] = int(pc.sum(gone).as_py() or 0) - before
    return (table if gone is None else table.filter(pc.invert(gone))), dropped
