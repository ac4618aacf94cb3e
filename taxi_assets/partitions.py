"""The daily partitions, and which of them a run is asked for."""

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
    """Return one partition a day of New York, TAXI_START_DATE to TAXI_END_DATE or yesterday."""
    settings = DefinitionSettings.from_env()
    last = settings.end_date
    return dg.DailyPartitionsDefinition(
        start_date=str(settings.start_date),
        end_date=None if last is None else str(last + ONE_DAY),  # exclusive
        timezone=TIMEZONE,
    )


def monthly_partitions() -> dg.MonthlyPartitionsDefinition:
    """Return one partition a month file; the running month has one too, its days are partitions."""
    settings = DefinitionSettings.from_env()
    last = settings.end_date
    return dg.MonthlyPartitionsDefinition(
        start_date=str(settings.start_date.replace(day=1)),
        end_date=None if last is None else str(Month.of(last).window.end),  # exclusive
        timezone=TIMEZONE,
        end_offset=1,
    )


def partitions_of_month(month: Month) -> DateRange | None:
    """Return the days of a month that are partitions, or will be once they are over."""
    settings, (start, end) = DefinitionSettings.from_env(), (month.window.start, month.window.end)
    start = max(start, settings.start_date)
    if settings.end_date is not None:
        end = min(end, settings.end_date + ONE_DAY)
    return DateRange(start, end) if start < end else None


def list_run_days(tags: Mapping[str, str]) -> list[date]:
    """Return the days in a run's tags, whether or not they are partitions.

    Raises:
        Failure: the run has no partition, or one that is no date.
    """
    first = tags.get(RANGE[0]) or tags.get(PARTITION)
    last = tags.get(RANGE[1]) or first
    try:
        window = DateRange(
            date.fromisoformat(first or ""), date.fromisoformat(last or "") + ONE_DAY
        )
    except ValueError:
        raise dg.Failure(
            f"the run's partition is {first!r} to {last!r}: give it a day, as --tags "
            '\'{"dagster/partition": "2021-01-05"}\'',
            allow_retries=False,
        ) from None
    return list(window)


def get_run_month(tags: Mapping[str, str]) -> Month:
    """Return the month in a run's tags.

    Raises:
        Failure: the run has no partition, several, or one that is no month.
    """
    asked = tags.get(PARTITION)
    if asked is None or not monthly_partitions().has_partition_key(asked):
        raise dg.Failure(
            f"the run's partition is {asked!r}: give it one month among the partitions, by its "
            'first day, as --tags \'{"dagster/partition": "2021-01-01"}\'',
            allow_retries=False,
        )
    return Month.of(date.fromisoformat(asked))


def reject_unknown_days(tags: Mapping[str, str]) -> None:
    """Stop a run over days that are no partitions, before Dagster's own assertion on them does.

    Raises:
        Failure: naming the days and what to do.
    """
    days = list_run_days(tags)
    partitions = daily_partitions()
    known = partitions.get_first_partition_key() or "", partitions.get_last_partition_key() or ""
    unknown = [str(day) for day in days if not known[0] <= str(day) <= known[1]]
    if unknown:
        raise dg.Failure(
            f"{', '.join(unknown[:3])} is outside the partitions {known[0]} to {known[1]}: "
            "choose a day among them, or change TAXI_START_DATE or TAXI_END_DATE",
            allow_retries=False,
        )
