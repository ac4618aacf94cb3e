"""A stored day as the next stage gets it: what is known of it, and its content when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.defs.io_managers.restatement import Restatement
from taxi_assets.defs.io_managers.sealed_objects import (
    DamagedError,
    SealedParquetWriter,
    open_parquet,
    open_sealed_footer,
)
from taxi_assets.defs.resources.lake import Lake, build_trips_key
from taxi_assets.errors import PartitionRejectedError, format_one_line, is_transient
from taxi_assets.report.day_picture import Figures
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.parse_csv import read_lines_as_text
from taxi_assets.trips.profile import DayProfile

CLEANED = "cleaned_trips"
"""The asset that makes the objects of trips, also those that the lake has copies of."""


@dataclass(frozen=True)
class Label:
    """Which asset's partition an object holds, as it says itself."""

    service: str
    asset: str
    """`raw_trips`, `cleaned_trips`, or what a month's file has beside its days."""
    partition: str
    """A day, 2021-01-05, or a month, 2021-01."""

    def __str__(self) -> str:
        return f"{self.service}/{self.asset} {self.partition}"

    def facts(self) -> dict[str, str]:
        """Return what an object carries."""
        return {"service": self.service, "asset": self.asset, "partition": self.partition}

    def check(self, facts: Mapping[str, Any]) -> None:
        """Reject another partition's object; an older one does not say whose it is.

        Raises:
            DamagedError: the object holds another partition.
        """
        own = {name: facts.get(name, expected) for name, expected in self.facts().items()}
        if own != self.facts():
            raise DamagedError(f"holds {Label(**own)}")


@dataclass(frozen=True)
class SourceFile:
    """Which month file a day's rows came from."""

    url: str
    sha256: str
    synthetic: bool

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> SourceFile:
        """Create one from the metadata of a stored object."""
        return cls(
            url=str(facts.get("url", "")),
            sha256=str(facts.get("sha256", "")),
            synthetic=bool(facts.get("synthetic", False)),
        )

    @classmethod
    def of_file(cls, file: MonthFile) -> SourceFile:
        """Create one from the month file."""
        return cls(file.url, file.sha256, file.synthetic)

    def facts(self) -> dict[str, Any]:
        """Return what an object carries."""
        return {"url": self.url, "sha256": self.sha256, "synthetic": self.synthetic}


@dataclass(frozen=True)
class RawPartition:
    """A day's rows as published."""

    day: date
    content: pa.Buffer | pa.Table
    """Of a CSV month header and lines, byte for byte; of a Parquet month its columns and types."""
    rows: int
    source_file: SourceFile
    restatement: Restatement | None = None
    """What that file changed in the day."""

    def table(self) -> pa.Table:
        """Return the published rows: of a CSV month every value as its text."""
        return (
            self.content if isinstance(self.content, pa.Table) else read_lines_as_text(self.content)
        )


@dataclass(frozen=True)
class CleanedPartition:
    """A day's cleaned trips on their way to their first store."""

    table: pa.Table
    figures: Figures
    rules: Sequence[str]
    """Names of the rules it was cleaned by."""
    source_file: SourceFile
    record: PartitionRecord
    """What Dagster records of the day; the IO manager adds where it is."""
    began: float
    """When its cleaning began, by `time.perf_counter`."""

    def facts(self, service: Service) -> dict[str, Any]:
        """Return what the stored object carries."""
        revenue = self.figures.revenue
        total = {} if revenue is None else {str(service.total): revenue}
        return {
            **self.source_file.facts(),
            **total,
            "dropped": dict(self.figures.dropped),
            "rules": list(self.rules),
            "profile": self.figures.profile.to_metadata(),
        }


@dataclass(frozen=True)
class StoredTrips:
    """A day's cleaned trips as a Parquet object in the lake."""

    lake: Lake
    key: str
    rows: int
    total: float
    """Sum of the service's total, dollars; 0 where it publishes none."""
    source_file: SourceFile
    stored: Label
    """Which asset stored it here, for messages."""
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rows left out when the day was cleaned, by rule, and unreadable ones."""
    rules: tuple[str, ...] = ()
    """Names of the rules it was cleaned by, as far as known."""
    profile: DayProfile | None = None
    """The rows in figures; None where the object was stored before there were any."""
    total_column: str | None = None
    """Name of the column that `total` is the sum of."""

    @property
    def total_metadata(self) -> dict[str, float]:
        """The total under its column's name; empty where the service publishes no money."""
        return {self.total_column: self.total} if self.total_column else {}

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, or some columns of them.

        Raises:
            PartitionRejectedError: the object was deleted or damaged since it was opened.
        """
        with rejecting_damage(self.lake, self.key, self.stored):
            return self._open_object()[1].read(columns, use_threads=False)

    def content(self) -> pa.Buffer:
        """Read the object's bytes and verify them.

        Raises:
            PartitionRejectedError: the object was deleted or damaged since it was opened.
        """
        with rejecting_damage(self.lake, self.key, self.stored):
            return self._open_object()[0]

    def _open_object(self) -> tuple[pa.Buffer, pq.ParquetFile]:
        content = self.lake.get(self.key)
        if content is None:
            raise DamagedError("was deleted meanwhile")
        return content, open_parquet(content)[0]


@contextmanager
def rejecting_damage(lake: Lake, key: str, stored: Label) -> Iterator[None]:
    """Reject a partition whose object cannot be read, and name the object and the fix.

    Whatever the reader raises is about this one object, except for a transient error.

    Raises:
        PartitionRejectedError: the object is damaged, foreign, or cannot be opened.
    """
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise
        found = (
            str(error)
            if isinstance(error, DamagedError)
            else f"cannot be read: {_describe_failure(error)}"
        )
        first = "let this user read it or remove it, then " if isinstance(error, OSError) else ""
        raise PartitionRejectedError(
            f"{stored}: {lake.path(key)} {found}; {first}materialize {stored.service}/"
            f"{stored.asset} for {stored.partition} again"
        ) from error


def _describe_failure(error: Exception) -> str:
    """Return what the operating system, Arrow or Google's client says, at its shortest."""
    if isinstance(error, OSError) and error.errno and error.strerror:
        return error.strerror.rpartition("] ")[2]
    return format_one_line(error) or type(error).__name__


def encode_trips(table: pa.Table, facts: Mapping[str, Any]) -> pa.Buffer:
    """Encode a sealed Parquet object that carries facts about itself, one row group a day.

    zstd level 1 is as quick as snappy here and a third smaller. Times are all but distinct: without
    a dictionary they take a fourth less time and an eighth less room (a month 20 MB, 0.5 s).
    """
    sink = pa.BufferOutputStream()
    encoded = [one.name for one in table.schema if not pa.types.is_timestamp(one.type)]
    with SealedParquetWriter(sink, table.schema, use_dictionary=encoded) as writer:
        writer.write_table(table)
        writer.seal(facts)
    return sink.getvalue()


def open_stored_trips(lake: Lake, key: str, stored: Label, service: Service) -> StoredTrips | None:
    """Open a stored day and verify every byte of its object; None if there is no such object.

    Raises:
        PartitionRejectedError: the object is damaged, foreign, another day's, or cannot be opened.
    """
    with rejecting_damage(lake, key, stored):
        content = lake.get(key)
        if content is None:
            return None
        parquet, facts = open_parquet(content)
        return _build_trips(lake, key, stored, parquet.metadata.num_rows, facts, service=service)


def read_trips_metadata(
    lake: Lake, key: str, stored: Label, service: Service
) -> StoredTrips | None:
    """Open a partition like `open_stored_trips`, but read and verify only the footer."""
    with rejecting_damage(lake, key, stored):
        try:
            with lake.open(key) as stream:
                footer, facts = open_sealed_footer(stream)
        except FileNotFoundError:
            return None
        return _build_trips(lake, key, stored, footer.num_rows, facts, service=service)


def open_lake_trips(lake: Lake, service: Service, day: date) -> StoredTrips | None:
    """Open a day's object in the lake, as `open_stored_trips`."""
    stored = Label(service.name, "gcs_trips", str(day))
    return open_stored_trips(lake, build_trips_key(service, day, lake.layout), stored, service)


def _build_trips(  # noqa: PLR0913 - all that is known of a stored day
    lake: Lake, key: str, stored: Label, rows: int, facts: Mapping[str, Any], *, service: Service
) -> StoredTrips:
    # The lake's object is a copy of the cleaned one.
    replace(stored, asset=CLEANED).check(facts)
    return StoredTrips(
        lake,
        key,
        rows,
        float(facts.get(service.total or "", 0)),
        SourceFile.of(facts),
        stored,
        facts.get("dropped", {}),
        tuple(facts.get("rules", ())),
        DayProfile.from_metadata(facts.get("profile", {})),
        service.total if service.total in facts else None,
    )


def add_missing_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the rows in a schema that has grown since they were stored: new columns are null."""
    columns = [
        table[one.name] if one.name in table.schema.names else pa.nulls(table.num_rows, one.type)
        for one in schema
    ]
    return pa.Table.from_arrays(columns, names=schema.names).cast(schema)
