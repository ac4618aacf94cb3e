"""Earlier days of a service: what a day's picture and the check `usual_day` compare it with.

They are read from the footers of earlier objects in the lake, without their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from threading import Event
from typing import TypeVar

from taxi_assets.defs.io_managers.partition_data import CLEANED, Label, read_trips_metadata
from taxi_assets.defs.resources.lake import Lake, build_cleaned_key
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.report.day_picture import Figures
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.usual_day import list_same_weekdays

T = TypeVar("T")


class SameWeekdays:
    """The same weekdays of the six weeks before a day, without holidays, as the lake has them.

    Days of the run are remembered, each other one is read once: a chunk reads at most 42 footers
    for its pictures, and 49 if a day is unusual, however long it is.
    """

    def __init__(self, lake: Lake, service: Service, warn: Callable[[str], object]) -> None:
        self.lake = lake
        self.service = service
        self.warn = warn
        self.known: dict[date, Figures | None] = {}
        self.computed: dict[date, Event] = {}
        """By day of the run, whether its figures are known or will not be."""

    def follow(self, days: Sequence[date], compute: Callable[[date], T]) -> Callable[[date], T]:
        """Return what computes the days of a run, each of which can be waited for.

        Days are begun in their order and wait for earlier ones only, so none waits for ever.
        """
        self.computed = {day: Event() for day in days}

        def of_day(day: date) -> T:
            try:
                return compute(day)
            finally:
                self.computed[day].set()

        return of_day

    def add(self, day: date, figures: Figures) -> None:
        """Remember a day of the run."""
        self.known[day] = figures

    def before(self, day: date) -> list[Figures]:
        """Return the earlier days' figures, latest first."""
        return [figures for one in list_same_weekdays(day) if (figures := self.of(one))]

    def of(self, day: date) -> Figures | None:
        """Return a day's figures; None if it is not loaded."""
        if day not in self.known and day in self.computed:
            self.computed[day].wait()
        if day not in self.known:
            self.known[day] = self._read(day)
        return self.known[day]

    def _read(self, day: date) -> Figures | None:
        """Read an earlier day's footer; a damaged one costs a line of the picture alone."""
        label = Label(self.service.name, CLEANED, str(day))
        try:
            key = build_cleaned_key(self.service, day)
            trips = read_trips_metadata(self.lake, key, label, self.service)
        except PartitionRejectedError as error:
            self.warn(f"not compared with: {error}")
            return None
        if trips is None or trips.profile is None:
            return None
        return Figures(trips.profile, trips.dropped, trips.total if trips.total_column else None)
