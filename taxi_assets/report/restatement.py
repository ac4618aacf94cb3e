"""What a restated month file changed, as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from taxi_assets.date_ranges import Month
from taxi_assets.report.colours import DARK, LIGHT
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.row_diff import RowDiff, sum_diffs

HEADINGS = {
    "added": "Rows that were added, for example",
    "removed": "Rows that were removed, for example",
    "changed": "Rows that were changed, for example",
}


def restatement_page(
    service: Service, month: Month, days: Mapping[date, RowDiff], former: str, current: str
) -> bytes:
    """Render the changed days of a month; `former` and `current` name the files."""
    import jinja2  # noqa: PLC0415 - heavy at import

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    total = sum_diffs(days.values())
    changed = f"{len(days)} of {len(month.window)} days changed: {total}"
    return (
        environment.get_template("restatement.html")
        .render(
            title=f"{service.name} {month} was restated",
            headline=changed,
            days=sorted(days.items()),
            total=total,
            headings=HEADINGS,
            former=former,
            current=current,
            themes={"light": LIGHT, "dark": DARK},
        )
        .encode()
    )
