"""Reject Parquet files that would fill the memory or end the process, before they are unpacked.

Dictionaries and run lengths let some hundred KB represent as many GB. The footer declares the size
of values of fixed width. It does not declare the length of texts, so their dictionaries are read
first, without the rows.
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
"""Number of rows that are unpacked at a time."""
BUFFER = 1 << 18
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
TEXT = "BYTE_ARRAY"
DICTIONARIES = {"PLAIN_DICTIONARY", "RLE_DICTIONARY"}
OFFSET = 4
"""Bytes of the offset that each text has in Arrow."""


class TooLargeError(Exception):
    """A file, or a part of it, unpacks to more than is allowed; the message is a clause."""


def open_checked(source: Any, **options: Any) -> pq.ParquetFile:
    """Open a path or an open file whose footer describes each column chunk; the caller closes it.

    pyarrow aborts the process when the metadata of an encrypted or damaged chunk is requested.
    Reading no rows of each row group opens the same chunks, and raises an error.

    Raises:
        pa.ArrowException, OSError: the file is damaged or encrypted.
    """
    try:
        parquet = pq.ParquetFile(source, pre_buffer=False, **options)
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"a column's name is not UTF-8: {error.object!r}") from None
    try:
        for at in range(parquet.metadata.num_row_groups):
            next(parquet.reader.iter_batches(0, [at], None, False), None)
    except BaseException:
        parquet.close()
        raise
    footer = parquet.metadata
    rows = sum(footer.row_group(at).num_rows for at in range(footer.num_row_groups))
    if rows != footer.num_rows:
        parquet.close()
        raise pa.ArrowInvalid(f"its row groups have {rows:,} rows, not {footer.num_rows:,}")
    return parquet


def reject_parquet_bomb(source: Any, max_rows_bytes: int, max_bytes: int) -> None:
    """Reject a Parquet file if all of it, or any `ROWS` rows of it, would be too large.

    Args:
        source: path or open file.
        max_rows_bytes: maximum size of `ROWS` rows, and of the lists of a row group.
        max_bytes: maximum size of the file, as its footer declares it.

    Raises:
        TooLargeError: a limit is exceeded.
        pa.ArrowException: the file is damaged or encrypted.
    """
    with open_checked(source, buffer_size=BUFFER) as parquet:
        footer, schema = parquet.metadata, parquet.schema_arrow
    _raise_too_large(estimate_unpacked_bytes(footer), max_bytes, "it unpacks to")
    _reject_large_lists(footer, max_rows_bytes)
    dictionary_columns, measured_columns = set[str](), dict[str, int]()
    for rows, column in _list_chunks(footer):
        longest = column.total_uncompressed_size
        if column.physical_type != TEXT or min(rows, ROWS) * longest <= max_rows_bytes:
            continue
        name = _get_top_level(schema, column.path_in_schema)
        is_text = _is_text_column(schema.field(name).type)
        if not is_text or "DELTA_BYTE_ARRAY" in column.encodings:
            measured_columns[name] = max(measured_columns.get(name, 1), longest)
        elif DICTIONARIES.intersection(column.encodings):
            dictionary_columns.add(name)
    names = ", ".join(sorted(dictionary_columns))
    for batch in _read_dictionary_columns(source, sorted(dictionary_columns)):
        size = sum(map(_measure_unpacked, batch.columns))
        _raise_too_large(size, max_rows_bytes, f"{batch.num_rows:,} rows of {names} unpack to")
    for name, longest in measured_columns.items():
        _reject_by_measure(
            source, name, max(1, min(ROWS, max_rows_bytes // longest)), max_rows_bytes
        )


def read_first_rows(parquet: pq.ParquetFile, rows: int, max_bytes: int) -> pa.Table:
    """Return the first rows of an open file, in batches too small for a bomb to unpack.

    Raises:
        TooLargeError: the rows exceed `max_bytes`.
    """
    footer = parquet.metadata
    _reject_large_lists(footer, max_bytes)
    texts = (column for _, column in _list_chunks(footer) if column.physical_type == TEXT)
    longest = max((column.total_uncompressed_size for column in texts), default=1)
    batches, count, size = list[pa.RecordBatch](), 0, 0
    step = max(1, min(rows, max_bytes // max(longest, 1)))
    for batch in parquet.iter_batches(step, use_threads=False):
        batches.append(batch.slice(0, rows - count))
        count, size = count + batches[-1].num_rows, size + batch.nbytes
        _raise_too_large(size, max_bytes, f"the first {count:,} rows unpack to")
        if count >= rows:
            break
    return pa.Table.from_batches(batches, parquet.schema_arrow)


def _get_top_level(schema: pa.Schema, path: str) -> str:
    """Return the name of the column that contains a leaf; a name may contain dots."""
    return max((name for name in schema.names if f"{path}.".startswith(f"{name}.")), key=len)


def _reject_by_measure(source: Any, name: str, rows: int, limit: int) -> None:
    """Unpack a column in batches too small for a bomb, and add up their sizes."""
    with pq.ParquetFile(source, buffer_size=BUFFER, pre_buffer=False) as parquet:
        size = count = 0
        for batch in parquet.iter_batches(rows, columns=[name], use_threads=False):
            size, count = size + batch.nbytes, count + batch.num_rows
            _raise_too_large(size, limit, f"{count:,} rows of {name} unpack to")
            if count >= ROWS:
                size = count = 0


def estimate_unpacked_bytes(footer: pq.FileMetaData) -> int:
    """Return the minimum unpacked size of a file in bytes, as its footer declares it."""
    return sum(
        max(column.total_uncompressed_size, _measure_values(column))
        for _, column in _list_chunks(footer)
    )


def _list_chunks(footer: pq.FileMetaData) -> Iterator[tuple[int, Any]]:
    """Yield the number of rows of each column chunk's row group, and the chunk."""
    for at in range(footer.num_row_groups):
        row_group = footer.row_group(at)
        for place in range(row_group.num_columns):
            yield row_group.num_rows, row_group.column(place)


def _measure_values(column: Any) -> int:
    """Return the size of a chunk's values in bytes, without texts."""
    return int(column.num_values * WIDTHS.get(column.physical_type, OFFSET))


def _reject_large_lists(footer: pq.FileMetaData, max_bytes: int) -> None:
    for rows, column in _list_chunks(footer):
        if column.num_values > rows:
            subject = f"lists of {column.path_in_schema} unpack to"
            _raise_too_large(_measure_values(column), max_bytes, subject)


def _is_text_column(kind: pa.DataType) -> bool:
    """Return whether values have variable length and no structure."""
    if types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())


def _read_dictionary_columns(source: Any, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield text columns as dictionary indices, without unpacking the texts."""
    if not columns:
        return
    with pq.ParquetFile(
        source, buffer_size=BUFFER, pre_buffer=False, read_dictionary=columns
    ) as parquet:
        yield from parquet.iter_batches(ROWS, columns=columns, use_threads=False)


def _measure_unpacked(values: pa.Array) -> int:
    """Return the size of a column of texts if it were not dictionary-encoded, in bytes."""
    if not types.is_dictionary(values.type):
        return int(values.nbytes)
    lengths = pc.binary_length(values.dictionary).cast(pa.int64()).fill_null(0).to_numpy()
    uses = np.bincount(values.indices.drop_null().to_numpy(), minlength=len(lengths))
    return int(uses @ lengths) + OFFSET * len(values)


def _raise_too_large(size: int, limit: int, subject: str) -> None:
    if size > limit:
        raise TooLargeError(f"{subject} {size:,} bytes, over {limit:,}")
