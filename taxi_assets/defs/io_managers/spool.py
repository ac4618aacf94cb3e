"""What a pass over a month file leaves of one place, on its way to the lake.

It waits in a temporary file: nothing may be put before the month file was read to its end.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import pyarrow as pa

from taxi_assets.defs.io_managers.sealed_objects import SealedParquetWriter, seal_zstd
from taxi_assets.defs.metadata.table_metadata import lines_preview, rows_preview
from taxi_assets.tlc.arrow_types import holds_views, shown_rows
from taxi_assets.tlc.parquet_batches import LEAST_VIEW
from taxi_assets.tlc.raw_month import CODEC, PackedLines, RawMonth, RowsOfDay
from taxi_assets.trips.content_hash import ContentHash
from taxi_assets.trips.profile import FIRST_ROWS

FIRST_BYTES = 4096
"""In which the first lines are: a line has 100 to 200 bytes."""


class Spool(Protocol):
    """Lines or rows of one place."""

    size: int
    """Bytes, unpacked."""

    def add(self, part: Any) -> None:
        """Append what follows in the file."""

    def content(self, facts: Mapping[str, Any]) -> bytes:
        """The object for the lake, with facts about it; the spool is gone."""

    def data_version(self) -> str:
        """Hash of the content."""

    def preview(self) -> Any:
        """The first lines or rows, as a table for Dagster's UI."""


def spool_of(month: RawMonth) -> Spool:
    """A spool for what the month's file holds."""
    return RowSpool(month) if month.is_parquet else LineSpool(month)


@dataclass
class LineSpool:
    """Packed lines, which become one zstd CSV under the file's header."""

    month: RawMonth
    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    sha256: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    first: bytes = b""
    """The first lines; the last of them may be cut."""

    def add(self, part: PackedLines) -> None:
        """Append lines."""
        if not self.size:
            self.first = part.lines[:FIRST_BYTES].to_pybytes()
        self.file.write(part.packed)
        self.sha256.update(part.lines)
        self.size += part.lines.size

    def content(self, facts: Mapping[str, Any]) -> bytes:
        """The zstd object, header first."""
        self.file.seek(0)
        with self.file:
            header = CODEC.compress(self.month.line, asbytes=True)
            return seal_zstd(facts, header + self.file.read())

    def data_version(self) -> str:
        """Hash of the lines."""
        return str(self.sha256.hexdigest()[:32])

    def preview(self) -> Any:
        """The first lines as a table of texts."""
        lines = self.first if len(self.first) < FIRST_BYTES else self.first.rpartition(b"\n")[0]
        return lines_preview(self.month.line, lines)


@dataclass
class RowSpool:
    """Rows of a Parquet month, which become one Parquet of the same columns and types."""

    month: RawMonth
    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    hash: ContentHash = field(default_factory=ContentHash)
    size: int = 0
    first: list[list[str | None]] = field(default_factory=list[list[str | None]])
    """Values of the first rows."""
    _writer: SealedParquetWriter | None = None
    _pending: list[pa.RecordBatch] = field(default_factory=list[pa.RecordBatch])
    _rows: int = 0

    def add(self, part: RowsOfDay) -> None:
        """Append rows."""
        if not self.first:
            self.first = shown_rows(part.batch.slice(0, FIRST_ROWS))
        self.hash.update(part.batch)
        self.size += part.batch.nbytes
        self._pending.append(part.batch)
        self._rows += part.rows
        if self._rows >= LEAST_VIEW:
            self._flush()

    def content(self, facts: Mapping[str, Any]) -> bytes:
        """The Parquet object."""
        self._flush().seal(facts)
        self.file.seek(0)
        with self.file:
            return self.file.read()

    def data_version(self) -> str:
        """Hash of columns, types and values, however they came in batches."""
        return self.hash.hexdigest(self.month.schema)[:32]

    def preview(self) -> Any:
        """The first rows as a table of texts."""
        return rows_preview(self.month.schema.names if self.month.schema else [], self.first)

    def _flush(self) -> SealedParquetWriter:
        schema = self.month.schema
        if self._writer is None:
            self._writer = SealedParquetWriter(self.file, schema, write_statistics=False)
        if self._pending:
            batches = [batch.replace_schema_metadata(None) for batch in self._pending]
            rows = pa.Table.from_batches(batches).cast(schema)
            if any(holds_views(field.type) for field in rows.schema):
                rows = rows.combine_chunks()  # Parquet's writer cannot cut views inside structs
            self._writer.write_table(rows, row_group_size=self._rows)
            self._pending.clear()
            self._rows = 0
        return self._writer
