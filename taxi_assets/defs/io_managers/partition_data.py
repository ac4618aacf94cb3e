"""Stored days: their metadata, and their content on demand."""

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
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.lake_keys import build_trips_key
from taxi_assets.errors import PartitionRejectedError, format_one_line, is_transient
from taxi_assets.report.day_picture import Figures
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.parse_csv import read_lines_as_text
from taxi_assets.trips.profile import DayProfile

CLEANED = "cleaned_trips"
"""The asset that creates the objects of trips; the lake has copies of them."""


@dataclass(frozen=True)
class Label:
    """The asset and the partition of an object, stored in its metadata."""

    service: str
    asset: str
    """`raw_trips`, `cleaned_trips`, or the kind of a month's object without days."""
    partition: str
    """A day, such as 2021-01-05, or a month, such as 2021-01."""

    def __str__(self) -> str:
        return f"{self.service}/{self.asset} {self.partition}"

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata of an object with this label."""
        return {"service": self.service, "asset": self.asset, "partition": self.partition}

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Reject the object of another partition; old objects have no label.

        Raises:
            DamagedError: the object belongs to another partition.
        """
        expected = self.to_metadata()
        actual = {name: metadata.get(name, value) for name, value in expected.items()}
        if actual != expected:
            raise DamagedError(f"contains {Label(**actual)}")


@dataclass(frozen=True)
class SourceFile:
    """The month file of a day's rows."""

    url: str
    sha256: str
    synthetic: bool

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> SourceFile:
        """Create it from the metadata of a stored object."""
        return cls(
            url=str(metadata.get("url", "")),
            sha256=str(metadata.get("sha256", "")),
            synthetic=bool(metadata.get("synthetic", False)),
        )

    @classmethod
    def of_file(cls, file: MonthFile) -> SourceFile:
        """Create it from a month file."""
        return cls(file.url, file.sha256, file.synthetic)

    def to_metadata(self) -> dict[str, Any]:
        """Return the metadata of an object from this file."""
        return {"url": self.url, "sha256": self.sha256, "synthetic": self.synthetic}


@dataclass(frozen=True)
class RawPartition:
    """A day's rows as published."""

    day: date
    content: pa.Buffer | pa.Table
    """Header and lines of a CSV month, byte for byte, or rows of a Parquet month as published."""
    rows: int
    source_file: SourceFile
    restatement: Restatement | None = None
    """Changes of the day by that file."""

    def read_table(self) -> pa.Table:
        """Return the published rows; the values of a CSV month are texts."""
        content = self.content
        return content if isinstance(content, pa.Table) else read_lines_as_text(content)


@dataclass(frozen=True)
class CleanedPartition:
    """A day's cleaned trips, to be stored."""

    table: pa.Table
    figures: Figures
    rules: Sequence[str]
    """Names of the applied cleaning rules."""
    source_file: SourceFile
    record: PartitionRecord
    """Dagster's record of the day; the IO manager adds the location."""
    began: float
    """Start of the cleaning, by `time.perf_counter`."""

    def to_metadata(self, service: Service) -> dict[str, Any]:
        """Return the metadata of the stored object."""
        revenue = self.figures.revenue
        total = {} if revenue is None else {str(service.total): revenue}
        return {
            **self.source_file.to_metadata(),
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
    """Sum of the service's total in dollars; 0 if it publishes none."""
    source_file: SourceFile
    label: Label
    """The asset that stored it here, for messages."""
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Number of dropped rows by rule, and of unreadable rows."""
    rules: tuple[str, ...] = ()
    """Names of the applied cleaning rules, if known."""
    profile: DayProfile | None = None
    """Figures of the rows; None for objects that are older than profiles."""
    total_column: str | None = None
    """Column whose sum is `total`."""

    @property
    def total_metadata(self) -> dict[str, float]:
        """The total by its column's name; empty if the service publishes no total."""
        return {self.total_column: self.total} if self.total_column else {}

    def read_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows, by default with all columns.

        Raises:
            PartitionRejectedError: the object was deleted or damaged since it was opened.
        """
        with reject_damage(self.lake, self.key, self.label):
            return self._open_object()[1].read(columns, use_threads=False)

    def read_content(self) -> pa.Buffer:
        """Read the object's bytes, and verify them.

        Raises:
            PartitionRejectedError: the object was deleted or damaged since it was opened.
        """
        with reject_damage(self.lake, self.key, self.label):
            return self._open_object()[0]

    def _open_object(self) -> tuple[pa.Buffer, pq.ParquetFile]:
        content = self.lake.get(self.key)
        if content is None:
            raise DamagedError("was deleted after it was opened")
        return content, open_parquet(content)[0]


@contextmanager
def reject_damage(lake: Lake, key: str, label: Label) -> Iterator[None]:
    """Reject a partition whose object cannot be read, and name the object and the fix.

    Every error of the reader concerns this one object, except a transient error.

    Raises:
        PartitionRejectedError: the object is damaged, foreign, or cannot be opened.
    """
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise
        problem = (
            str(error)
            if isinstance(error, DamagedError)
            else f"cannot be read: {_describe_failure(error)}"
        )
        first = "give this user access or remove it, then " if isinstance(error, OSError) else ""
        raise PartitionRejectedError(
            f"{label}: {lake.path(key)} {problem}; {first}materialize {label.service}/"
            f"{label.asset} for {label.partition} again"
        ) from error


def _describe_failure(error: Exception) -> str:
    """Return the shortest message of the operating system, Arrow or Google's client."""
    if isinstance(error, OSError) and error.errno and error.strerror:
        return error.strerror.rpartition("] ")[2]
    return format_one_line(error) or type(error).__name__


def encode_trips(table: pa.Table, metadata: Mapping[str, Any]) -> pa.Buffer:
    """Encode a sealed Parquet object with metadata, one row group per day.

    zstd level 1 is as fast as snappy here, and a third smaller. Times are almost all distinct:
    without a dictionary they take a fourth less time and an eighth less space (a month 20 MB,
    0.5 s).
    """
    sink = pa.BufferOutputStream()
    encoded = [field.name for field in table.schema if not pa.types.is_timestamp(field.type)]
    with SealedParquetWriter(sink, table.schema, use_dictionary=encoded) as writer:
        writer.write_table(table)
        writer.seal(metadata)
    return sink.getvalue()


def open_stored_trips(lake: Lake, key: str, label: Label, service: Service) -> StoredTrips | None:
    """Open a stored day, and verify every byte of its object; None if the object does not exist.

    Raises:
        PartitionRejectedError: the object is damaged, foreign, another day's, or cannot be opened.
    """
    with reject_damage(lake, key, label):
        content = lake.get(key)
        if content is None:
            return None
        parquet, metadata = open_parquet(content)
        return _build_trips(lake, key, label, parquet.metadata.num_rows, metadata, service=service)


def read_trips_metadata(lake: Lake, key: str, label: Label, service: Service) -> StoredTrips | None:
    """Open a stored day like `open_stored_trips`, but read and verify only the footer."""
    with reject_damage(lake, key, label):
        try:
            with lake.open(key) as stream:
                footer, metadata = open_sealed_footer(stream)
        except FileNotFoundError:
            return None
        return _build_trips(lake, key, label, footer.num_rows, metadata, service=service)


def open_lake_trips(lake: Lake, service: Service, day: date) -> StoredTrips | None:
    """Open a day's object in the lake, as `open_stored_trips`."""
    label = Label(service.name, "gcs_trips", str(day))
    return open_stored_trips(lake, build_trips_key(service, day, lake.layout), label, service)


def _build_trips(  # noqa: PLR0913 - the fields of a stored day
    lake: Lake, key: str, label: Label, rows: int, metadata: Mapping[str, Any], *, service: Service
) -> StoredTrips:
    # The lake's object is a copy of the cleaned one.
    replace(label, asset=CLEANED).check(metadata)
    return StoredTrips(
        lake,
        key,
        rows,
        float(metadata.get(service.total or "", 0)),
        SourceFile.from_metadata(metadata),
        label,
        metadata.get("dropped", {}),
        tuple(metadata.get("rules", ())),
        DayProfile.from_metadata(metadata.get("profile", {})),
        service.total if service.total in metadata else None,
    )


def add_missing_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return stored rows in a schema that has grown since: new columns are null."""
    columns = [
        table[field.name]
        if field.name in table.schema.names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, names=schema.names).cast(schema)
