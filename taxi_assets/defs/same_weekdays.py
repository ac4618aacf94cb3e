"""The same weekdays before a day, which its picture compares it with.

They are read from the footers of earlier objects in the lake, without their rows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

from taxi_assets.defs.io_managers.partition_data import CLEANED, Label, read_trips_metadata
from taxi_assets.defs.resources.lake import Lake, build_cleaned_key
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.report.day_picture import Figures
from taxi_assets.tlc.schema import Service

WEEKS = 4
"""Earlier same weekdays that a day is compared with."""


class SameWeekdays:
    """The same weekdays of the four weeks before a day, as far as the lake has them.

    Days of the run are remembered, each other one is read once: a chunk reads at most 28 footers,
    however long it is.
    """

    def __init__(self, lake: Lake, service: Service, warn: Callable[[str], object]) -> None:
        self.lake = lake
        self.service = service
        self.warn = warn
        self.known: dict[date, Figures | None] = {}

    def add(self, day: date, figures: Figures) -> None:
        """Remember a day of the run."""
        self.known[day] = figures

    def before(self, day: date) -> list[Figures]:
        """Return the earlier days' figures, latest first."""
        days = [day - timedelta(weeks=weeks) for weeks in range(1, WEEKS + 1)]
        return [figures for one in days if (figures := self._of(one))]

    def _of(self, day: date) -> Figures | None:
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
        return Figures(trips.profile, trips.dropped) if trips and trips.profile else None
