"""The one table of services: TLC's columns, and their names over the years.

Names, units and meanings are those of TLC's data dictionaries
(https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page, "Trip Record User Guide").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from taxi_assets.tlc.column import Column, Role
from taxi_assets.tlc.schema import Interval, SchemaVersion, Service

ZONES = (1, 265)
"""Ids of the taxi zones: 264 is unknown, 265 outside of New York City."""
YES_OR_NO = (
    *((label, "Y") for label in ("Y", "1", "TRUE", "T", "YES")),
    *((label, "N") for label in ("N", "0", "FALSE", "F", "NO")),
)


def _build_dollar_column(name: str, description: str, **more: Any) -> Column:
    return Column(name, "amount", description, "dollars", **more)


def _build_flag_column(name: str, description: str, **more: Any) -> Column:
    return Column(name, "text", f"Y if {description}", labels=YES_OR_NO, **more)


VENDOR = Column(
    "VendorID",
    "id",
    "Provider of the record: 1 Creative Mobile, 2 Curb (VeriFone until 2016), 6 Myle, 7 Helix",
    aliases=("vendor_id", "vendor_name"),
    labels=(("CMT", "1"), ("VTS", "2")),
    roles=("vendor",),
    filled="mostly",
    codes=(1, 2, 6, 7),
)
PASSENGERS = Column(
    "passenger_count",
    "id",
    "Passengers in the vehicle, as the driver entered",
    "people",
    roles=("passengers",),
    filled="mostly",
    limits=(0, 9),
)
DISTANCE = Column(
    "trip_distance",
    "amount",
    "Distance the taximeter reported",
    "miles",
    roles=("distance",),
    bin_width=0.5,
    limits=(0, 200),
)
RATE_CODE = Column(
    "RatecodeID",
    "id",
    "Rate at the end of the trip: 1 standard, 2 JFK, 3 Newark, 4 Nassau or Westchester, "
    "5 negotiated, 6 group, 99 unknown",
    aliases=("rate_code",),
    filled="mostly",
    codes=(1, 2, 3, 4, 5, 6, 99),
)
STORED = Column(
    "store_and_fwd_flag",
    "text",
    "Y if the vehicle had no connection and sent the trip later",
    aliases=("store_and_forward",),
    labels=YES_OR_NO,
    filled="mostly",
)
PICKUP_ZONE = Column(
    "PULocationID",
    "id",
    "Taxi zone in which the meter was engaged",
    since="2011-01",
    roles=("pickup_zone",),
    points=(("pickup_longitude", "pickup_latitude"), ("Start_Lon", "Start_Lat")),
    limits=ZONES,
)
DROPOFF_ZONE = Column(
    "DOLocationID",
    "id",
    "Taxi zone in which the meter was disengaged",
    since="2011-01",
    roles=("dropoff_zone",),
    points=(("dropoff_longitude", "dropoff_latitude"), ("End_Lon", "End_Lat")),
    limits=ZONES,
)
PAYMENT = Column(
    "payment_type",
    "id",
    "0 flex fare, 1 credit card, 2 cash, 3 no charge, 4 dispute, 5 unknown, 6 voided",
    labels=(
        *((label, "1") for label in ("CREDIT", "CRD", "CRE")),
        *((label, "2") for label in ("CASH", "CSH", "CAS")),
        *((label, "3") for label in ("NO CHARGE", "NOC", "NO")),
        *((label, "4") for label in ("DISPUTE", "DIS")),
        *((label, "5") for label in ("UNKNOWN", "UNK", "NA")),
    ),
    roles=("payment",),
    filled="mostly",
    codes=(0, 1, 2, 3, 4, 5, 6),
)
FARE = _build_dollar_column(
    "fare_amount",
    "Time-and-distance fare",
    aliases=("fare_amt",),
    roles=("fare",),
    bin_width=2.5,
    limits=(0, 500),
)
EXTRA = _build_dollar_column(
    "extra", "Rush hour, overnight and other extras", aliases=("surcharge",)
)
MTA_TAX = _build_dollar_column("mta_tax", "MTA tax, triggered by the metered rate")
TIP = _build_dollar_column(
    "tip_amount",
    "Tip by card; cash tips are not recorded",
    aliases=("tip_amt",),
    roles=("tip",),
    limits=(0, 300),
)
TOLLS = _build_dollar_column(
    "tolls_amount", "Tolls paid on the trip", aliases=("tolls_amt",), limits=(0, 200)
)
IMPROVEMENT = _build_dollar_column(
    "improvement_surcharge", "Improvement surcharge at flag drop", since="2015-01"
)
TOTAL = _build_dollar_column(
    "total_amount",
    "Charged in all, without cash tips",
    aliases=("total_amt",),
    roles=("total",),
    limits=(0, 1000),
)
CONGESTION = _build_dollar_column(
    "congestion_surcharge", "New York State congestion surcharge", since="2019-01"
)
EHAIL = _build_dollar_column(
    "ehail_fee", "E-hail fee; never filled in the published files", filled="never"
)
TRIP_TYPE = Column(
    "trip_type", "id", "1 street hail, 2 dispatch", roles=("hail",), filled="mostly", codes=(1, 2)
)
AIRPORT = _build_dollar_column(
    "airport_fee", "Fee for pickups at LaGuardia and JFK", since="2022-01"
)
CONGESTION_ZONE = _build_dollar_column(
    "cbd_congestion_fee", "MTA's fee for the Congestion Relief Zone", since="2025-01"
)


def _build_time_columns(prefix: str, *, earlier: bool) -> tuple[Column, Column]:
    def column(end: str, description: str) -> Column:
        aliases = (f"{end}_datetime", f"trip_{end}_datetime") if earlier else ()
        name = f"{prefix}_{end}_datetime"
        roles: tuple[Role, ...] = ("dropoff",) if end == "dropoff" else ()
        unit = "New York wall time"
        return Column(name, "time", description, unit, aliases=aliases, roles=roles)

    return (
        column("pickup", "When the meter was engaged"),
        column("dropoff", "When the meter was disengaged"),
    )


def _list_names(columns: tuple[Column, ...]) -> tuple[str, ...]:
    return tuple(column.published for column in columns)


def _split_names(names: str) -> tuple[str, ...]:
    return tuple(names.split(","))


# The columns that CSV months of 2019 to 2021 have, in their order.
_YELLOW = (
    VENDOR,
    *_build_time_columns("tpep", earlier=True),
    *(PASSENGERS, DISTANCE, RATE_CODE, STORED, PICKUP_ZONE, DROPOFF_ZONE, PAYMENT),
    *(FARE, EXTRA, MTA_TAX, TIP, TOLLS, IMPROVEMENT, TOTAL, CONGESTION),
)
_GREEN = (
    VENDOR,
    *_build_time_columns("lpep", earlier=False),
    *(STORED, RATE_CODE, PICKUP_ZONE, DROPOFF_ZONE, PASSENGERS, DISTANCE),
    *(FARE, EXTRA, MTA_TAX, TIP, TOLLS, EHAIL, IMPROVEMENT, TOTAL, PAYMENT, TRIP_TYPE, CONGESTION),
)
_POINTS = ("pickup_longitude", "pickup_latitude", "dropoff_longitude", "dropoff_latitude")


def _build_trip_minutes(prefix: str) -> Interval:
    """Return a taxi trip's duration: for the month's report, not drawn for each day."""
    begin, end = f"{prefix}_pickup_datetime", f"{prefix}_dropoff_datetime"
    return Interval("trip_minutes", begin, end, "Trip", bin_width=0)


YELLOW = Service(
    name="yellow",
    pickup="tpep_pickup_datetime",
    intervals=(_build_trip_minutes("tpep"),),
    columns=(*_YELLOW, AIRPORT, CONGESTION_ZONE),
    raw_only_columns=(*_POINTS, "Start_Lon", "Start_Lat", "End_Lon", "End_Lat"),
    first_month="2009-01",
    title="Yellow taxi",
    schema_versions=(
        SchemaVersion(
            "2009-01 to 2009-12",
            _split_names(
                "vendor_name,Trip_Pickup_DateTime,Trip_Dropoff_DateTime,Passenger_Count,"
                "Trip_Distance,Start_Lon,Start_Lat,Rate_Code,store_and_forward,End_Lon,End_Lat,"
                "Payment_Type,Fare_Amt,surcharge,mta_tax,Tip_Amt,Tolls_Amt,Total_Amt"
            ),
            labels=True,
        ),
        SchemaVersion(
            "2010-01 to 2014-12",
            _split_names(
                "vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,"
                "pickup_longitude,pickup_latitude,rate_code,store_and_fwd_flag,dropoff_longitude,"
                "dropoff_latitude,payment_type,fare_amount,surcharge,mta_tax,tip_amount,"
                "tolls_amount,total_amount"
            ),
            labels=True,
        ),
        SchemaVersion(
            "2015-01 to 2016-06",
            _split_names(
                "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,"
                "trip_distance,pickup_longitude,pickup_latitude,RateCodeID,store_and_fwd_flag,"
                "dropoff_longitude,dropoff_latitude,payment_type,fare_amount,extra,mta_tax,"
                "tip_amount,tolls_amount,improvement_surcharge,total_amount"
            ),
        ),
        SchemaVersion("2016-07 to 2018-12", _list_names(_YELLOW[:-1])),
        SchemaVersion("2019-01 to 2021-07", _list_names(_YELLOW)),
        SchemaVersion("2011-01 to 2024-12", (*_list_names(_YELLOW), "airport_fee"), parquet=True),
        SchemaVersion(
            "since 2025-01",
            (*_list_names(_YELLOW), "Airport_fee", "cbd_congestion_fee"),
            parquet=True,
        ),
    ),
)
_EARLY_GREEN = (
    "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,"
    "Pickup_longitude,Pickup_latitude,Dropoff_longitude,Dropoff_latitude,Passenger_count,"
    "Trip_distance,Fare_amount,Extra,MTA_tax,Tip_amount,Tolls_amount,Ehail_fee,"
)
GREEN = Service(
    name="green",
    pickup="lpep_pickup_datetime",
    intervals=(_build_trip_minutes("lpep"),),
    columns=(*_GREEN, CONGESTION_ZONE),
    raw_only_columns=_POINTS,
    first_month="2013-08",
    title="Green taxi",
    schema_versions=(
        SchemaVersion(
            "2013-08 to 2014-12",
            _split_names(_EARLY_GREEN + "Total_amount,Payment_type,Trip_type "),
        ),
        SchemaVersion(
            "2015-01 to 2016-06",
            _split_names(
                _EARLY_GREEN + "improvement_surcharge,Total_amount,Payment_type,Trip_type "
            ),
        ),
        SchemaVersion("2016-07 to 2018-12", _list_names(_GREEN[:-1])),
        SchemaVersion("2019-01 to 2021-07", _list_names(_GREEN)),
        SchemaVersion("2013-08 to 2024-12", _list_names(_GREEN), parquet=True),
        SchemaVersion("since 2025-01", (*_list_names(_GREEN), "cbd_congestion_fee"), parquet=True),
    ),
)

BASE = Column(
    "dispatching_base_num",
    "text",
    "TLC licence of the base that dispatched the trip",
    aliases=("Dispatching_base_number",),
    repeated=True,
    examples=("B02764", "B02510", "B02872", "B00013", "B01051"),
)
SHARED_RIDE = Column(
    "SR_Flag",
    "id",
    "1 shared ride (Uber Pool, Lyft Line), else null; Lyft marks rides that were requested as "
    "shared and matched with nobody, too",
    since="2017-07",
    roles=("shared",),
)
HIRE_PICKUP = Column(
    "pickup_datetime", "time", "When the trip began", "New York wall time", aliases=("Pickup_date",)
)
HIRE_DROPOFF = Column(
    "dropoff_datetime", "time", "When the trip ended", "New York wall time", roles=("dropoff",)
)
HIRE_PICKUP_ZONE = Column(
    "PULocationID",
    "id",
    "Taxi zone in which the trip began",
    aliases=("locationID", "pickup_location_id"),
    roles=("pickup_zone",),
    limits=ZONES,
)
HIRE_DROPOFF_ZONE = Column(
    "DOLocationID",
    "id",
    "Taxi zone in which the trip ended",
    aliases=("dropoff_location_id",),
    roles=("dropoff_zone",),
    limits=ZONES,
)
_TRIP = (HIRE_PICKUP, HIRE_DROPOFF, HIRE_PICKUP_ZONE, HIRE_DROPOFF_ZONE)
_FHV = (
    BASE,
    HIRE_PICKUP,
    HIRE_DROPOFF,
    replace(HIRE_PICKUP_ZONE, filled="mostly"),
    HIRE_DROPOFF_ZONE,
    SHARED_RIDE,
    Column(
        "Affiliated_base_number",
        "text",
        "TLC licence of the base that the vehicle is affiliated with",
        aliases=("Affiliated_base_num",),
        filled="mostly",
        examples=("B02764", "B02510", "B02872", "B00013", "B01051"),
    ),
)
FHV = Service(
    name="fhv",
    title="For-hire vehicle",
    pickup="pickup_datetime",
    columns=_FHV,
    table_suffix="trip_data",
    first_month="2015-01",
    has_fixed_order=False,
    intervals=(Interval("trip_minutes", "pickup_datetime", "dropoff_datetime", "Trip"),),
    schema_versions=(
        SchemaVersion(
            "2015-01 to 2016-12", _split_names("Dispatching_base_num,Pickup_date,locationID")
        ),
        SchemaVersion(
            "2017-01 to 2017-06",
            _split_names(
                "Dispatching_base_num,Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID"
            ),
        ),
        SchemaVersion(
            "2017-07 to 2017-12",
            _split_names(
                "Dispatching_base_num,Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,"
                "SR_Flag"
            ),
        ),
        SchemaVersion(
            "2018-01 to 2018-12",
            _split_names(
                "Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,SR_Flag,"
                "Dispatching_base_number,Dispatching_base_num"
            ),
        ),
        SchemaVersion("2019-01 to 2019-12", _list_names(_FHV[:-1])),
        SchemaVersion("2020-01 to 2021-07", _list_names(_FHV)),
        SchemaVersion(
            "since 2015-01",
            _split_names(
                "dispatching_base_num,pickup_datetime,dropOff_datetime,PUlocationID,DOlocationID,"
                "SR_Flag,Affiliated_base_number"
            ),
            parquet=True,
        ),
    ),
)


LICENSE = Column(
    "hvfhs_license_num",
    "text",
    "TLC licence of the company: HV0002 Juno, HV0003 Uber, HV0004 Via, HV0005 Lyft",
    aliases=("hvfhs_license_number",),
    examples=("HV0003", "HV0003", "HV0005"),
)
_FHVHV = (
    LICENSE,
    BASE,
    Column(
        "originating_base_num",
        "text",
        "TLC licence of the base that got the request",
        filled="mostly",
        examples=("B02764", "B02872"),
    ),
    Column("request_datetime", "time", "When the passenger asked for a ride", "New York wall time"),
    Column(
        "on_scene_datetime",
        "time",
        "When the driver arrived; accessible vehicles only",
        "New York wall time",
        filled="mostly",
    ),
    *_TRIP,
    Column(
        "trip_miles",
        "amount",
        "Distance with the passenger",
        "miles",
        roles=("distance",),
        limits=(0, 200),
    ),
    Column("trip_time", "id", "Time with the passenger", "seconds"),
    _build_dollar_column(
        "base_passenger_fare",
        "Fare before tolls, tips, taxes and fees",
        roles=("total", "fare"),
        limits=(0, 1000),
        bin_width=2.5,
    ),
    _build_dollar_column("tolls", "Tolls of the trip"),
    _build_dollar_column("bcf", "Paid to the Black Car Fund"),
    _build_dollar_column("sales_tax", "New York State sales tax"),
    CONGESTION,
    _build_dollar_column("airport_fee", "Fee for LaGuardia, Newark and JFK, either way"),
    _build_dollar_column("tips", "Tips", roles=("tip",)),
    _build_dollar_column(
        "driver_pay",
        "What the driver got, without tolls and tips, after commission, surcharges and taxes",
        roles=("pay",),
        bin_width=2.5,
    ),
    _build_flag_column("shared_request_flag", "the passenger agreed to share the ride"),
    _build_flag_column("shared_match_flag", "strangers shared the ride", roles=("shared",)),
    _build_flag_column(
        "access_a_ride_flag", "the trip was made on behalf of the MTA", examples=(" ", "N", " ")
    ),
    _build_flag_column("wav_request_flag", "a wheelchair-accessible vehicle was requested"),
    _build_flag_column("wav_match_flag", "the vehicle was wheelchair-accessible"),
)
FHVHV = Service(
    name="fhvhv",
    title="High-volume for-hire",
    pickup="pickup_datetime",
    columns=(*_FHVHV, CONGESTION_ZONE, replace(SHARED_RIDE, since="")),
    table_suffix="trip_data",
    first_month="2019-02",
    has_fixed_order=False,
    intervals=(
        Interval("waiting_minutes", "request_datetime", "pickup_datetime", "Waiting for the car"),
    ),
    schema_versions=(
        SchemaVersion("2019-02 to 2021-07", _list_names((LICENSE, BASE, *_TRIP, SHARED_RIDE))),
        SchemaVersion("2019-02 to 2024-12", _list_names(_FHVHV), parquet=True, sampled=True),
        SchemaVersion("since 2025-01", _list_names((*_FHVHV, CONGESTION_ZONE)), parquet=True),
    ),
)

SERVICES: dict[str, Service] = {service.name: service for service in (YELLOW, GREEN, FHV, FHVHV)}
DEFAULT_SERVICES = (YELLOW.name, GREEN.name)
"""The services that are loaded if TAXI_SERVICES is not set."""
