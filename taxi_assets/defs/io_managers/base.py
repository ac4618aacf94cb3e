"""The base of all IO managers: store days, load days, and log a record for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
"""Prefix of the descriptions that this package writes; others were written by users."""
Records = Iterable[Outcome]
"""The outcome of each day."""
Totals = Mapping[date, tuple[int, float]]
"""Rows and sum of the total in dollars."""
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(eq=False)
class PartitionIOManager(dg.IOManager, Generic[In, Out]):
    """Writes the days of a run to one target, and reads them."""

    services: Mapping[str, Service]
    month_locks: MonthLocks | None = field(default=None, init=False)
    """Locks of the run; None outside a run."""

    @abstractmethod
    def store(self, service: Service, value: In, log: dg.DagsterLogManager) -> Records:
        """Replace the days in the target.

        Yield each day with its record once it is stored, or with the reason of its rejection.
        """

    @abstractmethod
    def read_partition(self, service: Service, day: date) -> Out | None:
        """Open a stored day, whose rows may be read later; None if it was never stored."""

    @abstractmethod
    def describe_place(self, service: Service) -> str:
        """Return the place of a service's days, for messages."""

    def handle_output(self, context: dg.OutputContext, obj: DailyOutput[In]) -> None:
        """Store the days, and log a materialization or a rejection for each."""
        with name_asset_in_errors(context.asset_key, list_partition_days(context)):
            service = self._find_service(context.asset_key)
            outcomes = self.store(service, obj.partitions, context.log)
            log_materializations(context, obj.collect(self._check_lock_between(outcomes)))

    def load_input(self, context: dg.InputContext) -> Any:
        """Return the upstream days: lazily for the five assets, else in the input's annotated type.

        A day that is rejected or missing upstream is rejected downstream too.
        """
        service = self._find_service(context.asset_key)
        annotation = context.dagster_type.typing_type
        if annotation is LazyPartitions:
            days = list_partition_days(context)
            if self.month_locks is not None:
                self.month_locks.acquire(service, days, context.log.info)
            return LazyPartitions(days, self._build_reader(context, service, days))
        asset = context.asset_key.to_user_string()
        if not context.has_asset_partitions:
            raise TerminalError(
                f"{asset} has a partition for each day: name one, as in partition_key='2021-01-05'"
            )
        days = [date.fromisoformat(key) for key in context.asset_partition_keys]
        read_day = self._build_reader(context, service, days)

        def read_table(day: date) -> pa.Table:
            partition = read_day(day)
            if isinstance(partition, RawPartition):
                return partition.read_table()
            if isinstance(partition, StoredTrips):
                partition = partition.read_table()
            return add_missing_columns(partition, service.arrow_schema)

        return load_as_annotated(annotation, days, read_table, asset)

    def _build_reader(
        self, context: dg.InputContext, service: Service, days: Sequence[date]
    ) -> Callable[[date], Any]:
        """Return a function that reads a day, or raises the reason why it cannot be read."""
        instance = find_instance(context)
        rejected = find_rejected_days(instance, context.asset_key, days) if instance else {}

        def read_day(day: date) -> Any:
            if day in rejected:
                raise rejected[day]
            partition = self.read_partition(service, day)
            is_empty = isinstance(partition, pa.Table) and not partition.num_rows
            if partition is None or (
                is_empty and not is_recorded_as_empty(instance, context.asset_key, day)
            ):
                raise PartitionNotStoredError(
                    f"{day} is not in {self.describe_place(service)}: materialize "
                    f"{context.asset_key.to_user_string()} for that day first"
                )
            return partition

        return read_day

    def hold_month_locks(self, lake: Lake) -> Lake:
        """Return the lake for writing, which checks the lock of the months before each object."""
        return replace(lake, before_write=self.check_lock)

    def check_lock(self) -> None:
        """Stop a run that has lost the lock of its months, before it writes to a store."""
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
    """Writes cleaned trips to a store, and reads back its totals."""

    @abstractmethod
    def read_totals(
        self, service: Service, days: Sequence[date], log: dg.DagsterLogManager
    ) -> Totals:
        """Read back the rows and the sum of the total (dollars) of each day.

        Days that are missing or unreadable are left out.
        """


@contextmanager
def name_asset_in_errors(key: dg.AssetKey, days: Sequence[date]) -> Iterator[None]:
    """Convert errors to failures that name asset and days; only transient errors are retried."""
    try:
        with interrupt_on_cancel():
            yield
    except (dg.Failure, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001 - raised again, without secrets in its chain
        span = str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"
        text = (
            str(error)
            if isinstance(error, TerminalError)
            else f"{type(error).__name__}: {format_one_line(error)}{find_remedy(error)}"
        )
        # A terminal error names its fix in one line; an error of a library needs its traceback.
        cause = None if isinstance(error, TerminalError) else redact_cause(error)
        raise dg.Failure(
            f"{key.to_user_string()} {span}: {redact_text(text)}", allow_retries=is_transient(error)
        ) from cause


def describe_last_source(partitions: Iterable[StoredTrips]) -> str:
    """Return a table comment that names the source of the last rows."""
    urls = sorted({trips.source_file.url for trips in partitions})
    return f"{LAST_WRITTEN}{', '.join(urls)}"


def find_instance(context: dg.InputContext) -> dg.DagsterInstance | None:
    """Return the Dagster instance; None outside a run without DAGSTER_HOME."""
    try:
        return context.instance
    except dg.DagsterInvariantViolationError:
        return None


def is_recorded_as_empty(instance: dg.DagsterInstance | None, key: dg.AssetKey, day: date) -> bool:
    """Return whether an asset's last record of a day has no rows.

    A table cannot distinguish an empty day from a missing one.
    """
    if instance is None:
        return False
    events = dg.AssetRecordsFilter(key, asset_partitions=[str(day)])
    records = instance.fetch_materializations(events, limit=1).records
    event = records[0].asset_materialization if records else None
    rows = event.metadata.get("rows") if event else None
    return rows is not None and rows.value == 0
