"""The results of the small jobs: a table, or a failure in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pyarrow as pa

from taxi_assets.defs.metadata.table_metadata import build_table
from taxi_assets.errors import TerminalError, format_one_line
from taxi_assets.redaction import redact_cause

MAX_COLUMNS = 500
"""Maximum number of columns of a table; the schema lists all."""
MAX_CELL_LENGTH = 200
"""Characters of a cell."""
MAX_EXACT_INTEGER = 2**53
"""Browsers round larger integers."""


def build_result_table(
    columns: Sequence[dg.TableColumn], rows: Iterable[Sequence[Any]]
) -> dg.TableMetadataValue:
    """Build a table of rows for the run page; a repeated column name gets a number.

    A table of more than `MAX_COLUMNS` columns is truncated, with the number of omitted columns.
    """
    omitted = len(columns) - MAX_COLUMNS
    shown_columns = list(columns[:MAX_COLUMNS])
    if omitted > 0:
        shown_columns.append(dg.TableColumn(f"{omitted:,} more columns", "not shown"))
        rows = ((*row[:MAX_COLUMNS], "") for row in rows)
    names = _number_duplicates(column.name for column in shown_columns)
    kinds = (column.type for column in shown_columns)
    return build_table(
        list(map(dg.TableColumn, names, kinds)),
        ([_format_cell(cell) for cell in row] for row in rows),
    )


def _number_duplicates(names: Iterable[str]) -> list[str]:
    """Make names unique: `x`, `x (2)`, `x (3)`."""
    numbered, times, used = list[str](), Counter[str](), set[str]()
    for name in names:
        unique = name
        while unique in used:
            times[name] += 1
            unique = f"{name} ({times[name] + 1})"
        used.add(unique)
        numbered.append(unique)
    return numbered


def list_columns(schema: pa.Schema) -> list[dg.TableColumn]:
    """Return names and types of an Arrow schema."""
    return [dg.TableColumn(field.name, str(field.type)) for field in schema]


def format_table(table: dg.TableMetadataValue) -> str:
    """Format a table for a terminal."""
    columns = [column.name for column in table.schema.columns]
    lines = [columns, *([str(row.data[name]) for name in columns] for row in table.records)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


@contextmanager
def fail_in_one_line() -> Iterator[None]:
    """Convert any error to a `Failure` of one line."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - raised again, its chain without secrets
        message = (
            str(error) if isinstance(error, TerminalError) else f"{type(error).__name__}: {error}"
        )
        raise dg.Failure(format_one_line(message)) from redact_cause(error)


def _format_cell(value: Any) -> str | int | float | bool:
    if value is None:
        return "null"
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) <= MAX_EXACT_INTEGER else str(value)
    text = f"0x{value[: MAX_CELL_LENGTH // 2].hex()}" if isinstance(value, bytes) else str(value)
    return text if len(text) <= MAX_CELL_LENGTH else f"{text[:MAX_CELL_LENGTH]}..."
