"""Load stored days as frames and tables, for user-defined assets and for notebooks.

The annotation of an input, or `python_type` of `load_asset_value`, selects the type. Days are read
from the store on demand, one at a time.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar, get_args, get_origin

import pandas as pd
import pyarrow as pa

from taxi_assets.errors import TerminalError, format_count
from taxi_assets.partitions import get_partition_range
from taxi_assets.trips.clean import convert_to_frame

T = TypeVar("T")
DayReader = Callable[[date], pa.Table]


class DailyValues(Mapping[date, T]):
    """The days of an asset, in order; each access reads the day again."""

    def __init__(self, days: Sequence[date], read_day: DayReader) -> None:
        self._days = tuple(days)
        self._read_day = read_day

    @abstractmethod
    def __getitem__(self, day: date) -> T:
        """Read a day."""

    def _read_table(self, day: date) -> pa.Table:
        if day not in self._days:
            raise KeyError(day)
        return self._read_day(day)

    def __iter__(self) -> Iterator[date]:
        return iter(self._days)

    def __len__(self) -> int:
        return len(self._days)


class DailyFrames(DailyValues[pd.DataFrame]):
    """A pandas frame for each day, with nullable types."""

    def __getitem__(self, day: date) -> pd.DataFrame:
        """Read a day's rows as a frame."""
        return convert_to_frame(self._read_table(day))


class DailyTables(DailyValues[pa.Table]):
    """An Arrow table for each day."""

    def __getitem__(self, day: date) -> pa.Table:
        """Read a day's rows as a table."""
        return self._read_table(day)


def load_as_annotated(
    annotation: Any, days: Sequence[date], read_day: DayReader, asset: str
) -> Any:
    """Return days in the type of an input: a frame or a table of one day, or a mapping of days.

    `pd.DataFrame` and `pa.Table` are for one day. `DailyFrames`, `DailyTables`, `Mapping` and
    `Iterator` (of pairs) are for any number of days, which are read on access. `dict[date,
    pa.Table]` and the like have all days in memory. Keys are dates, or texts in a `dict[str, ...]`.
    Without an annotation one day is a frame, and several are `DailyFrames`.

    Raises:
        TerminalError: the type is not supported, or is for one day and there are none or several.
    """
    frames, tables = DailyFrames(days, read_day), DailyTables(days, read_day)
    if annotation is DailyTables:
        return tables
    if annotation in (DailyFrames, Mapping):
        return frames
    if annotation in (Iterator, Iterable):
        return iter(frames.items())
    if dict in (annotation, get_origin(annotation)):
        key, value = get_args(annotation) or (date, pd.DataFrame)
        values: Mapping[date, Any] = tables if value is pa.Table else frames
        return {str(day) if key is str else day: rows for day, rows in values.items()}
    if annotation not in (Any, pd.DataFrame, pa.Table) or (annotation is not Any and len(days) > 1):
        kind = getattr(annotation, "__name__", "") if type(annotation) is type else str(annotation)
        raise TerminalError(
            f"{asset}: {format_count(len(days), 'day')} cannot be loaded as {kind}: annotate the "
            "input (in a notebook, set python_type) as pd.DataFrame or pa.Table to take one day, "
            f"as DailyFrames or DailyTables (of {__name__}) to take any number"
        )
    if not days:
        partitions = get_partition_range()
        known = f"{partitions.start} to {max(partitions)}" if partitions else "none"
        raise TerminalError(
            f"{asset}: the requested day is not a partition: choose one of {known} "
            "(TAXI_START_DATE, TAXI_END_DATE)"
        )
    if len(days) > 1:
        return frames
    return (tables if annotation is pa.Table else frames)[days[0]]
