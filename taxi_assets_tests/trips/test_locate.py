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
from taxi_assets_tests.tlc.files import raw_month, slices_of
from taxi_assets_tests.tlc.zones import ZONES, middle, write_geojson

WITH_POINTS = [
    (service, schema_version)
    for service in SERVICES.values()
    for schema_version in service.schema_versions
    if any("lon" in name.lower() for name in schema_version.header)
]
each = pytest.mark.parametrize(
    ("service", "schema_version"), WITH_POINTS, ids=[f"{s.name} {e.months}" for s, e in WITH_POINTS]
)
PICKUP = "2014-05-05 08:00:00"
NOWHERE = ("0", "0")


@pytest.fixture(scope="module")
def zones(tmp_path_factory: pytest.TempPathFactory) -> ZonePolygons:
    return read_zone_polygons(write_geojson(tmp_path_factory.mktemp("zones") / "zones.geojson"))


def row(
    service: Service, schema_version: SchemaVersion, start: tuple[str, str], end: tuple[str, str]
) -> list[str]:
    """A trip from one point to another, longitudes first."""
    of_kind = {"id": "1", "amount": "2.5", "text": "N", "time": PICKUP}
    points = iter((*start, *end))
    return [
        of_kind[column.kind] if (column := service.find_column(name)) else next(points)
        for name in schema_version.header
    ]


def at(zone: int) -> tuple[str, str]:
    longitude, latitude = middle(*ZONES[zone])
    return f"{longitude:.6f}", f"{latitude:.6f}"


def csv_rows(service: Service, schema_version: SchemaVersion, *rows: list[str]) -> pa.Buffer:
    lines = [",".join(schema_version.header), *(",".join(one) for one in rows)]
    return pa.py_buffer("\n".join(lines).encode() + b"\n")


def zones_of(done: Cleaned) -> list[tuple[int | None, int | None]]:
    frame = done.frame[["pulocationid", "dolocationid"]].astype(object)
    return list(frame.where(frame.notna(), None).itertuples(index=False, name=None))


@each
def test_rows_get_the_zones_of_their_points(
    service: Service, schema_version: SchemaVersion, zones: ZonePolygons
) -> None:
    rows = [
        row(service, schema_version, at(41), at(7)),
        row(service, schema_version, at(42), NOWHERE),
        row(service, schema_version, ("", ""), at(42)),
        row(service, schema_version, ("nowhere", "40.7"), at(41)),
    ]
    for content in (
        csv_rows(service, schema_version, *rows),
        csv_rows(service, schema_version, *rows[:3]),  # all numbers: read at once
        pa.table(dict(zip(schema_version.header, map(list, zip(*rows, strict=True)), strict=True))),
    ):
        done = clean_partition(content, service, (), zones=zones)
        expected = [(41, 7), (42, None), (None, 42), (None, 41)][: len(done.frame)]
        assert zones_of(done) == expected
        assert not done.unreadable
        assert done.located == {
            "pulocationid": 2,
            "dolocationid": len([one for _, one in expected if one]),
        }
        assert set(zones_of(clean_partition(content, service, ()))) == {(None, None)}
        assert clean_partition(content, service, ()).located == {}


@each
def test_an_unreadable_row_moves_no_zone(
    service: Service, schema_version: SchemaVersion, zones: ZonePolygons
) -> None:
    bad = row(service, schema_version, at(7), at(7))
    bad[
        schema_version.header.index(
            next(one for one in schema_version.header if "distance" in one.lower())
        )
    ] = "far"
    rows = [
        row(service, schema_version, at(41), at(7)),
        bad,
        row(service, schema_version, at(42), at(41)),
    ]
    done = clean_partition(csv_rows(service, schema_version, *rows), service, (), zones=zones)
    assert zones_of(done) == [(41, 7), (42, 41)]
    assert len(done.unreadable) == 1


def test_a_parquet_month_with_coordinates_as_doubles(zones: ZonePolygons, tmp_path: Path) -> None:
    """TLC's Parquet of yellow 2009 and 2010: texts, and coordinates as doubles."""
    service = SERVICES["yellow"]
    schema_version = service.schema_versions[0]
    values = zip(*(row(service, schema_version, at(41), at(7)) for _ in range(3)), strict=True)
    table = pa.table(dict(zip(schema_version.header, map(list, values), strict=True)))
    for name in ("Start_Lon", "Start_Lat", "End_Lon", "End_Lat"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(pa.float64()))
    times = pa.array([datetime.fromisoformat(PICKUP)] * 3, pa.timestamp("us"))
    table = table.set_column(1, "Trip_Pickup_DateTime", times)
    pq.write_table(table, tmp_path / "month.parquet")
    (content,) = slices_of(raw_month(tmp_path / "month.parquet", service, Month(2014, 5))).values()
    done = clean_partition(content, service, (), zones=zones)
    assert zones_of(done) == [(41, 7)] * 3


def test_published_zones_are_never_replaced(zones: ZonePolygons) -> None:
    service = SERVICES["yellow"]
    names = [*service.header, "pickup_longitude", "pickup_latitude"]
    of_kind = {"id": "9", "amount": "2.5", "text": "N", "time": PICKUP}
    values = [of_kind[column.kind] for column in service.header_columns]
    lines = ",".join(names) + "\n" + ",".join([*values, *at(41)]) + "\n"
    done = clean_partition(pa.py_buffer(lines.encode()), service, (), zones=zones)
    assert zones_of(done) == [(9, 9)]
    assert done.located == {}


def test_real_trips_of_2015_lie_in_the_city(real_rows: RealRows) -> None:
    """Of 1,999 trips 1,956 begin in a zone; the other 43 have no coordinates, or others' ones."""
    published = read_zone_polygons(real_rows.folder / "misc/taxi_zones/taxi_zones.shp")
    path = real_rows.folder / "yellow/drift/yellow_tripdata_2015-01.head.csv"
    service = SERVICES["yellow"]
    contents = slices_of(raw_month(path, service, Month(2015, 1))).values()
    days = [clean_partition(content, service, (), zones=published) for content in contents]
    assert sum(len(day.frame) for day in days) == 1999
    assert sum(day.located["pulocationid"] for day in days) == 1956
    assert sum(day.located["dolocationid"] for day in days) == 1948
