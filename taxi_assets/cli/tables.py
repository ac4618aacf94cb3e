"""Build tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from taxi_assets.cli.day_states import State
from taxi_assets.cli.month_plan import MonthPlan, Plan

UNKNOWN = "?"


def build_table(*columns: str, numbers: Iterable[str] = (), **options: Any) -> Table:
    """Return an empty table without lines; columns of `numbers` follow the others."""
    table = Table(box=None, pad_edge=False, **options)
    for name in columns:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def build_plan_table(plan: Plan) -> Table:
    """Return one row for each month, and one of sums."""
    numbers = (*State, "runs", "rows", "MB", "min")
    table = build_table("month", "file", numbers=numbers, padding=(0, 1, 0, 0))
    for month in plan.months:
        table.add_row(str(month.month), _format_publication(month), *_format_numbers(plan, [month]))
    table.add_section()
    table.add_row("all", "", *_format_numbers(plan, plan.months))
    return table


def _format_publication(month: MonthPlan) -> str:
    if month.publication.trouble:
        return UNKNOWN
    return "no" if month.publication.is_absent else "yes"


def _format_numbers(plan: Plan, months: list[MonthPlan] | tuple[MonthPlan, ...]) -> list[str]:
    days = sum(month.days_to_run for month in months)
    sizes = [month.bytes for month in months]
    known_sizes = [size for size in sizes if size is not None]
    rows, minutes = plan.history.estimate_rows(days), plan.history.estimate_minutes(days)
    return [
        *(str(sum(month.count(state) for month in months) or "") for state in State),
        str(sum(len(month.runs) for month in months) or ""),
        "" if not days else UNKNOWN if rows is None else f"{rows:,}",
        UNKNOWN
        if len(known_sizes) < len(sizes)
        else f"{sum(known_sizes) / 1e6:,.1f}"
        if days
        else "",
        "" if not days else UNKNOWN if minutes is None else f"{minutes:,.1f}",
    ]
