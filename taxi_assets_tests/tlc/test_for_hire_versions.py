"""For-hire months: headers that changed every year, and unpublished variants."""

from __future__ import annotations

import csv
import io
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError
from taxi_assets.tlc.header import HeaderError, match_header, parse_header_line
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import clean_partition
from taxi_assets_tests.conftest import RealRows
from taxi_assets_tests.tlc.files import open_raw_month, read_slices

FHV, FHVHV = SERVICES["fhv"], SERVICES["fhvhv"]
MARCH = Month(2019, 3)
PICKUP, DROPOFF = "2019-03-05 08:00:00", "2019-03-05 08:20:30"
TRIP = {
    "dispatching_base_num": "B02764",
    "pickup_datetime": datetime.fromisoformat(PICKUP),
    "dropoff_datetime": datetime.fromisoformat(DROPOFF),
    "pulocationid": 264,
    "dolocationid": 7,
    "sr_flag": 1,
    "affiliated_base_number": "B00013",
}
TEXTS = {name: str(value) for name, value in TRIP.items()}


def clean_rows(service: Service, path: Path, month: Month = MARCH) -> list[dict[str, Any]]:
    """Return the rows of a month's days as they would be stored, null as None."""
    read = open_raw_month(path, service, month)
    rows: list[dict[str, Any]] = []
    for key, content in read_slices(read).items():
        cleaned = clean_partition(content, service, ())
        assert not cleaned.unreadable
        assert not cleaned.unknown_labels
        if key <= 31:
            frame = cleaned.frame.astype(object)
            rows += frame.where(frame.notna(), None).to_dict("records")
    return rows


def write_csv_month(path: Path, header: str, *rows: list[str], quoted: bool = False) -> Path:
    text = io.StringIO()
    quoting = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    writer = csv.writer(text, quoting=quoting, lineterminator="\r\n")
    writer.writerow(header.split(","))
    writer.writerows(rows)
    path.write_text(text.getvalue(), newline="")
    return path


# header, and the trip's columns in the order of its fields; "" is an empty field
HEADERS = {
    "2015": (
        "Dispatching_base_num,Pickup_date,locationID",
        "dispatching_base_num pickup_datetime pulocationid",
    ),
    "2017 first half": (
        "Dispatching_base_num,Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID",
        "dispatching_base_num pickup_datetime dropoff_datetime pulocationid dolocationid",
    ),
    "2018": (
        (
            "Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,SR_Flag,"
            "Dispatching_base_number,Dispatching_base_num"
        ),
        (
            "pickup_datetime dropoff_datetime pulocationid dolocationid sr_flag "
            "dispatching_base_num -"
        ),
    ),
    "2018 the other way round": (
        (
            "Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,SR_Flag,"
            "Dispatching_base_num,Dispatching_base_number"
        ),
        (
            "pickup_datetime dropoff_datetime pulocationid dolocationid sr_flag "
            "dispatching_base_num -"
        ),
    ),
    "2018 with one base": (
        (
            "Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,SR_Flag,"
            "Dispatching_base_number"
        ),
        ("pickup_datetime dropoff_datetime pulocationid dolocationid sr_flag dispatching_base_num"),
    ),
    "2019 of the course": (
        (
            "dispatching_base_num,pickup_datetime,dropOff_datetime,PUlocationID,DOlocationID,"
            "SR_Flag,Affiliated_base_number"
        ),
        (
            "dispatching_base_num pickup_datetime dropoff_datetime pulocationid dolocationid "
            "sr_flag affiliated_base_number"
        ),
    ),
    "capitals, any order": (
        (
            "AFFILIATED_BASE_NUMBER,SR_FLAG,DOLOCATIONID,PULOCATIONID,DROPOFF_DATETIME,"
            "PICKUP_DATETIME,DISPATCHING_BASE_NUM"
        ),
        (
            "affiliated_base_number sr_flag dolocationid pulocationid dropoff_datetime "
            "pickup_datetime dispatching_base_num"
        ),
    ),
    "other separators": (
        (
            "Dispatching Base Num,Pickup DateTime,Drop-Off datetime,PU_Location_ID,DO LocationID,"
            "SR Flag"
        ),
        ("dispatching_base_num pickup_datetime dropoff_datetime pulocationid dolocationid sr_flag"),
    ),
    "pickup last": (
        ("SR_Flag,PULocationID,DOLocationID,dropoff_datetime,dispatching_base_num,pickup_datetime"),
        ("sr_flag pulocationid dolocationid dropoff_datetime dispatching_base_num pickup_datetime"),
    ),
}


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize("head", HEADERS)
def test_csv_month_is_read_by_column_names(head: str, quoted: bool, tmp_path: Path) -> None:
    header, fields = HEADERS[head]
    row = [TEXTS.get(name, "") for name in fields.split()]
    (cleaned_row,) = clean_rows(
        FHV, write_csv_month(tmp_path / "m.csv", header, row, quoted=quoted)
    )
    assert cleaned_row == {name: TRIP[name] if name in fields.split() else None for name in TRIP}


@pytest.mark.parametrize("quoted", [False, True])
def test_first_non_empty_base_is_the_base(quoted: bool, tmp_path: Path) -> None:
    header = "Pickup_DateTime,Dispatching_base_number,Dispatching_base_num"
    rows = [[PICKUP, "B1", ""], [PICKUP, "", "B2"], [PICKUP, "B3", "B4"], [PICKUP, "", ""]]
    cleaned_rows = clean_rows(
        FHV, write_csv_month(tmp_path / "m.csv", header, *rows, quoted=quoted)
    )
    assert [row["dispatching_base_num"] for row in cleaned_rows] == ["B1", "B2", "B4", None]


def test_repeated_column_name_is_rejected() -> None:
    for names in (
        ("Dispatching_base_num", "Pickup_date", "dispatching_base_num"),
        ("Dispatching_base_num", "Pickup_date", "pickup_datetime"),
        ("locationID", "Pickup_date", "PUlocationID"),
    ):
        with pytest.raises(HeaderError, match="twice"):
            match_header(names, FHV, month=MARCH)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (text, datetime.fromisoformat(meant))
        for text, meant in (
            ("2019-03-05 08:00:00.000000", "2019-03-05 08:00:00"),
            ("2019-03-05 08:00:00.5", "2019-03-05 08:00:00.500000"),
            ("2019-03-31 23:59:59.999999000", "2019-03-31 23:59:59.999999"),
        )
    ],
)
def test_fractional_times_are_read(time: str, expected: datetime, tmp_path: Path) -> None:
    header = "dispatching_base_num,pickup_datetime,dropoff_datetime"
    (row,) = clean_rows(FHV, write_csv_month(tmp_path / "m.csv", header, ["B1", time, time]))
    assert row["pickup_datetime"] == row["dropoff_datetime"] == expected


@pytest.mark.parametrize("pickup", ["2019-03-05 08:00:00.", "2019-03-05 08:00:00.1234567"])
def test_malformed_fraction_is_unreadable(pickup: str, tmp_path: Path) -> None:
    header = "dispatching_base_num,pickup_datetime"
    path = write_csv_month(tmp_path / "m.csv", header, ["B1", pickup], ["B1", PICKUP])
    month = open_raw_month(path, FHV, MARCH)
    read_slices(month)
    assert [problem.line for problem in month.unreadable] == [2]


def test_unknown_column_stays_in_raw_and_renamed_column_rejects_the_file() -> None:
    line = b"dispatching_base_num,pickup_datetime,Pool_Size,dropoff_datetime,PULocationID"
    header = parse_header_line(line + b",DOLocationID,SR_Flag\n", FHV, MARCH)
    assert header.unknown == ("Pool_Size",)
    assert header.absent == ("affiliated_base_number",)
    with pytest.raises(HeaderError, match="missing dropoff_datetime; unknown 'finished_at'"):
        parse_header_line(
            b"dispatching_base_num,pickup_datetime,finished_at,PULocationID,DOLocationID,SR_Flag\n",
            FHV,
            MARCH,
        )
    with pytest.raises(HeaderError, match="missing"):
        parse_header_line(b"dispatching_base_num,locationID\n", FHV, MARCH)


def make_high_volume_trip(**columns: pa.Array) -> pa.Table:
    """Return a trip in the types of TLC's Parquet of 2021, some columns replaced or added."""
    value_of_kind = {
        "id": pa.array([7]),
        "amount": pa.array([2.5]),
        "text": pa.array(["N"]),
        "time": pa.array([datetime.fromisoformat(PICKUP)], pa.timestamp("us")),
    }
    (schema_version,) = (
        version for version in FHVHV.schema_versions if version.months == "2019-02 to 2024-12"
    )
    trip = {name: value_of_kind[FHVHV.by_name[name.lower()].kind] for name in schema_version.header}
    return pa.table({**trip, **columns})


TIMES = pa.array([datetime.fromisoformat(PICKUP)])


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"PULocationID": pa.array([7.0]), "trip_time": pa.array([7], pa.int32())},
        {"PULocationID": pa.array(["7"]), "driver_pay": pa.array(["2.5"])},
        {"shared_match_flag": pa.array(["N"], pa.large_string())},
        {"shared_match_flag": pa.array(["N"]).dictionary_encode()},
        {"shared_match_flag": pa.array([False]), "hvfhs_license_num": pa.array([b"N"])},
        {
            "pickup_datetime": TIMES.cast(pa.timestamp("ns")),
            "request_datetime": TIMES.cast("timestamp[ms]"),
        },
        {
            "pickup_datetime": TIMES.cast(pa.timestamp("s")),
            "dropoff_datetime": TIMES.cast(pa.string()),
        },
        {"airport_fee": pa.nulls(1), "on_scene_datetime": pa.nulls(1, pa.timestamp("us"))},
        {"access_a_ride_flag": pa.array([" "])},
    ],
)
def test_parquet_month_of_any_types_is_read(columns: dict[str, pa.Array], tmp_path: Path) -> None:
    pq.write_table(make_high_volume_trip(**columns), tmp_path / "m.parquet")
    (row,) = clean_rows(FHVHV, tmp_path / "m.parquet")
    expected = {"id": 7, "amount": 2.5, "text": "N", "time": datetime.fromisoformat(PICKUP)}
    empty = {name for name, values in columns.items() if values.null_count}
    empty |= {name for name, values in columns.items() if values.to_pylist() == [" "]}
    for column in FHVHV.columns[:-2]:
        assert row[column.name] == (None if column.published in empty else expected[column.kind])


def test_later_fee_is_stored_and_unknown_fee_is_named(tmp_path: Path) -> None:
    fees = {"cbd_congestion_fee": pa.array([1.5]), "robot_fee": pa.array([9.0])}
    pq.write_table(make_high_volume_trip(**fees), tmp_path / "m.parquet")
    (row,) = clean_rows(FHVHV, tmp_path / "m.parquet", MARCH)
    assert row["cbd_congestion_fee"] == 1.5
    month = open_raw_month(tmp_path / "m.parquet", FHVHV, MARCH)
    read_slices(month)
    assert month.header
    assert month.header.unknown == ("robot_fee",)


def test_time_with_a_zone_is_rejected_with_both_types(tmp_path: Path) -> None:
    zoned = TIMES.cast(pa.timestamp("us", "UTC"))
    pq.write_table(make_high_volume_trip(pickup_datetime=zoned), tmp_path / "m.parquet")
    with pytest.raises(SourceError, match=r"pickup_datetime as timestamp\[us, tz=UTC\]"):
        read_slices(open_raw_month(tmp_path / "m.parquet", FHVHV, MARCH))


@pytest.mark.parametrize(
    ("name", "service", "rows", "columns"),
    [
        ("fhv/drift/fhv_tripdata_2015-06.head.csv", FHV, 33, 3),
        ("fhv/drift/fhv_tripdata_2017-03.head.csv", FHV, 30, 5),
        ("fhv/drift/fhv_tripdata_2018-05.head.csv", FHV, 12, 6),
        ("fhv/drift/fhv_tripdata_2019-06.head.csv", FHV, 16, 6),
        ("fhv/fhv_tripdata_2020-04.sample.csv", FHV, 1000, 7),
        ("fhvhv/fhvhv_tripdata_2019-05.head.csv", FHVHV, 14, 7),
        ("fhvhv/fhvhv_tripdata_2020-04.sample.csv", FHVHV, 1000, 24),
    ],
)
def test_real_rows_of_every_year_land_completely(
    name: str, service: Service, rows: int, columns: int, real_rows: RealRows
) -> None:
    path = real_rows.folder / name
    year, month = path.name.split("_")[2].split(".")[0].split("-")
    read = open_raw_month(path, service, Month(int(year), int(month)), max_invalid_ratio=0)
    days = [clean_partition(content, service, ()) for content in read_slices(read).values()]
    assert sum(len(day.frame) for day in days) == read.file_rows == rows
    assert read.header
    assert len(read.header.places) == columns
    assert read.header.unknown == ()
    assert not any(day.unreadable or day.unknown_labels for day in days)
    if service is FHV:
        assert all(day.frame["dispatching_base_num"].notna().all() for day in days)
