"""Names of the cleaning rules, which `TAXI_DROP` and a run's config choose from."""

from __future__ import annotations

from enum import StrEnum


class RuleName(StrEnum):
    """The rules, to choose from."""

    zero_passengers = "zero_passengers"
    null_passengers = "null_passengers"
    zero_distance = "zero_distance"
    negative_total = "negative_total"
    outside_fare = "outside_fare"
    null_vendor = "null_vendor"


DEFAULT_RULES = (RuleName.zero_passengers, RuleName.null_passengers)
