"""What a service and its columns are; every store's types are derived from here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa

from taxi_assets.date_ranges import Month

Kind = Literal["id", "amount", "time", "text"]

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
TOTAL_AMOUNT = "total_amount"


def normalize_name(published: str) -> str:
    """What two spellings of one published name share: no blanks around it, one case."""
    return published.strip().lower()


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


@dataclass(frozen=True)
class Service:
    """A taxi service: its columns, in the stores' order, and how its files named them."""

    name: str
    pickup: str
    """Published name of the pickup time, which decides the day a row belongs to."""
    columns: tuple[Column, ...]
    """New ones go to the end, so that stores grow by appending."""
    passengers: str | None = "passenger_count"
    """Column of the passenger rules; None where a service publishes none."""
    schema_versions: tuple[SchemaVersion, ...] = ()
    """Oldest first; none: all months have all columns."""
    elsewhere: tuple[str, ...] = ()
    """Published columns that the schema has no place for: they stay in the raw slices."""
    first_month: str = ""

    @property
    def table(self) -> str:
        """Table name in Postgres and BigQuery."""
        return f"{self.name}_cab_data"

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
    def by_name(self) -> dict[str, Column]:
        """Column by the key of each of its names."""
        return {
            normalize_name(name): column
            for column in self.columns
            for name in (column.published, column.name, *column.aliases)
        }

    @cached_property
    def pickup_index(self) -> int:
        """Position of the pickup time in `header`."""
        return self.header.index(self.pickup)

    @cached_property
    def pickup_column(self) -> str:
        """Name of the pickup time from `cleaned_trips` on."""
        return self.by_name[normalize_name(self.pickup)].name

    @cached_property
    def passengers_column(self) -> str | None:
        """Name of the passenger column from `cleaned_trips` on, if there is one."""
        return self.by_name[normalize_name(self.passengers)].name if self.passengers else None

    @cached_property
    def total(self) -> str | None:
        """Name of the column that checks add up, if there is one."""
        names = [column.name for column in self.columns]
        return TOTAL_AMOUNT if TOTAL_AMOUNT in names else None

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Columns that no month may lack: the pickup time and what checks add up."""
        return (self.pickup_column, *([self.total] if self.total else []))

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
        """First month whose file has the column."""
        return max(column.since, self.first_month)

    def is_due(self, name: str, month: Month) -> bool:
        """Whether a month's file should have the column of a published name."""
        column = self.by_name.get(normalize_name(name))
        return (self.since(column) if column else "") <= str(month)
