"""Number the invalid values of a rejected day by their rows in the month file."""

from __future__ import annotations

from dataclasses import replace

import dagster as dg
import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers.partition_data import RawPartition
from taxi_assets.defs.resources.source import SourceResource
from taxi_assets.errors import TerminalError, UnavailableError
from taxi_assets.tlc.month_rows import find_month_rows
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import Cleaned

MAX_NUMBERED = 10
"""Number of values that are found in the file; messages and checks show fewer."""


def name_month_rows(
    cleaned: Cleaned,
    service: Service,
    raw: RawPartition,
    source: SourceResource,
    log: dg.DagsterLogManager,
) -> Cleaned:
    """Return a cleaned day whose first invalid values have row numbers of the month file.

    If the file is no longer available, or is another version, they keep the row numbers of the day.
    """
    first = cleaned.unreadable[:MAX_NUMBERED]
    try:
        file = source.fetch_month_file(service, Month.of(raw.day), log.debug)
        if file.sha256 != raw.source_file.sha256:
            return cleaned
        numbers = find_month_rows(file, raw.day, raw.content, [value.row for value in first])
    except (TerminalError, UnavailableError, OSError, pa.ArrowException) as error:
        log.debug(f"line numbers are those of the day: {error}")
        return cleaned
    numbered = [
        replace(value, row=numbers[value.row], unit=f"month file {value.unit}")
        if value.row in numbers
        else value
        for value in first
    ]
    return replace(cleaned, unreadable=[*numbered, *cleaned.unreadable[MAX_NUMBERED:]])
