"""What a service and its columns are; every store's types are derived from here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pyarrow as pa

from taxi_assets.date_ranges import Month

Kind = Literal["id", "amount", "time", "text"]
Role = Literal[
    "vendor",
    "payment",
    "passengers",
    "distance",
    "fare",
    "total",
    "pay",
    "tip",
    "shared",
    "pickup_zone",
    "dropoff_zone",
    "hail",
    "dropoff",
]
"""What rules, checks, charts and reports know a column by, whatever its name is:

- `vendor`, `passengers`, `distance`, `fare`: rules of cleaning read them,
- `payment`: shown beside totals below zero,
- `total`: dollars that checks add up and reports call revenue,
- `pay`: dollars that the driver got, `tip`: what passengers gave on top,
- `shared`: Y or 1 where strangers shared the ride,
- `pickup_zone`: BigQuery clusters by it, reports rank by it; `dropoff_zone` is shown beside it,
- `hail`: tells trips that were hailed from those that a dispatcher sent,
- `dropoff`: when the trip ended, which is not before its pickup and within a day of it.
"""
SHARED: dict[Kind, Any] = {"text": "Y", "id": 1}
"""Value of a shared ride, by the kind of its column."""

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "id": pa.int64(),
    "amount": pa.float64(),
    "time": pa.timestamp("us"),
    "text": pa.string(),
}
PANDAS_TYPES: dict[Kind, str] = {
    "id": "Int64",
    "amount": "float64",
    "time": "datetime64[us]",
    "text": "string",
}
POSTGRES_TYPES: dict[Kind, str] = {
    "id": "BIGINT",
    "amount": "DOUBLE PRECISION",
    "time": "TIMESTAMP WITHOUT TIME ZONE",
    "text": "TEXT",
}
BIGQUERY_TYPES: dict[Kind, str] = {
    "id": "INT64",
    "amount": "FLOAT64",
    "time": "DATETIME",
    "text": "STRING",
}
SEPARATORS = re.compile(r"[\s_.-]+")


def normalize_name(published: str) -> str:
    """Return a published name without surrounding blanks, in lower case."""
    return published.strip().lower()


def loose_key(published: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return SEPARATORS.sub("", normalize_name(published))


@dataclass(frozen=True)
class Column:
    """One column: its published names over the years, what it holds, its unit and meaning."""

    published: str
    """The name that the CSV months of 2019 to 2021 have, or the newest."""
    kind: Kind
    description: str
    unit: str = ""
    since: str = ""
    """First month whose file has it, as 2019-01; empty: as long as there is the service."""
    aliases: tuple[str, ...] = ()
    """Names it had in other years; case and blanks around a name tell nothing."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels, in capitals, and the values they stand for: of an id column in an era of labels, of
    a text column in every era, where they are all the values there are."""
    roles: tuple[Role, ...] = ()
    bin_width: float = 0
    """Width of the bars, in its unit, in which a day's chart shows its values; 0: not shown."""
    repeated: bool = False
    """Whether a file may have it under several of its names: a row's value is the first one that
    is not null, in the order of published name and aliases."""
    filled: Literal["always", "mostly", "never"] = "always"
    """How much of it a made-up month has: as much as TLC's."""
    examples: tuple[str, ...] = ()
    """Some of its texts, for made-up months."""
    codes: tuple[int, ...] = ()
    """The values there are, by TLC's dictionary; empty: any."""
    limits: tuple[float, float] | None = None
    """Least and largest plausible value, in its unit."""
    points: tuple[tuple[str, str], ...] = ()
    """Published names of longitude and latitude, by year: the zone of that point is the value
    where a file has them in place of it."""

    @property
    def name(self) -> str:
        """The name from `cleaned_trips` on: published, lower-cased, blanks to underscores."""
        return self.published.strip().lower().replace(" ", "_")

    @property
    def meaning(self) -> str:
        """Description with the unit, as the stores' columns are commented."""
        return f"{self.description} ({self.unit})" if self.unit else self.description

    @property
    def arrow(self) -> pa.DataType:
        """Type in Arrow and Parquet."""
        return ARROW_TYPES[self.kind]

    @property
    def pandas(self) -> str:
        """Type in the cleaned frame (nullable)."""
        return PANDAS_TYPES[self.kind]

    @property
    def postgres(self) -> str:
        """Type in Postgres."""
        return POSTGRES_TYPES[self.kind]

    @property
    def bigquery(self) -> str:
        """Type in BigQuery; naive microseconds are DATETIME there."""
        return BIGQUERY_TYPES[self.kind]


@dataclass(frozen=True)
class SchemaVersion:
    """Months whose files have the same columns."""

    months: str
    """First and last, as 2016-07 to 2018-12."""
    header: tuple[str, ...]
    """Names as published, in order."""
    labels: bool = False
    """Whether id columns that have `labels` were published as those."""
    parquet: bool = False
    """Whether TLC published these months in Parquet only."""
    sampled: bool = False
    """Whether made-up months have these columns; where no era says so, those of `header`."""


@dataclass(frozen=True)
class Interval:
    """The time between two columns, in minutes: of the day's chart and the month's report."""

    name: str
    begin: str
    """Published name of the column that it begins with."""
    end: str
    description: str
    bin_width: float = 1.0
    """Minutes; 0 for an interval that no day's chart shows."""


@dataclass(frozen=True)
class Service:
    """A service: its columns, in the stores' order, and how its files named them."""

    name: str
    pickup: str
    """Published name of the pickup time, which decides the day a row belongs to."""
    columns: tuple[Column, ...]
    """New ones go to the end, so that stores grow by appending."""
    schema_versions: tuple[SchemaVersion, ...] = ()
    """Oldest first; none: all months have all columns."""
    raw_only_columns: tuple[str, ...] = ()
    """Published columns that the schema has no place for: they stay in the raw slices."""
    first_month: str = ""
    title: str = ""
    """What people call its trips in titles; empty: its name."""
    table_suffix: str = "cab_data"
    """End of its table's name."""
    has_fixed_order: bool = True
    """Whether a CSV month has all columns of its era, in their order. Where TLC reordered and left
    out columns from month to month, names alone decide, as in Parquet."""
    intervals: tuple[Interval, ...] = ()

    @property
    def table(self) -> str:
        """Table name in Postgres and BigQuery."""
        return f"{self.name}_{self.table_suffix}"

    @property
    def label(self) -> str:
        """What its trips are called in titles."""
        return self.title or self.name.capitalize()

    @cached_property
    def all_schema_versions(self) -> tuple[SchemaVersion, ...]:
        """The eras, or the one that all columns make."""
        return self.schema_versions or (
            SchemaVersion("", tuple(column.published for column in self.columns)),
        )

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Published column names of the newest CSV months, in order."""
        return [
            schema_version
            for schema_version in self.all_schema_versions
            if not schema_version.parquet
        ][-1].header

    @cached_property
    def header_columns(self) -> tuple[Column, ...]:
        """The columns of `header`."""
        return tuple(self.by_name[normalize_name(name)] for name in self.header)

    @cached_property
    def sample_header(self) -> tuple[str, ...]:
        """Published column names of made-up months, in order."""
        return next(
            (
                schema_version.header
                for schema_version in self.all_schema_versions
                if schema_version.sampled
            ),
            self.header,
        )

    @cached_property
    def sample_columns(self) -> tuple[Column, ...]:
        """The columns of `sample_header`."""
        return tuple(self.by_name[normalize_name(name)] for name in self.sample_header)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """Column by the key of each of its names."""
        names = [
            (name, column)
            for column in self.columns
            for name in (column.published, column.name, *column.aliases)
        ]
        loose = {loose_key(name): column for name, column in names}
        return loose | {normalize_name(name): column for name, column in names}

    def find_column(self, published: str) -> Column | None:
        """Return the column that a published name stands for, if it is one of the service's."""
        return self.by_name.get(normalize_name(published)) or self.by_name.get(loose_key(published))

    @cached_property
    def by_role(self) -> dict[Role, tuple[Column, ...]]:
        """The columns of each role."""
        roles = {role for column in self.columns for role in column.roles}
        return {role: tuple(one for one in self.columns if role in one.roles) for role in roles}

    def first_of_role(self, role: Role) -> str | None:
        """Return the name, from `cleaned_trips` on, of the first column of a role, if any is."""
        columns = self.by_role.get(role, ())
        return columns[0].name if columns else None

    @cached_property
    def key_columns(self) -> tuple[str, ...]:
        """Names of a few columns that show what a trip was: when, where, how far, for how much."""
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
        """Name of the column that checks add up, if there is one."""
        return self.first_of_role("total")

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Columns that no month may lack: the pickup time, and the total if all eras have it."""
        names = (self.pickup_column, self.total)
        of_era = [
            {column.name for name in schema_version.header if (column := self.find_column(name))}
            for schema_version in self.all_schema_versions
        ]
        return tuple(
            name
            for name in names
            if name and all(name in schema_version for schema_version in of_era)
        )

    @cached_property
    def day_column(self) -> str:
        """Name of the DATE column: BigQuery's partitions, the lake's folders."""
        name = self.pickup_column.replace("datetime", "date")
        return name if name != self.pickup_column else f"{name}_date"

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Schema of the cleaned rows, in Parquet and on the way to Postgres."""
        return pa.schema([(column.name, column.arrow) for column in self.columns])

    @cached_property
    def build_published_schema(self) -> pa.Schema:
        """Types of the columns of `header`, under their published names."""
        columns = zip(self.header, self.header_columns, strict=True)
        return pa.schema([(name, column.arrow) for name, column in columns])

    @cached_property
    def pandas_types(self) -> dict[str, str]:
        """Column name to dtype of the cleaned frame."""
        return {column.name: column.pandas for column in self.columns}

    def since(self, column: Column) -> str:
        """Return the first month whose file has the column."""
        return max(column.since, self.first_month)

    def is_due(self, name: str, month: Month) -> bool:
        """Return whether a month's file should have the column of a published name."""
        column = self.find_column(name)
        return (self.since(column) if column else "") <= str(month)
