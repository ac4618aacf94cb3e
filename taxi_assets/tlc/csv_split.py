"""Which day a line belongs to, for a block of lines at a time.

Only the field count and the pickup time are read here, as bytes; the lines themselves are moved
and never rewritten. A month of 1.37 million lines takes about 0.6 s of one core.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.arrow_types import MAX_TEXT_BYTES
from taxi_assets.tlc.csv_blocks import Block
from taxi_assets.tlc.header import Header

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

# Keys of the groups beside the days of the month, which are 1 to 31.
OUTSIDE, UNREADABLE, BLANK = 32, 33, 34

# "2020-10-05 00:31:19": where its digits and its separators stand.
STAMP = 19
SEPARATORS = {4: b"-", 7: b"-", 10: b" ", 13: b":", 16: b":"}
# Days of months 1 to 12; none of month 0 and of NO_MONTH.
NO_MONTH = 13
MONTH_LENGTHS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0], np.int32)
FEBRUARY = 2
COMMA, QUOTE, NEWLINE, RETURN, NUL = b',"\n\r\0'
DOT, ZERO, NINE = b".09"
MICRO, FRACTION = 6, 9
"""Digits of a fraction that may be other than 0, and digits in all."""
ASCII = 127
CRLF = 2
NO_FEWEST = 1 << 30
BROKEN_QUOTES, NOT_UTF8 = "broken quotes", "not UTF-8"
CUT_FLAWS = (BROKEN_QUOTES, NOT_UTF8)
"""Flaws that a cut can make."""
MAX_ROW_BYTES = MAX_TEXT_BYTES
"""Bytes. TLC's rows have about 100; pyarrow reads none longer than its block."""
# What a message shows of a pickup time.
STAMP_LIKE = re.compile(rb'[^,"\r\n]{0,30}')


@dataclass(frozen=True)
class Group:
    """Lines of one block that go to one place, in file order."""

    key: int
    """Day of the month, or OUTSIDE, UNREADABLE, BLANK."""
    lines: pa.Buffer
    rows: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Where a line that cannot be read stands, and why it cannot."""

    line: int
    reason: str


@dataclass(frozen=True)
class SplitBlock:
    """A block's lines by where they go."""

    groups: list[Group]
    unreadable: list[Unreadable]
    read: int
    fewest: int | None
    """Fewest fields, empty ones beyond the header's included, of a row that can be read."""
    cut: Unreadable | None = None
    """The file's last line where it has no end and stops too early."""


def split_csv_block(block: Block, header: Header, month: Month) -> SplitBlock:
    """Sort a block's lines by pickup day, stably.

    A line may be longer than the header by empty fields, as all of some taxi months are.
    """
    lines = _Lines.of(block.data)
    flaws = lines.flaws()
    fields, pickups, found = _locate_fields(lines, header, flaws)
    keys = _assign_days(lines.buffer, pickups, month)
    keys[fields != len(header.names)] = UNREADABLE
    keys[list(flaws)] = UNREADABLE
    keys[lines.blank()] = BLANK
    unreadable = [
        Unreadable(
            block.first_line + at,
            flaws.get(at) or _describe_flaw(block.data, int(fields[at]), int(pickups[at]), header),
        )
        for at in np.flatnonzero(keys == UNREADABLE).tolist()
    ]
    fewest = found[(keys != UNREADABLE) & (keys != BLANK)].min(initial=NO_FEWEST)
    return SplitBlock(
        list(_group_lines(block.data, lines.starts, keys)),
        unreadable,
        block.read,
        None if fewest == NO_FEWEST else int(fewest),
        _find_cut(block, unreadable, lines, int(fields[-1]), header),
    )


def _find_cut(
    block: Block, unreadable: list[Unreadable], lines: _Lines, fields: int, header: Header
) -> Unreadable | None:
    """Return the block's last line if its file was cut inside it.

    It then lacks its end and, beyond that, fields, a closing quote, bytes of its last character or
    of its pickup time. A line with more fields than the header was not cut.
    """
    if lines.ends_with_newline or not unreadable or fields > len(header.names):
        return None
    last = unreadable[-1]
    is_last = last.line == block.first_line + len(lines.ends) - 1
    pickup_is_last = header.pickup_index == len(header.names) - 1
    cut_short = fields < len(header.names) or last.reason in CUT_FLAWS or pickup_is_last
    return last if is_last and cut_short else None


def get_day_of_key(key: int, month: Month) -> date:
    """Return the day of a group's key."""
    return date(month.year, month.month, key)


@dataclass(frozen=True)
class _Lines:
    """A block's bytes, and where its lines start and end (terminators included)."""

    data: bytes
    buffer: Bytes
    starts: Ints
    ends: Ints

    @classmethod
    def of(cls, data: bytes) -> _Lines:
        buffer = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(buffer == NEWLINE) + 1
        if not len(ends) or ends[-1] != len(buffer):
            ends = np.append(ends, len(buffer))
        return cls(data, buffer, np.append(0, ends[:-1]), ends)

    @property
    def ends_with_newline(self) -> bool:
        """Whether the last line has its terminator; a CR of CRLF is enough."""
        return self.data.endswith((b"\n", b"\r"))

    def at(self, places: Ints) -> Ints:
        """Return the number in the block of the line that holds each byte."""
        return np.searchsorted(self.ends, places, "right")

    def blank(self) -> Bools:
        """Return which lines are empty."""
        length = self.ends - self.starts
        first, last = self.buffer[self.starts], self.buffer[self.ends - 1]
        terminator = (last == NEWLINE) | (last == RETURN)
        blank: Bools = terminator & ((length == 1) | ((length == CRLF) & (first == RETURN)))
        return blank

    def find_content_ends(self, which: Ints) -> Ints:
        """Return the offsets where the content of some lines ends."""
        ends = self.ends[which].copy()
        for mark in (NEWLINE, RETURN):
            ends -= self.buffer[ends - 1] == mark
        return ends

    def flaws(self) -> dict[int, str]:
        """Find lines that CSV readers would read differently, or not at all."""
        flaws: dict[int, str] = {}
        for at in np.flatnonzero(self.ends - self.starts > MAX_ROW_BYTES).tolist():
            flaws[at] = f"{self.ends[at] - self.starts[at]:,} bytes long"
        if NUL in self.data:
            self._add_flaws(flaws, np.flatnonzero(self.buffer == NUL), "a NUL byte")
        if not self.data.isascii():
            self._add_undecodable(flaws)
        if RETURN in self.data:
            after = np.append(self.buffer[1:], NEWLINE)
            alone = np.flatnonzero((self.buffer == RETURN) & (after != NEWLINE))
            self._add_flaws(flaws, alone, "a carriage return inside the line")
        return flaws

    def _add_flaws(self, flaws: dict[int, str], places: Ints, why: str) -> None:
        for at in np.unique(self.at(places)).tolist():
            flaws.setdefault(at, why)

    def _add_undecodable(self, flaws: dict[int, str]) -> None:
        for at in np.unique(self.at(np.flatnonzero(self.buffer > ASCII))).tolist():
            try:
                self.data[self.starts[at] : self.ends[at]].decode()
            except UnicodeDecodeError:
                flaws.setdefault(at, NOT_UTF8)


def _locate_fields(lines: _Lines, header: Header, flaws: dict[int, str]) -> tuple[Ints, Ints, Ints]:
    """Return each line's field count, the offset of its pickup time (-1: none), and all fields.

    Only the last count includes empty fields beyond the header's.
    """
    nth = header.pickup_index
    commas = np.flatnonzero(lines.buffer == COMMA)
    if QUOTE in lines.data:
        commas = _find_unquoted(lines, commas, flaws)
    before = np.searchsorted(commas, np.append(lines.starts, len(lines.buffer)))
    counts = np.diff(before) + 1
    every = counts.copy()
    if nth == 0:
        pickups = lines.starts.copy()
    else:
        at = np.minimum(before[:-1] + nth - 1, max(len(commas) - 1, 0))
        pickups = np.where(counts > nth, commas[at] + 1 if len(commas) else 0, -1)
    if QUOTE in lines.data:
        last = len(lines.buffer) - 1
        pickups += (pickups >= 0) & (lines.buffer[np.clip(pickups, 0, last)] == QUOTE)
    expected = len(header.names)
    longer = np.flatnonzero(counts > expected)
    if len(longer):
        surplus = counts[longer] - expected
        first = commas[before[longer] + expected - 1]
        empty = first + surplus == lines.find_content_ends(longer)
        counts[longer[empty]] = expected
    return counts, pickups, every


def _find_unquoted(lines: _Lines, commas: Ints, flaws: dict[int, str]) -> Ints:
    """Return commas that separate fields; a line with misplaced quotes is quarantined.

    A quoted field that goes on in the next line is two broken lines: TLC's trips have none.
    """
    quotes = np.flatnonzero(lines.buffer == QUOTE)
    first = np.searchsorted(quotes, lines.starts)
    of_quote, of_comma = lines.at(quotes), lines.at(commas)
    opening = (np.arange(len(quotes)) - first[of_quote]) % 2 == 0
    # Beyond the block's ends it is the quote itself, and a doubled quote is one of the field's.
    neighbour = lines.buffer[np.clip(quotes + np.where(opening, -1, 1), 0, len(lines.buffer) - 1)]
    fits = np.isin(neighbour, np.frombuffer(b',"\r\n', np.uint8))
    count = np.diff(np.append(first, len(quotes)))
    for at in np.union1d(of_quote[~fits], np.flatnonzero(count % 2)).tolist():
        flaws.setdefault(at, BROKEN_QUOTES)
    inside = (np.searchsorted(quotes, commas) - first[of_comma]) % 2 == 1
    kept: Ints = commas[~inside]
    return kept


def _assign_days(buffer: Bytes, pickups: Ints, month: Month) -> npt.NDArray[np.int8]:
    """Return the day of the month of each pickup, or OUTSIDE or UNREADABLE."""
    keys = np.full(len(pickups), UNREADABLE, np.int8)
    there = np.flatnonzero((pickups >= 0) & (pickups + STAMP <= len(buffer)))
    if not len(there):
        return keys
    stamps = buffer[pickups[there, None] + np.arange(STAMP)]
    ends = _behind_fraction(buffer, pickups[there] + STAMP)
    after = buffer[np.minimum(ends, len(buffer) - 1)]
    valid = (ends == len(buffer)) | np.isin(after, np.frombuffer(b',"\n\r', np.uint8))
    for at, separator in SEPARATORS.items():
        valid &= stamps[:, at] == separator[0]
    places = [at for at in range(STAMP) if at not in SEPARATORS]
    digits = stamps[:, places] - np.uint8(48)
    valid &= (digits <= 9).all(axis=1)  # noqa: PLR2004 - below "0" wraps round to above 9
    year, mon, day, clock = _parse_calendar(digits.astype(np.int32))
    valid &= clock & (year >= 1) & (day >= 1) & (day <= _count_days_in(year, mon))
    inside = valid & (year == month.year) & (mon == month.month)
    keys[there] = np.where(inside, day, np.where(valid, OUTSIDE, UNREADABLE)).astype(np.int8)
    return keys


def _behind_fraction(buffer: Bytes, places: Ints) -> Ints:
    """Return the end of each time, given the end of its seconds.

    A fraction is six digits at most, and zeros beyond.
    """
    last = len(buffer) - 1
    which = np.flatnonzero(buffer[np.minimum(places, last)] == DOT)
    if not len(which):
        return places
    ends = places.copy()
    at, left = places[which] + 1, which
    for digit in range(FRACTION):
        figures = buffer[np.minimum(at, last)]
        more = (at <= last) & (figures >= ZERO) & (figures <= (NINE if digit < MICRO else ZERO))
        at, left = at[more] + 1, left[more]
        ends[left] = at
    return ends


def _parse_calendar(digits: npt.NDArray[np.int32]) -> tuple[Any, Any, Any, Bools]:
    """Return year, month, day, and whether the rest is a time of day."""
    pair = digits[:, 0::2] * 10 + digits[:, 1::2]
    year = pair[:, 0] * 100 + pair[:, 1]
    clock = (pair[:, 4] < 24) & (pair[:, 5] < 60) & (pair[:, 6] < 60)  # noqa: PLR2004
    return year, pair[:, 2], pair[:, 3], clock


def _count_days_in(year: Any, month: Any) -> Any:
    """Return the number of days of each month; 0 for an invalid month."""
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    return MONTH_LENGTHS[np.minimum(month, NO_MONTH)] + ((month == FEBRUARY) & leap)


def _group_lines(data: bytes, starts: Ints, keys: npt.NDArray[np.int8]) -> Iterator[Group]:
    order = np.argsort(keys, kind="stable")
    offsets = np.append(starts, len(data)).astype(np.int32)
    lines = pa.Array.from_buffers(
        pa.binary(), len(starts), [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    ).take(pa.array(order))
    sorted_keys = keys[order]
    firsts = np.flatnonzero(np.append(True, sorted_keys[1:] != sorted_keys[:-1]))
    bounds = np.append(firsts, len(order))
    _, offset_buffer, values = lines.buffers()
    moved = np.frombuffer(offset_buffer, np.int32)
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        begin, end = int(moved[first]), int(moved[last])
        yield Group(int(sorted_keys[first]), values.slice(begin, end - begin), last - first)


def _describe_flaw(data: bytes, fields: int, pickup: int, header: Header) -> str:
    if fields != len(header.names):
        return f"{fields} fields instead of {len(header.names)}"
    found = STAMP_LIKE.match(data, pickup)
    text = found[0].decode(errors="replace") if found else ""
    return f"{header.names[header.pickup_index]}={text!r} is not a time as 2021-01-05 00:31:19"
