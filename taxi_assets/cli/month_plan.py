"""The plan of a range of days: by month, what is published, loaded and due, and the runs for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

import dagster as dg

from taxi_assets.cli.day_states import DayState, State, day_states
from taxi_assets.cli.history import History, read_history
from taxi_assets.date_ranges import (
    DateRange,
    Month,
    group_days_by_month,
    merge_into_date_ranges,
    split_date_range,
)
from taxi_assets.defs.automation.months import find_loaded_months
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import DefinitionSettings
from taxi_assets.tlc.remote_version import RemoteVersion, SourceUnavailableError
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import probe_month_file

PROBES = 8
"""HEAD requests at once."""
DUE = (State.missing, State.rejected, State.restated, State.stale)


@dataclass(frozen=True)
class Publication:
    """What the source says of a month's file."""

    version: RemoteVersion | None
    """None: it is not published, or the source did not answer."""
    trouble: str = ""
    """Why the source did not answer."""

    @property
    def is_absent(self) -> bool:
        """Whether the source says that there is no such month."""
        return self.version is None and not self.trouble


@dataclass(frozen=True)
class Chunk:
    """One run: days of one month, and the assets that are due for all of them."""

    window: DateRange
    assets: tuple[str, ...]
    is_restated: bool
    """Whether the days came from another file: the run fetches the published one, and does not use
    a cached file that the server does not confirm."""


@dataclass(frozen=True)
class MonthPlan:
    """A month, its days that were asked for, and what has to be done."""

    service: Service
    month: Month
    publication: Publication
    days: tuple[DayState, ...]
    runs: tuple[Chunk, ...]

    def count(self, state: State) -> int:
        """Count the days in a state."""
        return sum(day.state == state for day in self.days)

    @property
    def due(self) -> list[DayState]:
        """Days that are not loaded."""
        return [day for day in self.days if day.state != State.loaded]

    @property
    def days_to_run(self) -> int:
        """Days of the planned runs."""
        return sum(len(run.window) for run in self.runs)

    @property
    def bytes(self) -> int | None:
        """Size of the file that the runs read, if the source says it."""
        reads = any("raw_trips" in run.assets for run in self.runs)
        version = self.publication.version
        return (version.total if version else None) if reads else 0

    def figures(self, history: History) -> dict[str, Any]:
        """Return the month as plain values."""
        return {
            "month": str(self.month),
            "published": None if self.publication.trouble else not self.publication.is_absent,
            "days": len(self.days),
            **{state.value: self.count(state) for state in State},
            "runs": len(self.runs),
            "days_to_run": self.days_to_run,
            "bytes": self.bytes,
            "expected_rows": history.rows(self.days_to_run),
            "expected_minutes": rounded(history.minutes(self.days_to_run)),
            "due": {
                str(day.day): {"state": day.state.value, "reason": day.reason} for day in self.due
            },
        }


@dataclass(frozen=True)
class Plan:
    """Months in order, and what earlier runs say of the time they need."""

    service: Service
    months: tuple[MonthPlan, ...]
    history: History

    @property
    def runs(self) -> list[Chunk]:
        """All runs, oldest days first."""
        return [run for month in self.months for run in month.runs]

    @property
    def publications(self) -> dict[Month, Publication]:
        """What the source said of each month."""
        return {month.month: month.publication for month in self.months}

    def figures(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "service": self.service.name,
            "months": [month.figures(self.history) for month in self.months],
        }


def rounded(value: float | None) -> float | None:
    """Round to two decimal places."""
    return None if value is None else round(value, 2)


def make_plan(
    instance: dg.DagsterInstance,
    service: Service,
    window: DateRange,
    only: Collection[State] = DUE,
    publications: Mapping[Month, Publication] | None = None,
) -> Plan:
    """Compare the source, the event log and the settings for every day of a window.

    `only` are the states whose days get a run. `publications` are those known from an earlier plan.
    """
    months = group_days_by_month(window)
    known = publications or probe_months(service, list(months))
    plans = [
        _plan_month(instance, service, days, known[month], only) for month, days in months.items()
    ]
    return Plan(service, tuple(plans), read_history(instance, service))


def probe_months(service: Service, months: Sequence[Month]) -> dict[Month, Publication]:
    """Ask the source for every month's version, a few at once.

    Raises:
        SourceError: the source rejects the request; a person must look.
    """
    settings = Settings.from_env()

    def probe(month: Month) -> Publication:
        try:
            return Publication(
                probe_month_file(settings.source.template, service, month, home=settings.home)
            )
        except SourceUnavailableError as error:
            return Publication(None, str(error))

    with ThreadPoolExecutor(PROBES, "probe") as pool:
        return dict(zip(months, pool.map(probe, months), strict=True))


def _plan_month(
    instance: dg.DagsterInstance,
    service: Service,
    days: Sequence[date],
    publication: Publication,
    only: Collection[State],
) -> MonthPlan:
    month = Month.of(days[0])
    log = find_loaded_months(instance, service, month)
    now = publication.version
    restated: set[date] = set()
    if log.version is not None:
        # A day that came from the file of now is in `log.days`; of another file's, none is.
        differs = now is not None and now.differs_from(log.version)
        restated = set(days) - (frozenset() if differs else log.days)
    states = day_states(instance, service, days, restated)
    due = [] if publication.is_absent else [day for day in states if day.state in only]
    return MonthPlan(service, month, publication, tuple(states), tuple(_runs(due)))


def _runs(due: Sequence[DayState]) -> Iterator[Chunk]:
    """Return the fewest runs over exactly these days; days of other assets are other runs."""

    def needs(day: DayState) -> tuple[tuple[str, ...], bool]:
        return day.assets, day.state == State.restated

    found: list[Chunk] = []
    length = DefinitionSettings.from_env().max_partitions_per_run
    for (assets, restated), days in groupby(sorted(due, key=needs), key=needs):
        for window in merge_into_date_ranges(day.day for day in days):
            found += [Chunk(piece, assets, restated) for piece in split_date_range(window, length)]
    yield from sorted(found, key=lambda run: run.window)
