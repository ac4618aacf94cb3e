"""From a day's raw slice to its cleaned frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa

from taxi_assets.date_ranges import Window
from taxi_assets.settings.rule_names import DEFAULT_RULES
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.parse import UnreadableValue, parse
from taxi_assets.trips.rules import drop


@dataclass(frozen=True)
class Cleaned:
    """A day's cleaned rows and why the others are not among them."""

    frame: pd.DataFrame
    raw_rows: int
    dropped: dict[str, int]
    """Rows by rule, and unreadable ones; every reason is there, also with 0."""
    unreadable: list[UnreadableValue]
    unknown_labels: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rows by `column=label` that TLC's dictionary does not have."""


ROW_LIMIT = "row_limit"
"""Name under which rows past a limit count as dropped."""


def clean(
    content: pa.Buffer | pa.Table,
    service: Service,
    rules: Sequence[str] = DEFAULT_RULES,
    row_limit: int | None = None,
) -> Cleaned:
    """Read a day's slice (CSV lines under their header, or a table) and apply the rules.

    Of what they leave, the first `row_limit` rows stay.

    Raises:
        DayRefusedError: the slice's columns are not the service's.
    """
    parsed = parse(content, service)
    table, dropped = drop(parsed.table, service, rules)
    dropped["unreadable"] = len(parsed.unreadable)
    if row_limit is not None:
        dropped[ROW_LIMIT] = max(table.num_rows - row_limit, 0)
        table = table.slice(0, row_limit)
    raw_rows = parsed.table.num_rows + len(parsed.unreadable)
    return Cleaned(to_frame(table), raw_rows, dropped, parsed.unreadable, parsed.unknown_labels)


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The frame with nullable types: Int64, float64, datetime64[us], string."""
    types: dict[pa.DataType, Any] = {
        pa.int64(): pd.Int64Dtype(),
        pa.string(): pd.StringDtype("pyarrow"),
    }
    frame: pd.DataFrame = table.to_pandas(types_mapper=types.get, split_blocks=True)
    return frame


def to_table(frame: pd.DataFrame, service: Service) -> pa.Table:
    """The frame as Arrow in the service's schema; pandas' own metadata stays with it."""
    return pa.Table.from_pandas(frame, service.arrow_schema, preserve_index=False, nthreads=1)


def outside(frame: pd.DataFrame, day: date, service: Service) -> int:
    """Rows whose pickup does not lie in the day."""
    window = Window.of_day(day)
    pickup = frame[service.pickup_column]
    inside = (pickup >= pd.Timestamp(window.start)) & (pickup < pd.Timestamp(window.end))
    return int((~inside).sum())
