"""Find the taxi zones of coordinates in the polygons of TLC, the Taxi & Limousine Commission.

This module reads TLC's shapefile or GeoJSON of zones and searches the polygons of points. The
table in `services.py` names the columns with coordinates; `trips/locate.py` fills the zones.

The search sorts points by longitude and tests those within a polygon's bounds: 2.4 million points
per second and core. shapely's STRtree and DuckDB's spatial join process 0.15 million.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from taxi_assets.errors import SourceError, format_one_line

FEET, DEGREES = "EPSG:2263", "EPSG:4326"
"""New York's state plane, in which TLC publishes the polygons, and longitude and latitude."""
MAX_DEGREES = 360
"""Larger coordinates are feet."""
NEW_YORK = (-75.5, 39.5, -72.5, 42.0)
"""Bounds of any plausible zones, in degrees: west, south, east, north."""
ZONE_ID = "locationid"
ZONE = re.compile(r"0*[1-9][0-9]{0,5}(\.0*)?")
POLYGONS, NO_SHAPE = ("Polygon", "MultiPolygon"), {"type": "GeometryCollection", "geometries": ()}
SHAPES, GEOJSON = (".shp",), (".geojson", ".json")
MAX_UNPACKED_BYTES = 256 << 20
"""Limit of a zip; TLC's unpacks to 3 MB."""
CHUNK = 1 << 18
"""Points searched at a time."""

Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
NO_ZONE = 0
"""TLC counts its zones from 1."""


@dataclass(frozen=True)
class ZonePolygons:
    """The polygons of TLC's taxi zones, in degrees."""

    ids: Ids
    """Zone of each polygon; a zone with several islands has several polygons."""
    polygons: Any
    """Array of shapely polygons, prepared."""
    version: str
    """Hash of the polygons, which is the same for every file with these polygons."""
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)
    """GEOS builds a prepared polygon's index at its first use, which is not safe in two threads."""

    def find_zones(self, longitudes: pa.Array, latitudes: pa.Array) -> pa.Array:
        """Return the zone of each point; null if a coordinate is null or outside all zones."""
        x, y = (
            np.asarray(values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))
            for values in (longitudes, latitudes)
        )
        zones = np.full(len(x), NO_ZONE, np.int64)
        with self._lock:
            for at in range(0, len(x), CHUNK):
                part = slice(at, at + CHUNK)
                zones[part] = self._search(x[part], y[part])
        return pa.array(zones, mask=zones == NO_ZONE)

    def _search(self, x: Doubles, y: Doubles) -> Ids:
        """Test the points within each polygon's bounds, which are neighbours once sorted."""
        import shapely

        order = np.argsort(x)
        x, y = x[order], y[order]
        zones = np.full(len(x), NO_ZONE, np.int64)
        west, south, east, north = self._bounds.T
        firsts, ends = np.searchsorted(x, west), np.searchsorted(x, east, "right")
        for at, polygon in enumerate(self.polygons):
            between = y[firsts[at] : ends[at]]
            near = np.flatnonzero((between >= south[at]) & (between <= north[at])) + firsts[at]
            if len(near):
                zones[near[shapely.contains_xy(polygon, x[near], y[near])]] = self.ids[at]
        unsorted = np.empty_like(zones)
        unsorted[order] = zones
        return unsorted

    @cached_property
    def _bounds(self) -> Doubles:
        import shapely

        return np.asarray(shapely.bounds(self.polygons), np.float64)


def read_zone_polygons(path: Path) -> ZonePolygons:
    """Read a shapefile (`.shp`, `.dbf`, `.prj`), a zip of one, or a GeoJSON file.

    Raises:
        SourceError: the file cannot be read, or does not contain TLC's zones.
    """
    import shapely

    with ExitStack() as stack:
        file = path
        if path.suffix.lower() == ".zip":
            folder = stack.enter_context(TemporaryDirectory(prefix="taxi-zones-"))
            file = _unzip(path, Path(folder))
        try:
            shapes, system = _read(file)
            polygons = _to_degrees([polygon for _, polygon in shapes], system)
            ids = np.array([zone for zone, _ in shapes], np.int64)
        except SourceError:
            raise
        except Exception as error:  # three libraries raise many kinds for an invalid file
            raise SourceError(
                _describe_problem(path, f"cannot be read: {format_one_line(error)}")
            ) from error
    west, south, east, north = shapely.total_bounds(polygons).tolist()
    if not (NEW_YORK[0] < west < east < NEW_YORK[2] and NEW_YORK[1] < south < north < NEW_YORK[3]):
        problem = f"has {len(shapes)} shapes from {west:g}, {south:g} to {east:g}, {north:g}"
        raise SourceError(_describe_problem(path, problem))
    digest = hashlib.sha256(ids.tobytes() + b"".join(shapely.to_wkb(polygons)))
    shapely.prepare(polygons)
    return ZonePolygons(ids, polygons, digest.hexdigest()[:16])


def _describe_problem(path: Path, problem: str) -> str:
    return (
        f"TAXI_ZONES: {path} {problem}; expected TLC's taxi zones, polygons in New York with the "
        "attribute LocationID: a .shp beside its .dbf and .prj, a .zip of them, or a .geojson"
    )


def _unzip(path: Path, folder: Path) -> Path:
    """Unpack a zip and return the shapefile or GeoJSON in it."""
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(member.file_size for member in packed.infolist())
            if size > MAX_UNPACKED_BYTES:
                raise SourceError(_describe_problem(path, f"unpacks to {size:,} bytes"))
            packed.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError) as error:  # also encrypted ones
        raise SourceError(_describe_problem(path, f"cannot be unpacked ({error})")) from error
    endings = (*SHAPES, *GEOJSON)
    # macOS adds files with the same endings, whose names begin with a dot.
    files = sorted(
        file for file in folder.rglob("[!.]*") if file.is_file() and file.suffix.lower() in endings
    )
    if not files:
        raise SourceError(_describe_problem(path, "contains none of these"))
    return files[0]


def _read(path: Path) -> tuple[list[tuple[int, Any]], str | None]:
    """Return the id and polygon of each zone, and the coordinate system's name or definition."""
    from shapely.geometry import shape

    if path.suffix.lower() in GEOJSON:
        content = json.loads(path.read_bytes())
        system = (content.get("crs") or {}).get("properties", {}).get("name")
        features: Iterable[Any] = content["features"]
    else:
        import shapefile

        with shapefile.Reader(str(path)) as reader:
            features = [record.__geo_interface__ for record in reader.iterShapeRecords()]
        definition = path.with_suffix(".prj")
        system = definition.read_text() if definition.exists() else None
    shapes = [
        (_get_zone_id(path, feature["properties"]), shape(feature["geometry"] or NO_SHAPE))
        for feature in features
    ]
    if not shapes:
        raise SourceError(_describe_problem(path, "has no polygons"))
    for zone, polygon in shapes:
        if polygon.is_empty or polygon.geom_type not in POLYGONS:
            raise SourceError(_describe_problem(path, f"has no polygon for zone {zone}"))
    return shapes, system


def _get_zone_id(path: Path, attributes: dict[str, Any]) -> int:
    """Return a zone's id; in New York's open data the attribute is `location_id`."""
    for name, value in attributes.items():
        if name.lower().replace("_", "") == ZONE_ID:
            if not ZONE.fullmatch(str(value)):
                problem = f"has the {name} {str(value)[:40]!r}, not a whole number from 1"
                raise SourceError(_describe_problem(path, problem))
            return int(float(value))
    raise SourceError(_describe_problem(path, f"has the attributes {', '.join(attributes)}"))


def _to_degrees(polygons: list[Any], system: str | None) -> Any:
    """Return an array of polygons in longitude and latitude."""
    import pyproj
    import shapely

    if system is None:
        west = float(shapely.total_bounds(polygons)[0])
        system = FEET if abs(west) > MAX_DEGREES else DEGREES
    to_degrees = pyproj.Transformer.from_crs(system, DEGREES, always_xy=True)

    def transform(points: Doubles) -> Doubles:
        return np.column_stack(to_degrees.transform(points[:, 0], points[:, 1]))

    return shapely.transform(np.array(polygons, object), transform)
