"""Everything derived from the one column schema, against expected values."""

from __future__ import annotations

import pyarrow as pa
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.csv_blocks import Block
from taxi_assets.tlc.csv_split import split_csv_block
from taxi_assets.tlc.header import match_header
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import clean_partition
from taxi_assets_tests.tlc.files import EVERY_KEY

# published name, name in the stores, Postgres type
YELLOW = """
VendorID              vendorid              BIGINT
tpep_pickup_datetime  tpep_pickup_datetime  TIMESTAMP WITHOUT TIME ZONE
tpep_dropoff_datetime tpep_dropoff_datetime TIMESTAMP WITHOUT TIME ZONE
passenger_count       passenger_count       BIGINT
trip_distance         trip_distance         DOUBLE PRECISION
RatecodeID            ratecodeid            BIGINT
store_and_fwd_flag    store_and_fwd_flag    TEXT
PULocationID          pulocationid          BIGINT
DOLocationID          dolocationid          BIGINT
payment_type          payment_type          BIGINT
fare_amount           fare_amount           DOUBLE PRECISION
extra                 extra                 DOUBLE PRECISION
mta_tax               mta_tax               DOUBLE PRECISION
tip_amount            tip_amount            DOUBLE PRECISION
tolls_amount          tolls_amount          DOUBLE PRECISION
improvement_surcharge improvement_surcharge DOUBLE PRECISION
total_amount          total_amount          DOUBLE PRECISION
congestion_surcharge  congestion_surcharge  DOUBLE PRECISION
airport_fee           airport_fee           DOUBLE PRECISION
cbd_congestion_fee    cbd_congestion_fee    DOUBLE PRECISION
"""
GREEN = """
VendorID              vendorid              BIGINT
lpep_pickup_datetime  lpep_pickup_datetime  TIMESTAMP WITHOUT TIME ZONE
lpep_dropoff_datetime lpep_dropoff_datetime TIMESTAMP WITHOUT TIME ZONE
store_and_fwd_flag    store_and_fwd_flag    TEXT
RatecodeID            ratecodeid            BIGINT
PULocationID          pulocationid          BIGINT
DOLocationID          dolocationid          BIGINT
passenger_count       passenger_count       BIGINT
trip_distance         trip_distance         DOUBLE PRECISION
fare_amount           fare_amount           DOUBLE PRECISION
extra                 extra                 DOUBLE PRECISION
mta_tax               mta_tax               DOUBLE PRECISION
tip_amount            tip_amount            DOUBLE PRECISION
tolls_amount          tolls_amount          DOUBLE PRECISION
ehail_fee             ehail_fee             DOUBLE PRECISION
improvement_surcharge improvement_surcharge DOUBLE PRECISION
total_amount          total_amount          DOUBLE PRECISION
payment_type          payment_type          BIGINT
trip_type             trip_type             BIGINT
congestion_surcharge  congestion_surcharge  DOUBLE PRECISION
cbd_congestion_fee    cbd_congestion_fee    DOUBLE PRECISION
"""
FHV = """
dispatching_base_num   dispatching_base_num   TEXT
pickup_datetime        pickup_datetime        TIMESTAMP WITHOUT TIME ZONE
dropoff_datetime       dropoff_datetime       TIMESTAMP WITHOUT TIME ZONE
PULocationID           pulocationid           BIGINT
DOLocationID           dolocationid           BIGINT
SR_Flag                sr_flag                BIGINT
Affiliated_base_number affiliated_base_number TEXT
"""
FHVHV = """
hvfhs_license_num    hvfhs_license_num    TEXT
dispatching_base_num dispatching_base_num TEXT
originating_base_num originating_base_num TEXT
request_datetime     request_datetime     TIMESTAMP WITHOUT TIME ZONE
on_scene_datetime    on_scene_datetime    TIMESTAMP WITHOUT TIME ZONE
pickup_datetime      pickup_datetime      TIMESTAMP WITHOUT TIME ZONE
dropoff_datetime     dropoff_datetime     TIMESTAMP WITHOUT TIME ZONE
PULocationID         pulocationid         BIGINT
DOLocationID         dolocationid         BIGINT
trip_miles           trip_miles           DOUBLE PRECISION
trip_time            trip_time            BIGINT
base_passenger_fare  base_passenger_fare  DOUBLE PRECISION
tolls                tolls                DOUBLE PRECISION
bcf                  bcf                  DOUBLE PRECISION
sales_tax            sales_tax            DOUBLE PRECISION
congestion_surcharge congestion_surcharge DOUBLE PRECISION
airport_fee          airport_fee          DOUBLE PRECISION
tips                 tips                 DOUBLE PRECISION
driver_pay           driver_pay           DOUBLE PRECISION
shared_request_flag  shared_request_flag  TEXT
shared_match_flag    shared_match_flag    TEXT
access_a_ride_flag   access_a_ride_flag   TEXT
wav_request_flag     wav_request_flag     TEXT
wav_match_flag       wav_match_flag       TEXT
cbd_congestion_fee   cbd_congestion_fee   DOUBLE PRECISION
SR_Flag              sr_flag              BIGINT
"""
# Postgres type: Arrow, pandas, BigQuery
TYPES = {
    "BIGINT": (pa.int64(), "Int64", "INT64"),
    "DOUBLE PRECISION": (pa.float64(), "float64", "FLOAT64"),
    "TIMESTAMP WITHOUT TIME ZONE": (pa.timestamp("us"), "datetime64[us]", "DATETIME"),
    "TEXT": (pa.string(), "string", "STRING"),
}
EXPECTED = {
    name: [line.split(maxsplit=2) for line in text.strip().splitlines()]
    for name, text in {"yellow": YELLOW, "green": GREEN, "fhv": FHV, "fhvhv": FHVHV}.items()
}


@pytest.mark.parametrize("name", EXPECTED)
def test_columns_have_their_names_and_types(name: str) -> None:
    service = SERVICES[name]
    columns = [[column.published, column.name, column.postgres] for column in service.columns]
    assert columns == EXPECTED[name]
    newest = [published for published, _, _ in EXPECTED[name] if not published.endswith("_fee")]
    if name == "green":
        newest.insert(newest.index("improvement_surcharge"), "ehail_fee")
    if service.has_fixed_order:
        assert list(service.header) == newest
    else:
        assert set(service.header) <= {published for published, _, _ in EXPECTED[name]}
    for column in service.columns:
        assert (column.arrow, column.pandas, column.bigquery) == TYPES[column.postgres]
        assert column.description
    types_by_name = {column: TYPES[postgres] for _, column, postgres in EXPECTED[name]}
    assert service.arrow_schema == pa.schema(
        [(k, arrow) for k, (arrow, _, _) in types_by_name.items()]
    )
    assert service.pandas_types == {k: pandas for k, (_, pandas, _) in types_by_name.items()}


def test_table_names() -> None:
    assert list(SERVICES) == ["yellow", "green", "fhv", "fhvhv"]
    names = {
        name: (s.name, s.table, s.pickup, s.pickup_column, s.day_column, s.pickup_index)
        for name, s in SERVICES.items()
    }
    assert names == {
        "yellow": (
            "yellow",
            "yellow_cab_data",
            *["tpep_pickup_datetime"] * 2,
            "tpep_pickup_date",
            1,
        ),
        "green": ("green", "green_cab_data", *["lpep_pickup_datetime"] * 2, "lpep_pickup_date", 1),
        "fhv": ("fhv", "fhv_trip_data", *["pickup_datetime"] * 2, "pickup_date", 1),
        "fhvhv": ("fhvhv", "fhvhv_trip_data", *["pickup_datetime"] * 2, "pickup_date", 2),
    }
    roles = {
        name: (s.find_role("passengers"), s.total, s.find_role("pay"), s.required)
        for name, s in SERVICES.items()
    }
    taxi = ("passenger_count", "total_amount", None)
    assert roles == {
        "yellow": (*taxi, ("tpep_pickup_datetime", "total_amount")),
        "green": (*taxi, ("lpep_pickup_datetime", "total_amount")),
        "fhv": (None, None, None, ("pickup_datetime",)),
        "fhvhv": (None, "base_passenger_fare", "driver_pay", ("pickup_datetime",)),
    }


def test_every_amount_of_money_and_distance_has_a_unit() -> None:
    amounts = [c for s in SERVICES.values() for c in s.columns if c.kind == "amount"]
    assert {column.unit for column in amounts} == {"dollars", "miles"}
    assert [c.name for c in amounts if c.unit == "miles"] == [
        *["trip_distance"] * 2,
        "trip_miles",
    ]


def test_third_service_is_one_entry() -> None:
    fhv = Service(
        name="fhv",
        pickup="Pickup DateTime",
        columns=(
            Column("dispatching_base_num", "text", "Licence of the base"),
            Column("PUlocation ", "id", "Zone"),
            Column("Pickup DateTime", "time", "Start"),
        ),
    )
    assert fhv.table == "fhv_cab_data"
    assert fhv.header == ("dispatching_base_num", "PUlocation ", "Pickup DateTime")
    assert fhv.arrow_schema.names == ["dispatching_base_num", "pulocation", "pickup_datetime"]
    assert (fhv.pickup_index, fhv.pickup_column, fhv.day_column) == (
        2,
        "pickup_datetime",
        "pickup_date",
    )
    lines = b"B00013,7,2021-02-03 00:00:00\nB00014,,2021-02-03 10:00:00"
    columns = match_header(fhv.header, fhv)
    (group,) = split_csv_block(
        Block(2, lines, len(lines)), columns, Month(2021, 2), EVERY_KEY
    ).groups
    assert (group.key, group.rows) == (3, 2)
    header = b"dispatching_base_num,PUlocation ,Pickup DateTime\n"
    cleaned = clean_partition(pa.py_buffer(header + bytes(group.lines)), fhv)
    assert cleaned.frame["dispatching_base_num"].tolist() == ["B00013", "B00014"]
    assert cleaned.frame["pulocation"].isna().tolist() == [False, True]
    assert cleaned.dropped == {"unreadable": 0}


def test_service_may_start_with_its_pickup() -> None:
    service = Service("x", "when", (Column("when", "time", "t"), Column("n", "id", "n")))
    lines = b'2021-02-03 00:00:00,1\n"2021-02-04 00:00:00",2\n'
    columns = match_header(service.header, service)
    groups = split_csv_block(Block(2, lines, 0), columns, Month(2021, 2), EVERY_KEY).groups
    assert [group.key for group in groups] == [3, 4]


def test_day_column_is_not_the_pickup() -> None:
    service = Service("shuttle", "pickup_at", (Column("pickup_at", "time", "begin"),))
    assert service.day_column == "pickup_at_date"
