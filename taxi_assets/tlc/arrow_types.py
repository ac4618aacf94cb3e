"""Arrow arrays of any type that a Parquet file can have: plain values, children, texts to show.

What is here knows Arrow and not taxis. Which value a column of ours may hold is in `values.py`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

MAX_TEXT_BYTES = 64 << 10
"""Longest text that goes to a store. TLC's rows have about 100 bytes; a longer CSV line is
quarantined, and so is the Parquet row of a longer text."""
SHOWN = 200
"""Characters of a value of no simple type in a message or a preview."""


def is_text_type(kind: pa.DataType) -> bool:
    """Return whether a type holds texts."""
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def get_plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that `plain` gives to values of a type."""
    if isinstance(kind, pa.BaseExtensionType):
        return get_plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return get_plain_type(kind.value_type)
    if is_text_type(kind) or _is_bytes(kind):
        return pa.string()
    return pa.float64() if types.is_float16(kind) else kind


def convert_to_plain(values: pa.Array) -> pa.Array:
    """Return the same values in the simplest type that holds them.

    Encodings and extension types are undone. Bytes, which old writers give for texts, become
    `string` without a check of their encoding: see `find_storable_text`.
    """
    if isinstance(values, pa.ExtensionArray):
        return convert_to_plain(values.storage)
    if types.is_dictionary(values.type):
        return convert_to_plain(values.dictionary_decode())
    if types.is_run_end_encoded(values.type):
        return convert_to_plain(pc.run_end_decode(values))
    if types.is_fixed_size_binary(values.type):
        values = values.cast(pa.binary())
    wanted = get_plain_type(values.type)
    return values if values.type == wanted else values.cast(wanted, safe=False)


def find_storable_text(values: pa.Array) -> pa.Array:
    """Return texts, null where one is not UTF-8, holds a NUL or is longer than MAX_TEXT_BYTES.

    PostgreSQL takes no NUL, BigQuery and pandas no other encoding.
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
    return pa.array([_is_storable(value) for value in content.to_pylist()], pa.string())


def _is_storable(value: bytes | None) -> str | None:
    if value is None or len(value) > MAX_TEXT_BYTES or b"\0" in value:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def replace_view_types(kind: pa.DataType) -> pa.DataType:
    """Return the type without views that a type of string or binary views is cast to and from."""
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return pa.string() if types.is_string_view(kind) else pa.binary()
    return kind


def has_view_types(kind: pa.DataType) -> bool:
    """Return whether a type is one of views, or has one inside."""
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return True
    return any(has_view_types(kind.field(at).type) for at in range(kind.num_fields))


def take_rows(values: pa.Array, places: npt.NDArray[np.int64]) -> pa.Array:
    """Return some of the values, in order, also of views inside lists, structs and maps.

    Arrow cannot take those, and is given the runs of neighbours that they consist of.
    """
    if not has_view_types(values.type):
        return values.take(pa.array(places))
    firsts = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    runs = zip(places[firsts].tolist(), np.diff(firsts, append=len(places)).tolist(), strict=True)
    return pa.concat_arrays([values.slice(*run) for run in runs])


def list_child_types(values: pa.Array) -> list[pa.Array] | None:
    """Return the arrays that a nested array consists of, without those of null values.

    None where a type is not nested.
    """
    kind = values.type
    if types.is_struct(kind):
        return list(values.flatten())
    if types.is_map(kind):
        # As a list of structs, which Arrow flattens.
        entry = pa.struct([kind.key_field, kind.item_field])
        entries = pa.field("entries", entry, nullable=False)
        return list(values.cast(pa.list_(entries)).flatten().flatten())
    is_list = (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
        or types.is_fixed_size_list(kind)
    )
    return [values.flatten()] if is_list else None


def format_value(value: pa.Scalar) -> str:
    """Return any value as text, also one for which Python has no object; null is `None`.

    A time past the year 9999 is shown as the date that it is, bytes that are no text escaped.
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
    return " ".join(pa.array([value], kind).to_string().split())[:SHOWN]


def format_rows(rows: pa.RecordBatch) -> list[list[str | None]]:
    """Return rows as texts, null where a value is."""
    columns = [
        [format_value(value) if value.is_valid else None for value in one] for one in rows.columns
    ]
    return [list(row) for row in zip(*columns, strict=True)]
