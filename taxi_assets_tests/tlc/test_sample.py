from __future__ import annotations

import gzip
import hashlib
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import FARE, SERVICES, TIP, TOTAL

if TYPE_CHECKING:
    from pathlib import Path

JANUARY = Month(2021, 1)
BOATS = Service(
    name="boats",
    pickup="Boarding datetime",
    columns=(
        Column("licence", "text", ""),
        Column("Boarding datetime", "time", ""),
        Column("Landing datetime", "time", ""),
        Column("Riders", "id", "", roles=("passengers",), filled="mostly"),
        Column("pier", "id", ""),
        Column("sea_miles", "amount", "", "miles"),
        FARE,
        Column("harbour_fee", "amount", "", "dollars"),
        TIP,
        TOTAL,
    ),
)
every_service = pytest.mark.parametrize(
    "service", [*SERVICES.values(), BOATS], ids=lambda service: service.name
)
TAXIS = [SERVICES["yellow"], SERVICES["green"], BOATS]
every_taxi = pytest.mark.parametrize("service", TAXIS, ids=lambda service: service.name)


def read_sample(service: Service, path: Path) -> pd.DataFrame:
    times = [c.published for c in service.sample_columns if c.kind == "time"]
    types = {c.published: c.pandas for c in service.sample_columns if c.kind != "time"}
    return pd.read_csv(path, dtype=types, parse_dates=times, date_format="%Y-%m-%d %H:%M:%S")


def select_passengers(service: Service, frame: pd.DataFrame) -> pd.Series[Any]:
    (column,) = service.by_role["passengers"]
    return frame[column.published]


def write_and_read(service: Service, tmp_path: Path) -> pd.DataFrame:
    path = tmp_path / "month.csv.gz"
    write_sample_month(service, JANUARY, path)
    return read_sample(service, path)


def hash_sample(service: Service, month: Month, rows: int, path: Path) -> str:
    """Return the digest of the CSV; that of the .gz depends on the build of zlib."""
    write_sample_month(service, month, path, rows)
    return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()


@every_service
def test_sample_is_reproducible(service: Service, tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv.gz", tmp_path / "second.csv.gz"
    for path in (first, second):
        write_sample_month(service, JANUARY, path)
    assert first.read_bytes() == second.read_bytes()


def test_sample_bytes_do_not_depend_on_the_machine(tmp_path: Path) -> None:
    digest = hash_sample(SERVICES["yellow"], JANUARY, 1000, tmp_path / "month.csv.gz")
    assert digest == "1314828fc36ecd9a2bb6fba2907cf40850b72fee0b36e89a4d822f888efeb22c"


def test_samples_of_months_services_and_sizes_differ(tmp_path: Path) -> None:
    path = tmp_path / "month.csv.gz"
    twin = Service("twin", BOATS.pickup, BOATS.columns)
    digests = {
        hash_sample(service, month, rows, path)
        for service in (BOATS, twin)
        for month in (JANUARY, Month(2021, 2), Month(2020, 1))
        for rows in (500, 501)
    }
    assert len(digests) == 12


@every_service
def test_header_and_line_ends(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "month.csv.gz"
    write_sample_month(service, JANUARY, path, 500)
    text = gzip.decompress(path.read_bytes())
    assert text.startswith(",".join(service.sample_header).encode() + b"\n")
    assert text.endswith(b"\n")
    assert b"\r" not in text
    assert text.count(b"\n") == 501


@every_service
def test_sample_columns_have_their_types(service: Service, tmp_path: Path) -> None:
    frame = write_and_read(service, tmp_path)
    dtypes = {
        c.name: str(frame[c.published].dtype) for c in service.sample_columns if c.kind != "time"
    }
    assert dtypes.items() <= service.pandas_types.items()
    for column in service.sample_columns:
        if column.kind == "time":
            assert frame[column.published].dtype.kind == "M"


@every_taxi
def test_sample_contains_dirty_rows(service: Service, tmp_path: Path) -> None:
    frame = write_and_read(service, tmp_path)
    passengers = select_passengers(service, frame)
    blank = passengers.isna()
    assert 0.06 < blank.mean() < 0.45
    assert blank.is_monotonic_increasing, "rows without passengers are the last"
    assert 0.01 < (passengers == 0).mean() < 0.03
    assert 0.002 < (frame["total_amount"] < 0).mean() < 0.01
    outside = frame[service.pickup].dt.strftime("%Y-%m-%d")
    outside = set(outside[~outside.str.startswith("2021-01")])
    assert outside == {"2008-12-31", "2009-01-01", "2020-12-31", "2021-02-01", "2021-02-02"}
    steps = frame[service.pickup].diff().dt.total_seconds()
    assert 0.05 < (steps < 0).mean() < 0.5
    dropoff = service.header[service.pickup_index + 1]
    assert 0 < (frame[dropoff] < frame[service.pickup]).sum() < 50


def test_rows_without_a_meter_lack_metered_columns(tmp_path: Path) -> None:
    for service in TAXIS[:2]:
        frame = write_and_read(service, tmp_path)
        blank = select_passengers(service, frame).isna()
        unmetered = frame[blank]
        empty = {name for name in service.header if unmetered[name].isna().all()}
        metered = {
            "VendorID",
            "passenger_count",
            "RatecodeID",
            "store_and_fwd_flag",
            "payment_type",
        }
        never = {"ehail_fee"} & set(service.sample_header)
        assert empty == metered | never | ({"trip_type"} & set(service.sample_header))
        always = frame[~blank].isna().all()
        assert set(always[always].index) == never


@every_taxi
def test_totals_are_the_sum_of_their_parts(service: Service, tmp_path: Path) -> None:
    frame = write_and_read(service, tmp_path)
    amounts = [
        c.published for c in service.sample_columns if c.unit == "dollars" and c is not TOTAL
    ]
    difference = frame[amounts].fillna(0).sum(axis=1) - frame["total_amount"]
    assert difference.abs().max() < 0.001


@every_service
def test_days_have_enough_rows_and_a_daily_rhythm(service: Service, tmp_path: Path) -> None:
    frame = write_and_read(service, tmp_path)
    times = frame[service.pickup]
    inside = times[times.dt.to_period("M") == pd.Period("2021-01")]
    assert inside.dt.date.nunique() == 31
    assert inside.dt.date.value_counts().min() >= 90
    hours = inside.dt.hour.value_counts()
    assert hours[17] > 5 * hours[3]


def test_numbers_are_formatted_as_tlc_does(tmp_path: Path) -> None:
    path = tmp_path / "month.csv.gz"
    write_sample_month(SERVICES["yellow"], JANUARY, path)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert frame["trip_distance"].str.fullmatch(r"([1-9]\d*)?\.\d\d").all()
    money = r"0|-?(0\.(\d?[1-9])|[1-9]\d*(\.\d?[1-9])?)"
    dollars = [c.published for c in SERVICES["yellow"].header_columns if c.unit == "dollars"]
    for name in dollars:
        assert frame[name].str.fullmatch(money).all(), name


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_sample_of_few_rows(rows: int, tmp_path: Path) -> None:
    for service in (*SERVICES.values(), BOATS):
        path = tmp_path / "month.csv.gz"
        write_sample_month(service, JANUARY, path, rows)
        assert len(read_sample(service, path)) == rows


def test_sample_of_a_service_without_passengers(tmp_path: Path) -> None:
    columns = tuple(column for column in BOATS.columns if column.published != "Riders")
    freight = Service("freight", BOATS.pickup, columns)
    frame = write_and_read(freight, tmp_path)
    assert list(frame.columns) == [column.published for column in columns]


def test_sample_larger_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxi_assets.tlc.sample.BLOCK", 1000)
    frame = write_and_read(SERVICES["green"], tmp_path)
    assert len(frame) == 31 * 135
    assert int(frame["passenger_count"].isna().sum()) == round(0.4 * len(frame))
