"""Split a month file into days, which stay in temporary files until they are stored.

Nothing may be stored before the end of the file was read: it may be truncated, or of another month.
`tlc` decides the day of a row; `io_managers` decide where a day is stored.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from taxi_assets.defs.io_managers.raw_objects import unpack_lines
from taxi_assets.defs.io_managers.sealed_objects import (
    SealedParquetWriter,
    open_parquet,
    write_sealed_zstd,
)
from taxi_assets.defs.metadata.table_metadata import preview_columns, preview_lines
from taxi_assets.errors import explain_full_disk
from taxi_assets.tlc.arrow_types import format_rows, has_view_types
from taxi_assets.tlc.csv_split import BLANK, CODEC, OUTSIDE, UNREADABLE, PackedLines
from taxi_assets.tlc.parquet_split import MIN_VIEW_ROWS, RowsOfDay
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.trips.content_hash import ContentHash
from taxi_assets.trips.profile import FIRST_ROWS

FIRST_BYTES = 4096
"""Number of bytes that contain the first lines; a line has 100 to 200 bytes."""


@dataclass
class CsvSpool:
    """Compressed lines of a day, which become one zstd CSV with the file's header."""

    month: RawMonth
    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    sha256: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    first: bytes = b""
    """The first lines; the last of them may be incomplete."""

    def add(self, part: PackedLines) -> None:
        """Append lines."""
        if not self.size:
            self.first = part.lines[:FIRST_BYTES].to_pybytes()
        self.file.write(part.packed)
        self.sha256.update(part.lines)
        self.size += part.lines.size

    def build_content(self, metadata: Mapping[str, Any]) -> bytes:
        """Build the zstd object, header first, and close the spool."""
        with self.file:
            return write_sealed_zstd(metadata, self._compress())

    def read_rows(self) -> pa.Buffer:
        """Return header and lines; the spool stays open."""
        return unpack_lines(pa.py_buffer(self._compress()))

    def _compress(self) -> bytes:
        self.file.seek(0)
        return CODEC.compress(self.month.line, asbytes=True) + self.file.read()

    def compute_data_version(self) -> str:
        """Return the hash of the lines."""
        return str(self.sha256.hexdigest()[:32])

    def build_preview(self) -> Any:
        """Return the first lines as a table of texts."""
        lines = self.first if len(self.first) < FIRST_BYTES else self.first.rpartition(b"\n")[0]
        return preview_lines(self.month.line, lines)


@dataclass
class ParquetSpool:
    """Rows of a day of a Parquet month, which become one Parquet object with the same schema."""

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
            self.first = format_rows(part.batch.slice(0, FIRST_ROWS))
        self.hash.update(part.batch)
        self.size += part.batch.nbytes
        self._pending.append(part.batch)
        self._rows += part.rows
        if self._rows >= MIN_VIEW_ROWS:
            self._flush()

    def build_content(self, metadata: Mapping[str, Any]) -> bytes:
        """Complete the Parquet object, and close the spool."""
        self._flush().seal(metadata)
        self.file.seek(0)
        with self.file:
            return self.file.read()

    def read_rows(self) -> pa.Table:
        """Return the rows; Parquet must be complete to be read, so the spool is written again."""
        parquet, _ = open_parquet(pa.py_buffer(self.build_content({})))
        rows = parquet.read(use_threads=False)
        self.file, self._writer = ParquetSpool(self.month).file, None
        self._flush().write_table(rows)
        return rows

    def compute_data_version(self) -> str:
        """Return the hash of columns, types and values, which does not depend on batches."""
        return self.hash.hexdigest(self.month.schema)[:32]

    def build_preview(self) -> Any:
        """Return the first rows as a table of texts."""
        return preview_columns(self.month.header.names, self.first)

    def _flush(self) -> SealedParquetWriter:
        schema = self.month.schema
        if self._writer is None:
            self._writer = SealedParquetWriter(self.file, schema, write_statistics=False)
        if self._pending:
            batches = [batch.replace_schema_metadata(None) for batch in self._pending]
            rows = pa.Table.from_batches(batches).cast(schema)
            if any(has_view_types(field.type) for field in rows.schema):
                rows = rows.combine_chunks()  # Parquet's writer cannot split views inside structs.
            self._writer.write_table(rows, row_group_size=self._rows)
            self._pending.clear()
            self._rows = 0
        return self._writer


Spool = CsvSpool | ParquetSpool
"""Lines or rows with one key, in a temporary file."""


@dataclass(frozen=True)
class SplitMonth:
    """A month file that was read to its end, and a spool for each key."""

    month: RawMonth
    spools: Mapping[int, Spool]
    """By day of the month, OUTSIDE and UNREADABLE."""
    seconds: float
    """Each day's equal share of the duration, because the days were read together."""

    def get_spool(self, day: date) -> Spool:
        """Return the lines or rows of a day."""
        return self.spools[day.day]


def split_month(month: RawMonth, log: Callable[[str], None]) -> SplitMonth:
    """Read a month file once, and add each row to its spool: of a requested day, or of no day.

    Raises:
        SourceError: the file is invalid, see `RawMonth.read_days`.
        StoreError: the disk of the temporary files is full.
    """
    began = time.perf_counter()
    keys = (*(day.day for day in month.days), OUTSIDE, UNREADABLE)
    spools: dict[int, Any] = {key: open_spool(month) for key in keys}
    with explain_full_disk(Path(tempfile.gettempdir()), "TMPDIR"):
        for part in month.read_days(log):
            # Blank lines are part of the file, and are stored with the unreadable ones.
            spools[UNREADABLE if part.key == BLANK else part.key].add(part)
    return SplitMonth(month, spools, (time.perf_counter() - began) / len(month.days))


def open_spool(month: RawMonth) -> Spool:
    """Open a spool for the format of the month's file."""
    return ParquetSpool(month) if month.is_parquet else CsvSpool(month)
