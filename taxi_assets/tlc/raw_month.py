"""Split a month file into days in one pass; every raw partition comes from it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date

import pyarrow as pa

from taxi_assets.errors import SourceError
from taxi_assets.lazy_partitions import map_with_threads
from taxi_assets.settings.areas import MAX_DAY_BYTES, MAX_INVALID_RATIO
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.csv_blocks import Block, open_csv_month
from taxi_assets.tlc.csv_lines import Unreadable
from taxi_assets.tlc.csv_split import (
    BLANK,
    OUTSIDE,
    UNREADABLE,
    PackedLines,
    SplitPart,
    split_csv_block,
)
from taxi_assets.tlc.download import PROGRESS_SECONDS
from taxi_assets.tlc.header import Header
from taxi_assets.tlc.integrity import DOWNLOAD_AGAIN
from taxi_assets.tlc.parquet_batches import Batch, open_parquet_month
from taxi_assets.tlc.parquet_split import RowsOfDay, split_parquet_batch

MIN_HOPELESS_ROWS = 1000
"""Number of unreadable rows, without a readable one, that prove another format."""

PLACES = {OUTSIDE: "other months", UNREADABLE: "unreadable rows", BLANK: "blank lines"}
MAX_REASONS = 1_000_000
"""Maximum number of unreadable rows with number and reason: 200 MB of memory."""

Part = SplitPart[PackedLines] | SplitPart[RowsOfDay]


@dataclass
class RawMonth:
    """A month file and its requested days.

    `rows` and `unreadable` grow during the pass and are complete at its end.
    """

    file: MonthFile
    days: list[date]
    max_invalid_ratio: float = MAX_INVALID_RATIO
    max_day_bytes: int = MAX_DAY_BYTES
    line: bytes = b""
    """Header line of a CSV month."""
    schema: pa.Schema | None = None
    """Columns of a Parquet month, with published names and types."""
    header: Header = field(init=False, repr=False)
    """The published columns, known once the pass has begun."""
    rows: Counter[int] = field(default_factory=Counter[int])
    """Number of rows by day of the month (also days that were not requested), OUTSIDE and
    UNREADABLE; BLANK counts blank lines."""
    unreadable: list[Unreadable] = field(default_factory=list[Unreadable])
    int96: tuple[str, ...] = ()
    """Columns of a Parquet month that are stored as INT96."""

    @property
    def days_without_rows(self) -> list[date]:
        """Days of the month without a row in the file; complete after the pass."""
        return [day for day in self.file.month.window if not self.rows[day.day]]

    @property
    def file_rows(self) -> int:
        """Number of rows of the file, without header and blank lines."""
        return self.rows.total() - self.rows[BLANK]

    @property
    def is_parquet(self) -> bool:
        """Whether the file is Parquet rather than CSV."""
        return self.file.path.name.lower().endswith(".parquet")

    def read_days(self, progress: Callable[[str], None]) -> Iterator[PackedLines | RowsOfDay]:
        """Yield the lines (compressed) or rows of the requested days, in file order.

        Rows outside the month, unreadable rows and blank lines are yielded too.

        Raises:
            SourceError: the file is truncated, its columns are not the service's, too many rows
                are unreadable, no row is of the month, or a day is too large.
            UnavailableError: the file was replaced during the pass.
        """
        self.file.reject_replaced()
        self.rows.clear()
        self.unreadable.clear()
        requested_keys = {day.day for day in self.days} | {OUTSIDE, UNREADABLE, BLANK}
        reported, min_fields = time.monotonic(), None
        sizes = Counter[int]()
        read_parts = self._read_parquet if self.is_parquet else self._read_csv
        with closing(read_parts(requested_keys)) as parts:
            for part in parts:
                self.rows.update(part.rows)
                self.unreadable += part.unreadable
                if self._is_hopeless():
                    break
                self._reject_truncated(part, min_fields)
                min_fields = min(filter(None, (min_fields, part.min_fields)), default=None)
                self._reject_large(part.groups, sizes)
                yield from part.groups
                if time.monotonic() - reported >= PROGRESS_SECONDS:
                    reported = time.monotonic()
                    progress(self._format_progress(part.read_bytes))
        self.file.reject_replaced()
        self._reject_invalid_rows()
        self._reject_without_rows()
        progress(self._format_progress(self.file.size))

    def _reject_large(self, groups: Sequence[PackedLines | RowsOfDay], sizes: Counter[int]) -> None:
        """Reject a file with more rows for one key than fit in memory.

        Every later stage has an entire day in memory.
        """
        for group in groups:
            sizes[group.key] += group.size
            if sizes[group.key] > self.max_day_bytes:
                where = PLACES.get(group.key) or f"{self.file.month}-{group.key:02d}"
                raise self.file.build_error(
                    f"has over {self.max_day_bytes:,} bytes of rows for {where}, more than a day "
                    "may have. Nothing was stored; is this the file as published? If so, raise "
                    "TAXI_MAX_DAY_BYTES (a run needs about eight times as much memory)"
                )
        if len(self.unreadable) > MAX_REASONS:
            raise SourceError(
                f"{self.file.label}: over {MAX_REASONS:,} rows of {self.file.url} cannot be used, "
                f"first {self.unreadable[0].line}: {self.unreadable[0].reason}. Nothing was stored"
            )

    def _read_csv(self, requested_keys: set[int]) -> Generator[Part]:
        csv = open_csv_month(self.file)
        self.line, self.header = csv.line, csv.header

        def split_block(block: Block) -> Part:
            return split_csv_block(block, csv.header, self.file.month, requested_keys)

        with closing(csv.blocks) as blocks:
            yield from map_with_threads(split_block, blocks)

    def _read_parquet(self, requested_keys: set[int]) -> Generator[Part]:
        days = {day.day for day in self.days}
        parquet = open_parquet_month(self.file, days, self.max_day_bytes)
        self.schema, self.header, self.int96 = parquet.schema, parquet.header, parquet.int96

        def split_batch(batch: Batch) -> Part:
            split = split_parquet_batch(batch, parquet.header, self.file.month, requested_keys)
            if batch.data is None and not requested_keys.isdisjoint(split.rows):
                problem = f"the statistics of its pickup times are wrong at row {batch.first_row:,}"
                raise self.file.build_damage_error(ValueError(problem))
            return split

        with closing(parquet.batches) as batches:
            yield from map_with_threads(split_batch, batches)

    def _format_progress(self, read_bytes: int) -> str:
        share = min(read_bytes * 100 // max(self.file.size, 1), 100)
        return (
            f"{self.file.label}: {self.file_rows:,} rows, {read_bytes / 2**20:.1f} of "
            f"{self.file.size / 2**20:.1f} MiB ({share} %)"
        )

    def _reject_invalid_rows(self) -> None:
        invalid = len(self.unreadable)
        if invalid <= self.file_rows * self.max_invalid_ratio:
            return
        first, unit = self.unreadable[0], "row" if self.is_parquet else "line"
        raise SourceError(
            f"{self.file.label}: {invalid:,} of {self.file_rows:,} rows read of {self.file.url} "
            f"cannot be used, first {unit} {first.line}: {first.reason}. Nothing was stored; fix "
            f"the file, or allow more with TAXI_MAX_INVALID_RATIO (now {self.max_invalid_ratio:g})"
        )

    def _reject_truncated(self, part: Part, min_fields: int | None) -> None:
        """Reject a CSV file whose last line has no line end and is incomplete."""
        last = part.unterminated
        if last is None:
            return
        reason = last.reason
        if not reason and part.min_fields and min_fields and part.min_fields < min_fields:
            reason = f"{part.min_fields} fields, where every other row has {min_fields}"
        if reason:
            raise self.file.build_error(
                f"is truncated inside line {last.line}, which has no line end ({reason}). Nothing "
                f"was stored; {DOWNLOAD_AGAIN}"
            )

    def _reject_without_rows(self) -> None:
        """Reject a file without a row of its month, which would empty all of its days."""
        outside, unreadable = self.rows[OUTSIDE], len(self.unreadable)
        if self.file_rows > outside + unreadable:
            return
        raise SourceError(
            f"{self.file.label}: none of the {self.file_rows:,} rows of {self.file.url} has its "
            f"pickup in {self.file.month} ({outside:,} in other months, {unreadable:,} "
            "unreadable). Nothing was stored, loaded days stay as they are; is it another month's "
            "file, or truncated? Check TAXI_SOURCE"
        )

    def _is_hopeless(self) -> bool:
        """Return whether enough rows were read without a readable one to skip the rest."""
        return (
            self.max_invalid_ratio < 1
            and len(self.unreadable) == self.file_rows >= MIN_HOPELESS_ROWS
        )
