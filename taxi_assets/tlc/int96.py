"""Open a Parquet file with a unit that can represent all of its INT96 times.

Hive, Impala and old Spark write times as INT96, which Arrow reads as nanoseconds: a time before
1677 or after 2262 silently becomes another time. This module chooses the finest unit that preserves
all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxi_assets.tlc.arrow_types import list_child_arrays

ROWS = 1 << 16
"""Rows of a batch."""
BUFFER = 1 << 18
"""Bytes of a column read at a time; with pre_buffer a row group would be read at once."""
PER_DAY = {
    unit: 86_400 * scale
    for unit, scale in zip(["s", "ms", "us", "ns"], (1, 10**3, 10**6, 10**9), strict=True)
}
MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Options:
    """The options for reading a file."""

    int96: tuple[str, ...]
    """Columns stored as INT96."""
    int96_unit: str | None
    """Unit for these columns; None if there are none."""

    def open(self, path: Path) -> pq.ParquetFile:
        """Open the file; the caller closes it."""
        return pq.ParquetFile(
            path,
            buffer_size=BUFFER,
            pre_buffer=False,
            coerce_int96_timestamp_unit=self.int96_unit,
        )


def find_int96_options(path: Path) -> Options:
    """Return the options for reading a file, from its footer and the bounds of its INT96 columns.

    Raises:
        pa.ArrowException: the file is damaged.
    """
    with pq.ParquetFile(path, coerce_int96_timestamp_unit="s") as parquet:
        leaves = [parquet.schema.column(at) for at in range(len(parquet.schema))]
        names = tuple(leaf.path for leaf in leaves if leaf.physical_type == "INT96")
        if not names:
            return Options((), None)
        minimum = maximum = 0
        for batch in parquet.iter_batches(ROWS, columns=list(names), use_threads=False):
            for times in (leaf for column in batch.columns for leaf in _list_leaves(column)):
                bounds = pc.min_max(times.cast(pa.int64()))
                minimum = min(minimum, bounds["min"].as_py() or 0)
                maximum = max(maximum, bounds["max"].as_py() or 0)
    for unit in ("ns", "us"):
        scale = PER_DAY[unit] // PER_DAY["s"]
        if (1 - minimum) * scale <= MAX_INT64 and (maximum + 1) * scale <= MAX_INT64:
            return Options(names, unit)
    return Options(names, "ms")


def _list_leaves(values: pa.Array) -> Iterator[pa.Array]:
    """Yield the leaf arrays of an array."""
    parts = list_child_arrays(values)
    if parts is None:
        yield values
    for part in parts or ():
        yield from _list_leaves(part)
