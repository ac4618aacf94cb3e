"""The command `taxi-assets backfill`: launch the planned runs, follow them, and report the rest."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date

import dagster as dg
from dagster import DagsterRunStatus
from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from taxi_assets.cli.day_states import State
from taxi_assets.cli.month_plan import DUE, Chunk, MonthPlan, Plan, make_plan
from taxi_assets.cli.runner import (
    Outcome,
    Progress,
    QueueDiedError,
    hold_backfill_lock,
    list_unfinished_runs,
    map_days_to_runs,
    run_chunk,
    submit_chunk,
    wait_for_runs,
)
from taxi_assets.cli.spans import UsageError
from taxi_assets.dagster_internals.run_queue import has_live_queue
from taxi_assets.date_ranges import DateRange, merge_into_date_ranges
from taxi_assets.errors import format_count
from taxi_assets.tlc.schema import Service

AFTER_RAW = (State.missing, State.stale)
"""States of a restated day after its raw rows were replaced, if they changed."""
REFRESHES_PER_SECOND = 2
MAX_EMPTY_RUNS = 3
"""Number of consecutive runs that store nothing after which a backfill stops."""
MAX_REASONS = 5


@dataclass
class Backfill:
    """One call of the command."""

    instance: dg.DagsterInstance
    service: Service
    window: DateRange
    only: Collection[State] = DUE
    max_runs: int | None = None
    console: Console = field(default_factory=Console)

    def run(self) -> int:
        """Launch and follow the runs, print the result, and return 1 if days are left, else 0."""
        with hold_backfill_lock(self.instance, self.service):
            plan = make_plan(self.instance, self.service, self.window, self.only)
            busy_days = map_days_to_runs(list_unfinished_runs(self.instance, self.service))
            chunks = [run for run in plan.runs if not any(day in busy_days for day in run.window)]
            chunks = chunks[: self.max_runs]
            self._announce(chunks, busy_days)
            try:
                self._launch(chunks, sorted(set(busy_days.values())))
                self._launch(self._list_changed_days(plan, chunks), [])
            except KeyboardInterrupt:
                self._print_result(plan, interrupted=True)
                return 130
            except QueueDiedError as error:
                self._print_line(str(error))
            return self._print_result(plan)

    def show_runs(self) -> int:
        """Print the runs that `run` would start, and return 1 if there are any."""
        runs = make_plan(self.instance, self.service, self.window, self.only).runs[: self.max_runs]
        for chunk in runs:
            then = ", then the other assets for the days that changed" if chunk.is_restated else ""
            self._print_line(f"{chunk.window}: {', '.join(chunk.assets)}{then}")
        self._print_line(f"{format_count(len(runs), 'run')} would start")
        return 1 if runs else 0

    def _announce(self, chunks: list[Chunk], busy_days: dict[date, str]) -> None:
        where = "through the queue" if has_live_queue(self.instance) else "in this process"
        days = sum(len(chunk.window) for chunk in chunks)
        self._print_line(
            f"{self.service.name} {self.window}: {format_count(days, 'day')} in "
            f"{format_count(len(chunks), 'run')} {where}"
        )
        for run_id in sorted(set(busy_days.values())):
            ranges = merge_into_date_ranges(day for day, run in busy_days.items() if run == run_id)
            self._print_line(
                f"run {run_id[:8]} {self._describe_unfinished(run_id)}; then run this again): "
                f"{', '.join(map(str, ranges))}"
            )

    def _describe_unfinished(self, run_id: str) -> str:
        """Return the state of a run that has not ended, and its remedy in an open bracket."""
        run = self.instance.get_run_by_id(run_id)
        if run is not None and run.status == DagsterRunStatus.QUEUED:
            wait = (
                "wait for it" if has_live_queue(self.instance) else "start dg dev or dagster-daemon"
            )
            return f"waits in the queue ({wait}"
        return "has not ended (if its process no longer exists, terminate it in the UI"

    def _list_changed_days(self, plan: Plan, launched: Sequence[Chunk]) -> list[Chunk]:
        """Return the further runs of restated days, whose raw rows have been compared by now.

        A day whose rows did not change needs no run.
        """
        restated = [chunk for chunk in launched if chunk.is_restated]
        chunks = [
            chunk
            for chunk in restated
            for chunk in make_plan(
                self.instance, self.service, chunk.window, AFTER_RAW, plan.publications
            ).runs
        ]
        if restated:
            days = sum(len(chunk.window) for chunk in restated)
            changed = sum(len(chunk.window) for chunk in chunks)
            self._print_line(
                f"{changed} of {format_count(days, 'restated day')} changed: "
                f"{format_count(len(chunks), 'run')}"
            )
        return chunks if self.max_runs is None else chunks[: self.max_runs - len(launched)]

    def _launch(self, chunks: list[Chunk], others: list[str]) -> None:
        """Run the chunks, and follow other runs that are in the queue."""
        progress = Progress(self.instance)
        queued = has_live_queue(self.instance)
        if not chunks and not (queued and others):
            return
        with self._build_progress_bar(progress, chunks):
            if queued:
                runs = [submit_chunk(self.instance, self.service, chunk) for chunk in chunks]
                for run_id in runs:
                    progress.follow(run_id)
                for outcome in wait_for_runs(self.instance, [*others, *runs]):
                    self._print_outcome(outcome)
                return
            empty_runs = 0
            for chunk in chunks:
                before, _ = progress.count()
                outcome = run_chunk(self.service, chunk, progress)
                self._print_outcome(outcome)
                has_stored = progress.count()[0] > before
                empty_runs = 0 if outcome.failure is None or has_stored else empty_runs + 1
                if empty_runs == MAX_EMPTY_RUNS:
                    self._print_line(
                        f"{MAX_EMPTY_RUNS} runs in a row stored nothing: the others are left"
                    )
                    return

    def _build_progress_bar(self, progress: Progress, chunks: list[Chunk]) -> Bar:
        """Return a bar of the stored days and rows, which it counts at each refresh."""
        days = sum(len(chunk.window) for chunk in chunks)
        total = sum(len(chunk.window) * len(chunk.assets) for chunk in chunks)

        class Stored(ProgressColumn):
            def render(self, task: Task) -> Text:
                task.completed, rows = progress.count()
                stored_days = task.completed * days // max(total, 1)
                return Text(f"{stored_days:.0f} of {days} days {rows:,} rows")

        bar = Bar(
            Stored(),
            BarColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            refresh_per_second=REFRESHES_PER_SECOND,
            disable=not self.console.is_terminal,
        )
        bar.add_task("", total=total)
        return bar

    def _print_outcome(self, outcome: Outcome) -> None:
        if outcome.failure is not None:
            self._print_line(f"run {outcome.run_id[:8]} failed: {outcome.failure}")

    def _print_result(self, before: Plan, *, interrupted: bool = False) -> int:
        """Print the loaded days and the days that are left, with reasons."""
        now = make_plan(self.instance, self.service, self.window, self.only, before.publications)
        loaded = sum(month.count(State.loaded) for month in now.months)
        for month in now.months:
            for line in _describe_due_days(month):
                self._print_line(line)
        days = sum(len(month.due) for month in now.months)
        months = [str(month.month) for month in now.months if month.due]
        first = "interrupted; run this again to continue. " if interrupted else ""
        self._print_line(
            f"{first}{self.service.name} {self.window}: {format_count(loaded, 'day')} loaded, "
            f"{days} left" + (f" in {', '.join(months)}" if days else "")
        )
        return 1 if days else 0

    def _print_line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def parse_states(text: str) -> tuple[State, ...]:
    """Parse a comma-separated list of states.

    Raises:
        UsageError: one of them is not a state that a run can change.
    """
    names = [name.strip() for name in text.split(",")]
    if any(name not in DUE for name in names):
        raise UsageError(f"--only {text}: choose from {', '.join(DUE)}")
    return tuple(map(State, names))


def _describe_due_days(month: MonthPlan) -> list[str]:
    """Return lines on a month's days that are not loaded, by state."""
    if not month.due:
        return []
    if month.publication.is_absent:
        left = format_count(len(month.due), "day")
        address = month.publication.address
        remedy = "TLC is about two months behind, or TAXI_SOURCE is wrong"
        return [f"{month.month}: not published, {left} left: {address} does not exist; {remedy}"]
    lines = []
    for state in DUE:
        days = [day for day in month.due if day.state == state]
        if not days:
            continue
        windows = ", ".join(map(str, merge_into_date_ranges(day.day for day in days)))
        reasons = list(dict.fromkeys(day.reason for day in days))
        more = f" and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
        lines.append(
            f"{month.month} {state.value}: {windows}: {'; '.join(reasons[:MAX_REASONS])}{more}"
        )
    return lines
