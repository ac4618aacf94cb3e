"""Plans as tables for a terminal."""

from __future__ import annotations

from rich.table import Table

from taxi_assets.cli.day_states import State
from taxi_assets.cli.month_plan import MonthPlan, Plan

UNKNOWN = "?"


def plan_table(plan: Plan) -> Table:
    """Return one row for each month, and one of sums."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("month", "file"):
        table.add_column(name)
    for name in (*State, "runs", "rows", "MB", "min"):
        table.add_column(str(name), justify="right")
    for month in plan.months:
        table.add_row(str(month.month), _published(month), *_numbers(plan, [month]))
    table.add_section()
    table.add_row("all", "", *_numbers(plan, plan.months))
    return table


def _published(month: MonthPlan) -> str:
    if month.publication.trouble:
        return UNKNOWN
    return "no" if month.publication.is_absent else "yes"


def _numbers(plan: Plan, months: list[MonthPlan] | tuple[MonthPlan, ...]) -> list[str]:
    days = sum(month.days_to_run for month in months)
    sizes = [month.bytes for month in months]
    known = [size for size in sizes if size is not None]
    rows, minutes = plan.history.rows(days), plan.history.minutes(days)
    return [
        *(str(sum(month.count(state) for month in months) or "") for state in State),
        str(sum(len(month.runs) for month in months) or ""),
        "" if not days else UNKNOWN if rows is None else f"{rows:,}",
        UNKNOWN if len(known) < len(sizes) else f"{sum(known) / 1e6:,.1f}" if days else "",
        "" if not days else UNKNOWN if minutes is None else f"{minutes:,.1f}",
    ]


__all__ = ["plan_table"]
