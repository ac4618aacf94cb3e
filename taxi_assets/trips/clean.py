"""Clean a day's raw partition: parse it and apply the rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache, cached_property
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.date_ranges import DateRange
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.settings.rule_names import DEFAULT_RULES
from taxi_assets.tlc.header import HeaderError, parse_stored_header
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.zone_polygons import ZonePolygons
from taxi_assets.trips.parse_csv import parse_lines
from taxi_assets.trips.parsed import InvalidValue, Parsed, parse_by_value
from taxi_assets.trips.rules import apply_rules


@dataclass(frozen=True)
class Cleaned:
    """A day's cleaned rows, and the number of dropped rows by reason."""

    table: pa.Table
    """In the service's schema and one chunk, with the metadata of pandas."""
    raw_rows: int
    dropped: dict[str, int]
    """Number of dropped rows by rule, and of unreadable rows; every reason is listed, also with
    0."""
    unreadable: list[InvalidValue]
    unknown_labels: Mapping[str, int] = field(default_factory=dict[str, int])
    """Number of rows by `column=label` that is not in TLC's dictionary; null in the table."""
    rules: Sequence[str] = DEFAULT_RULES
    """Names of the rules that were applied."""
    published: Mapping[str, str] = field(default_factory=dict[str, str])
    """The file's name for each of its columns."""
    located: Mapping[str, int] = field(default_factory=dict[str, int])
    """Number of rows with a zone, by zone column that was filled from coordinates."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The rows as the typed frame that readers of the asset get."""
        return convert_to_frame(self.table)


ROW_LIMIT = "row_limit"
"""Reason of rows that are dropped because of a limit."""


def clean_partition(
    content: pa.Buffer | pa.Table,
    service: Service,
    rules: Sequence[str] = DEFAULT_RULES,
    row_limit: int | None = None,
    zones: ZonePolygons | None = None,
) -> Cleaned:
    """Parse a day's raw rows (CSV lines under their header, or a table) and apply the rules.

    At most `row_limit` of the remaining rows are returned. `zones` maps coordinates to zones for
    rows that have coordinates only.

    Raises:
        PartitionRejectedError: the partition's columns are not the service's.
    """
    parsed = parse_partition(content, service, zones)
    table, dropped = apply_rules(parsed.table, service, rules)
    dropped["unreadable"] = len(parsed.unreadable)
    if row_limit is not None:
        dropped[ROW_LIMIT] = max(table.num_rows - row_limit, 0)
        table = table.slice(0, row_limit)
    raw_rows = parsed.table.num_rows + len(parsed.unreadable)
    located = {name: table.num_rows - table[name].null_count for name in parsed.located}
    schema = _build_stored_schema(service)
    return Cleaned(
        table.combine_chunks().replace_schema_metadata(schema.metadata),
        raw_rows,
        dropped,
        parsed.unreadable,
        parsed.unknown_labels,
        rules,
        parse_stored_header(content, service).published,
        located,
    )


def parse_partition(
    content: pa.Buffer | pa.Table, service: Service, zones: ZonePolygons | None = None
) -> Parsed:
    """Parse a raw partition into the service's columns and types; missing columns are null.

    If the file has coordinates in place of zones, `zones` maps them to zones.

    Raises:
        PartitionRejectedError: the partition's columns are not the service's.
    """
    try:
        header = parse_stored_header(content, service)
    except HeaderError as error:
        raise PartitionRejectedError(
            f"the raw partition has {error}: materialize {service.name}/raw_trips again"
        ) from None
    if isinstance(content, pa.Table):
        parsed = parse_by_value(
            content.column, content.num_rows, header, zones, first_row=1, unit="row"
        )
    else:
        parsed = parse_lines(content, header, zones)
    return replace(parsed, located=tuple(header.points)) if zones else parsed


def convert_to_frame(table: pa.Table) -> pd.DataFrame:
    """Convert to a frame with nullable types: Int64, float64, datetime64[us], string."""
    types: dict[pa.DataType, Any] = {
        pa.int64(): pd.Int64Dtype(),
        pa.string(): pd.StringDtype("pyarrow"),
    }
    frame: pd.DataFrame = table.to_pandas(types_mapper=types.get, split_blocks=True)
    return frame


def convert_to_table(frame: pd.DataFrame, service: Service) -> pa.Table:
    """Convert a frame to Arrow in the service's schema, with the metadata of pandas."""
    return pa.Table.from_pandas(frame, service.arrow_schema, preserve_index=False, nthreads=1)


@cache
def _build_stored_schema(service: Service) -> pa.Schema:
    """Return the schema of stored rows: the types of `convert_to_frame` are in its metadata."""
    frame = convert_to_frame(service.arrow_schema.empty_table())
    return convert_to_table(frame, service).schema


def sum_total_amount(table: pa.Table, service: Service) -> float | None:
    """Return the sum of the service's total in dollars; None if no row has one."""
    if service.total not in table.schema.names:
        return None
    total = pc.sum(table[service.total], min_count=min(1, table.num_rows)).as_py()
    return None if total is None else round(float(total), 2)


def count_rows_outside_day(table: pa.Table, day: date, service: Service) -> int:
    """Return the number of rows with a pickup outside the day."""
    pickup, window = table[service.pickup_column], DateRange.of_day(day)
    start, end = (pa.scalar(at).cast(pickup.type) for at in (window.start, window.end))
    inside = pc.and_(pc.greater_equal(pickup, start), pc.less(pickup, end))
    return table.num_rows - int(pc.sum(inside).as_py() or 0)
