"""A small city of square taxi zones, as TLC's shapefile and as GeoJSON."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pyproj
import shapefile

SIDE = 0.01
"""Degrees."""
WEST, SOUTH = -74.0, 40.7
ZONES = {41: (0, 0), 42: (1, 0), 7: (0, 1)}
"""Column and row of each zone's square; the square at (1, 1) is no zone."""


def make_square(column: int, row: int) -> list[tuple[float, float]]:
    """Return the corners of a square, clockwise."""
    x, y = WEST + column * SIDE, SOUTH + row * SIDE
    return [(x, y), (x, y + SIDE), (x + SIDE, y + SIDE), (x + SIDE, y), (x, y)]


def find_centre(column: int, row: int) -> tuple[float, float]:
    return WEST + (column + 0.5) * SIDE, SOUTH + (row + 0.5) * SIDE


def write_geojson(path: Path, attribute: str = "location_id") -> Path:
    features = [
        {
            "type": "Feature",
            "properties": {"zone": f"Zone {zone}", attribute: str(zone)},
            "geometry": {"type": "Polygon", "coordinates": [make_square(*place)]},
        }
        for zone, place in ZONES.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def write_shapefile(path: Path, *, projection: bool = True) -> Path:
    """Write in feet of New York's state plane, with or without the definition beside it."""
    system = pyproj.CRS("EPSG:2263")
    to_feet = pyproj.Transformer.from_crs("EPSG:4326", system, always_xy=True)
    with shapefile.Writer(str(path), shapeType=shapefile.POLYGON) as writer:
        writer.field("OBJECTID", "N")
        writer.field("LocationID", "N")
        for zone, place in ZONES.items():
            writer.poly([[to_feet.transform(*corner) for corner in make_square(*place)]])
            writer.record(1000 + zone, zone)
    if projection:
        path.with_suffix(".prj").write_text(system.to_wkt("WKT1_ESRI"))
    return path


def write_zip(path: Path, folder: Path) -> Path:
    """Write the shapefile in a folder of a zip, as TLC publishes it."""
    folder.mkdir()
    write_shapefile(folder / "taxi_zones.shp")
    with zipfile.ZipFile(path, "w") as packed:
        for part in folder.iterdir():
            packed.write(part, f"taxi_zones/{part.name}")
            # The Finder of macOS adds such a file to each.
            packed.writestr(f"__MACOSX/taxi_zones/._{part.name}", b"\0\5\x16\7")
    return path
