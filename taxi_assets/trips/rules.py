"""Cleaning rules by name: which rows of a day are left out, and under which name they count.

The default is what the old transformers had: keep rows with passengers. Null is not above 0, and
is counted apart from zero. A rule whose column a service lacks drops nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.settings.rule_names import DEFAULT_RULES
from taxi_assets.tlc.schema import Role, Service

FARES = (0, 500)
"""Dollars. The fare to Newark with hours of traffic stays below; typing errors are far above."""


@dataclass(frozen=True)
class Rule:
    """A reason to leave a row out."""

    description: str
    role: Role
    """Of the column that it reads."""
    drops: Callable[[pa.ChunkedArray], Any]
    """Whether each value of the column has its row left out; null counts as no."""

    def column(self, service: Service) -> str | None:
        """Return the name of the column that it reads; None where the service has none."""
        return service.first_of_role(self.role)


RULES: dict[str, Rule] = {
    "zero_passengers": Rule("passengers are 0 or fewer", "passengers", lambda v: pc.less(v, 1)),
    "null_passengers": Rule("passengers are null", "passengers", pc.is_null),
    "zero_distance": Rule(
        "the distance is 0 miles or less",
        "distance",
        lambda values: pc.less_equal(values, 0.0),
    ),
    "negative_total": Rule(
        "the total is below 0 dollars (voids and refunds)",
        "total",
        lambda values: pc.less(values, 0.0),
    ),
    "outside_fare": Rule(
        f"the fare is below {FARES[0]} or above {FARES[1]} dollars",
        "fare",
        lambda values: pc.or_kleene(pc.less(values, FARES[0]), pc.greater(values, FARES[1])),
    ),
    "null_vendor": Rule("the vendor is null", "vendor", pc.is_null),
}


def applies(name: str, service: Service) -> bool:
    """Return whether a service has the column that the rule of a name reads."""
    return name in RULES and RULES[name].column(service) is not None


def describe_rules(names: Sequence[str], service: Service) -> str:
    """What rules drop of a service's rows, for people; those that cannot apply are left out."""
    applied = [name for name in names if applies(name, service)]
    return "; ".join(f"{name}: {RULES[name].description}" for name in applied) or "none"


def apply_rules(
    table: pa.Table, service: Service, rules: Sequence[str] = DEFAULT_RULES
) -> tuple[pa.Table, dict[str, int]]:
    """Rows that stay, and the number of others under the first rule that drops them."""
    dropped: dict[str, int] = {}
    gone: Any = None
    for name in rules:
        column = RULES[name].column(service)
        if column is None:
            continue
        drops = pc.fill_null(RULES[name].drops(table[column]), False)
        before = sum(dropped.values())
        gone = drops if gone is None else pc.or_(gone, drops)
        dropped[name] = int(pc.sum(gone).as_py() or 0) - before
    return (table if gone is None else table.filter(pc.invert(gone))), dropped
