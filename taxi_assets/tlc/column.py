"""A column of a service: its published names, its type in every store, its unit and meaning.

The definition of a single column belongs here. The columns of a service, and the names of their
schema versions, belong in `schema.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pyarrow as pa

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
"""The roles by which rules, checks, charts and reports find a column, whatever its name:

- `vendor`, `passengers`, `distance`, `fare`: used by cleaning rules,
- `payment`: shown with negative totals,
- `total`: dollars that checks add up and that reports call revenue,
- `pay`: dollars paid to the driver; `tip`: dollars that passengers added,
- `shared`: Y or 1 if strangers shared the ride,
- `pickup_zone`: BigQuery clusters by it and reports rank by it; `dropoff_zone` is shown with it,
- `hail`: distinguishes hailed trips from dispatched ones,
- `dropoff`: the end of the trip, at most a day after its pickup.
"""
SHARED: dict[Kind, Any] = {"text": "Y", "id": 1}
"""Value of a shared ride, by the kind of its column."""


class StoreTypes(NamedTuple):
    """The types of a kind of column: in Arrow, a pandas frame, Postgres and BigQuery."""

    arrow: pa.DataType
    pandas: str
    postgres: str
    bigquery: str


TYPES: dict[Kind, StoreTypes] = {
    "id": StoreTypes(pa.int64(), "Int64", "BIGINT", "INT64"),
    "amount": StoreTypes(pa.float64(), "float64", "DOUBLE PRECISION", "FLOAT64"),
    "time": StoreTypes(
        pa.timestamp("us"), "datetime64[us]", "TIMESTAMP WITHOUT TIME ZONE", "DATETIME"
    ),
    "text": StoreTypes(pa.string(), "string", "TEXT", "STRING"),
}
SEPARATORS = re.compile(r"[\s_.-]+")


def normalize_name(published: str) -> str:
    """Return a published name in lower case, without surrounding blanks."""
    return published.strip().lower()


def normalize_loosely(published: str) -> str:
    """Return a name in lower case, without blanks, underscores, dots and hyphens."""
    return SEPARATORS.sub("", normalize_name(published))


@dataclass(frozen=True)
class Column:
    """One column: its published names over the years, its kind, unit and meaning."""

    published: str
    """Name in the CSV months of 2019 to 2021, or the newest name."""
    kind: Kind
    description: str
    unit: str = ""
    since: str = ""
    """First month with the column, such as 2019-01; empty: the first month of the service."""
    aliases: tuple[str, ...] = ()
    """Names in other years; case and surrounding blanks do not matter."""
    labels: tuple[tuple[str, str], ...] = ()
    """Labels, in capitals, and their values: for an id column in schema versions with labels, for a
    text column in every version, where they are the only valid values."""
    roles: tuple[Role, ...] = ()
    bin_width: float = 0
    """Width of a bar in a day's chart, in the column's unit; 0: not in the chart."""
    repeated: bool = False
    """Whether a file may have the column under several of its names: a row's value is the first one
    that is not null, in the order of published name and aliases."""
    filled: Literal["always", "mostly", "never"] = "always"
    """How often a synthetic month has a value, as in TLC's months."""
    examples: tuple[str, ...] = ()
    """Texts for synthetic months."""
    codes: tuple[int, ...] = ()
    """The valid values by TLC's dictionary; empty: any."""
    limits: tuple[float, float] | None = None
    """Smallest and largest plausible value, in the column's unit."""
    points: tuple[tuple[str, str], ...] = ()
    """Published names of longitude and latitude, by year: if a file has them in place of the
    column, the value is the zone of that point."""

    @property
    def name(self) -> str:
        """The name from `cleaned_trips` on: published, in lower case, blanks as underscores."""
        return self.published.strip().lower().replace(" ", "_")

    @property
    def meaning(self) -> str:
        """Description and unit, for the comment of the stores' columns."""
        return f"{self.description} ({self.unit})" if self.unit else self.description

    @property
    def arrow(self) -> pa.DataType:
        """Type in Arrow and Parquet."""
        return TYPES[self.kind].arrow

    @property
    def pandas(self) -> str:
        """Type in the cleaned frame (nullable)."""
        return TYPES[self.kind].pandas

    @property
    def postgres(self) -> str:
        """Type in Postgres."""
        return TYPES[self.kind].postgres

    @property
    def bigquery(self) -> str:
        """Type in BigQuery; a time without a zone is DATETIME there."""
        return TYPES[self.kind].bigquery
