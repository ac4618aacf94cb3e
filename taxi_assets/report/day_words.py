"""A day in one sentence, which its page opens with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

NAMED = 3
"""Reasons that are named, the most frequent first."""


def compare_with_usual(trips: int, usual: Sequence[int]) -> str:
    """Return how trips differ from the median of the same weekdays before: `17% below usual`.

    Empty where no such day is known, or had a trip.
    """
    middle = median(usual) if usual else 0
    if not middle:
        return ""
    percent = round(100 * (trips / middle - 1))
    return f"{abs(percent)}% {'above' if percent > 0 else 'below'} usual" if percent else "as usual"


def describe_dropped(trips: int, dropped: Mapping[str, int]) -> str:
    """Return how many of a day's published rows were left out, and by which rules."""
    total = sum(dropped.values())
    if not total:
        return "no row dropped"
    reasons = sorted(((rows, name) for name, rows in dropped.items() if rows), reverse=True)
    named = [f"{rows:,} {name.replace('_', ' ')}" for rows, name in reasons[:NAMED]]
    more = ", ..." if len(reasons) > NAMED else ""
    return f"{total:,} of {trips + total:,} rows dropped ({', '.join(named)}{more})"


def summarize_trips(trips: int, dollars: float | None, usual: Sequence[int]) -> str:
    """Return trips, revenue and the comparison: `1,453 trips, $26,680, 17% below usual`."""
    parts = [f"{trips:,} trip{'' if trips == 1 else 's'}"]
    if dollars is not None:
        parts.append(f"-${-dollars:,.0f}" if dollars < 0 else f"${dollars:,.0f}")
    if compared := compare_with_usual(trips, usual):
        parts.append(compared)
    return ", ".join(parts)


def describe_day(
    trips: int, dollars: float | None, usual: Sequence[int], dropped: Mapping[str, int]
) -> str:
    """Return a day in one sentence, with what was left out of it."""
    return f"{summarize_trips(trips, dollars, usual)}; {describe_dropped(trips, dropped)}"
