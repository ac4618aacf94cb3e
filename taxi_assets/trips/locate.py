"""Fill the taxi zones of a day whose file has coordinates in place of zones (until 2016-06).

The search is in `tlc/zone_polygons.py`. Coordinates are not stored, so an invalid one makes only
the zone null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from taxi_assets.tlc.column import Column
from taxi_assets.tlc.header import Header
from taxi_assets.tlc.values import convert_column
from taxi_assets.tlc.zone_polygons import ZonePolygons

COORDINATE = Column("coordinate", "amount", "Longitude or latitude", "degrees")


def find_missing_zones(
    header: Header, zones: ZonePolygons | None, read_field: Callable[[int], Any]
) -> dict[str, pa.Array]:
    """Return the zone columns that the file has only as coordinates.

    Args:
        header: the file's columns.
        zones: the polygons; None leaves the columns out.
        read_field: returns the published values of a position, as texts or numbers.
    """
    if zones is None:
        return {}
    return {
        name: zones.find_zones(*(_to_coordinates(read_field(at)) for at in places))
        for name, places in header.points.items()
    }


def _to_coordinates(values: Any) -> pa.Array:
    """Return published values as doubles; an invalid one becomes null."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    coordinates, _ = convert_column(values, COORDINATE, {}, Counter())
    return coordinates
