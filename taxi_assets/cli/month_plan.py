"""Plan the runs of a range of days: by month, the published, loaded and due days."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from multiprocessing.pool import ThreadPool
from typing import Any

import dagster as dg

from taxi_assets.cli.day_states import DayState, State, find_day_states
from taxi_assets.cli.history import History, read_history
from taxi_assets.date_ranges import (
    DateRange,
    Month,
    group_days_by_month,
    merge_into_date_ranges,
    split_date_range,
)
from taxi_assets.defs.automation.months import find_loaded_month
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import DefinitionSettings
from taxi_assets.tlc.month_address import describe_location
from taxi_assets.tlc.remote_version import RemoteVersion, SourceUnavailableError
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import probe_month_file

PROBES = 8
"""Number of concurrent HEAD requests."""
POLL_SECONDS = 0.2
DUE = (State.missing, State.rejected, State.restated, State.stale)


@dataclass(frozen=True)
class Publication:
    """The state of a month's file at the source."""

    version: RemoteVersion | None
    """None if it is not published, or if the source did not answer."""
    trouble: str = ""
    """Reason why the source did not answer."""
    address: str = ""
    """Path or URL of the file, without secrets."""

    @property
    def is_absent(self) -> bool:
        """Whether the month is not published."""
        return self.version is None and not self.trouble


@dataclass(frozen=True)
class Chunk:
    """One run: days of one month, and the assets that are due for all of them."""

    window: DateRange
    assets: tuple[str, ...]
    is_restated: bool
    """Whether the days came from another file, so that the run must fetch the published one instead
    of using a cached file that the server does not confirm."""


@dataclass(frozen=True)
class MonthPlan:
    """The requested days of a month, and the runs that load them."""

    month: Month
    publication: Publication
    days: tuple[DayState, ...]
    runs: tuple[Chunk, ...]

    def count(self, state: State) -> int:
        """Return the number of days in a state."""
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
        """Size of the file that the runs read; None if the source does not declare it."""
        reads = any("raw_trips" in run.assets for run in self.runs)
        version = self.publication.version
        return (version.total if version else None) if reads else 0

    def figures(self, history: History) -> dict[str, Any]:
        """Return the month as plain values."""
        minutes = history.estimate_minutes(self.days_to_run)
        return {
            "month": str(self.month),
            "published": None if self.publication.trouble else not self.publication.is_absent,
            "days": len(self.days),
            **{state.value: self.count(state) for state in State},
            "runs": len(self.runs),
            "days_to_run": self.days_to_run,
            "bytes": self.bytes,
            "expected_rows": history.estimate_rows(self.days_to_run),
            "expected_minutes": None if minutes is None else round(minutes, 2),
            "due": {
                str(day.day): {"state": day.state.value, "reason": day.reason} for day in self.due
            },
        }


@dataclass(frozen=True)
class Plan:
    """Months in order, and the estimates of their runs."""

    service: Service
    months: tuple[MonthPlan, ...]
    history: History

    @property
    def runs(self) -> list[Chunk]:
        """All runs, oldest days first."""
        return [run for month in self.months for run in month.runs]

    @property
    def publications(self) -> dict[Month, Publication]:
        """State of each month's file at the source."""
        return {month.month: month.publication for month in self.months}

    def figures(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return {
            "service": self.service.name,
            "months": [month.figures(self.history) for month in self.months],
        }


def make_plan(
    instance: dg.DagsterInstance,
    service: Service,
    window: DateRange,
    only: Collection[State] = DUE,
    publications: Mapping[Month, Publication] | None = None,
) -> Plan:
    """Compare the source, the event log and the settings for every day of a window.

    Days in a state of `only` get a run. `publications` come from an earlier plan; without them the
    source is probed.
    """
    months = group_days_by_month(window)
    publications = publications or probe_months(service, list(months))
    plans = [
        _plan_month(instance, service, days, publications[month], only)
        for month, days in months.items()
    ]
    return Plan(service, tuple(plans), read_history(instance, service))


def probe_months(service: Service, months: Sequence[Month]) -> dict[Month, Publication]:
    """Probe the source for the version of each month, a few at once.

    Raises:
        SourceError: the source rejects a request, which needs a person.
    """
    settings = Settings.from_env()
    template = settings.source.template

    def probe(month: Month) -> Publication:
        address = describe_location(template, service, month)
        try:
            version = probe_month_file(template, service, month, home=settings.home)
        except SourceUnavailableError as error:
            return Publication(None, str(error), address)
        return Publication(version, address=address)

    # Its threads are daemons: Ctrl-C does not wait for the answers of a silent server.
    with ThreadPool(PROBES) as pool:
        answers = pool.map_async(probe, months, chunksize=1)
        while not answers.ready():  # A wait without a limit can miss the signal of Ctrl-C.
            answers.wait(POLL_SECONDS)
        return dict(zip(months, answers.get(), strict=True))


def _plan_month(
    instance: dg.DagsterInstance,
    service: Service,
    days: Sequence[date],
    publication: Publication,
    only: Collection[State],
) -> MonthPlan:
    month = Month.of(days[0])
    log = find_loaded_month(instance, service, month)
    now = publication.version
    restated: set[date] = set()
    if log.version is not None:
        # `log.days` has the days of the current file, and is empty for another file.
        differs = now is not None and now.differs_from(log.version)
        restated = set(days) - (frozenset() if differs else log.days)
    states = find_day_states(instance, service, days, restated)
    due_days = [] if publication.is_absent else [day for day in states if day.state in only]
    return MonthPlan(month, publication, tuple(states), tuple(_plan_runs(due_days)))


def _plan_runs(due_days: Sequence[DayState]) -> list[Chunk]:
    """Return the fewest runs over exactly these days; a run has the same assets for all days."""

    def get_needs(day: DayState) -> tuple[tuple[str, ...], bool]:
        return day.assets, day.state == State.restated

    chunks: list[Chunk] = []
    length = DefinitionSettings.from_env().max_partitions_per_run
    for (assets, restated), days in groupby(sorted(due_days, key=get_needs), key=get_needs):
        for window in merge_into_date_ranges(day.day for day in days):
            chunks += [Chunk(part, assets, restated) for part in split_date_range(window, length)]
    return sorted(chunks, key=lambda chunk: chunk.window)
