"""Names of TLC's taxi zones.

`taxi_zone_lookup.csv` is TLC's public table as published, byte for byte, 265 zones
(https://www.nyc.gov/site/tlc/about/tlc-trip-record-data.page, "Taxi Zone Lookup Table").
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

NOT_KNOWN = "N/A"


@dataclass(frozen=True)
class Zone:
    """A taxi zone."""

    name: str
    borough: str
    """Empty if the zone is in no borough."""


@cache
def read_zone_table() -> dict[int, Zone]:
    """Return zones by their id in the trips."""
    path = Path(__file__).with_name("taxi_zone_lookup.csv")
    with path.open(newline="", encoding="utf-8") as file:
        return {int(row["LocationID"]): _parse_zone(row) for row in csv.DictReader(file)}


def find_zone(location: int | None) -> Zone:
    """Return the zone of an id; an unknown id becomes the name."""
    if location is None:
        return Zone("No zone recorded", "")
    return read_zone_table().get(location) or Zone(f"Zone {location}", "")


def _parse_zone(row: dict[str, str]) -> Zone:
    name, borough = row["Zone"], row["Borough"]
    if name == NOT_KNOWN:  # 264 is "Unknown","N/A"; 265 is "N/A","Outside of NYC"
        return Zone(f"{borough} zone", "")
    return Zone(name, "" if borough == NOT_KNOWN else borough)
