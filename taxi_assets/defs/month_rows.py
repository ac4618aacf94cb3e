"""The values that reject a day, by the numbers that their rows have in the month file."""

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

SHOWN = 10
"""Values that are found in the file: messages and checks show fewer."""


def name_month_rows(
    cleaned: Cleaned,
    service: Service,
    raw: RawPartition,
    source: SourceResource,
    log: dg.DagsterLogManager,
) -> Cleaned:
    """Return a cleaned day whose first invalid values name their rows of the month file.

    They keep the numbers they have in the day's own rows where the file is not there any more, or
    is another version of it.
    """
    first = cleaned.unreadable[:SHOWN]
    try:
        file = source.month_file(service, Month.of(raw.day), log.debug)
        if file.sha256 != raw.source_file.sha256:
            return cleaned
        numbers = find_month_rows(file, raw.day, raw.content, [value.row for value in first])
    except (TerminalError, UnavailableError, OSError, pa.ArrowException) as error:
        log.debug(f"line numbers are those of the day's own rows: {error}")
        return cleaned
    named = [
        replace(value, row=numbers[value.row], unit=f"month file {value.unit}")
        if value.row in numbers
        else value
        for value in first
    ]
    return replace(cleaned, unreadable=[*named, *cleaned.unreadable[SHOWN:]])
