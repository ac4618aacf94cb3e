"""The taxi zone of a point, by TLC's polygons."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely

from taxi_assets.errors import SourceError
from taxi_assets.tlc.zone_polygons import ZonePolygons, read_zone_polygons
from taxi_assets_tests.conftest import RealRows
from taxi_assets_tests.tlc.zones import (
    ZONES,
    find_centre,
    write_geojson,
    write_shapefile,
    write_zip,
)


def write_shp(folder: Path) -> Path:
    return write_shapefile(folder / "zones.shp")


def write_shp_without_projection(folder: Path) -> Path:
    return write_shapefile(folder / "bare.shp", projection=False)


def write_newer_geojson(folder: Path) -> Path:
    return write_geojson(folder / "zones.geojson")


def write_geojson_of_2015(folder: Path) -> Path:
    return write_geojson(folder / "zones.json", "LocationID")


def write_zipped_shp(folder: Path) -> Path:
    return write_zip(folder / "zones.zip", folder / "unpacked")


def find_points(
    zones: ZonePolygons, *points: tuple[float | None, float | None]
) -> list[int | None]:
    longitudes, latitudes = zip(*points, strict=True)
    zone_ids = zones.find_zones(
        pa.array(longitudes, pa.float64()), pa.array(latitudes, pa.float64())
    )
    assert zone_ids.type == pa.int64()
    return zone_ids.to_pylist()


@pytest.mark.parametrize(
    "write",
    [
        write_shp,
        write_shp_without_projection,
        write_newer_geojson,
        write_geojson_of_2015,
        write_zipped_shp,
    ],
)
def test_point_is_in_its_zone_in_every_polygon_format(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    zones = read_zone_polygons(write(tmp_path))
    points = [
        *(find_centre(*place) for place in ZONES.values()),
        find_centre(1, 1),
        find_centre(9, 9),
    ]
    assert find_points(zones, *points) == [*ZONES, None, None]
    assert (
        find_points(zones, (None, 40.7), (-74.0, None), (0.0, 0.0), (float("nan"), 40.7))
        == [None] * 4
    )


def test_find_zones_of_no_points_and_of_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    zones = read_zone_polygons(write_newer_geojson(tmp_path))
    empty = pa.array([], pa.float64())
    assert zones.find_zones(empty, empty).to_pylist() == []
    monkeypatch.setattr("taxi_assets.tlc.zone_polygons.CHUNK", 7)
    ids = list(ZONES) * 30
    np.random.default_rng(1).shuffle(ids)
    assert find_points(zones, *(find_centre(*ZONES[zone]) for zone in ids)) == ids


def test_version_depends_on_polygons_not_on_format(tmp_path: Path) -> None:
    newer_file, file_of_2015 = write_newer_geojson(tmp_path), write_geojson_of_2015(tmp_path)
    assert read_zone_polygons(newer_file).version == read_zone_polygons(file_of_2015).version
    file_of_2015.write_text(file_of_2015.read_text().replace('"41"', '"40"'))
    assert read_zone_polygons(newer_file).version != read_zone_polygons(file_of_2015).version


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("zones.geojson", "{", "cannot be read"),
        ("zones.geojson", '{"features": []}', "has no polygons"),
        ("zones.zip", "no zip", "cannot be unpacked"),
        ("zones.shp", "no shapes", "cannot be read"),
    ],
)
def test_file_without_polygons_is_rejected(
    name: str, content: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=f"TAXI_ZONES: .*{name} {expected}.*expected TLC's"):
        read_zone_polygons(tmp_path / name)


def test_zip_with_a_password_or_a_damaged_member_is_rejected(tmp_path: Path) -> None:
    path = write_zipped_shp(tmp_path)
    for flag in (b"\1\0", b"\0\0"):
        content = bytearray(path.read_bytes())
        content[6:8] = flag
        at = content.index(b"PK\1\2") + 8
        content[at : at + 2] = flag
        content[60:64] = b"\xff" * 4
        (tmp_path / "m.zip").write_bytes(content)
        with pytest.raises(SourceError, match=r"TAXI_ZONES: .*m.zip cannot be unpacked"):
            read_zone_polygons(tmp_path / "m.zip")


@pytest.mark.parametrize("zone", [None, 0, -1, 1.5, "x", True, 2**70])
def test_invalid_zone_id_is_rejected(tmp_path: Path, zone: object) -> None:
    path = write_newer_geojson(tmp_path)
    content = json.loads(path.read_text())
    content["features"][0]["properties"] = {"LocationID": zone}
    path.write_text(json.dumps(content))
    with pytest.raises(SourceError, match=f"has the LocationID '{zone}', not a whole number"):
        read_zone_polygons(path)


@pytest.mark.parametrize(
    "geometry",
    [
        None,
        {"type": "Polygon", "coordinates": []},
        {"type": "Point", "coordinates": [-73.98, 40.74]},
    ],
)
def test_zone_without_a_polygon_is_rejected(tmp_path: Path, geometry: object) -> None:
    path = write_newer_geojson(tmp_path)
    content = json.loads(path.read_text())
    content["features"][0] = {"properties": {"LocationID": "4.0"}, "geometry": geometry}
    path.write_text(json.dumps({**content, "crs": None}))
    with pytest.raises(SourceError, match="has no polygon for zone 4"):
        read_zone_polygons(path)


def test_polygons_elsewhere_or_without_ids_are_rejected(tmp_path: Path) -> None:
    path = write_newer_geojson(tmp_path)
    elsewhere = path.read_text().replace("-74.0", "-120.0").replace("-73.9", "-119.9")
    (tmp_path / "elsewhere.geojson").write_text(elsewhere)
    with pytest.raises(SourceError, match=r"has 3 shapes from -120, 40.7"):
        read_zone_polygons(tmp_path / "elsewhere.geojson")
    with pytest.raises(SourceError, match="has the attributes zone, number"):
        read_zone_polygons(write_geojson(tmp_path / "nameless.geojson", "number"))


@pytest.fixture(scope="module")
def published(real_rows: RealRows) -> ZonePolygons:
    return read_zone_polygons(real_rows.folder / "misc/taxi_zones/taxi_zones.shp")


def draw_points_inside(
    zones: ZonePolygons, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw points in each polygon's bounds; return those that shapely's tree puts inside."""
    rng = np.random.default_rng(2263)
    which = rng.integers(0, len(zones.ids), count)
    west, south, east, north = shapely.bounds(zones.polygons)[which].T
    x, y = west + rng.random(count) * (east - west), south + rng.random(count) * (north - south)
    inside = shapely.contains_xy(zones.polygons[which], x, y)
    return x[inside], y[inside], zones.ids[which[inside]]


def test_points_are_found_in_their_zones(published: ZonePolygons) -> None:
    assert len(published.ids) == 263
    assert set(published.ids.tolist()) == set(range(1, 264)) - {57, 104, 105}
    x, y, expected = draw_points_inside(published, 100_000)
    assert len(x) > 30_000
    zones = published.find_zones(pa.array(x), pa.array(y)).to_numpy(zero_copy_only=False)
    assert (zones == expected).mean() > 0.999
    # Zones do not overlap: a point drawn for another polygon is in that zone, too.
    far = published.find_zones(pa.array(x + 3), pa.array(y))
    assert far.null_count == len(x)


def test_a_million_points_take_less_than_a_second(published: ZonePolygons) -> None:
    x, y, _ = draw_points_inside(published, 600_000)
    longitudes, latitudes = pa.array(x), pa.array(y)
    published.find_zones(longitudes[:10], latitudes[:10])  # builds the polygons' indices
    seconds = []
    for _ in range(3):
        started = time.thread_time()
        published.find_zones(longitudes, latitudes)
        seconds.append(time.thread_time() - started)
    assert len(x) / min(seconds) > 1_000_000
