"""The figures of earlier days, for a day's picture and the check `usual_day`.

They are read from the footers of objects in the lake, without the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from threading import Event
from typing import TypeVar

from taxi_assets.defs.io_managers.partition_data import CLEANED, Label, read_trips_metadata
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.lake_keys import build_cleaned_key
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.report.day_picture import Figures
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.usual_day import list_same_weekdays

T = TypeVar("T")


class SameWeekdays:
    """The same weekdays of the six weeks before a day, without holidays, from the lake.

    Days of the run are cached, and each other day is read once: a run reads at most 42 footers for
    its pictures, and 49 if a day is unusual, whatever its number of days.
    """

    def __init__(self, lake: Lake, service: Service, warn: Callable[[str], object]) -> None:
        self.lake = lake
        self.service = service
        self.warn = warn
        self.known: dict[date, Figures | None] = {}
        self.computed: dict[date, Event] = {}
        """By day of the run: set once its figures are known or cannot be computed."""

    def follow(self, days: Sequence[date], compute: Callable[[date], T]) -> Callable[[date], T]:
        """Wrap the function that computes the days of a run, so that a day can wait for another.

        Days start in order and wait only for earlier ones, so there is no deadlock.
        """
        self.computed = {day: Event() for day in days}

        def compute_day(day: date) -> T:
            try:
                return compute(day)
            finally:
                self.computed[day].set()

        return compute_day

    def add(self, day: date, figures: Figures) -> None:
        """Cache a day of the run."""
        self.known[day] = figures

    def before(self, day: date) -> list[Figures]:
        """Return the figures of the same weekdays before a day, latest first."""
        return [figures for weekday in list_same_weekdays(day) if (figures := self.of(weekday))]

    def of(self, day: date) -> Figures | None:
        """Return a day's figures; None if it is not loaded."""
        if day not in self.known and day in self.computed:
            self.computed[day].wait()
        if day not in self.known:
            self.known[day] = self._read(day)
        return self.known[day]

    def _read(self, day: date) -> Figures | None:
        """Read an earlier day's footer; a damaged one is only missing in the comparison."""
        label = Label(self.service.name, CLEANED, str(day))
        try:
            key = build_cleaned_key(self.service, day)
            trips = read_trips_metadata(self.lake, key, label, self.service)
        except PartitionRejectedError as error:
            self.warn(f"skipped in the comparison: {error}")
            return None
        if trips is None or trips.profile is None:
            return None
        return Figures(trips.profile, trips.dropped, trips.total if trips.total_column else None)
