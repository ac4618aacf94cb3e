"""The taxi services and their one column schema.

A column is added here and nowhere else: Arrow, pandas, Postgres and BigQuery types, the frame's
checks and the tables' definitions are all derived from `Column`. A further service is one more
entry in `SERVICES`.

Names, units and meanings are those of TLC's data dictionaries
(https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page, "Trip Record User Guide").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa

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


@dataclass(frozen=True)
class Column:
    """One column: its published name, what it holds, its unit and TLC's meaning of it."""

    published: str
    kind: Kind
    description: str
    unit: str = ""

    @property
    def name(self) -> str:
        """The name from `cleaned_trips` on: published, lower-cased, blanks to underscores."""
        return self.published.strip().lower().replace(" ", "_")

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
class Service:
    """A taxi service: its columns in published order and the names of what holds its trips."""

    name: str
    pickup: str
    """Published name of the pickup time, which decides the day a row belongs to."""
    columns: tuple[Column, ...]
    passengers: str | None = "passenger_count"
    """Column of the cleaning rule; None where a service publishes none, and keeps every row."""

    @property
    def table(self) -> str:
        """Table name in Postgres and BigQuery."""
        return f"{self.name}_cab_data"

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Published column names, in order."""
        return tuple(column.published for column in self.columns)

    @cached_property
    def pickup_index(self) -> int:
        """Position of the pickup time in a row."""
        return self.header.index(self.pickup)

    @cached_property
    def pickup_column(self) -> str:
        """Name of the pickup time from `cleaned_trips` on."""
        return self.columns[self.pickup_index].name

    @cached_property
    def day_column(self) -> str:
        """Name of the DATE column: BigQuery's partitions, the lake's folders."""
        return self.pickup_column.replace("datetime", "date")

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """Schema of the cleaned rows, in Parquet and on the way to Postgres."""
        return pa.schema([(column.name, column.arrow) for column in self.columns])

    @cached_property
    def published_schema(self) -> pa.Schema:
        """The same types under the published names: how a CSV line is read."""
        return pa.schema([(column.published, column.arrow) for column in self.columns])

    @cached_property
    def pandas_types(self) -> dict[str, str]:
        """Column name to dtype of the cleaned frame."""
        return {column.name: column.pandas for column in self.columns}


VENDOR = Column(
    "VendorID", "id", "Provider of the record: 1 Creative Mobile, 2 Curb, 6 Myle, 7 Helix"
)
PASSENGERS = Column(
    "passenger_count", "id", "Passengers in the vehicle, as the driver entered", "people"
)
DISTANCE = Column("trip_distance", "amount", "Distance the taximeter reported", "miles")
RATE_CODE = Column(
    "RatecodeID",
    "id",
    "Rate at the end of the trip: 1 standard, 2 JFK, 3 Newark, 4 Nassau or Westchester, "
    "5 negotiated, 6 group, 99 unknown",
)
STORED = Column(
    "store_and_fwd_flag", "text", "Y if the vehicle had no connection and sent the trip later"
)
PICKUP_ZONE = Column("PULocationID", "id", "Taxi zone in which the meter was engaged")
DROPOFF_ZONE = Column("DOLocationID", "id", "Taxi zone in which the meter was disengaged")
PAYMENT = Column(
    "payment_type",
    "id",
    "0 flex fare, 1 credit card, 2 cash, 3 no charge, 4 dispute, 5 unknown, 6 voided",
)
FARE = Column("fare_amount", "amount", "Time-and-distance fare", "dollars")
EXTRA = Column("extra", "amount", "Rush hour, overnight and other extras", "dollars")
MTA_TAX = Column("mta_tax", "amount", "MTA tax, triggered by the metered rate", "dollars")
TIP = Column("tip_amount", "amount", "Tip by card; cash tips are not recorded", "dollars")
TOLLS = Column("tolls_amount", "amount", "Tolls paid on the trip", "dollars")
IMPROVEMENT = Column(
    "improvement_surcharge", "amount", "Improvement surcharge at flag drop, since 2015", "dollars"
)
TOTAL = Column("total_amount", "amount", "Charged in all, without cash tips", "dollars")
CONGESTION = Column(
    "congestion_surcharge", "amount", "New York State congestion surcharge, since 2019", "dollars"
)


def _times(prefix: str) -> tuple[Column, Column]:
    clock = "New York wall time"
    return (
        Column(f"{prefix}_pickup_datetime", "time", "When the meter was engaged", clock),
        Column(f"{prefix}_dropoff_datetime", "time", "When the meter was disengaged", clock),
    )


YELLOW = Service(
    name="yellow",
    pickup="tpep_pickup_datetime",
    columns=(
        VENDOR,
        *_times("tpep"),
        PASSENGERS,
        DISTANCE,
        RATE_CODE,
        STORED,
        PICKUP_ZONE,
        DROPOFF_ZONE,
        PAYMENT,
        FARE,
        EXTRA,
        MTA_TAX,
        TIP,
        TOLLS,
        IMPROVEMENT,
        TOTAL,
        CONGESTION,
    ),
)
GREEN = Service(
    name="green",
    pickup="lpep_pickup_datetime",
    columns=(
        VENDOR,
        *_times("lpep"),
        STORED,
        RATE_CODE,
        PICKUP_ZONE,
        DROPOFF_ZONE,
        PASSENGERS,
        DISTANCE,
        FARE,
        EXTRA,
        MTA_TAX,
        TIP,
        TOLLS,
        Column("ehail_fee", "amount", "E-hail fee; never filled in the published files", "dollars"),
        IMPROVEMENT,
        TOTAL,
        PAYMENT,
        Column("trip_type", "id", "1 street hail, 2 dispatch"),
        CONGESTION,
    ),
)

SERVICES: dict[str, Service] = {service.name: service for service in (YELLOW, GREEN)}
