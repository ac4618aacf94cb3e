"""Render the changes of a restated month file as a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

from taxi_assets.date_ranges import Month
from taxi_assets.report.month_text import format_month
from taxi_assets.report.page import render_template
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.row_diff import RowDiff, sum_diffs


def render_restatement_page(
    service: Service, month: Month, days: Mapping[date, RowDiff], former: str, current: str
) -> bytes:
    """Render the changed days of a month; `former` and `current` name the files."""
    total = sum_diffs(days.values())
    return render_template(
        "restatement.html",
        title=f"{service.label} trips, {format_month(month)}: restated file",
        headline=f"{len(days)} of {len(month.window)} days changed: {total}",
        days=sorted(days.items()),
        total=total,
        former=former,
        current=current,
    )
