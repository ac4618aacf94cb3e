"""The partitions definitions, and the days or the month that a run's tags name."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import dagster as dg

from taxi_assets.date_ranges import ONE_DAY, DateRange, Month
from taxi_assets.settings.areas import DefinitionSettings

TIMEZONE = "America/New_York"
PARTITION = "dagster/partition"
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def daily_partitions() -> dg.DailyPartitionsDefinition:
    """Return one partition a day, New York time, TAXI_START_DATE to TAXI_END_DATE or yesterday."""
    settings = DefinitionSettings.from_env()
    last = settings.end_date
    return dg.DailyPartitionsDefinition(
        start_date=str(settings.start_date),
        end_date=None if last is None else str(last + ONE_DAY),  # exclusive
        timezone=TIMEZONE,
    )


def monthly_partitions() -> dg.MonthlyPartitionsDefinition:
    """Return one partition a month, the current one included: its days are partitions already."""
    settings = DefinitionSettings.from_env()
    last = settings.end_date
    return dg.MonthlyPartitionsDefinition(
        start_date=str(settings.start_date.replace(day=1)),
        end_date=None if last is None else str(Month.of(last).window.end),  # exclusive
        timezone=TIMEZONE,
        end_offset=1,
    )


def get_partition_range() -> DateRange | None:
    """Return the days that are partitions now; None if there are none yet."""
    partitions = daily_partitions()
    first, last = partitions.get_first_partition_key(), partitions.get_last_partition_key()
    if first is None or last is None:
        return None
    return DateRange(date.fromisoformat(first), date.fromisoformat(last) + ONE_DAY)


def partitions_of_month(month: Month) -> DateRange | None:
    """Return the days of a month that are partitions or will be; None if there are none."""
    settings, (start, end) = DefinitionSettings.from_env(), (month.window.start, month.window.end)
    start = max(start, settings.start_date)
    if settings.end_date is not None:
        end = min(end, settings.end_date + ONE_DAY)
    return DateRange(start, end) if start < end else None


def format_run_days(tags: Mapping[str, str]) -> str:
    """Return a run's days as `2021-01-05` or `2021-01-01 to 2021-01-31`; empty without any."""
    first = tags.get(RANGE[0]) or tags.get(PARTITION) or ""
    last = tags.get(RANGE[1]) or first
    return first if first == last else f"{first} to {last}"


def list_run_days(tags: Mapping[str, str]) -> list[date]:
    """Return the days in a run's tags, whether or not they are partitions.

    Raises:
        Failure: the run has no partition, or its key is not a date.
    """
    first = tags.get(RANGE[0]) or tags.get(PARTITION)
    last = tags.get(RANGE[1]) or first
    try:
        window = DateRange(
            date.fromisoformat(first or ""), date.fromisoformat(last or "") + ONE_DAY
        )
    except ValueError:
        raise dg.Failure(
            f"the run's partition is {first!r} to {last!r}: pass a day, as in "
            "dg launch --partition 2021-01-05",
            allow_retries=False,
        ) from None
    return list(window)


def get_run_month(tags: Mapping[str, str]) -> Month:
    """Return the month in a run's tags.

    Raises:
        Failure: the run has no partition or several, or its key is not a month.
    """
    key = tags.get(PARTITION)
    if key is None or not monthly_partitions().has_partition_key(key):
        raise dg.Failure(
            f"the run's partition is {key!r}: pass the first day of one month among the "
            "partitions, as in dg launch --partition 2021-01-01",
            allow_retries=False,
        )
    return Month.of(date.fromisoformat(key))


def reject_unknown_days(tags: Mapping[str, str]) -> None:
    """Stop a run of days that are not partitions, with a message clearer than Dagster's assertion.

    Raises:
        Failure: naming the days and the fix.
    """
    partitions = get_partition_range()
    unknown_days = [str(day) for day in list_run_days(tags) if day not in (partitions or ())]
    if unknown_days:
        first, last = (partitions.start, max(partitions)) if partitions else ("", "")
        raise dg.Failure(
            f"{', '.join(unknown_days[:3])} is outside the partitions {first} to {last}: "
            "choose a day among them, or change TAXI_START_DATE or TAXI_END_DATE",
            allow_retries=False,
        )
