"""What every storage target has in common: days in, days out, a record for each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any, Generic, TypeVar

import dagster as dg

from taxi_assets.dagster_internals.cancellation import ending_the_run
from taxi_assets.dagster_internals.partition_records import DayRecord, days_of, record_days
from taxi_assets.dagster_internals.rejections import find_rejections
from taxi_assets.defs.io_managers.partition_data import TripsSlice
from taxi_assets.defs.metadata.table_metadata import (
    LINEAGE,
    PARTITION_ROWS,
    SCHEMA,
    URI,
    Types,
    column_lineage,
    column_schema,
    median_metadata,
)
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.month_lock import MonthLocks
from taxi_assets.errors import (
    DayNotStoredError,
    DayRefusedError,
    TerminalError,
    is_transient,
    one_line,
    remedy,
)
from taxi_assets.lazy_partitions import Days
from taxi_assets.redaction import redact, redacted_cause
from taxi_assets.tlc.schema import Service

LAST_WRITTEN = "Last written from "
"""How a description begins that is ours; another one is a person's."""
Records = Iterable[tuple[date, DayRecord | DayRefusedError]]
"""What came of each day."""
In = TypeVar("In")
Out = TypeVar("Out")


class DaysIOManager(dg.IOManager, Generic[In, Out]):
    """Stores the days of a run in one target and hands them to the next stage."""

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
    def open_day(self, service: Service, day: date) -> Out | None:
        """A stored day; None where the target has none."""

    @abstractmethod
    def place(self, service: Service) -> str:
        """Where the target keeps a service's days, for messages."""

    def handle_output(self, context: dg.OutputContext, obj: In) -> None:
        """Store the days and log one materialization or rejection for each."""
        with guarded(context.asset_key, days_of(context)):
            records = self.store(self._service(context.asset_key), obj, context.log)
            record_days(context, self._checked(records))

    def load_input(self, context: dg.InputContext) -> Days[Out]:
        """The upstream's days; one that is rejected or not stored is so for this stage, too."""
        service = self._service(context.asset_key)
        days = days_of(context)
        if self.month_locks is not None:
            self.month_locks.acquire(service, days, context.log.info)
        rejected = find_rejections(context.instance, context.asset_key, days)

        def load(day: date) -> Out:
            if day in rejected:
                raise rejected[day]
            found = self.open_day(service, day)
            if found is None:
                raise DayNotStoredError(
                    f"{day} is not in {self.place(service)}: materialize "
                    f"{context.asset_key.to_user_string()} for that day first"
                )
            return found

        return Days(days, load)

    def while_locked(self, lake: Lake) -> Lake:
        """Return the lake for writing: each object is put while the run holds its months."""
        return replace(lake, before_write=self.check_lock)

    def check_lock(self) -> None:
        """Stop a run that lost the lock of its months, before it writes to a store."""
        if self.month_locks is not None:
            self.month_locks.check()

    def _checked(self, records: Records) -> Records:
        self.check_lock()
        for record in records:
            yield record
            self.check_lock()

    def _service(self, key: dg.AssetKey) -> Service:
        return self.services[key.path[0]]


@contextmanager
def guarded(key: dg.AssetKey, days: Sequence[date]) -> Iterator[None]:
    """Name asset and days in whatever goes wrong; only what may pass is tried again."""
    try:
        with ending_the_run():
            yield
    except (dg.Failure, GeneratorExit):
        raise
    except Exception as error:  # noqa: BLE001 - raised again, its chain without secrets
        span = str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"
        text = (
            str(error)
            if isinstance(error, TerminalError)
            else f"{type(error).__name__}: {one_line(error)}{remedy(error)}"
        )
        raise dg.Failure(
            f"{key.to_user_string()} {span}: {redact(text)}", allow_retries=is_transient(error)
        ) from redacted_cause(error)


def origin_metadata(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a day's record says of the file its rows came from."""
    metadata: dict[str, Any] = {
        "source": facts["url"],
        "source_sha256": facts["sha256"],
    }
    if facts["synthetic"]:
        metadata["synthetic sample"] = True
    return metadata


def object_metadata(lake: Lake, key: str) -> dict[str, Any]:
    """Where a day's object is: a path to copy, or Google's console page to open.

    A browser opens no file:// link from a page that came over HTTP.
    """
    if lake.local:
        return {URI: dg.MetadataValue.path(lake.path(key))}
    return {URI: dg.MetadataValue.url(lake.page(key)), "object": lake.uri(key)}


def trips_metadata(
    trips: TripsSlice, service: Service, upstream: str, types: Types, seconds: float
) -> dict[str, Any]:
    """What a store's record says of a day's rows, which it has from an `upstream` asset.

    There is no `dagster/row_count` of the whole table but where the store knows it without
    counting: Postgres would scan years, the lake would read as many footers.
    """
    return {
        PARTITION_ROWS: trips.rows,
        "rows": trips.rows,
        "total_amount": trips.total_amount,
        **(median_metadata(trips.profile) if trips.profile else {}),
        "seconds": round(seconds, 3),
        **origin_metadata(trips.origin.facts()),
        SCHEMA: column_schema(service, types, trips.rules),
        LINEAGE: column_lineage(service, dg.AssetKey([service.name, upstream]), types),
    }


def last_written(slices: Iterable[TripsSlice]) -> str:
    """Comment for a table: where its last rows came from (a sample is called synthetic)."""
    origins = sorted({trips.origin.url for trips in slices})
    return f"{LAST_WRITTEN}{', '.join(origins)}"
