"""A hash of rows that does not depend on how they are divided into batches."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from taxi_assets.tlc.arrow_types import list_child_arrays

NUMBER_WIDTHS = {1, 2, 4, 8}
"""Bytes of numpy's integers."""


class ContentHash:
    """SHA-256 of columns, types, values and nulls, in the order of the rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: list[_ColumnHash] = []

    def update(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        if not self._columns:
            self._columns = [_ColumnHash() for _ in batch.columns]
        for column, array in zip(self._columns, batch.columns, strict=True):
            column.update(array)
        self.rows += batch.num_rows

    def hexdigest(self, schema: pa.Schema | None) -> str:
        """Return the hash of all rows so far."""
        digest = hashlib.sha256(f"{self.rows} {schema}".encode())
        for column in self._columns if self.rows else ():
            digest.update(column.digest())
        return digest.hexdigest()


def hash_table(table: pa.Table) -> str:
    """Return a day's data version: equal rows have equal versions and make nothing stale."""
    content = ContentHash()
    for batch in table.combine_chunks().to_batches():
        content.update(batch)
    return content.hexdigest(table.schema.remove_metadata())[:32]


class _ColumnHash:
    """Hashes of one column, or of one child array of a nested column."""

    def __init__(self) -> None:
        self.rows = 0
        self.values, self.lengths, self.nulls = (hashlib.sha256() for _ in range(3))
        self.children: list[_ColumnHash] = []

    def digest(self) -> bytes:
        """Return the digest of everything so far."""
        digests = b"".join(part.digest() for part in (self.values, self.lengths, self.nulls))
        return digests + b"".join(child.digest() for child in self.children)

    def update(self, array: pa.Array) -> None:
        """Add values; the hashes are the same as for all batches at once."""
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if types.is_dictionary(array.type):
            array = array.dictionary_decode()
        rows = len(array)
        if array.null_count and not types.is_null(array.type):
            self.nulls.update(
                (np.flatnonzero(_find_nulls(array)) + self.rows).astype("<i8").tobytes()
            )
        self._add_array(array)
        self.rows += rows

    def _add_array(self, array: pa.Array) -> None:
        kind = array.type
        if types.is_null(kind):
            return
        parts = list_child_arrays(array)
        if parts is not None:
            if not types.is_struct(kind):
                self.lengths.update(_measure_lengths(array).tobytes())
            self.children = self.children or [_ColumnHash() for _ in parts]
            for child, part in zip(self.children, parts, strict=True):
                child.update(part)
        elif types.is_boolean(kind):
            self._add_array(array.cast(pa.uint8()))
        elif not _has_fixed_width(kind):
            texts = array.cast(pa.large_binary(), safe=False)
            lengths, content = _get_text_buffers(
                pc.fill_null(texts, b"") if texts.null_count else texts
            )
            self.lengths.update(lengths.tobytes())
            self.values.update(content)
        else:
            self.values.update(_get_fixed_values(array))


def _find_nulls(array: pa.Array) -> npt.NDArray[np.bool_]:
    nulls: npt.NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return nulls


def _measure_lengths(array: pa.Array) -> npt.NDArray[np.int64]:
    """Return the number of values in each list or map of an array; 0 for null."""
    if types.is_map(array.type):
        entry = pa.struct([array.type.key_field, array.type.item_field])
        array = array.cast(pa.list_(pa.field("entries", entry, nullable=False)))
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)


def _get_text_buffers(array: pa.Array) -> tuple[npt.NDArray[np.int64], Any]:
    """Return the lengths and the memory of large binaries without nulls."""
    _, offsets, content = array.buffers()
    if content is None or not len(array):
        return np.zeros(len(array), np.int64), b""
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.diff(ends), memoryview(content)[int(ends[0]) : int(ends[-1])]


def _has_fixed_width(kind: pa.DataType) -> bool:
    """Return whether all values of a type have the same size."""
    return types.is_primitive(kind) or types.is_decimal(kind) or types.is_fixed_size_binary(kind)


def _get_fixed_values(array: pa.Array) -> Any:
    """Return the memory of fixed-width values, with zeros for nulls."""
    width = array.type.bit_width // 8
    content = array.buffers()[1]
    values = memoryview(content)[array.offset * width : (array.offset + len(array)) * width]
    if not array.null_count:
        return values
    if array.null_count == len(array):
        return bytes(len(values))
    if width in NUMBER_WIDTHS:  # faster than rows of bytes
        zeroed = np.frombuffer(values, f"<u{width}").copy()
    else:
        zeroed = np.frombuffer(values, np.uint8).reshape(len(array), width).copy()
    zeroed[_find_nulls(array)] = 0
    return zeroed
