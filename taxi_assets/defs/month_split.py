"""A month file split into days, which wait in temporary files until they are stored.

Nothing may be stored before the file was read to its end: it may be cut, or another month's. What
is a row, and which day it belongs to, is decided in `tlc`; where days are stored, in `io_managers`.
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
from taxi_assets.defs.metadata.table_metadata import preview_lines, preview_rows
from taxi_assets.errors import explain_full_disk
from taxi_assets.tlc.arrow_types import format_rows, has_view_types
from taxi_assets.tlc.parquet_batches import MIN_VIEW_ROWS
from taxi_assets.tlc.raw_month import (
    BLANK,
    CODEC,
    OUTSIDE,
    UNREADABLE,
    PackedLines,
    RawMonth,
    RowsOfDay,
)
from taxi_assets.trips.content_hash import ContentHash
from taxi_assets.trips.profile import FIRST_ROWS

FIRST_BYTES = 4096
"""In which the first lines are: a line has 100 to 200 bytes."""


@dataclass
class CsvSpool:
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
        """Build the zstd object, header first; the spool is closed."""
        with self.file:
            return write_sealed_zstd(facts, self._packed())

    def rows(self) -> pa.Buffer:
        """Return header and lines; the spool stays."""
        return unpack_lines(pa.py_buffer(self._packed()))

    def _packed(self) -> bytes:
        self.file.seek(0)
        return CODEC.compress(self.month.line, asbytes=True) + self.file.read()

    def data_version(self) -> str:
        """Hash of the lines."""
        return str(self.sha256.hexdigest()[:32])

    def preview(self) -> Any:
        """Return the first lines as a table of texts."""
        lines = self.first if len(self.first) < FIRST_BYTES else self.first.rpartition(b"\n")[0]
        return preview_lines(self.month.line, lines)


@dataclass
class ParquetSpool:
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
            self.first = format_rows(part.batch.slice(0, FIRST_ROWS))
        self.hash.update(part.batch)
        self.size += part.batch.nbytes
        self._pending.append(part.batch)
        self._rows += part.rows
        if self._rows >= MIN_VIEW_ROWS:
            self._flush()

    def content(self, facts: Mapping[str, Any]) -> bytes:
        """Complete the Parquet object; the spool is closed."""
        self._flush().seal(facts)
        self.file.seek(0)
        with self.file:
            return self.file.read()

    def rows(self) -> pa.Table:
        """Return the rows; the spool stays, written again: Parquet can be read once complete."""
        parquet, _ = open_parquet(pa.py_buffer(self.content({})))
        rows = parquet.read(use_threads=False)
        self.file, self._writer = ParquetSpool(self.month).file, None
        self._flush().write_table(rows)
        return rows

    def data_version(self) -> str:
        """Hash of columns, types and values, however they came in batches."""
        return self.hash.hexdigest(self.month.schema)[:32]

    def preview(self) -> Any:
        """Return the first rows as a table of texts."""
        return preview_rows(self.month.schema.names if self.month.schema else [], self.first)

    def _flush(self) -> SealedParquetWriter:
        schema = self.month.schema
        if self._writer is None:
            self._writer = SealedParquetWriter(self.file, schema, write_statistics=False)
        if self._pending:
            batches = [batch.replace_schema_metadata(None) for batch in self._pending]
            rows = pa.Table.from_batches(batches).cast(schema)
            if any(has_view_types(field.type) for field in rows.schema):
                rows = rows.combine_chunks()  # Parquet's writer cannot cut views inside structs
            self._writer.write_table(rows, row_group_size=self._rows)
            self._pending.clear()
            self._rows = 0
        return self._writer


Spool = CsvSpool | ParquetSpool
"""Lines or rows of one place, in a temporary file."""


@dataclass(frozen=True)
class SplitMonth:
    """A month file that was read to its end, and the spool of each of its places."""

    month: RawMonth
    spools: Mapping[int, Spool]
    """By day of the month, OUTSIDE and UNREADABLE."""
    seconds: float
    """Each day's equal share of the time that it took: the days were read together."""

    def get_spool(self, day: date) -> Spool:
        """Return the lines or rows of a day."""
        return self.spools[day.day]


def split_month(month: RawMonth, log: Callable[[str], None]) -> SplitMonth:
    """Read a month file once, and put every row of the run's days, and of no day, in its spool.

    Raises:
        SourceError: the file is not what it should be, see `RawMonth.pass_over`.
        StoreError: the disk of the temporary files is full.
    """
    began = time.perf_counter()
    places = (*(day.day for day in month.days), OUTSIDE, UNREADABLE)
    spools: dict[int, Any] = {place: open_spool(month) for place in places}
    with explain_full_disk(Path(tempfile.gettempdir()), "TMPDIR"):
        for part in month.read_days(log):
            # Blank lines are the file's too: they are kept with the unreadable ones.
            spools[UNREADABLE if part.key == BLANK else part.key].add(part)
    return SplitMonth(month, spools, (time.perf_counter() - began) / len(month.days))


def open_spool(month: RawMonth) -> Spool:
    """Open a spool for what the month's file holds."""
    return ParquetSpool(month) if month.is_parquet else CsvSpool(month)
