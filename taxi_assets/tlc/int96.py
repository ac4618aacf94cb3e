"""How a Parquet file is opened: INT96 times in a unit that holds all of them.

Hive, Impala and old Spark write times as INT96, which Arrow reads as nanoseconds: a time before
1677 or past 2262 silently becomes another one. Here they get the finest unit in which each stays
what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxi_assets.tlc.arrow_types import list_child_types

ROWS = 1 << 16
"""Rows of a batch."""
BUFFER = 1 << 18
"""Bytes of a column read at a time; with pre_buffer a row group would be read whole."""
PER_DAY = {
    unit: 86_400 * scale
    for unit, scale in zip(["s", "ms", "us", "ns"], (1, 10**3, 10**6, 10**9), strict=True)
}
LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Options:
    """How a file has to be read."""

    int96: tuple[str, ...]
    """Columns stored as INT96."""
    int96_unit: str | None
    """Unit that those are read in; None where there are none."""

    def open(self, path: Path) -> pq.ParquetFile:
        """Open the file; whoever calls closes it."""
        return pq.ParquetFile(
            path,
            buffer_size=BUFFER,
            pre_buffer=False,
            coerce_int96_timestamp_unit=self.int96_unit,
        )


def find_int96_options(path: Path) -> Options:
    """Return how a file has to be read, by its footer and the bounds of its INT96 columns.

    Raises:
        pa.ArrowException: the file is damaged.
    """
    with pq.ParquetFile(path, coerce_int96_timestamp_unit="s") as parquet:
        leaves = [parquet.schema.column(at) for at in range(len(parquet.schema))]
        names = tuple(leaf.path for leaf in leaves if leaf.physical_type == "INT96")
        if not names:
            return Options((), None)
        least = most = 0
        for batch in parquet.iter_batches(ROWS, columns=list(names), use_threads=False):
            for times in (leaf for column in batch.columns for leaf in _list_leaves(column)):
                bounds = pc.min_max(times.cast(pa.int64()))
                least = min(least, bounds["min"].as_py() or 0)
                most = max(most, bounds["max"].as_py() or 0)
    for unit in ("ns", "us"):
        scale = PER_DAY[unit] // PER_DAY["s"]
        if (1 - least) * scale <= LARGEST and (most + 1) * scale <= LARGEST:
            return Options(names, unit)
    return Options(names, "ms")


def _list_leaves(values: pa.Array) -> Iterator[pa.Array]:
    """List the leaf arrays of an array."""
    parts = list_child_types(values)
    if parts is None:
        yield values
    for part in parts or ():
        yield from _list_leaves(part)
