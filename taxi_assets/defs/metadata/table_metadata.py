"""What Dagster's UI shows of a day as tables and pictures: columns, lineage, first rows, profile.

Pure translation into Dagster's metadata values. The picture is on `cleaned_trips` alone: events
live in Dagster's database for ever, and the stores hold the same rows.
"""

from __future__ import annotations

import base64
import csv
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import dagster as dg

from taxi_assets.tlc.schema import Column, Service, name_key
from taxi_assets.trips.profile import FIRST_ROWS, ColumnProfile, DayProfile, Value

SCHEMA, LINEAGE = "dagster/column_schema", "dagster/column_lineage"
PARTITION_ROWS, TABLE_ROWS = "dagster/partition_row_count", "dagster/row_count"
TABLE_NAME, URI = "dagster/table_name", "dagster/uri"
Types = Literal["arrow", "postgres", "bigquery"]
PROFILE_COLUMNS = {
    "column": "string",
    "nulls %": "float",
    "distinct": "int",
    "min": "string",
    "mean": "float",
    "max": "string",
    "most frequent": "string",
}


@lru_cache(maxsize=64)
def column_schema(service: Service, types: Types, rules: Sequence[str]) -> dg.TableSchema:
    """The service's columns from `cleaned_trips` on, with a store's types.

    `rules` are the cleaning rules that the rows passed.
    """
    columns = [
        dg.TableColumn(
            column.name,
            str(getattr(column, types)),
            column.meaning,
            _constraints(column, service, rules),
        )
        for column in service.columns
    ]
    if types == "bigquery":
        text = f"Day of {service.pickup_column}; the table is partitioned by it"
        columns.append(
            dg.TableColumn(
                service.day_column, "DATE", text, dg.TableColumnConstraints(nullable=False)
            )
        )
    return dg.TableSchema(columns)


def _constraints(
    column: Column, service: Service, rules: Sequence[str]
) -> dg.TableColumnConstraints:
    if column.name == service.pickup_column:
        return dg.TableColumnConstraints(nullable=False, other=["in the partition's day"])
    if column.name == service.passengers_column:
        above = ["> 0"] if "zero_passengers" in rules else []
        return dg.TableColumnConstraints(nullable="null_passengers" not in rules, other=above)
    return dg.TableColumnConstraints()


@lru_cache(maxsize=64)
def published_schema(
    names: Sequence[str], types: Sequence[str], service: Service
) -> dg.TableSchema:
    """The columns of a month file, as published; a known one says what it is from then on."""
    columns = []
    for name, kind in zip(names, types, strict=True):
        column = service.by_name.get(name_key(name))
        columns.append(dg.TableColumn(name, kind, column.meaning if column else None))
    return dg.TableSchema(columns)


@lru_cache(maxsize=64)
def column_lineage(service: Service, upstream: dg.AssetKey, types: Types) -> dg.TableColumnLineage:
    """Every column from the same one upstream; BigQuery's day from the pickup."""
    names = {column.name: column.name for column in service.columns}
    if types == "bigquery":
        names[service.day_column] = service.pickup_column
    return _lineage(names, upstream)


def published_lineage(published: Mapping[str, str], upstream: dg.AssetKey) -> dg.TableColumnLineage:
    """Every column from that of the day's file; one that the file lacks comes from none."""
    return _lineage(published, upstream)


def _lineage(names: Mapping[str, str], upstream: dg.AssetKey) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(upstream, of)] for name, of in names.items()}
    )


def content_metadata(profile: DayProfile | None) -> dict[str, Any]:
    """First rows and profile, where they are known."""
    if profile is None:
        return {}
    names = [one.column for one in profile.columns]
    return {"preview": preview(names, profile.first), "profile": profile_table(profile)}


def median_metadata(profile: DayProfile) -> dict[str, float]:
    """Medians, for plots."""
    return {f"median_{column}": round(value, 4) for column, value in profile.medians.items()}


def preview(names: Sequence[str], rows: Sequence[Sequence[Value]]) -> dg.TableMetadataValue:
    """Rows as a table; a short one is filled up with nulls, a long one is cut."""
    none: dict[str, Value] = dict.fromkeys(names)
    return dg.MetadataValue.table(
        [dg.TableRecord(none | dict(zip(names, row, strict=False))) for row in rows],
        schema=dg.TableSchema([dg.TableColumn(name) for name in names]),
    )


def lines_preview(header: bytes, lines: bytes) -> dg.TableMetadataValue:
    """The first lines of a CSV month as a table, every value as it was published."""
    text = (header + lines).decode("utf-8-sig", "replace")
    names, *rows = [_fields(line) for line in text.split("\n") if line.strip()]
    return preview(names, rows[:FIRST_ROWS])


def _fields(line: str) -> list[str]:
    """Fields of a line; a line that is no CSV is one."""
    try:
        return next(csv.reader([line.rstrip("\r")]))
    except csv.Error:
        return [line]


def rows_preview(names: Sequence[str], rows: Sequence[Sequence[object]]) -> dg.TableMetadataValue:
    """Rows of a Parquet month, every value as text."""
    return preview(
        names, [[None if value is None else str(value) for value in row] for row in rows]
    )


def profile_table(profile: DayProfile) -> dg.TableMetadataValue:
    """One line a column."""
    return dg.MetadataValue.table(
        [dg.TableRecord(_profile_line(one, profile.rows)) for one in profile.columns],
        schema=dg.TableSchema([dg.TableColumn(*pair) for pair in PROFILE_COLUMNS.items()]),
    )


def _profile_line(one: ColumnProfile, rows: int) -> dict[str, Any]:
    top = ", ".join(f"{value} ({count / rows:.1%})" for value, count in one.top)
    values = (
        one.column,
        round(100 * one.nulls / rows, 2) if rows else 0.0,
        one.distinct,
        one.least,
        one.mean,
        one.most,
        top,
    )
    return dict(zip(PROFILE_COLUMNS, values, strict=True))


def picture_metadata(png: bytes, description: str) -> dg.MarkdownMetadataValue:
    """A PNG that travels in the event itself; Dagster's UI allows data URIs in Markdown."""
    return dg.MetadataValue.md(
        f"![{description}](data:image/png;base64,{base64.b64encode(png).decode()})"
    )
