"""`python -m benchmarks.months SERVICE YYYY-MM FILE ROWS`: write a month of the sample."""

from __future__ import annotations

import sys
from pathlib import Path

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import SERVICES


def main(service: str, month: str, path: Path, rows: int) -> None:
    """Write the file atomically."""
    part = path.with_suffix(".part")
    write_sample_month(SERVICES[service], Month(int(month[:4]), int(month[5:])), part, rows)
    part.replace(path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
