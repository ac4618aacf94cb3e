"""The taxi zone of a point, by TLC's polygons."""

from __future__ import annotations

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
    middle,
    write_geojson,
    write_shapefile,
    write_zip,
)


def shp(folder: Path) -> Path:
    return write_shapefile(folder / "zones.shp")


def shp_without_projection(folder: Path) -> Path:
    return write_shapefile(folder / "bare.shp", projection=False)


def geojson(folder: Path) -> Path:
    return write_geojson(folder / "zones.geojson")


def json_of_2015(folder: Path) -> Path:
    return write_geojson(folder / "zones.json", "LocationID")


def zipped(folder: Path) -> Path:
    return write_zip(folder / "zones.zip", folder / "unpacked")


def find(zones: ZonePolygons, *points: tuple[float | None, float | None]) -> list[int | None]:
    longitudes, latitudes = zip(*points, strict=True)
    found = zones.find_zones(pa.array(longitudes, pa.float64()), pa.array(latitudes, pa.float64()))
    assert found.type == pa.int64()
    return found.to_pylist()


@pytest.mark.parametrize("write", [shp, shp_without_projection, geojson, json_of_2015, zipped])
def test_a_point_is_in_its_zone_whatever_the_polygons_come_in(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    zones = read_zone_polygons(write(tmp_path))
    points = [*(middle(*place) for place in ZONES.values()), middle(1, 1), middle(9, 9)]
    assert find(zones, *points) == [*ZONES, None, None]
    assert find(zones, (None, 40.7), (-74.0, None), (0.0, 0.0), (float("nan"), 40.7)) == [None] * 4


def test_no_points_and_many_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zones = read_zone_polygons(geojson(tmp_path))
    empty = pa.array([], pa.float64())
    assert zones.find_zones(empty, empty).to_pylist() == []
    monkeypatch.setattr("taxi_assets.tlc.zone_polygons.CHUNK", 7)
    ids = list(ZONES) * 30
    np.random.default_rng(1).shuffle(ids)
    assert find(zones, *(middle(*ZONES[zone]) for zone in ids)) == ids


def test_the_version_names_the_polygons_and_not_the_file(tmp_path: Path) -> None:
    one, other = geojson(tmp_path), json_of_2015(tmp_path)
    assert read_zone_polygons(one).version == read_zone_polygons(other).version
    other.write_text(other.read_text().replace('"41"', '"40"'))
    assert read_zone_polygons(one).version != read_zone_polygons(other).version


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("zones.geojson", "{", "cannot be read"),
        ("zones.geojson", '{"features": []}', "has no polygons"),
        ("zones.zip", "no zip", "cannot be unpacked"),
        ("zones.shp", "no shapes", "cannot be read"),
    ],
)
def test_a_file_of_something_else_is_rejected(
    name: str, content: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=f"TAXI_ZONES: .*{name} {found}.*expected TLC's"):
        read_zone_polygons(tmp_path / name)


def test_polygons_of_another_city_and_without_ids_are_rejected(tmp_path: Path) -> None:
    path = geojson(tmp_path)
    elsewhere = path.read_text().replace("-74.0", "-120.0").replace("-73.9", "-119.9")
    (tmp_path / "elsewhere.geojson").write_text(elsewhere)
    with pytest.raises(SourceError, match=r"has 3 shapes from -120, 40.7"):
        read_zone_polygons(tmp_path / "elsewhere.geojson")
    with pytest.raises(SourceError, match="has the attributes zone, number"):
        read_zone_polygons(write_geojson(tmp_path / "nameless.geojson", "number"))


@pytest.fixture(scope="module")
def published(real_rows: RealRows) -> ZonePolygons:
    return read_zone_polygons(real_rows.folder / "misc/taxi_zones/taxi_zones.shp")


def points_inside(zones: ZonePolygons, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of known zones: drawn in each polygon's bounds, kept where shapely's tree agrees."""
    rng = np.random.default_rng(2263)
    which = rng.integers(0, len(zones.ids), count)
    west, south, east, north = shapely.bounds(zones.polygons)[which].T
    x, y = west + rng.random(count) * (east - west), south + rng.random(count) * (north - south)
    inside = shapely.contains_xy(zones.polygons[which], x, y)
    return x[inside], y[inside], zones.ids[which[inside]]


def test_points_of_known_zones_are_found_there(published: ZonePolygons) -> None:
    assert len(published.ids) == 263
    assert set(published.ids.tolist()) == set(range(1, 264)) - {57, 104, 105}
    x, y, expected = points_inside(published, 100_000)
    assert len(x) > 30_000
    found = published.find_zones(pa.array(x), pa.array(y)).to_numpy(zero_copy_only=False)
    assert (found == expected).mean() > 0.999
    # Zones overlap nowhere: a point that another polygon's drawing hit is in that zone, too.
    far = published.find_zones(pa.array(x + 3), pa.array(y))
    assert far.null_count == len(x)


def test_a_million_points_take_less_than_a_second_of_a_core(published: ZonePolygons) -> None:
    x, y, _ = points_inside(published, 600_000)
    longitudes, latitudes = pa.array(x), pa.array(y)
    published.find_zones(longitudes[:10], latitudes[:10])  # builds the polygons' indices
    seconds = []
    for _ in range(3):
        began = time.thread_time()
        published.find_zones(longitudes, latitudes)
        seconds.append(time.thread_time() - began)
    assert len(x) / min(seconds) > 1_000_000
