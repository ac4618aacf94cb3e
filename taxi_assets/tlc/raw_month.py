"""A month file pulled apart into days: the pass that every raw slice comes from."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

from taxi_assets.errors import SourceError
from taxi_assets.lazy_partitions import map_with_threads
from taxi_assets.settings.areas import MAX_DAY_BYTES, MAX_INVALID_RATIO
from taxi_assets.tlc.csv_blocks import Block, open_csv_month
from taxi_assets.tlc.csv_split import (
    BLANK,
    OUTSIDE,
    UNREADABLE,
    Group,
    Unreadable,
    get_day_of_key,
    split_csv_block,
)
from taxi_assets.tlc.header import Header
from taxi_assets.tlc.parquet_batches import (
    Batch,
    RowsOfDay,
    open_parquet_month,
    split_parquet_batch,
)
from taxi_assets.tlc.source import MonthFile
from taxi_assets.tlc.values import convert_column

CODEC = pa.Codec("zstd", 1)
"""125 MB of lines pack to 27 MB in 0.3 s; gzip level 1 takes six times as long."""

MIN_HOPELESS_ROWS = 1000
"""Rows of which none can be read that are no accident but another format."""

PLACES = {OUTSIDE: "other months", UNREADABLE: "unreadable rows", BLANK: "blank lines"}
MAX_REASONS = 1_000_000
"""Unreadable rows of which number and reason are noted: 200 MB of memory."""


@dataclass(frozen=True)
class PackedLines:
    """Lines of one place, packed; concatenated packed lines unpack to concatenated lines."""

    key: int
    lines: pa.Buffer
    packed: bytes
    rows: int

    @property
    def size(self) -> int:
        """Bytes, unpacked."""
        return int(self.lines.size)


@dataclass(frozen=True)
class _Part:
    """What became of one piece of the file."""

    kept: Sequence[PackedLines | RowsOfDay]
    rows: Mapping[int, int]
    unreadable: list[Unreadable]
    read: int
    fewest: int | None = None
    """Fewest fields of a CSV row that can be read."""
    cut: Unreadable | None = None
    """The last line of a CSV month, where it stops too early."""
    last: bytes = b""
    """The last line of a CSV month, where it has no end."""


@dataclass
class RawMonth:
    """A month file and the days of it that a run wants.

    `rows` and `unreadable` grow during the pass and are whole at its end.
    """

    file: MonthFile
    days: list[date]
    max_invalid_ratio: float = MAX_INVALID_RATIO
    max_day_bytes: int = MAX_DAY_BYTES
    line: bytes = b""
    """Header line of a CSV month."""
    schema: pa.Schema | None = None
    """Columns of a Parquet month, as published."""
    header: Header | None = None
    rows: Counter[int] = field(default_factory=Counter[int])
    """Rows by day of the month (also of days that the run does not want), OUTSIDE and UNREADABLE;
    BLANK counts lines that are no rows."""
    unreadable: list[Unreadable] = field(default_factory=list[Unreadable])
    int96: tuple[str, ...] = ()
    """Columns of a Parquet month that are stored as INT96."""

    @property
    def days_without_rows(self) -> list[date]:
        """Days of the month that no row of the file belongs to, after the pass."""
        return [day for day in self.file.month.window if not self.rows[day.day]]

    @property
    def file_rows(self) -> int:
        """Rows of the file: every line but the header and blank ones."""
        return self.rows.total() - self.rows[BLANK]

    @property
    def is_parquet(self) -> bool:
        """Whether the file is Parquet, and not CSV."""
        return self.file.path.name.lower().endswith(".parquet")

    def read_days(self, progress: Callable[[str], None]) -> Iterator[PackedLines | RowsOfDay]:
        """Yield every line (packed) or row that the run keeps, in file order.

        Raises:
            SourceError: the file was cut, its columns are not the service's, too many of its rows
                cannot be read, none of them is of the month, or a day is larger than one is.
            UnavailableError: the file was replaced meanwhile.
        """
        self.file.reject_replaced()
        self.rows.clear()
        self.unreadable.clear()
        wanted = {day.day for day in self.days} | {OUTSIDE, UNREADABLE, BLANK}
        reported, fewest = 0, None
        sizes = Counter[int]()
        read = self._read_parquet(wanted) if self.is_parquet else self._read_csv(wanted)
        with closing(read) as parts:
            for part in parts:
                self.rows.update(part.rows)
                self.unreadable += part.unreadable
                if self._is_hopeless():
                    break
                self._reject_cut(part, fewest)
                fewest = min(filter(None, (fewest, part.fewest)), default=None)
                self._reject_large(part.kept, sizes)
                yield from part.kept
                share = part.read * 10 // max(self.file.size, 1)
                if share > reported:
                    reported = share
                    progress(self._log_progress(part.read))
        self.file.reject_replaced()
        self._reject_invalid_rows()
        self._reject_without_rows()

    def _reject_large(self, parts: Sequence[PackedLines | RowsOfDay], sizes: Counter[int]) -> None:
        """Reject a file with more rows in one place than may be in memory at once.

        Every later stage holds a day as a whole.
        """
        for part in parts:
            sizes[part.key] += part.size
            if sizes[part.key] > self.max_day_bytes:
                where = PLACES.get(part.key) or str(get_day_of_key(part.key, self.file.month))
                raise SourceError(
                    f"{self._label}: {self.file.url} has over {self.max_day_bytes:,} bytes of rows "
                    f"for {where}, more than a day may have. Nothing was stored; is this the file "
                    "as published? If so, raise TAXI_MAX_DAY_BYTES (a run needs about eight times "
                    "as much memory)"
                )
        if len(self.unreadable) > MAX_REASONS:
            raise SourceError(
                f"{self._label}: over {MAX_REASONS:,} rows of {self.file.url} cannot be used, "
                f"first {self.unreadable[0].line}: {self.unreadable[0].reason}. Nothing was stored"
            )

    def _read_csv(self, wanted: set[int]) -> Generator[_Part]:
        csv = open_csv_month(self.file)
        self.line, self.header = csv.line, csv.header

        def work(block: Block) -> _Part:
            split = split_csv_block(block, csv.header, self.file.month)
            kept = [_compress_group(group) for group in split.groups if group.key in wanted]
            rows = {group.key: group.rows for group in split.groups}
            last = b"" if block.data.endswith((b"\n", b"\r")) else block.data
            return _Part(kept, rows, split.unreadable, split.read, split.fewest, split.cut, last)

        with closing(csv.blocks) as blocks:
            yield from map_with_threads(work, blocks)

    def _read_parquet(self, wanted: set[int]) -> Generator[_Part]:
        days = {day.day for day in self.days}
        parquet = open_parquet_month(self.file, days, self.max_day_bytes)
        self.schema, self.header, self.int96 = parquet.schema, parquet.header, parquet.int96

        def work(batch: Batch) -> _Part:
            split = split_parquet_batch(batch, parquet.header, self.file.month, wanted)
            return _Part(split.groups, split.rows, split.unreadable, batch.read)

        with closing(parquet.batches) as batches:
            yield from map_with_threads(work, batches)

    def _log_progress(self, read: int) -> str:
        share = read * 10 // max(self.file.size, 1)
        return (
            f"{self._label}: {self.file_rows:,} rows, {read / 2**20:.1f} of "
            f"{self.file.size / 2**20:.1f} MiB ({min(share * 10, 100)} %)"
        )

    @property
    def _label(self) -> str:
        return f"{self.file.service.name} {self.file.month}"

    def _reject_invalid_rows(self) -> None:
        bad = len(self.unreadable)
        if bad <= self.file_rows * self.max_invalid_ratio:
            return
        first, unit = self.unreadable[0], "row" if self.is_parquet else "line"
        raise SourceError(
            f"{self._label}: {bad:,} of {self.file_rows:,} rows read of {self.file.url} cannot be "
            f"used, first {unit} {first.line}: {first.reason}. Nothing was stored; mend the file, "
            f"or allow more with TAXI_MAX_INVALID_RATIO (now {self.max_invalid_ratio:g})"
        )

    def _reject_cut(self, part: _Part, fewest: int | None) -> None:
        """Reject a CSV file whose last line has no end and is not all of a row."""
        why = part.cut.reason if part.cut else ""
        if part.last and not why:
            if part.fewest and fewest and part.fewest < fewest:
                why = f"{part.fewest} fields, where every other row has {fewest}"
            else:
                why = self._find_cut_value(part.last)
        if why:
            at = f"line {part.cut.line}" if part.cut else "its last line"
            raise SourceError(
                f"{self._label}: {self.file.url} was cut short inside {at}, which has no line end "
                f"({why}). Nothing was stored; get the file again from where it is published"
            )

    def _find_cut_value(self, line: bytes) -> str:
        """Return what is wrong with the last value of a file that ends in it."""
        if self.header is None:
            return ""
        published, column = self.header.names[-1], self.header.columns[-1]
        fields = next(csv.reader([line.decode(errors="replace")]))[: len(self.header.names)]
        if column is None or len(fields) < len(self.header.names) or not fields[-1]:
            return ""
        labels = self.header.labels.get(column.name, {})
        _, misfits = convert_column(pa.array(fields[-1:]), column, labels, Counter())
        return f"{published}={fields[-1][:40]!r}" if len(misfits) else ""

    def _reject_without_rows(self) -> None:
        """Reject a file that would empty all the days of its month."""
        outside, unreadable = self.rows[OUTSIDE], len(self.unreadable)
        if self.file_rows > outside + unreadable:
            return
        raise SourceError(
            f"{self._label}: none of the {self.file_rows:,} rows of {self.file.url} has its pickup "
            f"in {self.file.month} ({outside:,} in other months, {unreadable:,} unreadable). "
            "Nothing was stored, loaded days stay as they are; is it another month's file, or was "
            "it cut? Check TAXI_SOURCE"
        )

    def _is_hopeless(self) -> bool:
        """Return whether so many rows and no valid one were read that the rest can be skipped."""
        return (
            self.max_invalid_ratio < 1
            and len(self.unreadable) == self.file_rows >= MIN_HOPELESS_ROWS
        )

    def count_day_rows(self, day: date) -> int:
        """Return the number of raw rows of a day, after all were read."""
        return self.rows[day.day]


def _compress_group(group: Group) -> PackedLines:
    return PackedLines(
        group.key, group.lines, CODEC.compress(group.lines, asbytes=True), group.rows
    )


__all__ = [
    "BLANK",
    "OUTSIDE",
    "UNREADABLE",
    "PackedLines",
    "RawMonth",
    "RowsOfDay",
    "get_day_of_key",
]
