"""Columns of every type that a Parquet file can have, with their extreme values."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

EXACT = Context(prec=99)
Make = Callable[[list[Any]], pa.Array]


def _draw_integers(kind: pa.DataType, storage: pa.DataType) -> tuple[st.SearchStrategy[Any], Make]:
    """Draw values of a type by the integers that store them, the extremes included."""
    bits = storage.bit_width
    signed = pa.types.is_signed_integer(storage)
    bounds = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = st.integers(*bounds) | st.sampled_from([*bounds, 0, 1]) | st.integers(0, 99)
    return values, lambda drawn: pa.array(drawn, storage).view(kind)


def _draw_decimals(kind: pa.DataType) -> tuple[st.SearchStrategy[Any], Make]:
    max_unscaled = 10**kind.precision - 1
    unscaled = st.integers(-max_unscaled, max_unscaled) | st.integers(-9, 9).map(
        lambda number: number * 10**kind.scale
    )
    values = unscaled.map(lambda number: Decimal(number).scaleb(-kind.scale, EXACT))
    return values, lambda drawn: pa.array(drawn, kind)


BYTES = st.binary(max_size=20) | st.sampled_from(
    [
        b"",
        b"1",
        b"N",
        b"true",
        b"NULL",
        b"a\0b",
        b"\xff",
        b"\xc3",
        b"2021-02-03 04:05:06",
        b"x" * 99,
    ]
)


def _draw_bytes(kind: pa.DataType) -> tuple[st.SearchStrategy[Any], Make]:
    return BYTES, lambda drawn: pa.array(drawn, pa.binary()).cast(kind, safe=False)


def _draw_plain(kind: pa.DataType, values: st.SearchStrategy[Any]) -> tuple[Any, Make]:
    return values, lambda drawn: pa.array(drawn, kind)


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
INTEGERS += [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
UNITS = ("ms", "us", "ns")
FLOATS = st.floats(width=16)
LISTS = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)

COLUMNS: dict[str, tuple[st.SearchStrategy[Any], Make]] = {
    **{str(kind): _draw_integers(kind, kind) for kind in INTEGERS},
    **{str(kind): _draw_plain(kind, FLOATS) for kind in (pa.float16(), pa.float32(), pa.float64())},
    "bool": _draw_plain(pa.bool_(), st.booleans()),
    "date32": _draw_integers(pa.date32(), pa.int32()),
    "time32": _draw_integers(pa.time32("ms"), pa.int32()),
    "time64": _draw_integers(pa.time64("us"), pa.int64()),
    **{f"timestamp {unit}": _draw_integers(pa.timestamp(unit), pa.int64()) for unit in UNITS},
    "timestamp with zone": _draw_integers(pa.timestamp("us", "America/New_York"), pa.int64()),
    **{f"duration {unit}": _draw_integers(pa.duration(unit), pa.int64()) for unit in UNITS},
    "decimal32": _draw_decimals(pa.decimal32(7, 2)),
    "decimal64": _draw_decimals(pa.decimal64(16, 2)),
    "decimal128": _draw_decimals(pa.decimal128(38, 4)),
    "decimal256": _draw_decimals(pa.decimal256(70, 0)),
    **{
        str(kind): _draw_bytes(kind)
        for kind in (pa.string(), pa.large_string(), pa.string_view())
        + (pa.binary(), pa.large_binary(), pa.binary_view())
    },
    "fixed binary": _draw_plain(pa.binary(2), st.binary(min_size=2, max_size=2)),
    "dictionary": (BYTES, lambda drawn: pa.array(drawn, pa.binary()).dictionary_encode()),
    "dictionary of texts": (
        st.sampled_from(["N", "Y", "1", "what"]),
        lambda drawn: pa.array(drawn, pa.string()).dictionary_encode(),
    ),
    "null": (st.none(), lambda drawn: pa.nulls(len(drawn))),
    "uuid": _draw_plain(pa.uuid(), st.uuids().map(lambda one: one.bytes)),
    "json": _draw_plain(pa.json_(), st.sampled_from(["{}", "[1]"])),
    "bool8": (
        st.integers(0, 1),
        lambda drawn: pa.ExtensionArray.from_storage(pa.bool8(), pa.array(drawn, pa.int8())),
    ),
    **{
        f"{make.__name__} of {kind}": _draw_plain(make(kind), st.lists(values, max_size=3))
        for make in LISTS
        for kind, values in (
            (pa.int32(), st.none() | st.integers(-9, 9)),
            (pa.string_view(), st.none() | st.text(max_size=20)),
            (pa.timestamp("us"), st.integers(-(2**63) + 1, 2**63 - 1)),
        )
    },
    "fixed list": _draw_plain(
        pa.list_(pa.int32(), 2), st.lists(st.integers(0, 9), min_size=2, max_size=2)
    ),
    "struct": _draw_plain(
        pa.struct([("a", pa.int32()), ("b", pa.string_view()), ("c", pa.list_(pa.date32()))]),
        st.fixed_dictionaries(
            {
                "a": st.none() | st.integers(0, 9),
                "b": st.none() | st.text(max_size=20),
                "c": st.none() | st.lists(st.dates(), max_size=2),
            }
        ),
    ),
    "map": _draw_plain(
        pa.map_(pa.string(), pa.string_view()),
        st.lists(st.tuples(st.text(max_size=3), st.none() | st.text(max_size=3)), max_size=3),
    ),
}


@st.composite
def draw_column(draw: st.DrawFn, rows: int, name: str | None = None) -> pa.Array:
    """Draw a column of a type, or of any type, with and without nulls."""
    values, make = COLUMNS[name or draw(st.sampled_from(sorted(COLUMNS)))]
    nullable = draw(st.booleans())
    drawn = st.lists(st.none() | values if nullable else values, min_size=rows, max_size=rows)
    return make(draw(drawn))
