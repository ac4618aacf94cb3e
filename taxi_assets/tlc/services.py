"""TLC's columns, and their names over the years.

Names, units and meanings are those of TLC's data dictionaries
(https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page, "Trip Record User Guide").
"""

from __future__ import annotations

from taxi_assets.tlc.schema import Column, SchemaVersion, Service

VENDOR = Column(
    "VendorID",
    "id",
    "Provider of the record: 1 Creative Mobile, 2 Curb (VeriFone until 2016), 6 Myle, 7 Helix",
    aliases=("vendor_id", "vendor_name"),
    labels=(("CMT", "1"), ("VTS", "2")),
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
    aliases=("rate_code",),
)
STORED = Column(
    "store_and_fwd_flag",
    "text",
    "Y if the vehicle had no connection and sent the trip later",
    aliases=("store_and_forward",),
    labels=(
        *((label, "Y") for label in ("Y", "1", "TRUE", "T", "YES")),
        *((label, "N") for label in ("N", "0", "FALSE", "F", "NO")),
    ),
)
PICKUP_ZONE = Column(
    "PULocationID", "id", "Taxi zone in which the meter was engaged", since="2011-01"
)
DROPOFF_ZONE = Column(
    "DOLocationID", "id", "Taxi zone in which the meter was disengaged", since="2011-01"
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
)
FARE = Column("fare_amount", "amount", "Time-and-distance fare", "dollars", aliases=("fare_amt",))
EXTRA = Column(
    "extra",
    "amount",
    "Rush hour, overnight and other extras",
    "dollars",
    aliases=("surcharge",),
)
MTA_TAX = Column("mta_tax", "amount", "MTA tax, triggered by the metered rate", "dollars")
TIP = Column(
    "tip_amount",
    "amount",
    "Tip by card; cash tips are not recorded",
    "dollars",
    aliases=("tip_amt",),
)
TOLLS = Column(
    "tolls_amount", "amount", "Tolls paid on the trip", "dollars", aliases=("tolls_amt",)
)
IMPROVEMENT = Column(
    "improvement_surcharge",
    "amount",
    "Improvement surcharge at flag drop",
    "dollars",
    since="2015-01",
)
TOTAL = Column(
    "total_amount",
    "amount",
    "Charged in all, without cash tips",
    "dollars",
    aliases=("total_amt",),
)
CONGESTION = Column(
    "congestion_surcharge",
    "amount",
    "New York State congestion surcharge",
    "dollars",
    since="2019-01",
)
EHAIL = Column("ehail_fee", "amount", "E-hail fee; never filled in the published files", "dollars")
TRIP_TYPE = Column("trip_type", "id", "1 street hail, 2 dispatch")
AIRPORT = Column(
    "airport_fee", "amount", "Fee for pickups at LaGuardia and JFK", "dollars", since="2022-01"
)
CONGESTION_ZONE = Column(
    "cbd_congestion_fee",
    "amount",
    "MTA's fee for the Congestion Relief Zone",
    "dollars",
    since="2025-01",
)


def _build_time_columns(prefix: str, *, earlier: bool) -> tuple[Column, Column]:
    def column(end: str, description: str) -> Column:
        aliases = (f"{end}_datetime", f"trip_{end}_datetime") if earlier else ()
        name = f"{prefix}_{end}_datetime"
        return Column(name, "time", description, "New York wall time", aliases=aliases)

    return (
        column("pickup", "When the meter was engaged"),
        column("dropoff", "When the meter was disengaged"),
    )


def _build_name_map(columns: tuple[Column, ...]) -> tuple[str, ...]:
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

YELLOW = Service(
    name="yellow",
    pickup="tpep_pickup_datetime",
    columns=(*_YELLOW, AIRPORT, CONGESTION_ZONE),
    elsewhere=(*_POINTS, "Start_Lon", "Start_Lat", "End_Lon", "End_Lat"),
    first_month="2009-01",
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
        SchemaVersion("2016-07 to 2018-12", _build_name_map(_YELLOW[:-1])),
        SchemaVersion("2019-01 to 2021-07", _build_name_map(_YELLOW)),
        SchemaVersion(
            "2011-01 to 2024-12", (*_build_name_map(_YELLOW), "airport_fee"), parquet=True
        ),
        SchemaVersion(
            "since 2025-01",
            (*_build_name_map(_YELLOW), "Airport_fee", "cbd_congestion_fee"),
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
    columns=(*_GREEN, CONGESTION_ZONE),
    elsewhere=_POINTS,
    first_month="2013-08",
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
        SchemaVersion("2016-07 to 2018-12", _build_name_map(_GREEN[:-1])),
        SchemaVersion("2019-01 to 2021-07", _build_name_map(_GREEN)),
        SchemaVersion("2013-08 to 2024-12", _build_name_map(_GREEN), parquet=True),
        SchemaVersion(
            "since 2025-01", (*_build_name_map(_GREEN), "cbd_congestion_fee"), parquet=True
        ),
    ),
)

SERVICES: dict[str, Service] = {service.name: service for service in (YELLOW, GREEN)}
