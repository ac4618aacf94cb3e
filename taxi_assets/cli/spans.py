"""Parse the services and days of the command line."""

from __future__ import annotations

import re
from datetime import date

from taxi_assets.date_ranges import ONE_DAY, DateRange, Month
from taxi_assets.errors import TerminalError
from taxi_assets.partitions import get_partition_range
from taxi_assets.settings.areas import DefinitionSettings
from taxi_assets.tlc.loaded_services import load_services
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES

SPAN = re.compile(r"(\d{4}-\d{2})(-\d{2})?(?:\.\.(\d{4}-\d{2})(-\d{2})?)?")
EXAMPLES = "2021-01, 2019-01..2021-07, 2021-01-05 or 2021-01-05..2021-02-10"


class UsageError(TerminalError):
    """An argument of the command line cannot be used."""


def find_service(name: str) -> Service:
    """Return a service by name.

    Raises:
        UsageError: no service has that name.
    """
    services = load_services()
    if name not in services:
        chosen = ",".join(services)
        fix = (
            f"set TAXI_SERVICES={chosen},{name}, here and where the daemon runs"
            if name in SERVICES
            else f"choose one of {', '.join(SERVICES)} (TAXI_SERVICES={chosen})"
        )
        raise UsageError(f"there is no service {name!r}: {fix}")
    return services[name]


def parse_span(text: str) -> DateRange:
    """Return the days of `2021-01`, `2019-01..2021-07`, `2021-01-05` or `2021-01-05..2021-02-10`.

    Raises:
        UsageError: the text has none of these forms, or its end is before its start.
    """
    match = SPAN.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a month, day or range: write {EXAMPLES}")
    month, day, last_month, last_day = match.groups()
    try:
        first = date.fromisoformat(month + (day or "-01"))
        last = date.fromisoformat(
            (last_month or month) + ((last_day if last_month else day) or "-01")
        )
        is_month = not (last_day if last_month else day)
        end = Month.of(last).window.end if is_month else last + ONE_DAY
    except (ValueError, OverflowError) as error:  # the day after 9999-12-31 does not exist
        raise UsageError(f"{text!r}: {error}") from None
    if end <= first:
        raise UsageError(f"{text!r} ends before it starts: write {EXAMPLES}")
    return DateRange(first, end)


def parse_partition_span(text: str) -> DateRange:
    """Parse a span, and return its days that are partitions: from TAXI_START_DATE to yesterday.

    Raises:
        UsageError: it starts before the first partition or after the last.
    """
    window = parse_span(text)
    partitions = get_partition_range() or DateRange.of_day(window.start)
    if window.start < partitions.start:
        raise UsageError(
            f"{window.start} is before the first partition, {partitions.start}: set "
            f"TAXI_START_DATE to {window.start} or an earlier day, here and where the daemon runs"
        )
    if window.start >= partitions.end:
        fix = (
            f"set TAXI_END_DATE to {window.start} or a later day, here and where the daemon runs"
            if DefinitionSettings.from_env().end_date
            else "the last partition is yesterday's"
        )
        raise UsageError(f"{window.start} is after the last partition, {max(partitions)}: {fix}")
    return DateRange(window.start, min(window.end, partitions.end))
