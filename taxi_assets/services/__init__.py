"""The taxi services and their one column schema.

A column is added in `tlc.py` and nowhere else: Arrow, pandas, Postgres and BigQuery types, the
frame's checks and the tables' definitions are all derived from `Column`. A further service is one
more entry in `SERVICES`.
"""

from taxi_assets.services.schema import (
    ARROW_TYPES,
    TOTAL_AMOUNT,
    Column,
    Era,
    Kind,
    Service,
    name_key,
)
from taxi_assets.services.tlc import (
    CONGESTION,
    DISTANCE,
    DROPOFF_ZONE,
    EXTRA,
    FARE,
    GREEN,
    IMPROVEMENT,
    MTA_TAX,
    PASSENGERS,
    PAYMENT,
    PICKUP_ZONE,
    RATE_CODE,
    SERVICES,
    STORED,
    TIP,
    TOLLS,
    TOTAL,
    VENDOR,
    YELLOW,
)

__all__ = [
    "ARROW_TYPES",
    "CONGESTION",
    "DISTANCE",
    "DROPOFF_ZONE",
    "EXTRA",
    "FARE",
    "GREEN",
    "IMPROVEMENT",
    "MTA_TAX",
    "PASSENGERS",
    "PAYMENT",
    "PICKUP_ZONE",
    "RATE_CODE",
    "SERVICES",
    "STORED",
    "TIP",
    "TOLLS",
    "TOTAL",
    "TOTAL_AMOUNT",
    "VENDOR",
    "YELLOW",
    "Column",
    "Era",
    "Kind",
    "Service",
    "name_key",
]
