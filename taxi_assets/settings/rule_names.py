"""The names of the cleaning rules, for `TAXI_DROP` and for a run's config."""

from __future__ import annotations

from enum import StrEnum


class RuleName(StrEnum):
    """A cleaning rule; `trips.rules` defines what each one drops."""

    zero_passengers = "zero_passengers"
    null_passengers = "null_passengers"
    zero_distance = "zero_distance"
    negative_total = "negative_total"
    outside_fare = "outside_fare"
    null_vendor = "null_vendor"
    unknown_code = "unknown_code"
    outside_limits = "outside_limits"
    dropoff_before_pickup = "dropoff_before_pickup"
    over_a_day = "over_a_day"


DEFAULT_RULES = (RuleName.zero_passengers, RuleName.null_passengers)
