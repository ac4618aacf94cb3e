"""A hash of rows that says the same of the same rows, however they are cut into batches."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from taxi_assets.trips.values import is_text


class ContentHash:
    """SHA-256 of columns, types, values and nulls, in the order of the rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: list[tuple[Any, Any, Any]] = []

    def update(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        if not self._columns:
            sha = hashlib.sha256
            self._columns = [(sha(), sha(), sha()) for _ in batch.columns]
        for (values, lengths, nulls), array in zip(self._columns, batch.columns, strict=True):
            if array.null_count and not types.is_null(array.type):
                places = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))
                nulls.update((places + self.rows).astype("<i8"))
            _add(values, lengths, array)
        self.rows += batch.num_rows

    def hexdigest(self, schema: pa.Schema | None) -> str:
        """The hash of all rows so far."""
        whole = hashlib.sha256(f"{self.rows} {schema}".encode())
        for parts in self._columns if self.rows else ():
            whole.update(b"".join(part.digest() for part in parts))
        return whole.hexdigest()


def _add(values: Any, lengths: Any, array: pa.Array) -> None:
    """Add a column; each hash gets what it would get of all batches at once."""
    kind = array.type
    if types.is_null(kind):
        return
    if types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if types.is_primitive(kind) and not types.is_boolean(kind):
        values.update(_fixed(array))
    elif is_text(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        texts = (pc.fill_null(array, "") if is_text(kind) else pc.fill_null(array, b"")).cast(
            pa.large_binary()
        )
        lengths.update(pc.binary_length(texts).to_numpy())
        values.update(b"".join(texts.to_pylist()))
    else:
        values.update("".join(f"{value!r}\n" for value in array.to_pylist()).encode())


def _fixed(array: pa.Array) -> Any:
    """Values of one width, as they lie in memory, with zeros where there is none."""
    if array.null_count:
        array = pc.fill_null(array, pa.scalar(0).cast(array.type))
    width = array.type.bit_width // 8
    content = array.buffers()[1]
    return memoryview(content)[array.offset * width : (array.offset + len(array)) * width]
