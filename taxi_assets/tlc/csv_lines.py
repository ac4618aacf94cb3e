"""Locate the lines and fields of a block of CSV, and the lines that cannot be read.

The syntax of CSV belongs here: line ends, quotes, separators, encoding. The meaning of a field
belongs in `csv_split.py` and `values.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from taxi_assets.tlc.arrow_types import MAX_TEXT_BYTES
from taxi_assets.tlc.header import Header

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

COMMA, QUOTE, NEWLINE, RETURN, NUL = b',"\n\r\0'
ASCII = 127
CRLF = 2
BROKEN_QUOTES, NOT_UTF8 = "broken quotes", "not UTF-8"
MAX_ROW_BYTES = MAX_TEXT_BYTES
"""Bytes. TLC's rows have about 100; pyarrow reads no row that is longer than its block."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Number of a line or row that cannot be read, and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class CsvLines:
    """A block's bytes, and the offsets at which its lines start and end (terminators included)."""

    data: bytes
    buffer: Bytes
    starts: Ints
    ends: Ints

    @classmethod
    def parse(cls, data: bytes) -> CsvLines:
        """Locate the lines of a block."""
        buffer = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(buffer == NEWLINE) + 1
        if not len(ends) or ends[-1] != len(buffer):
            ends = np.append(ends, len(buffer))
        return cls(data, buffer, np.append(0, ends[:-1]), ends)

    @property
    def ends_with_newline(self) -> bool:
        """Whether the last line has a terminator; the CR of a CRLF is enough."""
        return self.data.endswith((b"\n", b"\r"))

    def find_lines(self, offsets: Ints) -> Ints:
        """Return the number, within the block, of the line that contains each byte."""
        return np.searchsorted(self.ends, offsets, "right")

    def find_blank(self) -> Bools:
        """Return for each line whether it is empty."""
        length = self.ends - self.starts
        first, last = self.buffer[self.starts], self.buffer[self.ends - 1]
        terminator = (last == NEWLINE) | (last == RETURN)
        blank: Bools = terminator & ((length == 1) | ((length == CRLF) & (first == RETURN)))
        return blank

    def find_content_ends(self, which: Ints) -> Ints:
        """Return the offsets at which the content of the given lines ends."""
        ends = self.ends[which].copy()
        for mark in (NEWLINE, RETURN):
            ends -= self.buffer[ends - 1] == mark
        return ends

    def find_flaws(self) -> dict[int, str]:
        """Return lines that CSV readers reject or interpret differently, and the reason."""
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

    def _add_flaws(self, flaws: dict[int, str], offsets: Ints, reason: str) -> None:
        for at in np.unique(self.find_lines(offsets)).tolist():
            flaws.setdefault(at, reason)

    def _add_undecodable(self, flaws: dict[int, str]) -> None:
        for at in np.unique(self.find_lines(np.flatnonzero(self.buffer > ASCII))).tolist():
            try:
                self.data[self.starts[at] : self.ends[at]].decode()
            except UnicodeDecodeError:
                flaws.setdefault(at, NOT_UTF8)


def locate_fields(
    lines: CsvLines, header: Header, flaws: dict[int, str]
) -> tuple[Ints, Ints, Ints]:
    """Return each line's field count, the offset of its pickup time (-1: none), and its full count.

    Only the full count includes surplus empty fields. Lines with misplaced quotes are added to
    `flaws`.
    """
    nth = header.pickup_index
    commas = np.flatnonzero(lines.buffer == COMMA)
    if QUOTE in lines.data:
        commas = _find_unquoted(lines, commas, flaws)
    before = np.searchsorted(commas, np.append(lines.starts, len(lines.buffer)))
    counts = np.diff(before) + 1
    full_counts = counts.copy()
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
    return counts, pickups, full_counts


def _find_unquoted(lines: CsvLines, commas: Ints, flaws: dict[int, str]) -> Ints:
    """Return the commas that separate fields, and add lines with misplaced quotes to `flaws`.

    A quoted field with a line break counts as two broken lines: TLC's trips have none.
    """
    quotes = np.flatnonzero(lines.buffer == QUOTE)
    first = np.searchsorted(quotes, lines.starts)
    of_quote, of_comma = lines.find_lines(quotes), lines.find_lines(commas)
    opening = (np.arange(len(quotes)) - first[of_quote]) % 2 == 0
    # At the ends of the block the neighbour is the quote itself; a doubled quote is an escaped one.
    neighbour = lines.buffer[np.clip(quotes + np.where(opening, -1, 1), 0, len(lines.buffer) - 1)]
    fits = np.isin(neighbour, np.frombuffer(b',"\r\n', np.uint8))
    count = np.diff(np.append(first, len(quotes)))
    for at in np.union1d(of_quote[~fits], np.flatnonzero(count % 2)).tolist():
        flaws.setdefault(at, BROKEN_QUOTES)
    inside = (np.searchsorted(quotes, commas) - first[of_comma]) % 2 == 1
    unquoted: Ints = commas[~inside]
    return unquoted
