"""Helpers for Arrow arrays of any type: plain values, children of nested arrays, display texts.

This module depends on Arrow alone. The rules for the values of a column are in `values.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

MAX_TEXT_BYTES = 64 << 10
"""Longest text that is stored. TLC's rows have about 100 bytes; a longer CSV line, or a Parquet row
with a longer text, is quarantined."""
LISTS = (
    *(pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray),
    *(pa.ListViewArray, pa.LargeListViewArray),
)
MAX_SHOWN = 200
"""Characters of a nested value in a message or a preview."""


def is_text_type(kind: pa.DataType) -> bool:
    """Return whether a type is one of Arrow's string types."""
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _is_bytes(kind: pa.DataType) -> bool:
    variable = (pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in variable or types.is_fixed_size_binary(kind)


def get_plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `convert_to_plain` gives to values of a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return get_plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return get_plain_type(kind.value_type)
    if is_text_type(kind) or _is_bytes(kind):
        return pa.string()
    return pa.float64() if types.is_float16(kind) else kind


def convert_to_plain(values: pa.Array) -> pa.Array:
    """Return the same values in the simplest type: no encoding, no extension type.

    Bytes, which old writers use for texts, become `string` without a check of their encoding; see
    `find_storable_text`.
    """
    if isinstance(values, pa.ExtensionArray):
        return convert_to_plain(values.storage)
    if types.is_dictionary(values.type):
        return convert_to_plain(values.dictionary_decode())
    if types.is_run_end_encoded(values.type):
        return convert_to_plain(pc.run_end_decode(values))
    if types.is_fixed_size_binary(values.type):
        values = values.cast(pa.binary())
    plain = get_plain_type(values.type)
    return values if values.type == plain else values.cast(plain, safe=False)


def find_storable_text(values: pa.Array) -> pa.Array:
    """Return texts; null replaces one that is not UTF-8, contains NUL or exceeds MAX_TEXT_BYTES.

    PostgreSQL accepts no NUL; BigQuery and pandas accept no other encoding.
    """
    content = values.cast(pa.binary())
    try:
        content.cast(pa.string())
    except pa.ArrowInvalid:
        pass
    else:
        longest = pc.max(pc.binary_length(content)).as_py() or 0
        if longest <= MAX_TEXT_BYTES and not pc.any(pc.match_substring(content, b"\0")).as_py():
            return values
    return pa.array([_decode_storable(value) for value in content.to_pylist()], pa.string())


def _decode_storable(value: bytes | None) -> str | None:
    if value is None or len(value) > MAX_TEXT_BYTES or b"\0" in value:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def replace_view_types(kind: pa.DataType) -> pa.DataType:
    """Return the string or binary type for a type of string or binary views."""
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return pa.string() if types.is_string_view(kind) else pa.binary()
    return kind


def has_view_types(kind: pa.DataType) -> bool:
    """Return whether a type is a view type or contains one."""
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return True
    return any(has_view_types(kind.field(at).type) for at in range(kind.num_fields))


def take_rows(values: pa.Array, places: npt.NDArray[np.int64]) -> pa.Array:
    """Return the values at `places`, in order, also of views inside lists, structs and maps.

    Arrow's `take` does not support those, so runs of neighbours are sliced and concatenated.
    """
    if not has_view_types(values.type):
        return values.take(pa.array(places))
    firsts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    runs = zip(places[firsts].tolist(), np.diff(firsts, append=len(places)).tolist(), strict=True)
    return pa.concat_arrays([values.slice(*run) for run in runs])


def list_child_arrays(values: pa.Array) -> list[pa.Array] | None:
    """Return the child arrays of a nested array, without null values; None for other arrays."""
    kind = values.type
    if types.is_struct(kind):
        return list(values.flatten())
    if types.is_map(kind):
        # Arrow flattens lists of structs, but not maps.
        entry = pa.struct([kind.key_field, kind.item_field])
        entries = pa.field("entries", entry, nullable=False)
        return list(values.cast(pa.list_(entries)).flatten().flatten())
    return [values.flatten()] if isinstance(values, LISTS) else None


def format_value(value: pa.Scalar) -> str:
    """Return any value as text, also one that Python cannot represent; null is `None`.

    A time after the year 9999 is shown as a date, invalid text with escapes.
    """
    try:
        return str(value.as_py())
    except (ValueError, OverflowError):  # UnicodeDecodeError is a ValueError
        pass
    kind = value.type
    if types.is_dictionary(kind):
        return format_value(value.value)
    if is_text_type(kind):
        return bytes(value.as_buffer()).decode(errors="backslashreplace")
    unit = getattr(kind, "unit", None) if types.is_timestamp(kind) else None
    if types.is_date(kind):
        unit = "D" if types.is_date32(kind) else "ms"
    if unit:
        time = np.datetime64(value.value, unit)
        if not np.isnat(time):
            return str(time).replace("T", " ")
    return " ".join(pa.array([value], kind).to_string().split())[:MAX_SHOWN]


def format_rows(rows: pa.RecordBatch) -> list[list[str | None]]:
    """Return rows as lists of texts; null values are None."""
    columns = [
        [format_value(value) if value.is_valid else None for value in column]
        for column in rows.columns
    ]
    return [list(row) for row in zip(*columns, strict=True)]
