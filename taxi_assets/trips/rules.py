"""The cleaning rules by name, each of which drops some rows of a day.

The default is that of the original transformers: keep rows with passengers. Null is counted apart
from zero. A rule drops nothing from a service without its column.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.settings.rule_names import DEFAULT_RULES
from taxi_assets.tlc.column import Role
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.expected_values import DESCRIPTIONS, Expectation, list_expectations

FARES = (0, 500)
"""Dollars. A fare to Newark with hours of traffic is below the maximum; typing errors are not."""


@dataclass(frozen=True)
class Rule:
    """A reason to drop a row."""

    description: str
    """The condition under which a row is dropped."""
    requirement: str
    """The columns that a service needs for the rule, for messages."""
    expect: Callable[[Service], Sequence[Expectation]]
    """Returns a service's expectations; a row that violates one of them is dropped."""

    def columns(self, service: Service) -> list[str]:
        """Return the names of the service's columns that the rule uses."""
        return sorted({name for each in self.expect(service) for name in each.columns})

    def mask(self, table: pa.Table, service: Service) -> Any:
        """Return for each row whether it is dropped."""
        masks = (pc.fill_null(each.is_violated(table), False) for each in self.expect(service))
        return reduce(pc.or_, masks)


def _build_value_rule(description: str, role: Role, drops: Callable[[Any], Any]) -> Rule:
    """Build a rule on the values of the column with a role."""

    def expect(service: Service) -> Sequence[Expectation]:
        column = service.find_role(role)
        if column is None:
            return ()
        return [
            Expectation(description, (column,), description, lambda table: drops(table[column]))
        ]

    return Rule(description, role, expect)


def _build_schema_rule(name: str) -> Rule:
    """Build a rule on the codes, ranges and times of the schema."""
    return Rule(
        DESCRIPTIONS[name],
        "codes, ranges or a dropoff time of the schema",
        lambda service: [each for each in list_expectations(service) if each.rule == name],
    )


RULES: dict[str, Rule] = {
    "zero_passengers": _build_value_rule(
        "passengers are 0 or fewer", "passengers", lambda values: pc.less(values, 1)
    ),
    "null_passengers": _build_value_rule("passengers are null", "passengers", pc.is_null),
    "zero_distance": _build_value_rule(
        "the distance is 0 miles or less", "distance", lambda values: pc.less_equal(values, 0.0)
    ),
    "negative_total": _build_value_rule(
        "the total is below 0 dollars (voids and refunds)",
        "total",
        lambda values: pc.less(values, 0.0),
    ),
    "outside_fare": _build_value_rule(
        f"the fare is below {FARES[0]} or above {FARES[1]} dollars",
        "fare",
        lambda values: pc.or_kleene(pc.less(values, FARES[0]), pc.greater(values, FARES[1])),
    ),
    "null_vendor": _build_value_rule("the vendor is null", "vendor", pc.is_null),
    **{name: _build_schema_rule(name) for name in DESCRIPTIONS},
}


def is_applicable(name: str, service: Service) -> bool:
    """Return whether a rule exists and the service has a column for it."""
    return name in RULES and bool(RULES[name].columns(service))


def describe_rules(names: Sequence[str], service: Service) -> str:
    """Describe the rules that apply to a service."""
    applied = [name for name in names if is_applicable(name, service)]
    return "; ".join(f"{name}: {RULES[name].description}" for name in applied) or "none"


def apply_rules(
    table: pa.Table, service: Service, rules: Sequence[str] = DEFAULT_RULES
) -> tuple[pa.Table, dict[str, int]]:
    """Return the remaining rows, and the number of dropped rows by the first rule that applies."""
    dropped: dict[str, int] = {}
    mask: Any = None
    for name in rules:
        if not is_applicable(name, service):
            continue
        rule_mask = RULES[name].mask(table, service)
        before = sum(dropped.values())
        mask = rule_mask if mask is None else pc.or_(mask, rule_mask)
        dropped[name] = int(pc.sum(mask).as_py() or 0) - before
    return (table if mask is None else table.filter(pc.invert(mask))), dropped
