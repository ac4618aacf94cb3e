"""The result of parsing a day's raw rows, and the steps that CSV and Parquet share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.arrow_types import format_value
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.header import Header
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.values import convert_column
from taxi_assets.tlc.zone_polygons import ZonePolygons
from taxi_assets.trips.locate import find_missing_zones

MAX_SHOWN = 40
"""Characters of an invalid value in a message."""


@dataclass(frozen=True)
class InvalidValue:
    """A value that is not of its column's type."""

    row: int
    """Line number in the day's raw partition, whose header is line 1; row number of a table, from
    1."""
    column: str
    value: str
    unit: str = "line"

    def __str__(self) -> str:
        value = self.value if len(self.value) <= MAX_SHOWN else f"{self.value[: MAX_SHOWN - 1]}…"
        return f"{self.unit} {self.row}: {self.column}={value!r}"


@dataclass(frozen=True)
class Parsed:
    """A day's rows in the service's types, and the rows that cannot be read."""

    table: pa.Table
    unreadable: list[InvalidValue]
    """One entry per row: its first invalid value."""
    unknown_labels: Counter[str] = field(default_factory=Counter[str])
    """Number of rows by `column=label` that is not in TLC's dictionary; null in the table."""
    located: tuple[str, ...] = ()
    """Zone columns that were filled from coordinates."""


def list_fields(header: Header) -> list[tuple[int, Column]]:
    """Return position and column of each field to read; a column may have several fields."""
    return [
        (at, header.service.by_name[name])
        for name, places in header.all_places.items()
        for at in places
    ]


def combine_fields(
    arrays: Mapping[int, Any], rows: int, header: Header, zones: Mapping[str, Any]
) -> pa.Table:
    """Return the service's table of the fields and the zones; missing columns are null.

    A column with several fields has the first value of each row that is not null.
    """
    columns: dict[str, Any] = {}
    for at, column in list_fields(header):
        values, name = arrays[at], column.name
        columns[name] = pc.coalesce(columns[name], values) if name in columns else values
    columns |= zones
    service: Service = header.service
    return pa.Table.from_arrays(
        [
            columns[column.name] if column.name in columns else pa.nulls(rows, column.arrow)
            for column in service.columns
        ],
        schema=service.arrow_schema,
    )


def parse_by_value(  # noqa: PLR0913 - CSV and Parquet differ in each of these
    read_field: Callable[[int], Any],
    rows: int,
    header: Header,
    zones: ZonePolygons | None,
    *,
    first_row: int,
    unit: str,
) -> Parsed:
    """Convert field by field, and leave out rows with an invalid value.

    Args:
        read_field: returns the published values of a position.
        rows: number of rows.
        header: the file's columns.
        zones: polygons for the zones of coordinates, if any.
        first_row: number of the first row in messages.
        unit: name of a row in messages.
    """
    unknown = Counter[str]()
    arrays: dict[int, Any] = {}
    invalid: dict[int, InvalidValue] = {}
    for place, column in list_fields(header):
        values = read_field(place).combine_chunks()
        labels = header.labels.get(column.name, {})
        arrays[place], misfits = convert_column(values, column, labels, unknown)
        for at in misfits:
            value = format_value(values[at])
            invalid.setdefault(at, InvalidValue(at + first_row, header.names[place], value, unit))
    table = combine_fields(arrays, rows, header, find_missing_zones(header, zones, read_field))
    if invalid:
        is_valid = np.ones(rows, np.bool_)
        is_valid[list(invalid)] = False
        table = table.filter(pa.array(is_valid))
    return Parsed(table, [invalid[at] for at in sorted(invalid)], unknown)
