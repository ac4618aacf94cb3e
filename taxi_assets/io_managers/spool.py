"""What a pass over a month file leaves of one place, on its way to the lake.

It waits in a temporary file: nothing may be put before the month file was read to its end.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_assets.resources.lake import with_facts
from taxi_assets.slices import FACTS
from taxi_assets.trips.digest import ContentHash
from taxi_assets.trips.month import CODEC, PackedLines, RawMonth, RowsOfDay
from taxi_assets.trips.parquet import LEAST_VIEW


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

    def add(self, part: PackedLines) -> None:
        """Append lines."""
        self.file.write(part.packed)
        self.sha256.update(part.lines)
        self.size += part.lines.size

    def content(self, facts: Mapping[str, Any]) -> bytes:
        """The zstd object, header first."""
        self.file.seek(0)
        with self.file:
            header = CODEC.compress(self.month.line, asbytes=True)
            return with_facts(facts, header + self.file.read())

    def data_version(self) -> str:
        """Hash of the lines."""
        return str(self.sha256.hexdigest()[:32])


@dataclass
class RowSpool:
    """Rows of a Parquet month, which become one Parquet of the same columns and types."""

    month: RawMonth
    file: IO[bytes] = field(default_factory=tempfile.TemporaryFile)
    hash: ContentHash = field(default_factory=ContentHash)
    size: int = 0
    _writer: pq.ParquetWriter | None = None
    _pending: list[pa.RecordBatch] = field(default_factory=list[pa.RecordBatch])
    _rows: int = 0

    def add(self, part: RowsOfDay) -> None:
        """Append rows."""
        self.hash.update(part.batch)
        self.size += part.batch.nbytes
        self._pending.append(part.batch)
        self._rows += part.rows
        if self._rows >= LEAST_VIEW:
            self._flush()

    def content(self, facts: Mapping[str, Any]) -> bytes:
        """The Parquet object."""
        writer = self._flush()
        writer.add_key_value_metadata({FACTS.decode(): json.dumps(facts, sort_keys=True)})
        writer.close()
        self.file.seek(0)
        with self.file:
            return self.file.read()

    def data_version(self) -> str:
        """Hash of columns, types and values, however they came in batches."""
        return self.hash.hexdigest(self.month.schema)[:32]

    def _flush(self) -> pq.ParquetWriter:
        schema = self.month.schema
        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self.file, schema, compression="zstd", compression_level=1, write_statistics=False
            )
        if self._pending:
            batches = [batch.replace_schema_metadata(None) for batch in self._pending]
            rows = pa.Table.from_batches(batches).cast(schema)
            self._writer.write_table(rows, row_group_size=self._rows)
            self._pending.clear()
            self._rows = 0
        return self._writer
