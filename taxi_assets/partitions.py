"""The daily partitions, and which of them a run is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import dagster as dg

from taxi_assets.date_ranges import ONE_DAY, Month, Window
from taxi_assets.settings import start_date

TIMEZONE = "America/New_York"
PARTITION = "dagster/partition"
RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


def daily_partitions() -> dg.DailyPartitionsDefinition:
    """One partition a day in New York, from TAXI_START_DATE to yesterday."""
    return dg.DailyPartitionsDefinition(start_date=str(start_date()), timezone=TIMEZONE)


def monthly_partitions() -> dg.MonthlyPartitionsDefinition:
    """One partition a month file; the running month has one too, its days are partitions."""
    first = start_date().replace(day=1)
    return dg.MonthlyPartitionsDefinition(start_date=str(first), timezone=TIMEZONE, end_offset=1)


def days_of_run(tags: Mapping[str, str]) -> list[date]:
    """The days that a run's tags ask for, whether or not they are among the partitions.

    Raises:
        Failure: the run has no partition, or one that is no date.
    """
    first = tags.get(RANGE[0]) or tags.get(PARTITION)
    last = tags.get(RANGE[1]) or first
    try:
        window = Window(date.fromisoformat(first or ""), date.fromisoformat(last or "") + ONE_DAY)
    except ValueError:
        raise dg.Failure(
            f"the run's partition is {first!r} to {last!r}: give it a day, as --tags "
            '\'{"dagster/partition": "2021-01-05"}\'',
            allow_retries=False,
        ) from None
    return list(window)


def month_of_run(tags: Mapping[str, str]) -> Month:
    """The month that a run's tags ask for.

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


def refuse_unknown_days(tags: Mapping[str, str]) -> None:
    """Stop a run over days that are no partitions, before Dagster's own assertion on them does.

    Raises:
        Failure: naming the days and what to do.
    """
    days = days_of_run(tags)
    partitions = daily_partitions()
    known = partitions.get_first_partition_key() or "", partitions.get_last_partition_key() or ""
    unknown = [str(day) for day in days if not known[0] <= str(day) <= known[1]]
    if unknown:
        raise dg.Failure(
            f"{', '.join(unknown[:3])} is outside the partitions {known[0]} to {known[1]}: "
            "ask for a day among them, or set TAXI_START_DATE to an earlier one",
            allow_retries=False,
        )
