"""`taxi-assets backfill`: launch what the plan says, follow it, and name what is left."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from taxi_assets.cli.day_states import State
from taxi_assets.cli.interrupts import noting_interrupts
from taxi_assets.cli.month_plan import DUE, Chunk, MonthPlan, Plan, make_plan
from taxi_assets.cli.runner import (
    Outcome,
    Progress,
    QueueDiedError,
    days_in_runs,
    only_backfill,
    run_here,
    submit,
    unfinished_runs,
    wait_for_runs,
)
from taxi_assets.cli.spans import UsageError
from taxi_assets.dagster_internals.run_queue import has_live_queue, open_run_queue
from taxi_assets.date_ranges import DateRange, merge_into_date_ranges
from taxi_assets.tlc.schema import Service

AFTER_RAW = (State.missing, State.stale)
"""What a restated day is once its raw rows are the published ones, if they changed."""
POLL_SECONDS = 0.5
IN_A_ROW = 3
"""Runs that fail and store nothing before the rest is left: the cause is not in one month."""
NAMED = 5


@dataclass
class Backfill:
    """One call of the command."""

    instance: dg.DagsterInstance
    service: Service
    window: DateRange
    only: Collection[State] = DUE
    max_runs: int | None = None
    console: Console = field(default_factory=Console)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> int:
        """Launch, follow, and print what is left; return the exit code, 1 if days are left."""
        with only_backfill(self.instance, self.service):
            plan = make_plan(self.instance, self.service, self.window, self.only)
            others = days_in_runs(unfinished_runs(self.instance, self.service))
            chunks = [run for run in plan.runs if not any(day in others for day in run.window)]
            chunks = chunks[: self.max_runs]
            self._announce(chunks, others)
            try:
                self._launch(chunks, sorted(set(others.values())))
                self._launch(self._list_changed_days(plan, chunks), [])
            except KeyboardInterrupt:
                self._left(plan, interrupted=True)
                return 130
            except QueueDiedError as error:
                self.console.print(str(error), style="red", markup=False, highlight=False)
            return self._left(plan)

    def show_runs(self) -> int:
        """Print the runs that `run` would start; return 1 if there are any."""
        runs = make_plan(self.instance, self.service, self.window, self.only).runs[: self.max_runs]
        for chunk in runs:
            then = ", then the other assets for the days that changed" if chunk.is_restated else ""
            self._line(f"{chunk.window}: {', '.join(chunk.assets)}{then}")
        self._line(f"{len(runs)} runs would start")
        return 1 if runs else 0

    def _announce(self, chunks: list[Chunk], others: dict[date, str]) -> None:
        where = "through the queue" if has_live_queue(self.instance) else "in this process"
        days = sum(len(chunk.window) for chunk in chunks)
        self._line(f"{self.service.name} {self.window}: {days} days in {len(chunks)} runs {where}")
        for run_id in sorted(set(others.values())):
            days_there = merge_into_date_ranges(day for day, run in others.items() if run == run_id)
            self._line(f"run {run_id[:8]} has not ended: {', '.join(map(str, days_there))}")

    def _list_changed_days(self, plan: Plan, launched: Sequence[Chunk]) -> list[Chunk]:
        """Return the runs for what restated days need now that their raw rows are compared.

        A day whose rows are the same needs none.
        """
        restated = [chunk for chunk in launched if chunk.is_restated]
        chunks = [
            found
            for chunk in restated
            for found in make_plan(
                self.instance, self.service, chunk.window, AFTER_RAW, plan.publications
            ).runs
        ]
        if restated:
            days = sum(len(chunk.window) for chunk in restated)
            changed = sum(len(chunk.window) for chunk in chunks)
            self._line(f"{changed} of {days} restated days changed: {len(chunks)} runs")
        return chunks if self.max_runs is None else chunks[: self.max_runs - len(launched)]

    def _launch(self, chunks: list[Chunk], others: list[str]) -> None:
        """Run the chunks, and follow the runs of others that the queue works on."""
        progress = Progress(self.instance)
        total = sum(len(chunk.window) * len(chunk.assets) for chunk in chunks)
        queued = has_live_queue(self.instance)
        if not chunks and not (queued and others):
            return
        with self._bar(progress, total, chunks):
            if queued:
                with open_run_queue(self.instance) as queue:
                    runs = [submit(queue, self.service, chunk) for chunk in chunks]
                for run_id in runs:
                    progress.follow(run_id)
                for outcome in wait_for_runs(self.instance, [*others, *runs], self.stop):
                    self._show(outcome)
                return
            empty = 0
            for chunk in chunks:
                before, _ = progress.count()
                with noting_interrupts() as was_interrupted:
                    outcome = run_here(self.instance, self.service, chunk, progress)
                if was_interrupted():
                    raise KeyboardInterrupt
                self._show(outcome)
                stored = progress.count()[0] > before
                empty = 0 if outcome.succeeded or stored else empty + 1
                if empty == IN_A_ROW:
                    self._line(f"{IN_A_ROW} runs in a row stored nothing: the others are left")
                    return

    @contextmanager
    def _bar(self, progress: Progress, total: int, chunks: list[Chunk]) -> Iterator[None]:
        """Show days and rows as they land, until the block ends."""
        each = max(total / max(sum(len(chunk.window) for chunk in chunks), 1), 1)
        bar = Bar(
            BarColumn(),
            TextColumn("{task.fields[days]:.0f} of {task.fields[all]} days"),
            TextColumn("{task.fields[rows]:,} rows"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        ended = threading.Event()
        days = sum(len(chunk.window) for chunk in chunks)
        task = bar.add_task("", total=total, days=0, all=days, rows=0)

        def follow() -> None:
            while not ended.wait(POLL_SECONDS):
                stored, rows = progress.count()
                bar.update(task, completed=stored, days=stored // each, rows=rows)

        thread = threading.Thread(target=follow, name="progress", daemon=True)
        with bar:
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join(POLL_SECONDS * 10)

    def _show(self, outcome: Outcome) -> None:
        if not outcome.succeeded:
            self._line(f"run {outcome.run_id[:8]} failed: {outcome.cause}")

    def _left(self, before: Plan, *, interrupted: bool = False) -> int:
        """Print the last line: what is stored by now, what is left and why."""
        now = make_plan(self.instance, self.service, self.window, self.only, before.publications)
        done = sum(month.count(State.loaded) for month in now.months)
        left = [line for month in now.months for line in _left_of(month)]
        for line in left:
            self._line(line)
        days = sum(len(month.due) for month in now.months)
        first = "interrupted; run this again to go on. " if interrupted else ""
        self._line(
            f"{first}{self.service.name} {self.window}: {done} days loaded, {days} left"
            + (f" in {', '.join(str(one.month) for one in now.months if one.due)}" if days else "")
        )
        return 1 if days else 0

    def _line(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def states_named(text: str) -> tuple[State, ...]:
    """Return the states that a person names, with commas between.

    Raises:
        UsageError: one is no state that a run can end.
    """
    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if name not in DUE]
    if wrong:
        raise UsageError(f"--only {text}: choose from {', '.join(DUE)}")
    return tuple(map(State, names))


def _left_of(month: MonthPlan) -> list[str]:
    """Name a month's days that are not loaded, by what is wrong."""
    if not month.due:
        return []
    if month.publication.is_absent:
        return [f"{month.month}: not published, {len(month.due)} days left"]
    lines = []
    for state in DUE:
        days = [day for day in month.due if day.state == state]
        if not days:
            continue
        windows = ", ".join(map(str, merge_into_date_ranges(day.day for day in days)))
        reasons = list(dict.fromkeys(day.reason for day in days))
        more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
        lines.append(f"{month.month} {state.value}: {windows}: {'; '.join(reasons[:NAMED])}{more}")
    return lines
