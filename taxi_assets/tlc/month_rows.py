"""Find the numbers that rows of a day have in their month file, for error messages.

Only the message of a rejected day needs them, so the file is read again for it, instead of storing
a number for each row of the month.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.csv_blocks import open_csv_month
from taxi_assets.tlc.parquet_batches import open_parquet_month


def find_month_rows(
    file: MonthFile, day: date, content: pa.Buffer | pa.Table, rows: Sequence[int]
) -> dict[int, int]:
    """Return the numbers of a day's rows in its month file; rows that are not found are left out.

    Args:
        file: the month file that the day was split from.
        day: the day.
        content: its rows as published: CSV lines under their header, or a table.
        rows: line numbers in the content, whose header is line 1; row numbers of a table, from 1.
    """
    if isinstance(content, pa.Table):
        return _find_table_rows(file, day, rows)
    return _find_lines(file, content.to_pybytes().split(b"\n"), rows)


def _find_lines(file: MonthFile, lines: Sequence[bytes], rows: Sequence[int]) -> dict[int, int]:
    """Match a day's lines with the file's lines; equal ones are in the same order in both."""
    wanted = {(lines[row - 1], lines[1 : row - 1].count(lines[row - 1])): row for row in rows}
    texts, seen, numbers = {text for text, _ in wanted}, Counter[bytes](), dict[int, int]()
    with closing(open_csv_month(file).blocks) as blocks:
        for block in blocks:
            if not any(text in block.data for text in texts):
                continue  # in a tenth of the time of splitting it
            for number, line in enumerate(block.data.split(b"\n"), block.first_line):
                if line in texts:
                    if row := wanted.get((line, seen[line])):
                        numbers[row] = number
                    seen[line] += 1
            if len(numbers) == len(wanted):
                break
    return numbers


def _find_table_rows(file: MonthFile, day: date, rows: Sequence[int]) -> dict[int, int]:
    """Match the nth row of the day with the nth row of the file whose pickup is on that day."""
    numbers: list[int] = []
    with closing(open_parquet_month(file, set(), file.size).batches) as batches:
        for batch in batches:
            if not pa.types.is_timestamp(batch.pickups.type):
                return {}
            days = batch.pickups.cast(pa.date32(), safe=False)
            same = pc.equal(days, day).fill_null(False)
            numbers += (batch.first_row + np.flatnonzero(same)).tolist()
            if len(numbers) >= max(rows):
                break
    return {row: numbers[row - 1] for row in rows if row <= len(numbers)}
