"""What every storage target has in common: days in, days out, a record for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any, Generic, TypeVar

import dagster as dg
import pyarrow as pa

from taxi_assets.dagster_internals.cancellation import interrupt_on_cancel
from taxi_assets.dagster_internals.partition_records import (
    list_partition_days,
    log_materializations,
)
from taxi_assets.dagster_internals.rejections import find_rejected_days
from taxi_assets.defs.io_managers.loaded_days import load_as_annotated
from taxi_assets.defs.io_managers.partition_data import (
    RawPartition,
    StoredTrips,
    add_missing_columns,
)
from taxi_assets.defs.outcomes import DailyOutput, Outcome
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.month_lock import MonthLocks
from taxi_assets.errors import (
    PartitionNotStoredError,
    TerminalError,
    find_remedy,
    format_one_line,
    is_transient,
)
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.redaction import redact_cause, redact_text
from taxi_assets.tlc.schema import Service

LAST_WRITTEN = "Last written from "
"""How a description begins that is ours; another one is a person's."""
Records = Iterable[Outcome]
"""What came of each day."""
Totals = Mapping[date, tuple[int, float]]
"""Rows and sum of the total, dollars."""
In = TypeVar("In")
Out = TypeVar("Out")


class PartitionIOManager(dg.IOManager, Generic[In, Out]):
    """Writes the days of a run to one target, and reads them."""

    month_locks: MonthLocks | None = None
    """Of the run; None outside of one."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self.services = services

    @abstractmethod
    def store(self, service: Service, value: In, log: dg.DagsterLogManager) -> Records:
        """Replace what the target holds of the days.

        Yields each day once it has landed, or with the reason why it is rejected.
        """

    @abstractmethod
    def read_partition(self, service: Service, day: date) -> Out | None:
        """Open a stored day, whose rows may still be unread; None if it was never stored."""

    @abstractmethod
    def place(self, service: Service) -> str:
        """Return where the target stores a service's days, for messages."""

    def handle_output(self, context: dg.OutputContext, obj: DailyOutput[In]) -> None:
        """Store the days, and log a materialization or a rejection for each."""
        with name_asset_in_errors(context.asset_key, list_partition_days(context)):
            stored = self.store(self._find_service(context.asset_key), obj.partitions, context.log)
            log_materializations(context, obj.note(self._check_lock_between(stored)))

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the upstream's days: lazily for the five assets, else as the input is annotated.

        A day that is rejected or not stored upstream is so downstream, too.
        """
        service, annotation = (
            self._find_service(context.asset_key),
            context.dagster_type.typing_type,
        )
        if annotation is LazyPartitions:
            days = list_partition_days(context)
            if self.month_locks is not None:
                self.month_locks.acquire(service, days, context.log.info)
            return LazyPartitions(days, self._reader(context, service, days))
        days = [date.fromisoformat(key) for key in context.asset_partition_keys]
        read = self._reader(context, service, days)

        def read_table(day: date) -> pa.Table:
            found = read(day)
            if isinstance(found, RawPartition):
                return found.table()
            table = found.table() if isinstance(found, StoredTrips) else found
            return add_missing_columns(table, service.arrow_schema)

        return load_as_annotated(annotation, days, read_table)

    def _reader(
        self, context: dg.InputContext, service: Service, days: Sequence[date]
    ) -> Callable[[date], Any]:
        """Return what reads a day, or raises the reason why there is nothing to read."""
        instance = find_instance(context)
        rejected = find_rejected_days(instance, context.asset_key, days) if instance else {}

        def read(day: date) -> Any:
            if day in rejected:
                raise rejected[day]
            found = self.read_partition(service, day)
            empty = isinstance(found, pa.Table) and not found.num_rows
            if found is None or (
                empty and not is_recorded_as_empty(instance, context.asset_key, day)
            ):
                raise PartitionNotStoredError(
                    f"{day} is not in {self.place(service)}: materialize "
                    f"{context.asset_key.to_user_string()} for that day first"
                )
            return found

        return read

    def hold_month_locks(self, lake: Lake) -> Lake:
        """Return the lake for writing: each object is put while the run holds its months."""
        return replace(lake, before_write=self.check_lock)

    def check_lock(self) -> None:
        """Stop a run that lost the lock of its months, before it writes to a store."""
        if self.month_locks is not None:
            self.month_locks.check()

    def _check_lock_between(self, records: Records) -> Records:
        self.check_lock()
        for record in records:
            yield record
            self.check_lock()

    def _find_service(self, key: dg.AssetKey) -> Service:
        return self.services[key.path[0]]


class StoreIOManager(PartitionIOManager[Mapping[date, StoredTrips], Out]):
    """Writes cleaned trips to a store that others read, and can count what it holds."""

    @abstractmethod
    def read_totals(
        self, service: Service, days: Sequence[date], log: dg.DagsterLogManager
    ) -> Totals:
        """Read back the rows and the sum of the total (dollars) of each day.

        A day that it does not hold, or cannot read, is left out.
        """


@contextmanager
def name_asset_in_errors(key: dg.AssetKey, days: Sequence[date]) -> Iterator[None]:
    """Name asset and days in whatever goes wrong; only what may pass is tried again."""
    try:
        with interrupt_on_cancel():
            yield
    except (dg.Failure, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001 - raised again, its chain without secrets
        span = str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"
        text = (
            str(error)
            if isinstance(error, TerminalError)
            else f"{type(error).__name__}: {format_one_line(error)}{find_remedy(error)}"
        )
        # An error that names its remedy is its one line; one of a library comes with its stack.
        cause = None if isinstance(error, TerminalError) else redact_cause(error)
        raise dg.Failure(
            f"{key.to_user_string()} {span}: {redact_text(text)}", allow_retries=is_transient(error)
        ) from cause


def find_last_written(slices: Iterable[StoredTrips]) -> str:
    """Return a table comment that names the source of the last rows; a sample is synthetic."""
    origins = sorted({trips.source_file.url for trips in slices})
    return f"{LAST_WRITTEN}{', '.join(origins)}"


def find_instance(context: dg.InputContext) -> dg.DagsterInstance | None:
    """Return the Dagster instance; None outside of a run without DAGSTER_HOME."""
    try:
        return context.instance
    except dg.DagsterInvariantViolationError:
        return None


def is_recorded_as_empty(instance: dg.DagsterInstance | None, key: dg.AssetKey, day: date) -> bool:
    """Whether an asset's last record of a day has no rows: a table without the day looks alike."""
    if instance is None:
        return False
    events = dg.AssetRecordsFilter(key, asset_partitions=[str(day)])
    records = instance.fetch_materializations(events, limit=1).records
    event = records[0].asset_materialization if records else None
    rows = event.metadata.get("rows") if event else None
    return rows is not None and rows.value == 0
