"""A month file pulled apart into days: the pass that every raw slice comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

from taxi_assets.days import bounded_map
from taxi_assets.errors import SourceError
from taxi_assets.trips.lines import Block, open_csv
from taxi_assets.trips.source import MonthFile
from taxi_assets.trips.split import (
    BLANK,
    OUTSIDE,
    UNREADABLE,
    SplitBlock,
    Unreadable,
    day_of,
    split_block,
)

CODEC = pa.Codec("zstd", 1)
"""125 MB of lines pack to 27 MB in 0.3 s; gzip level 1 takes six times as long."""
MOST_UNREADABLE = 0.01
"""Share of a month's rows that may be unreadable before the month is refused."""


@dataclass(frozen=True)
class PackedLines:
    """Lines of one place, packed; concatenated packed lines unpack to concatenated lines."""

    key: int
    lines: pa.Buffer
    packed: bytes
    rows: int


@dataclass
class RawMonth:
    """A month file and the days of it that a run wants.

    `rows`, `unreadable` and `read` grow during the pass and are whole at its end.
    """

    file: MonthFile
    days: list[date]
    most_unreadable: float = MOST_UNREADABLE
    header: bytes = b""
    rows: Counter[int] = field(default_factory=Counter[int])
    """Rows by day of the month, OUTSIDE and UNREADABLE; BLANK counts lines that are no rows."""
    unreadable: list[Unreadable] = field(default_factory=list[Unreadable])

    @property
    def file_rows(self) -> int:
        """Rows of the file: every line but the header and blank ones."""
        return self.rows.total() - self.rows[BLANK]

    def pass_over(self, progress: Callable[[str], None]) -> Iterator[PackedLines]:
        """Every line that the run keeps, packed, in file order within its place.

        Raises:
            SourceError: the file is cut short, or too many of its lines cannot be read.
        """
        csv = open_csv(self.file)
        self.header = csv.header
        wanted = {day.day for day in self.days} | {OUTSIDE, UNREADABLE, BLANK}
        reported = 0

        def work(block: Block) -> tuple[SplitBlock, list[PackedLines]]:
            split = split_block(block, self.file.service, self.file.month)
            return split, [
                PackedLines(
                    group.key, group.lines, CODEC.compress(group.lines, asbytes=True), group.rows
                )
                for group in split.groups
                if group.key in wanted
            ]

        for split, packed in bounded_map(work, csv.blocks):
            for group in split.groups:
                self.rows[group.key] += group.rows
            self.unreadable += split.unreadable
            yield from packed
            share = split.read * 10 // max(self.file.size, 1)
            if share > reported:
                reported = share
                progress(
                    f"{self.file.service.name} {self.file.month}: {self.file_rows:,} rows, "
                    f"{split.read / 2**20:.1f} of {self.file.size / 2**20:.1f} MiB "
                    f"({min(share * 10, 100)} %)"
                )
        self._refuse_unreadable()

    def _refuse_unreadable(self) -> None:
        bad = len(self.unreadable)
        if bad <= self.file_rows * self.most_unreadable:
            return
        first = self.unreadable[0]
        raise SourceError(
            f"{self.file.service.name} {self.file.month}: {bad:,} of {self.file_rows:,} rows of "
            f"{self.file.url} cannot be read, first line {first.line}: {first.reason}. Nothing was "
            f"stored; mend the file, or allow more with TAXI_MOST_UNREADABLE "
            f"(now {self.most_unreadable:g})"
        )

    def day_rows(self, day: date) -> int:
        """Raw rows of a day, after the pass."""
        return self.rows[day.day]


__all__ = ["BLANK", "OUTSIDE", "UNREADABLE", "PackedLines", "RawMonth", "day_of"]
