"""The figures of a month's report, counted day by day so that only one day is in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.column import Role, normalize_name
from taxi_assets.tlc.schema import Interval, Service
from taxi_assets.trips.clean import sum_total_amount
from taxi_assets.trips.profile import count_shared, measure_minutes

HOURS = 24
WEEKDAYS = 7
MINUTES_A_DAY = 24 * 60

K = TypeVar("K")


@dataclass(frozen=True)
class DayFigures:
    """The figures of a stored day."""

    trips: int
    hours: tuple[int, ...]
    """Trips by the hour of their pickup, New York wall time."""
    zones: Mapping[int | None, int]
    """Trips by pickup zone; empty if the service publishes none."""
    revenue: float | None
    """Sum of the totals in dollars; refunds are negative. None if no trip has a total."""
    negative_totals: int
    dropped: Mapping[str, int]
    """Dropped rows by rule."""
    synthetic: bool
    pay: float = 0.0
    """Sum of the drivers' pay in dollars."""
    shared: int | None = None
    """Shared rides; None if the service does not publish them."""
    minutes: Mapping[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])
    """Sum of minutes, and number of trips, by interval."""
    dropoffs: Mapping[int | None, int] = field(default_factory=dict[int | None, int])
    """Trips by drop-off zone; empty if the service publishes none."""
    payments: Mapping[int | None, int] = field(default_factory=dict[int | None, int])
    """Trips by payment code; empty if the service publishes none."""
    tips: float | None = None
    """Sum of the tips in dollars; None if the service publishes none."""


@dataclass(frozen=True)
class EarlierMonth:
    """The stored days of an earlier month, for comparison."""

    month: Month
    trips_a_day: float
    revenue_a_day: float


@dataclass(frozen=True)
class MonthFigures:
    """The figures of a month's stored days."""

    service: Service
    month: Month
    days: Mapping[date, DayFigures]
    file_rows: int | None
    """Rows of the month's file; None if they were never counted."""
    outside: int = 0
    """Rows of the file with a pickup in another month."""
    unreadable: int = 0
    earlier: Sequence[EarlierMonth] = ()
    """The month before and the same month a year before, if any of their days are stored."""

    @cached_property
    def dropoffs(self) -> Counter[int | None]:
        """Trips by drop-off zone; empty if none is recorded."""
        return _sum_zones(day.dropoffs for day in self.days.values())

    @cached_property
    def payments(self) -> Counter[int | None]:
        """Trips by payment code."""
        return _sum_counts(day.payments for day in self.days.values())

    @cached_property
    def tips(self) -> float | None:
        """Sum of the tips in dollars; None if no day has any."""
        tips = [day.tips for day in self.days.values() if day.tips is not None]
        return sum(tips) if tips else None

    @cached_property
    def missing(self) -> list[date]:
        """Days of the month that are not stored."""
        return [day for day in self.month.window if day not in self.days]

    @cached_property
    def trips(self) -> int:
        """Stored trips."""
        return sum(day.trips for day in self.days.values())

    @cached_property
    def revenue(self) -> float:
        """Sum of the totals in dollars."""
        return sum(day.revenue or 0.0 for day in self.days.values())

    @cached_property
    def has_money(self) -> bool:
        """Whether any trip has a total; without one, no revenue is shown."""
        return any(day.revenue is not None for day in self.days.values())

    @cached_property
    def pay(self) -> float:
        """Sum of the drivers' pay in dollars."""
        return sum(day.pay for day in self.days.values())

    @cached_property
    def shared(self) -> int | None:
        """Shared rides; None if no day has the number."""
        shared = [day.shared for day in self.days.values() if day.shared is not None]
        return sum(shared) if shared else None

    @cached_property
    def mean_minutes(self) -> dict[str, float]:
        """Mean minutes of each interval, by description."""
        means: dict[str, float] = {}
        for interval in self.service.intervals:
            of_days = [day.minutes.get(interval.name, (0.0, 0)) for day in self.days.values()]
            trips = sum(count for _, count in of_days)
            if trips:
                means[interval.description] = sum(minutes for minutes, _ in of_days) / trips
        return means

    @cached_property
    def busiest(self) -> date:
        """The day with the most trips; the first day wins a tie."""
        return max(self.days, key=lambda day: self.days[day].trips)

    @cached_property
    def negative_totals(self) -> int:
        """Stored trips with a negative total: voids and refunds."""
        return sum(day.negative_totals for day in self.days.values())

    @cached_property
    def dropped(self) -> Counter[str]:
        """Dropped rows by rule."""
        return _sum_counts(day.dropped for day in self.days.values())

    @cached_property
    def zones(self) -> Counter[int | None]:
        """Trips by pickup zone; empty if none is recorded, as in the first years."""
        return _sum_zones(day.zones for day in self.days.values())

    @cached_property
    def unaccounted(self) -> int | None:
        """Rows of the file that are neither stored nor dropped for a known reason.

        These are the rows of missing days; without missing days, there must be none.
        """
        if self.file_rows is None:
            return None
        accounted = self.trips + self.dropped.total() + self.outside + self.unreadable
        return self.file_rows - accounted

    @cached_property
    def synthetic(self) -> bool:
        """Whether any day comes from the synthetic sample."""
        return any(day.synthetic for day in self.days.values())

    @cached_property
    def by_hour(self) -> list[list[float] | None]:
        """Mean trips by hour for each weekday from Monday; None if no such weekday is stored."""
        rows: list[list[float] | None] = []
        for weekday in range(WEEKDAYS):
            days = [day for day in self.days if day.weekday() == weekday]
            hours = [self.days[day].hours for day in days]
            rows.append(np.mean(hours, axis=0).tolist() if hours else None)
        return rows


def count_day(
    table: pa.Table, service: Service, dropped: Mapping[str, int], *, synthetic: bool
) -> DayFigures:
    """Count a stored day's rows; `table` needs only `list_counted_columns(service)`."""
    hours = np.bincount(pc.hour(table[service.pickup_column]).to_numpy(), minlength=HOURS)
    none = pa.chunked_array([], pa.float64())
    totals = table[service.total] if service.total else none
    pay, tip = service.find_role("pay"), service.find_role("tip")
    return DayFigures(
        trips=table.num_rows,
        hours=tuple(hours.tolist()),
        zones=_count_values(table, service.find_role("pickup_zone")),
        revenue=sum_total_amount(table, service),
        negative_totals=int(pc.sum(pc.less(totals, 0.0)).as_py() or 0),
        dropped=dropped,
        synthetic=synthetic,
        pay=float(pc.sum(table[pay] if pay else none).as_py() or 0.0),
        shared=count_shared(table, service),
        minutes={
            interval.name: _sum_plausible(measure_minutes(table, service, interval))
            for interval in service.intervals
            if {*_find_ends(service, interval)} <= {*table.schema.names}
        },
        dropoffs=_count_values(table, service.find_role("dropoff_zone")),
        payments=_count_values(table, service.find_role("payment")),
        tips=float(pc.sum(table[tip]).as_py() or 0.0) if tip in table.schema.names else None,
    )


def _sum_plausible(minutes: pa.Array) -> tuple[float, int]:
    """Return sum and number of minutes from 0 to less than a day (longer: a meter was left on)."""
    plausible = pc.and_(pc.greater_equal(minutes, 0), pc.less(minutes, MINUTES_A_DAY))
    minutes = minutes.filter(plausible)
    return float(pc.sum(minutes).as_py() or 0.0), len(minutes)


def list_counted_columns(service: Service) -> Sequence[str]:
    """Return the columns that `count_day` reads."""
    roles: tuple[Role, ...] = ("pickup_zone", "dropoff_zone", "payment", "pay", "tip")
    columns = {service.pickup_column, service.total, *map(service.find_role, roles)}
    columns |= {column.name for column in service.by_role.get("shared", ())}
    for interval in service.intervals:
        columns |= {*_find_ends(service, interval)}
    return [name for name in service.arrow_schema.names if name in columns]


def _find_ends(service: Service, interval: Interval) -> tuple[str, str]:
    """Return the first and the last column of an interval."""
    begin, end = (
        service.by_name[normalize_name(name)].name for name in (interval.begin, interval.end)
    )
    return begin, end


def _count_values(table: pa.Table, name: str | None) -> dict[int | None, int]:
    if name not in table.schema.names:
        return {}
    counts = pc.value_counts(table[name].combine_chunks())
    return dict(zip(*(field.to_pylist() for field in counts.flatten()), strict=True))


def _sum_zones(counts: Iterable[Mapping[int | None, int]]) -> Counter[int | None]:
    """Add up trips by zone; empty if no zone is recorded."""
    zones = _sum_counts(counts)
    return zones if set(zones) - {None} else Counter()


def _sum_counts(counts: Iterable[Mapping[K, int]]) -> Counter[K]:
    total: Counter[K] = Counter()
    for part in counts:
        total.update(part)
    return total
