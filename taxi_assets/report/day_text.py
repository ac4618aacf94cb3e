"""Describe a day in one sentence, for the top of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from taxi_assets.errors import format_count

MAX_REASONS = 3
"""Number of reasons that are named, the most frequent first."""


def compare_with_usual(trips: int, usual: Sequence[int]) -> str:
    """Compare trips with the median of the same weekdays before: `17% below usual`.

    Empty if no such day is known, or if their median is 0.
    """
    middle = median(usual) if usual else 0
    if not middle:
        return ""
    percent = round(100 * (trips / middle - 1))
    return f"{abs(percent)}% {'above' if percent > 0 else 'below'} usual" if percent else "as usual"


def describe_dropped(trips: int, dropped: Mapping[str, int]) -> str:
    """Return the number of a day's dropped rows, with the most frequent reasons."""
    total = sum(dropped.values())
    if not total:
        return "no row dropped"
    reasons = sorted(((rows, name) for name, rows in dropped.items() if rows), reverse=True)
    texts = [f"{rows:,} {name.replace('_', ' ')}" for rows, name in reasons[:MAX_REASONS]]
    more = ", ..." if len(reasons) > MAX_REASONS else ""
    return f"{total:,} of {trips + total:,} rows dropped ({', '.join(texts)}{more})"


def summarize_trips(trips: int, dollars: float | None, usual: Sequence[int]) -> str:
    """Return trips, revenue and their comparison: `1,453 trips, $26,680, 17% below usual`."""
    parts = [format_count(trips, "trip")]
    if dollars is not None:
        parts.append(f"-${-dollars:,.0f}" if dollars < 0 else f"${dollars:,.0f}")
    if comparison := compare_with_usual(trips, usual):
        parts.append(comparison)
    return ", ".join(parts)


def describe_day(
    trips: int, dollars: float | None, usual: Sequence[int], dropped: Mapping[str, int]
) -> str:
    """Return a sentence on a day, including its dropped rows."""
    return f"{summarize_trips(trips, dollars, usual)}; {describe_dropped(trips, dropped)}"
