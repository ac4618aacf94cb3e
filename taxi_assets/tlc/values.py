"""Convert published values, from CSV texts or Arrow arrays of any type, to the schema's types.

An invalid value becomes null, and its position is returned so that the caller can report it. No
value is rounded, truncated or guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from taxi_assets.tlc.arrow_types import (
    convert_to_plain,
    find_storable_text,
    get_plain_type,
    is_text_type,
)
from taxi_assets.tlc.column import TYPES, Column, Kind

FIRST_TIME = datetime(1, 1, 1)  # noqa: DTZ001 - New York wall time
LAST_TIME = datetime.max  # noqa: DTZ901
FORMAT = "%Y-%m-%d %H:%M:%S"
WITH_FRACTION = r"^(?P<seconds>[^.]*)(?:\.(?P<fraction>\d{1,6})0{0,3})?$"
"""Microseconds: digits beyond the sixth must be 0."""
INTEGER = r"^-?\d+(\.0*)?$"
"""Some files write integers as "1.0"."""
DECIMAL = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
LARGEST = Decimal(2**63 - 1)
MAX_AMOUNT = 1e18
"""Dollars or miles, either sign. PostgreSQL fails a query whose sum exceeds 1.8e308."""
NULL_MARKS = frozenset(
    {
        *("", "NULL", r"\N", "NAN", "-NAN", "NA", "<NA>", "N/A", "NONE", "NAT"),
        *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "1.#IND", "-1.#QNAN", "1.#QNAN"),
    }
)
"""The texts that mean "no value", in capitals; case does not matter.

They are those of pandas (`read_csv`, parameter `na_values`), `\\N` of MySQL, Hive and PostgreSQL's
COPY, and `NaT` of pandas' times. A label of TLC's dictionary has precedence: `NA` is an unknown
payment in months that were published with labels.
"""


@lru_cache(maxsize=16)
def list_null_spellings(except_for: frozenset[str] = frozenset()) -> list[str]:
    """Return the marks in every mix of upper and lower case, for readers that compare bytes."""
    return [
        "".join(letters)
        for mark in sorted(NULL_MARKS - except_for)
        for letters in product(*(sorted({letter.lower(), letter}) for letter in mark))
    ]


def replace_null_marks(values: pa.Array, labels: Collection[str] = ()) -> pa.Array:
    """Return plain values with null in place of NULL_MARKS in texts, and of NaN in numbers."""
    if is_text_type(values.type):
        marks = pa.array(sorted(NULL_MARKS.difference(labels)), pa.string())
        blank = pc.is_in(pc.ascii_upper(values), marks)
    elif types.is_floating(values.type):
        blank = pc.is_nan(values)
    else:
        return values
    if not pc.any(blank).as_py():
        return values
    return pc.if_else(blank, pa.scalar(None, values.type), values)


def _match_pattern(values: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(values, pattern), values, None)


def _parse_ids(values: pa.Array) -> pa.Array:
    # A column has few distinct ids: 44,000 rows take 1 ms, and 14 ms row by row.
    encoded = values.dictionary_encode()
    return _parse_each_id(encoded.dictionary).take(encoded.indices)


def _parse_each_id(values: pa.Array) -> pa.Array:
    digits = pc.replace_substring_regex(_match_pattern(values, INTEGER), r"\.0*$", "")
    digits = pc.replace_substring_regex(digits, r"^(-?)0+(\d)", r"\1\2")
    numbers = _match_pattern(digits, r"^-?\d{1,19}$").cast(pa.decimal128(38, 0))
    fits = pc.and_(pc.less_equal(numbers, LARGEST), pc.greater_equal(numbers, -LARGEST - 1))
    return pc.if_else(fits, numbers, None).cast(pa.int64())


def _parse_amounts(values: pa.Array) -> pa.Array:
    numbers = _match_pattern(values, DECIMAL).cast(pa.float64())
    return pc.if_else(is_amount(numbers), numbers, None)


def is_amount(numbers: pa.Array) -> pa.Array:
    """Return for each double whether it is an amount: neither infinite nor above MAX_AMOUNT."""
    return pc.less_equal(pc.abs(numbers), MAX_AMOUNT)


def parse_times(values: pa.Array) -> pa.Array:
    """Parse times in TLC's format, with or without a fraction; null if invalid."""
    if not pc.any(pc.match_substring(values, ".")).as_py():
        return _to_seconds(values)
    parts = pc.extract_regex(values, WITH_FRACTION)
    seconds, fraction = _to_seconds(parts.field("seconds")), parts.field("fraction")
    digits = pc.utf8_rpad(pc.if_else(pc.equal(fraction, ""), "0", fraction), 6, "0")
    return pc.add(seconds, digits.cast(pa.int64()).cast(pa.duration("us")))


def _to_seconds(values: pa.Array) -> pa.Array:
    times = pc.strptime(values, FORMAT, "s", error_is_null=True)
    # strptime reads February 30 as March 2, and a day of one digit.
    same = pc.equal(times.cast(pa.string()), values)
    return pc.if_else(pc.and_(same, pc.greater_equal(times, FIRST_TIME)), times, None).cast(
        "timestamp[us]"
    )


PARSERS: dict[Kind, Callable[[pa.Array], pa.Array]] = {
    "id": _parse_ids,
    "amount": _parse_amounts,
    "time": parse_times,
    "text": lambda values: values,
}


def decode_labels(
    values: pa.Array, column: Column, labels: Mapping[str, str], unknown: Counter[str]
) -> pa.Array:
    """Replace labels by their values.

    A label that is not in TLC's dictionary becomes null and is counted in `unknown`, as
    `column=label`. An integer in an id column stays as it is; one that is a label may be written
    "1.0". A blank text becomes null.
    """
    encoded = values.dictionary_encode()
    distinct = encoded.dictionary
    capitals = pc.utf8_upper(pc.utf8_trim_whitespace(distinct))
    capitals = pc.replace_substring_regex(capitals, r"^(\d+)\.0*$", r"\1")
    at = pc.index_in(capitals, value_set=pa.array(list(labels), pa.string()))
    decoded = pa.array(list(labels.values()), pa.string()).take(at)
    if column.kind == "id":
        decoded = pc.coalesce(decoded, _match_pattern(distinct, INTEGER))
    undecoded = distinct.filter(pc.and_(pc.is_null(decoded), pc.not_equal(capitals, "")))
    if len(undecoded):
        for count in values.filter(pc.is_in(values, undecoded)).value_counts().to_pylist():
            unknown[f"{column.name}={count['values'][:40]}"] += count["counts"]
    return decoded.take(encoded.indices)


def accepts_type(column: Column, kind: pa.DataType, *, labels: bool) -> bool:
    """Return whether an Arrow type can represent values of a column."""
    kind = get_plain_type(kind)
    if types.is_null(kind) or is_text_type(kind):
        return True
    is_number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    match column.kind:
        case "time":
            # A time with a zone is not New York wall time, and is never converted.
            return types.is_timestamp(kind) and kind.tz is None
        case "text":
            return labels and (is_number or types.is_boolean(kind))
        case "id" | "amount":
            return is_number


def convert_column(
    values: pa.Array, column: Column, labels: Mapping[str, str], unknown: Counter[str]
) -> tuple[pa.Array, list[int]]:
    """Return published values in a column's type, and the positions of invalid ones.

    This guard serves CSV and Parquet: every store, pandas and Python can represent its results. A
    mark of "no value" becomes null; so does an invalid value, whose position is returned.

    Args:
        values: published values, of any type that `accepts_type` accepts.
        column: the column of the values.
        labels: the column's labels, in capitals, and their values; empty if it has none.
        unknown: counts the rows of each label that is not in `labels`.
    """
    misfits: set[int] = set()

    def step(before: pa.Array, after: pa.Array) -> pa.Array:
        if before.null_count != after.null_count:
            lost = pc.and_(pc.is_valid(before), pc.is_null(after))
            misfits.update(pc.indices_nonzero(lost).to_pylist())
        return after

    values = replace_null_marks(convert_to_plain(values), labels)
    if is_text_type(values.type):
        values = step(values, find_storable_text(values))
    elif labels and column.kind == "text":
        values = values.cast(pa.string())
    if labels and is_text_type(values.type):
        values = decode_labels(values, column, labels, unknown)
    return step(values, convert_values(values, column)), sorted(misfits)


def convert_values(values: pa.Array, column: Column) -> pa.Array:
    """Convert values to a column's type; an invalid value becomes null."""
    if values.null_count == len(values):
        return pa.nulls(len(values), column.arrow)
    if is_text_type(values.type):
        return PARSERS[column.kind](values)
    return CONVERTERS[column.kind](values)


def _convert_numbers_to_ids(values: pa.Array) -> pa.Array:
    try:
        return values.cast(pa.int64())
    except pa.ArrowInvalid:
        pass
    if not types.is_floating(values.type):
        # Arrow writes the decimal 0.0000000 as 0E-7.
        texts = (None if value is None else f"{value:f}" for value in values.to_pylist())
        is_decimal = types.is_decimal(values.type)
        return _parse_ids(pa.array(texts, pa.string()) if is_decimal else values.cast(pa.string()))
    numbers = values.cast(pa.float64())
    is_integer = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(pc.abs(numbers), 2.0**63))
    return pc.if_else(is_integer, numbers, None).cast(pa.int64())


def _convert_numbers_to_amounts(values: pa.Array) -> pa.Array:
    try:
        numbers = values.cast(pa.float64())
    except pa.ArrowInvalid:  # an integer without an equal double
        numbers = values.cast(pa.float64(), safe=False)
        same = pc.equal(numbers.cast(values.type, safe=False), values)
        exact = pc.and_(same, pc.less_equal(pc.abs(numbers), 2.0**53))
        numbers = pc.if_else(exact, numbers, None)
    if pc.all(is_amount(numbers)).as_py() is False:
        numbers = pc.if_else(is_amount(numbers), numbers, None)
    return numbers


def _convert_timestamps(values: pa.Array) -> pa.Array:
    microseconds = TYPES["time"].arrow
    try:
        times = values.cast(microseconds)
    except pa.ArrowInvalid:  # nanoseconds that are not whole microseconds
        times = values.cast(microseconds, safe=False)
        same = pc.equal(times.cast(values.type, safe=False), values)
        times = pc.if_else(same, times, None)
    inside = pc.and_(pc.greater_equal(times, FIRST_TIME), pc.less_equal(times, LAST_TIME))
    return times if pc.all(inside).as_py() else pc.if_else(inside, times, None)


CONVERTERS: dict[Kind, Callable[[pa.Array], pa.Array]] = {
    "id": _convert_numbers_to_ids,
    "amount": _convert_numbers_to_amounts,
    "time": _convert_timestamps,
    "text": lambda values: _convert_numbers_to_ids(values).cast(pa.string()),
}
