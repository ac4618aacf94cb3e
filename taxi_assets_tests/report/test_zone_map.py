"""The map of a month's pickups, from a small city of square zones."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from taxi_assets.report.page import render_month_page
from taxi_assets.report.picture import draw_month_picture
from taxi_assets.report.zone_map import ZoneMap, layout_zone_map
from taxi_assets.tlc.zone_polygons import ZonePolygons, read_zone_polygons
from taxi_assets_tests.report.test_report import day, figures
from taxi_assets_tests.tlc.zones import ZONES, write_geojson

MONTH = figures(dataclasses.replace(day(1010), zones={41: 1000, 42: 10, None: 7, 264: 3}))


@pytest.fixture
def polygons(tmp_path: Path) -> ZonePolygons:
    return read_zone_polygons(write_geojson(tmp_path / "zones.geojson"))


def layout_map(polygons: ZonePolygons) -> ZoneMap:
    zone_map = layout_zone_map(MONTH, polygons)
    assert zone_map is not None
    return zone_map


def test_each_zone_has_outline_colour_and_trips(polygons: ZonePolygons) -> None:
    zones = layout_map(polygons)
    by_hint = {shape.hint: shape for shape in zones.shapes}
    assert list(by_hint) == [
        "Astoria, Queens: 0 trips",
        "Central Harlem, Manhattan: 1,000 trips",
        "Central Harlem North, Manhattan: 10 trips",
    ]
    astoria, harlem, north = by_hint.values()
    # A third of the logarithm is a third of the six steps between the first colour and the last.
    assert (astoria.step, harlem.step, north.step, zones.most) == (None, 6, 2, 1000)
    (corners,) = harlem.outlines
    xs, ys = {round(x, 3) for x, _ in corners}, {round(y, 3) for _, y in corners}
    # Two columns and two rows of squares, north up, as wide as longitudes are in New York.
    assert (min(xs), max(xs)) == (0.0, zones.width / 2)
    assert (min(ys), max(ys)) == (round(zones.height / 2, 3), round(zones.height, 3))
    assert zones.width / zones.height == pytest.approx(0.758, abs=0.001)
    assert re.fullmatch(r"M[\d.]+ [\d.]+(L[\d.]+ [\d.]+){4}Z", harlem.path)


def test_page_and_picture_include_the_map(polygons: ZonePolygons) -> None:
    zones = layout_map(polygons)
    page = render_month_page(MONTH, zones).decode()
    assert page.count("<path d=") == len(ZONES)
    assert 'class="z6"><title>Central Harlem, Manhattan: 1,000 trips</title>' in page
    assert draw_month_picture(MONTH, zones) != draw_month_picture(MONTH)


def test_no_map_without_polygons_or_zones(polygons: ZonePolygons) -> None:
    assert layout_zone_map(MONTH, None) is None
    nowhere = figures(dataclasses.replace(day(5), zones={None: 5}))
    assert layout_zone_map(nowhere, polygons) is None
    assert b"Where trips began" not in render_month_page(MONTH)
