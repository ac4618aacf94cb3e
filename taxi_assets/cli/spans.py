"""The days that a person writes on the command line."""

from __future__ import annotations

import re
from datetime import date

from taxi_assets.date_ranges import ONE_DAY, DateRange, Month
from taxi_assets.errors import TerminalError
from taxi_assets.partitions import daily_partitions
from taxi_assets.tlc.loaded_services import load_services
from taxi_assets.tlc.schema import Service

SPAN = re.compile(r"(\d{4}-\d{2})(-\d{2})?(?:\.\.(\d{4}-\d{2})(-\d{2})?)?")
EXAMPLES = "2021-01, 2019-01..2021-07, 2021-01-05 or 2021-01-05..2021-02-10"


class UsageError(TerminalError):
    """An argument of the command line cannot be used."""


def service_named(name: str) -> Service:
    """Return a service by its name.

    Raises:
        UsageError: no service has that name.
    """
    services = load_services()
    if name not in services:
        raise UsageError(
            f"no service is called {name!r}: choose one of {', '.join(services)} (TAXI_SERVICES)"
        )
    return services[name]


def parse_span(text: str) -> DateRange:
    """Return the days of `2021-01`, `2019-01..2021-07`, `2021-01-05` or `2021-01-05..2021-02-10`.

    Raises:
        UsageError: the text is none of these, or its end is before its start.
    """
    found = SPAN.fullmatch(text)
    if found is None:
        raise UsageError(f"{text!r} is no month, day or range: write {EXAMPLES}")
    month, day, last_month, last_day = found.groups()
    try:
        first = date.fromisoformat(month + (day or "-01"))
        last = date.fromisoformat(
            (last_month or month) + ((last_day if last_month else day) or "-01")
        )
    except ValueError as error:
        raise UsageError(f"{text!r}: {error}") from None
    whole_month = not (last_day if last_month else day)
    end = Month.of(last).window.end if whole_month else last + ONE_DAY
    if end <= first:
        raise UsageError(f"{text!r} ends before it starts: write {EXAMPLES}")
    return DateRange(first, end)


def partitioned_span(text: str) -> DateRange:
    """Return the days of a span that are partitions: from TAXI_START_DATE to yesterday.

    Raises:
        UsageError: it starts before the first partition, or all of it is in the future.
    """
    window = parse_span(text)
    partitions = daily_partitions()
    first = date.fromisoformat(partitions.get_first_partition_key() or str(window.start))
    last = date.fromisoformat(partitions.get_last_partition_key() or str(first))
    if window.start < first:
        raise UsageError(
            f"{window.start} is before the first partition, {first}: set TAXI_START_DATE to "
            f"{window.start} or an earlier day, here and where the daemon runs"
        )
    if window.start > last:
        raise UsageError(f"{window.start} is after the last partition, {last}")
    return DateRange(window.start, min(window.end, last + ONE_DAY))
