"""Taxi zones of coordinates: TLC's zone polygons, and which of them each point lies in.

Defined here: reading the Taxi & Limousine Commission's (TLC) shapefile or GeoJSON of zones, and
the point-in-polygon search. Which columns hold coordinates is in `services.py`; what a day gets
from them is in `trips/parse.py`.

The search sorts points by longitude and tests those in a polygon's bounds: 2.4 million points a
second and core. shapely's STRtree finds 0.15 million, DuckDB's spatial join as many.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
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
"""Coordinates beyond it are feet."""
NEW_YORK = (-75.5, 39.5, -72.5, 42.0)
"""West, south, east and north of everything that can be TLC's zones, degrees."""
ZONE_ID = "locationid"
SHAPES, GEOJSON = (".shp",), (".geojson", ".json")
MAX_UNPACKED_BYTES = 256 << 20
"""Of a zip; TLC's has 3 MB."""
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
    """Zone of each polygon; a zone of several islands has several."""
    polygons: Any
    """Array of shapely polygons, prepared."""
    version: str
    """Hash of the polygons: another file with the same ones is the same version."""
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)
    """GEOS builds a prepared polygon's index at its first use, which two threads must not."""

    def find_zones(self, longitudes: pa.Array, latitudes: pa.Array) -> pa.Array:
        """Return the zone of each point, null where a coordinate is null or outside all zones."""
        x, y = (
            np.asarray(one.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False))
            for one in (longitudes, latitudes)
        )
        found = np.full(len(x), NO_ZONE, np.int64)
        with self._lock:
            for at in range(0, len(x), CHUNK):
                part = slice(at, at + CHUNK)
                found[part] = self._search(x[part], y[part])
        return pa.array(found, mask=found == NO_ZONE)

    def _search(self, x: Doubles, y: Doubles) -> Ids:
        """Test the points in each polygon's bounds; sorted by longitude, they are neighbours."""
        import shapely  # noqa: PLC0415 - heavy at import

        order = np.argsort(x)
        x, y = x[order], y[order]
        found = np.full(len(x), NO_ZONE, np.int64)
        west, south, east, north = self._bounds.T
        firsts, ends = np.searchsorted(x, west), np.searchsorted(x, east, "right")
        for at, polygon in enumerate(self.polygons):
            between = y[firsts[at] : ends[at]]
            near = np.flatnonzero((between >= south[at]) & (between <= north[at])) + firsts[at]
            if len(near):
                found[near[shapely.contains_xy(polygon, x[near], y[near])]] = self.ids[at]
        unsorted = np.empty_like(found)
        unsorted[order] = found
        return unsorted

    @cached_property
    def _bounds(self) -> Doubles:
        import shapely  # noqa: PLC0415 - heavy at import

        return np.asarray(shapely.bounds(self.polygons), np.float64)


def read_zone_polygons(path: Path) -> ZonePolygons:
    """Read a shapefile (`.shp`, `.dbf`, `.prj`), a zip of one, or a GeoJSON file.

    Raises:
        SourceError: it cannot be read, or does not hold TLC's zones.
    """
    import shapely  # noqa: PLC0415 - heavy at import

    with ExitStack() as stack:
        file = path
        if path.suffix.lower() == ".zip":
            folder = stack.enter_context(TemporaryDirectory(prefix="taxi-zones-"))
            file = _unzip(path, Path(folder))
        try:
            shapes, system = _read(file)
            polygons = _to_degrees([polygon for _, polygon in shapes], system)
        except SourceError:
            raise
        except Exception as error:  # whatever three libraries say of somebody's file
            raise SourceError(
                _complaint(path, f"cannot be read: {format_one_line(error)}")
            ) from error
    west, south, east, north = shapely.total_bounds(polygons).tolist()
    if not (NEW_YORK[0] < west < east < NEW_YORK[2] and NEW_YORK[1] < south < north < NEW_YORK[3]):
        found = f"has {len(shapes)} shapes from {west:g}, {south:g} to {east:g}, {north:g}"
        raise SourceError(_complaint(path, found))
    ids = np.array([zone for zone, _ in shapes], np.int64)
    digest = hashlib.sha256(ids.tobytes() + b"".join(shapely.to_wkb(polygons)))
    shapely.prepare(polygons)
    return ZonePolygons(ids, polygons, digest.hexdigest()[:16])


def _complaint(path: Path, found: str) -> str:
    return (
        f"TAXI_ZONES: {path} {found}; expected TLC's taxi zones, polygons in New York with the "
        "attribute LocationID: a .shp beside its .dbf and .prj, a .zip of them, or a .geojson"
    )


def _unzip(path: Path, folder: Path) -> Path:
    """Unpack a zip and return the shapefile or GeoJSON in it."""
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(member.file_size for member in packed.infolist())
            if size > MAX_UNPACKED_BYTES:
                raise SourceError(_complaint(path, f"unpacks to {size:,} bytes"))
            packed.extractall(folder)
    except (zipfile.BadZipFile, OSError) as error:
        raise SourceError(_complaint(path, f"cannot be unpacked ({error})")) from error
    endings = (*SHAPES, *GEOJSON)
    found = sorted(one for one in folder.rglob("*") if one.suffix.lower() in endings)
    if not found:
        raise SourceError(_complaint(path, "holds none of these"))
    return found[0]


def _read(path: Path) -> tuple[list[tuple[int, Any]], str | None]:
    """Return id and polygon of each zone, and the name or definition of their coordinates."""
    from shapely.geometry import shape  # noqa: PLC0415 - heavy at import

    if path.suffix.lower() in GEOJSON:
        content = json.loads(path.read_bytes())
        system = content.get("crs", {}).get("properties", {}).get("name")
        features: Iterable[Any] = content["features"]
    else:
        import shapefile  # noqa: PLC0415 - heavy at import

        with shapefile.Reader(str(path)) as reader:
            features = [one.__geo_interface__ for one in reader.iterShapeRecords()]
        definition = path.with_suffix(".prj")
        system = definition.read_text() if definition.exists() else None
    shapes = [
        (_zone_of(path, feature["properties"]), shape(feature["geometry"])) for feature in features
    ]
    if not shapes:
        raise SourceError(_complaint(path, "has no polygons"))
    return shapes, system


def _zone_of(path: Path, attributes: dict[str, Any]) -> int:
    """Return a zone's id; New York's open data writes it `location_id`."""
    for name, value in attributes.items():
        if name.lower().replace("_", "") == ZONE_ID:
            return int(value)
    raise SourceError(_complaint(path, f"has the attributes {', '.join(attributes)}"))


def _to_degrees(polygons: list[Any], system: str | None) -> Any:
    """Return an array of polygons in longitude and latitude."""
    import pyproj  # noqa: PLC0415 - heavy at import
    import shapely  # noqa: PLC0415 - heavy at import

    if system is None:
        west = float(shapely.total_bounds(polygons)[0])
        system = FEET if abs(west) > MAX_DEGREES else DEGREES
    to_degrees = pyproj.Transformer.from_crs(system, DEGREES, always_xy=True)

    def transform(points: Doubles) -> Doubles:
        return np.column_stack(to_degrees.transform(points[:, 0], points[:, 1]))

    return shapely.transform(np.array(polygons, object), transform)
