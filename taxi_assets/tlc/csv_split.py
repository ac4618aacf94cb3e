"""Split a block of CSV lines into the days of their pickups.

Only the pickup time is parsed, as bytes; lines are moved and never rewritten. A month of 1.37
million lines takes about 0.6 s of one core.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.csv_blocks import Block
from taxi_assets.tlc.csv_lines import (
    BROKEN_QUOTES,
    NOT_UTF8,
    Bools,
    Bytes,
    CsvLines,
    Ints,
    Unreadable,
    locate_fields,
)
from taxi_assets.tlc.header import Header
from taxi_assets.tlc.values import convert_column

CODEC = pa.Codec("zstd", 1)
"""125 MB of lines compress to 27 MB in 0.3 s; gzip level 1 takes six times as long."""

# Keys of groups that are not a day of the month (1 to 31).
OUTSIDE, UNREADABLE, BLANK = 32, 33, 34

# Length and separators of "2020-10-05 00:31:19".
STAMP = 19
SEPARATORS = {4: b"-", 7: b"-", 10: b" ", 13: b":", 16: b":"}
# Days of months 1 to 12; 0 for the invalid months 0 and NO_MONTH.
NO_MONTH = 13
MONTH_LENGTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0], np.int32)
FEBRUARY = 2
DOT, ZERO, NINE = b".09"
MICRO, FRACTION = 6, 9
"""Digits of a fraction that may differ from 0, and all its digits."""
NO_MINIMUM = 1 << 30
TRUNCATION_FLAWS = (BROKEN_QUOTES, NOT_UTF8)
"""Flaws that a truncated file can have in its last line."""
# The part of a pickup time that a message shows.
STAMP_LIKE = re.compile(rb'[^,"\r\n]{0,30}')


@dataclass(frozen=True)
class PackedLines:
    """Lines of one block with the same key, in file order.

    Concatenated compressed lines decompress as one.
    """

    key: int
    """Day of the month, or OUTSIDE, UNREADABLE, BLANK."""
    lines: pa.Buffer
    packed: bytes
    """The lines, compressed."""
    rows: int

    @property
    def size(self) -> int:
        """Bytes, unpacked."""
        return int(self.lines.size)


Group = TypeVar("Group")


@dataclass(frozen=True)
class SplitPart(Generic[Group]):
    """A block's lines or a batch's rows, grouped by key."""

    groups: list[Group]
    """Those of the requested keys."""
    rows: dict[int, int]
    """Number of rows by key, whether it is requested or not."""
    unreadable: list[Unreadable]
    read_bytes: int
    """Bytes of the file up to the end of this part."""
    min_fields: int | None = None
    """Smallest number of fields of a readable CSV row, surplus empty fields included."""
    unterminated: Unreadable | None = None
    """The last line of a CSV month, if it has no line end; without a reason if it is complete."""


def split_csv_block(
    block: Block, header: Header, month: Month, requested_keys: AbstractSet[int]
) -> SplitPart[PackedLines]:
    """Sort a block's lines by pickup day, stably; lines of other keys are checked and counted.

    Lines may have surplus empty fields, as in all lines of some taxi months.
    """
    lines = CsvLines.parse(block.data)
    flaws = lines.find_flaws()
    fields, pickups, all_fields = locate_fields(lines, header, flaws)
    keys = _assign_days(lines.buffer, pickups, month)
    keys[fields != len(header.names)] = UNREADABLE
    keys[list(flaws)] = UNREADABLE
    keys[lines.find_blank()] = BLANK
    unreadable = [
        Unreadable(
            block.first_line + at,
            flaws.get(at) or _describe_flaw(block.data, int(fields[at]), int(pickups[at]), header),
        )
        for at in np.flatnonzero(keys == UNREADABLE).tolist()
    ]
    min_fields = all_fields[(keys != UNREADABLE) & (keys != BLANK)].min(initial=NO_MINIMUM)
    return SplitPart(
        list(_group_lines(block.data, lines.starts, keys, requested_keys)),
        {key: rows for key, rows in enumerate(np.bincount(keys).tolist()) if rows},
        unreadable,
        block.read_bytes,
        None if min_fields == NO_MINIMUM else int(min_fields),
        _check_last_line(block, lines, unreadable, int(fields[-1]), header),
    )


def _check_last_line(
    block: Block, lines: CsvLines, unreadable: list[Unreadable], fields: int, header: Header
) -> Unreadable | None:
    """Return a block's last line if it has no line end, with the sign of truncation if it has one.

    Such a line ends before its last field, a closing quote, the end of a character or the end of
    its pickup time, or inside its last value. A line with more fields than the header has no sign.
    """
    if lines.ends_with_newline:
        return None
    number, expected = block.first_line + len(lines.ends) - 1, len(header.names)
    flaw = next((row.reason for row in unreadable if row.line == number), "")
    if not flaw:
        return Unreadable(number, _find_invalid_last_value(block.data[lines.starts[-1] :], header))
    may_be_cut = flaw in TRUNCATION_FLAWS or header.pickup_index == expected - 1
    is_cut = fields < expected or (fields == expected and may_be_cut)
    return Unreadable(number, flaw if is_cut else "")


def _find_invalid_last_value(line: bytes, header: Header) -> str:
    """Return the last value of a readable line if it is invalid, and an empty text if not."""
    column = header.columns[-1]
    value = next(csv.reader([line.decode()]))[len(header.names) - 1]
    if column is None or not value:
        return ""
    labels = header.labels.get(column.name, {})
    _, misfits = convert_column(pa.array([value]), column, labels, Counter())
    return f"{header.names[-1]}={value[:40]!r}" if misfits else ""


def _assign_days(buffer: Bytes, pickups: Ints, month: Month) -> npt.NDArray[np.int8]:
    """Return the day of the month of each pickup, or OUTSIDE or UNREADABLE."""
    keys = np.full(len(pickups), UNREADABLE, np.int8)
    located = np.flatnonzero((pickups >= 0) & (pickups + STAMP <= len(buffer)))
    if not len(located):
        return keys
    stamps = np.lib.stride_tricks.sliding_window_view(buffer, STAMP)[pickups[located]]
    ends = _find_fraction_ends(buffer, pickups[located] + STAMP)
    after = buffer[np.minimum(ends, len(buffer) - 1)]
    valid = (ends == len(buffer)) | np.isin(after, np.frombuffer(b',"\n\r', np.uint8))
    for at, separator in SEPARATORS.items():
        valid &= stamps[:, at] == separator[0]
    places = [at for at in range(STAMP) if at not in SEPARATORS]
    digits = stamps[:, places] - np.uint8(48)
    valid &= (digits <= 9).all(axis=1)  # noqa: PLR2004 - below "0" wraps round to above 9
    year, mon, day, clock = _parse_calendar(digits.astype(np.int32))
    valid &= clock & (year >= 1) & (day >= 1) & (day <= _count_month_days(year, mon))
    inside = valid & (year == month.year) & (mon == month.month)
    keys[located] = np.where(inside, day, np.where(valid, OUTSIDE, UNREADABLE)).astype(np.int8)
    return keys


def _find_fraction_ends(buffer: Bytes, offsets: Ints) -> Ints:
    """Return the end of each time, given the end of its seconds.

    A fraction has at most six digits, followed by zeros.
    """
    last = len(buffer) - 1
    which = np.flatnonzero(buffer[np.minimum(offsets, last)] == DOT)
    if not len(which):
        return offsets
    ends = offsets.copy()
    at, remaining = offsets[which] + 1, which
    for digit in range(FRACTION):
        figures = buffer[np.minimum(at, last)]
        more = (at <= last) & (figures >= ZERO) & (figures <= (NINE if digit < MICRO else ZERO))
        at, remaining = at[more] + 1, remaining[more]
        ends[remaining] = at
    return ends


def _parse_calendar(digits: npt.NDArray[np.int32]) -> tuple[Any, Any, Any, Bools]:
    """Return year, month, day, and whether the rest is a valid time of day."""
    pair = digits[:, 0::2] * 10 + digits[:, 1::2]
    year = pair[:, 0] * 100 + pair[:, 1]
    clock = (pair[:, 4] < 24) & (pair[:, 5] < 60) & (pair[:, 6] < 60)  # noqa: PLR2004
    return year, pair[:, 2], pair[:, 3], clock


def _count_month_days(year: Any, month: Any) -> Any:
    """Return the number of days of each month; 0 for an invalid month."""
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return MONTH_LENGTHS[np.minimum(month, NO_MONTH)] + ((month == FEBRUARY) & leap)


def _group_lines(
    data: bytes, starts: Ints, keys: npt.NDArray[np.int8], requested_keys: AbstractSet[int]
) -> Iterator[PackedLines]:
    which = np.flatnonzero(np.isin(keys, list(requested_keys)))
    order = which[np.argsort(keys[which], kind="stable")]
    offsets = np.append(starts, len(data)).astype(np.int32)
    lines = pa.Array.from_buffers(
        pa.binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    ).take(pa.array(order))
    sorted_keys = keys[order]
    firsts = np.flatnonzero(np.diff(sorted_keys, prepend=-1))
    bounds = np.append(firsts, len(order))
    _, offset_buffer, values = lines.buffers()
    moved = np.frombuffer(offset_buffer, np.int32)
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        begin, end = int(moved[first]), int(moved[last])
        group = values.slice(begin, end - begin)
        packed = CODEC.compress(group, asbytes=True)
        yield PackedLines(int(sorted_keys[first]), group, packed, last - first)


def _describe_flaw(data: bytes, fields: int, pickup: int, header: Header) -> str:
    if fields != len(header.names):
        return f"{fields} fields instead of {len(header.names)}"
    match = STAMP_LIKE.match(data, pickup)
    text = match[0].decode(errors="replace") if match else ""
    return f"{header.names[header.pickup_index]}={text!r} is not a time as 2021-01-05 00:31:19"
