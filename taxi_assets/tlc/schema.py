"""A service and its schema versions; every store's schema is derived from here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.column import Column, Role, normalize_loosely, normalize_name


@dataclass(frozen=True)
class SchemaVersion:
    """A period of months whose files have the same columns."""

    months: str
    """First and last month, such as 2016-07 to 2018-12."""
    header: tuple[str, ...]
    """Published names, in order."""
    labels: bool = False
    """Whether id columns with `labels` were published as labels."""
    parquet: bool = False
    """Whether TLC published these months in Parquet only."""
    sampled: bool = False
    """Whether synthetic months have these columns; by default they have those of `header`."""


@dataclass(frozen=True)
class Interval:
    """The time between two columns, in minutes, for a day's chart and the month's report."""

    name: str
    begin: str
    """Published name of its first column."""
    end: str
    description: str
    bin_width: float = 1.0
    """Minutes; 0 for an interval that is not in a day's chart."""


@dataclass(frozen=True)
class Service:
    """A service: its columns, in the stores' order, and its schema versions."""

    name: str
    pickup: str
    """Published name of the pickup time, which decides the day of a row."""
    columns: tuple[Column, ...]
    """New columns are appended, so that tables grow at the end."""
    schema_versions: tuple[SchemaVersion, ...] = ()
    """Oldest first; empty: every month has all columns."""
    raw_only_columns: tuple[str, ...] = ()
    """Published columns that are stored in `raw_trips` only."""
    first_month: str = ""
    title: str = ""
    """Name of its trips in titles; empty: the name of the service."""
    table_suffix: str = "cab_data"
    """Suffix of its table's name."""
    has_fixed_order: bool = True
    """Whether a CSV month has all columns of its schema version, in order. For services whose
    columns TLC reordered or left out from month to month, names alone decide, as in Parquet."""
    intervals: tuple[Interval, ...] = ()

    @property
    def table(self) -> str:
        """Table name in Postgres and BigQuery."""
        return f"{self.name}_{self.table_suffix}"

    @property
    def label(self) -> str:
        """Name of its trips in titles."""
        return self.title or self.name.capitalize()

    @cached_property
    def all_schema_versions(self) -> tuple[SchemaVersion, ...]:
        """The schema versions, or a single one of all columns."""
        return self.schema_versions or (
            SchemaVersion("", tuple(column.published for column in self.columns)),
        )

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Published column names of the newest CSV months, in order."""
        return [version for version in self.all_schema_versions if not version.parquet][-1].header

    @cached_property
    def header_columns(self) -> tuple[Column, ...]:
        """The columns of `header`."""
        return tuple(self.by_name[normalize_name(name)] for name in self.header)

    @cached_property
    def sample_header(self) -> tuple[str, ...]:
        """Published column names of synthetic months, in order."""
        sampled = (version.header for version in self.all_schema_versions if version.sampled)
        return next(sampled, self.header)

    @cached_property
    def sample_columns(self) -> tuple[Column, ...]:
        """The columns of `sample_header`."""
        return tuple(self.by_name[normalize_name(name)] for name in self.sample_header)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Column by each of its normalized names."""
        names = [
            (name, column)
            for column in self.columns
            for name in (column.published, column.name, *column.aliases)
        ]
        loose = {normalize_loosely(name): column for name, column in names}
        return loose | {normalize_name(name): column for name, column in names}

    def find_column(self, published: str) -> Column | None:
        """Return the column with a published name; None if it is not one of the service's."""
        return self.by_name.get(normalize_name(published)) or self.by_name.get(
            normalize_loosely(published)
        )

    def identify(self, published: str) -> str:
        """Return the key that a published name and its aliases share."""
        column = self.find_column(published)
        return column.name if column else normalize_name(published)

    @cached_property
    def by_role(self) -> dict[Role, tuple[Column, ...]]:
        """The columns of each role."""
        roles = {role for column in self.columns for role in column.roles}
        return {
            role: tuple(column for column in self.columns if role in column.roles) for role in roles
        }

    def find_role(self, role: Role) -> str | None:
        """Return the name, from `cleaned_trips` on, of the first column of a role, if any."""
        columns = self.by_role.get(role, ())
        return columns[0].name if columns else None

    @cached_property
    def key_columns(self) -> tuple[str, ...]:
        """Names of the columns that identify a trip for a reader: time, zones, distance, total."""
        roles: set[Role] = {"pickup_zone", "dropoff_zone", "distance", "total"}
        return tuple(
            column.name
            for column in self.columns
            if column.name == self.pickup_column or roles.intersection(column.roles)
        )

    @cached_property
    def pickup_index(self) -> int:
        """Position of the pickup time in `header`."""
        return self.header.index(self.pickup)

    @cached_property
    def pickup_column(self) -> str:
        """Name of the pickup time from `cleaned_trips` on."""
        return self.by_name[normalize_name(self.pickup)].name

    @property
    def total(self) -> str | None:
        """Name of the column that checks add up, if the service has one."""
        return self.find_role("total")

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Columns that every month must have: the pickup time, and the total if all versions do."""
        columns_by_version = [
            {column.name for name in version.header if (column := self.find_column(name))}
            for version in self.all_schema_versions
        ]
        return tuple(
            name
            for name in (self.pickup_column, self.total)
            if name and all(name in columns for columns in columns_by_version)
        )

    @cached_property
    def day_column(self) -> str:
        """Name of the DATE column of BigQuery's partitions and the lake's folders."""
        name = self.pickup_column.replace("datetime", "date")
        return name if name != self.pickup_column else f"{name}_date"

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Schema of cleaned rows, in Parquet and for Postgres."""
        return pa.schema([(column.name, column.arrow) for column in self.columns])

    @cached_property
    def pandas_types(self) -> dict[str, str]:
        """Type in the cleaned frame, by column name."""
        return {column.name: column.pandas for column in self.columns}

    def get_first_month(self, column: Column) -> str:
        """Return the first month with the column, such as 2019-01."""
        return max(column.since, self.first_month)

    def is_due(self, name: str, month: Month) -> bool:
        """Return whether a month's file should have the column with a published name."""
        column = self.find_column(name)
        return (self.get_first_month(column) if column else "") <= str(month)
