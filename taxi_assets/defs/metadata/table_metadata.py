"""Build the tables and pictures of a day for Dagster's UI: columns, lineage, first rows, profile.

Only `cleaned_trips` has the picture: Dagster's database stores events forever, and the stores have
the same rows.
"""

from __future__ import annotations

import base64
import csv
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

import dagster as dg

from taxi_assets.report.value_names import (
    format_share,
    format_value,
    name_value,
    shorten,
    shorten_words,
)
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.profile import ColumnProfile, DayProfile, Value

SCHEMA, LINEAGE = "dagster/column_schema", "dagster/column_lineage"
PARTITION_ROWS, TABLE_ROWS = "dagster/partition_row_count", "dagster/row_count"
TABLE_NAME, URI = "dagster/table_name", "dagster/uri"
Types = Literal["arrow", "postgres", "bigquery"]
DAY_COLUMN: Mapping[Types, str] = {
    "postgres": "computed when it is read; before PostgreSQL 18 in the view {service}_tripdata",
    "bigquery": "the table is partitioned by it",
}
"""How each store computes the DATE column; in the lake it is in the folders' names."""
PROFILE_COLUMNS = {
    "column": "Name from cleaned_trips on",
    "type": "Type, and unit",
    "distinct": "Distinct values, and the share of nulls",
    "range": "Minimum, median and maximum",
    "values": "The most frequent values with their share; for amounts, values of the first rows",
}
"""Headings do not wrap: the page of a day leaves a table 590 pixels at a width of 1,440."""
MAX_CELL_LENGTH, MAX_BOUND = 24, 1e9
"""Longest value in characters, and the number from which a minimum or maximum is rounded."""
PREVIEW_ROWS, MAX_WORD_LENGTH = 3, 12
"""Rows of a preview, and characters of a word in it: they fit 590 pixels beside the names."""


def build_table(
    columns: Sequence[dg.TableColumn], rows: Iterable[Sequence[Any]]
) -> dg.TableMetadataValue:
    """Build a table of rows, whose values are in the order of the columns."""
    names = [column.name for column in columns]
    records = [dg.TableRecord(dict(zip(names, row, strict=True))) for row in rows]
    return dg.MetadataValue.table(records, dg.TableSchema(columns))


@lru_cache(maxsize=64)
def build_column_schema(service: Service, types: Types, rules: Sequence[str]) -> dg.TableSchema:
    """Build the schema of the service's columns with the types of a store.

    `rules` are the cleaning rules that the rows passed.
    """
    columns = [
        dg.TableColumn(
            column.name,
            str(getattr(column, types)),
            column.meaning,
            _build_constraints(column, service, rules),
        )
        for column in service.columns
    ]
    if text := DAY_COLUMN.get(types):
        text = f"Day of {service.pickup_column}; {text.format(service=service.name)}"
        columns.append(
            dg.TableColumn(
                service.day_column, "DATE", text, dg.TableColumnConstraints(nullable=False)
            )
        )
    return dg.TableSchema(columns)


def _build_constraints(
    column: Column, service: Service, rules: Sequence[str]
) -> dg.TableColumnConstraints:
    if column.name == service.pickup_column:
        return dg.TableColumnConstraints(nullable=False, other=["in the partition's day"])
    if column.name == service.find_role("passengers"):
        above = ["> 0"] if "zero_passengers" in rules else []
        return dg.TableColumnConstraints(nullable="null_passengers" not in rules, other=above)
    return dg.TableColumnConstraints()


@lru_cache(maxsize=64)
def build_published_schema(
    names: Sequence[str], types: Sequence[str], service: Service
) -> dg.TableSchema:
    """Build the schema of a month file's published columns; a known one names its column."""
    columns = []
    for name, kind in zip(names, types, strict=True):
        column = service.find_column(name)
        columns.append(dg.TableColumn(name, kind, column.meaning if column else None))
    return dg.TableSchema(columns)


@lru_cache(maxsize=64)
def build_column_lineage(
    service: Service, upstream: dg.AssetKey, types: Types
) -> dg.TableColumnLineage:
    """Build the lineage: each column from the same column upstream, the day from the pickup."""
    names = {column.name: column.name for column in service.columns}
    if types in DAY_COLUMN:
        names[service.day_column] = service.pickup_column
    return build_lineage(names, upstream)


def build_lineage(names: Mapping[str, str], upstream: dg.AssetKey) -> dg.TableColumnLineage:
    """Build the lineage of columns by the names of their upstream columns."""
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(upstream, of)] for name, of in names.items()}
    )


def build_median_metadata(profile: DayProfile) -> dict[str, float]:
    """Return medians for plots."""
    return {f"median_{column}": round(value, 4) for column, value in profile.medians.items()}


def preview_columns(names: Sequence[str], rows: Sequence[Sequence[Value]]) -> dg.TableMetadataValue:
    """Build a table of the first rows, one line a column, because 19 columns fit no page.

    A short row is padded with nulls, a long one is truncated.
    """
    shown = [[*row, *[None] * len(names)] for row in rows[:PREVIEW_ROWS]]
    headings = ["column", *(f"row {number}" for number in range(1, len(shown) + 1))]
    lines = [(name, *(_fit_column(row[at]) for row in shown)) for at, name in enumerate(names)]
    return build_table(list(map(dg.TableColumn, headings)), lines)


def _fit_column(value: Value) -> Value:
    """Return a text that fits a third of the page."""
    return shorten_words(value, MAX_WORD_LENGTH) if isinstance(value, str) else value


def preview_lines(header: bytes, lines: bytes) -> dg.TableMetadataValue:
    """Build a table of the first lines of a CSV month, with values as published, shortened."""
    text = (header + lines).decode("utf-8-sig", "replace")
    names, *rows = [_split_fields(line) for line in text.split("\n") if line.strip()]
    return preview_columns(names, rows)


def _split_fields(line: str) -> list[str]:
    """Split a line into fields; a line that is not CSV is one field."""
    try:
        return next(csv.reader([line.rstrip("\r")]))
    except csv.Error:
        return [line]


def build_profile_table(profile: DayProfile, service: Service) -> dg.TableMetadataValue:
    """Build a table with one row for each column: type, statistics, frequent values, examples."""
    lines = [
        _build_profile_row(
            column,
            service.by_name[column.column],
            profile.rows,
            [row[at] for row in profile.first],
        )
        for at, column in enumerate(profile.columns)
    ]
    columns = [dg.TableColumn(name, description=text) for name, text in PROFILE_COLUMNS.items()]
    return build_table(columns, lines)


def _build_profile_row(
    profile: ColumnProfile, column: Column, rows: int, first: Sequence[Value]
) -> tuple[str, ...]:
    kind = "time" if column.kind == "time" else str(column.arrow)
    nulls = f"{format_share(profile.nulls, rows)} null" if profile.nulls else ""
    return (
        profile.column,
        f"{kind}, {column.unit}" if column.unit and column.kind != "time" else kind,
        ", ".join(filter(None, (format_value(profile.distinct), nulls))),
        _format_bounds(profile, column),
        _format_values(profile, column, rows, first),
    )


def _format_bounds(profile: ColumnProfile, column: Column) -> str:
    """Return minimum, median and maximum of measured values; of times the first and the last."""
    if profile.least is None or not (column.unit or column.kind == "amount"):
        return ""
    if column.kind == "time":
        return _format_times(str(profile.least), str(profile.most))
    bounds = (profile.least, profile.median, profile.most)
    return ", ".join(_format_bound(value) for value in bounds if value is not None)


def _format_bound(value: Value) -> str:
    """Return a number; one of ten or more digits, which no line can break, in short."""
    is_long = isinstance(value, int | float) and abs(value) >= MAX_BOUND
    return f"{value:.3g}" if is_long else format_value(value)


def _format_times(first: str, last: str) -> str:
    """Return two times without a date or year that they share; a line breaks at each hyphen."""
    if first[:10] == last[:10]:
        return f"{first[11:16]}, {last[11:16]}"
    if first[:4] == last[:4]:
        return ", ".join(f"{datetime.fromisoformat(time):%b %-d %H:%M}" for time in (first, last))
    return f"{first[:16]}, {last[:16]}"


def _format_values(
    profile: ColumnProfile, column: Column, rows: int, first: Sequence[Value]
) -> str:
    """Return the most frequent values with their shares, or values of the first rows."""
    if column.kind in ("id", "text"):
        parts = [
            f"{_truncate_cell(name_value(column, value))} {format_share(count, rows)}"
            for value, count in profile.top[:2]
        ]
        return ", ".join(parts)
    if column.kind == "time":
        return ""
    values = [format_value(value) for value in first if value is not None]
    return ", ".join(list(dict.fromkeys(values))[:2])


def _truncate_cell(text: str) -> str:
    """Return a label of limited width: a browser breaks no line at a slash."""
    return shorten(text, MAX_CELL_LENGTH).replace("/", " / ")


def build_picture_metadata(png: bytes, description: str) -> dg.MarkdownMetadataValue:
    """Embed a PNG in the event: Dagster's UI allows data URIs in Markdown."""
    return dg.MetadataValue.md(
        f"![{description}](data:image/png;base64,{base64.b64encode(png).decode()})"
    )
