"""How much a Parquet file unpacks to, before it is unpacked.

Dictionaries and run lengths let some hundred KB stand for as many GB. What has a fixed width is
declared in the footer. How long texts are is not: their dictionaries are read first, without the
texts, and show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

ROWS = 1 << 16
"""Rows that are unpacked at a time."""
BUFFER = 1 << 18
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
TEXT = "BYTE_ARRAY"
DICTIONARIES = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}
OFFSET = 4
"""Bytes that a text takes beside its own."""


class TooLargeError(Exception):
    """What unpacks to more than is allowed, as part of a sentence."""


def reject_parquet_bomb(source: Any, max_rows_bytes: int, max_bytes: int) -> None:
    """Reject a Parquet file that is too large as a whole, or in `ROWS` rows that are read together.

    Args:
        source: path or open file.
        max_rows_bytes: bytes that `ROWS` rows may have, and the lists of a row group.
        max_bytes: bytes that the file may have, as far as its footer declares them.

    Raises:
        TooLargeError: there are more.
    """
    with pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as parquet:
        footer, schema = parquet.metadata, parquet.schema_arrow
    _raise_too_large(estimate_unpacked_bytes(footer), max_bytes, "it unpacks to")
    texts, others = set[str](), dict[str, int]()
    for at in range(footer.num_row_groups):
        rows = footer.row_group(at).num_rows
        for column in _list_columns(footer.row_group(at)):
            if column.num_values > rows:
                values = column.num_values * _measure_width(column)
                _raise_too_large(
                    values, max_rows_bytes, f"lists of {column.path_in_schema} unpack to"
                )
            longest = column.total_uncompressed_size
            if column.physical_type != TEXT or min(rows, ROWS) * longest <= max_rows_bytes:
                continue
            name = column.path_in_schema.partition(".")[0]
            if name not in schema.names or not _is_text_column(schema.field(name).type):
                name = _get_top_level(schema, column.path_in_schema)
                others[name] = max(others.get(name, 1), longest)
            elif "DELTA_BYTE_ARRAY" in column.encodings:
                others[name] = max(others.get(name, 1), longest)
            elif DICTIONARIES.intersection(column.encodings):
                texts.add(name)
    named = ", ".join(sorted(texts))
    for batch in _measure_dictionaries(source, sorted(texts)):
        size = sum(map(_measure_unpacked, batch.columns))
        _raise_too_large(size, max_rows_bytes, f"{batch.num_rows:,} rows of {named} unpack to")
    for name, longest in others.items():
        _reject_by_measure(
            source, name, max(1, min(ROWS, max_rows_bytes // longest)), max_rows_bytes
        )


def read_first_rows(parquet: pq.ParquetFile, rows: int, max_bytes: int) -> pa.Table:
    """Return the first rows of an open file, so few at a time that no value can be too large.

    Raises:
        TooLargeError: they have more than `max_bytes`.
    """
    longest = 1
    for at in range(parquet.metadata.num_row_groups):
        for column in _list_columns(parquet.metadata.row_group(at)):
            values = column.num_values * _measure_width(column)
            if column.num_values > parquet.metadata.row_group(at).num_rows:
                _raise_too_large(values, max_bytes, f"lists of {column.path_in_schema} unpack to")
            if column.physical_type == TEXT:
                longest = max(longest, column.total_uncompressed_size)
    batches, found, size = list[pa.RecordBatch](), 0, 0
    step = max(1, min(rows, max_bytes // longest))
    for batch in parquet.iter_batches(step, use_threads=False):
        batches.append(batch.slice(0, rows - found))
        found, size = found + batches[-1].num_rows, size + batch.nbytes
        _raise_too_large(size, max_bytes, f"the first {found:,} rows unpack to")
        if found >= rows:
            break
    return pa.Table.from_batches(batches, parquet.schema_arrow)


def _get_top_level(schema: pa.Schema, path: str) -> str:
    """Name of the column that a leaf belongs to; a name may have dots in it."""
    return max((name for name in schema.names if f"{path}.".startswith(f"{name}.")), key=len)


def _reject_by_measure(source: Any, name: str, rows: int, limit: int) -> None:
    """Unpack a column so few rows at a time that no value can be too large, and add them up."""
    with pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as parquet:
        size = seen = 0
        for batch in parquet.iter_batches(rows, columns=[name], use_threads=False):
            size, seen = size + batch.nbytes, seen + batch.num_rows
            _raise_too_large(size, limit, f"{seen:,} rows of {name} unpack to")
            if seen >= ROWS:
                size = seen = 0


def estimate_unpacked_bytes(footer: pq.FileMetaData) -> int:
    """Return the bytes that a file unpacks to at least, as its footer declares them."""
    return sum(
        max(column.total_uncompressed_size, column.num_values * _measure_width(column))
        for at in range(footer.num_row_groups)
        for column in _list_columns(footer.row_group(at))
    )


def _list_columns(row_group: Any) -> Iterator[Any]:
    return (row_group.column(at) for at in range(row_group.num_columns))


def _measure_width(column: Any) -> int:
    return WIDTHS.get(column.physical_type, OFFSET)


def _is_text_column(kind: pa.DataType) -> bool:
    """Return whether values have variable length and no structure."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_string,
            types.is_large_string,
            types.is_binary,
            types.is_large_binary,
        )
    )


def _measure_dictionaries(source: Any, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Read texts as places in their dictionary."""
    if not columns:
        return
    with pq.ParquetFile(
        source, buffer_size=BUFFER, pre_buffer=False, read_dictionary=columns
    ) as parquet:
        yield from parquet.iter_batches(ROWS, columns=columns, use_threads=False)


def _measure_unpacked(values: pa.Array) -> int:
    """Return the bytes of a column of texts without its dictionary."""
    if not types.is_dictionary(values.type):
        return int(values.nbytes)
    lengths = pc.binary_length(values.dictionary).cast(pa.int64()).fill_null(0).to_numpy()
    uses = np.bincount(values.indices.drop_null().to_numpy(), minlength=len(lengths))
    return int(uses @ lengths) + OFFSET * len(values)


def _raise_too_large(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise TooLargeError(f"{what} {size:,} bytes, over {limit:,}")
