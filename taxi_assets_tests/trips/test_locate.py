"""Zones of rows that were published with coordinates: the months until 2016-06."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.schema import SchemaVersion, Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.tlc.zone_polygons import ZonePolygons, read_zone_polygons
from taxi_assets.trips.clean import Cleaned, clean_partition
from taxi_assets_tests.conftest import RealRows
from taxi_assets_tests.tlc.files import open_raw_month, read_slices
from taxi_assets_tests.tlc.zones import ZONES, find_centre, write_geojson

VERSIONS_WITH_POINTS = [
    (service, schema_version)
    for service in SERVICES.values()
    for schema_version in service.schema_versions
    if any("lon" in name.lower() for name in schema_version.header)
]
each_version = pytest.mark.parametrize(
    ("service", "schema_version"),
    VERSIONS_WITH_POINTS,
    ids=[f"{s.name} {e.months}" for s, e in VERSIONS_WITH_POINTS],
)
PICKUP = "2014-05-05 08:00:00"
NOWHERE = ("0", "0")


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> ZonePolygons:
    return read_zone_polygons(write_geojson(tmp_path_factory.mktemp("zones") / "zones.geojson"))


def make_trip(
    service: Service, schema_version: SchemaVersion, start: tuple[str, str], end: tuple[str, str]
) -> list[str]:
    """Return a trip from one point to another, longitudes first."""
    value_of_kind = {"id": "1", "amount": "2.5", "text": "N", "time": PICKUP}
    points = iter((*start, *end))
    return [
        value_of_kind[column.kind] if (column := service.find_column(name)) else next(points)
        for name in schema_version.header
    ]


def locate_zone_centre(zone: int) -> tuple[str, str]:
    longitude, latitude = find_centre(*ZONES[zone])
    return f"{longitude:.6f}", f"{latitude:.6f}"


def build_csv(service: Service, schema_version: SchemaVersion, *rows: list[str]) -> pa.Buffer:
    lines = [",".join(schema_version.header), *(",".join(row) for row in rows)]
    return pa.py_buffer("\n".join(lines).encode() + b"\n")


def read_zone_pairs(cleaned: Cleaned) -> list[tuple[int | None, int | None]]:
    frame = cleaned.frame[["pulocationid", "dolocationid"]].astype(object)
    return list(frame.where(frame.notna(), None).itertuples(index=False, name=None))


@each_version
def test_points_are_replaced_by_their_zones(
    service: Service, schema_version: SchemaVersion, zones: ZonePolygons
) -> None:
    rows = [
        make_trip(service, schema_version, locate_zone_centre(41), locate_zone_centre(7)),
        make_trip(service, schema_version, locate_zone_centre(42), NOWHERE),
        make_trip(service, schema_version, ("", ""), locate_zone_centre(42)),
        make_trip(service, schema_version, ("nowhere", "40.7"), locate_zone_centre(41)),
    ]
    for content in (
        build_csv(service, schema_version, *rows),
        build_csv(service, schema_version, *rows[:3]),  # all numbers: parsed as a block
        pa.table(dict(zip(schema_version.header, map(list, zip(*rows, strict=True)), strict=True))),
    ):
        cleaned = clean_partition(content, service, (), zones=zones)
        expected = [(41, 7), (42, None), (None, 42), (None, 41)][: len(cleaned.frame)]
        assert read_zone_pairs(cleaned) == expected
        assert not cleaned.unreadable
        assert cleaned.located == {
            "pulocationid": 2,
            "dolocationid": len([zone for _, zone in expected if zone]),
        }
        assert set(read_zone_pairs(clean_partition(content, service, ()))) == {(None, None)}
        assert clean_partition(content, service, ()).located == {}


@each_version
def test_unreadable_row_shifts_no_zone(
    service: Service, schema_version: SchemaVersion, zones: ZonePolygons
) -> None:
    bad = make_trip(service, schema_version, locate_zone_centre(7), locate_zone_centre(7))
    bad[
        schema_version.header.index(
            next(name for name in schema_version.header if "distance" in name.lower())
        )
    ] = "far"
    rows = [
        make_trip(service, schema_version, locate_zone_centre(41), locate_zone_centre(7)),
        bad,
        make_trip(service, schema_version, locate_zone_centre(42), locate_zone_centre(41)),
    ]
    cleaned = clean_partition(build_csv(service, schema_version, *rows), service, (), zones=zones)
    assert read_zone_pairs(cleaned) == [(41, 7), (42, 41)]
    assert len(cleaned.unreadable) == 1


def test_parquet_month_with_coordinates_as_doubles(zones: ZonePolygons, tmp_path: Path) -> None:
    """TLC's Parquet of yellow 2009 and 2010: texts, and coordinates as doubles."""
    service = SERVICES["yellow"]
    schema_version = service.schema_versions[0]
    values = zip(
        *(
            make_trip(service, schema_version, locate_zone_centre(41), locate_zone_centre(7))
            for _ in range(3)
        ),
        strict=True,
    )
    table = pa.table(dict(zip(schema_version.header, map(list, values), strict=True)))
    for name in ("Start_Lon", "Start_Lat", "End_Lon", "End_Lat"):
        index = table.schema.get_field_index(name)
        table = table.set_column(index, name, table[name].cast(pa.float64()))
    times = pa.array([datetime.fromisoformat(PICKUP)] * 3, pa.timestamp("us"))
    table = table.set_column(1, "Trip_Pickup_DateTime", times)
    pq.write_table(table, tmp_path / "month.parquet")
    (content,) = read_slices(
        open_raw_month(tmp_path / "month.parquet", service, Month(2014, 5))
    ).values()
    cleaned = clean_partition(content, service, (), zones=zones)
    assert read_zone_pairs(cleaned) == [(41, 7)] * 3


def test_published_zones_are_never_replaced(zones: ZonePolygons) -> None:
    service = SERVICES["yellow"]
    names = [*service.header, "pickup_longitude", "pickup_latitude"]
    value_of_kind = {"id": "9", "amount": "2.5", "text": "N", "time": PICKUP}
    values = [value_of_kind[column.kind] for column in service.header_columns]
    lines = ",".join(names) + "\n" + ",".join([*values, *locate_zone_centre(41)]) + "\n"
    cleaned = clean_partition(pa.py_buffer(lines.encode()), service, (), zones=zones)
    assert read_zone_pairs(cleaned) == [(9, 9)]
    assert cleaned.located == {}


def test_real_trips_of_2015_lie_in_the_city(real_rows: RealRows) -> None:
    """1,956 of 1,999 trips begin in a zone; the other 43 have no coordinates, or wrong ones."""
    published = read_zone_polygons(real_rows.folder / "misc/taxi_zones/taxi_zones.shp")
    path = real_rows.folder / "yellow/drift/yellow_tripdata_2015-01.head.csv"
    service = SERVICES["yellow"]
    contents = read_slices(open_raw_month(path, service, Month(2015, 1))).values()
    days = [clean_partition(content, service, (), zones=published) for content in contents]
    assert sum(len(day.frame) for day in days) == 1999
    assert sum(day.located["pulocationid"] for day in days) == 1956
    assert sum(day.located["dolocationid"] for day in days) == 1948
