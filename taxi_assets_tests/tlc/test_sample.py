from __future__ import annotations

import gzip
import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.sample import SampleCounts, write_sample_month
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


def read(service: Service, path: Path) -> pd.DataFrame:
    times = [c.published for c in service.sample_columns if c.kind == "time"]
    types = {c.published: c.pandas for c in service.sample_columns if c.kind != "time"}
    return pd.read_csv(path, dtype=types, parse_dates=times, date_format="%Y-%m-%d %H:%M:%S")


def passengers_of(service: Service, frame: pd.DataFrame) -> pd.Series[Any]:
    (column,) = service.by_role["passengers"]
    return frame[column.published]


def written(service: Service, tmp_path: Path) -> tuple[SampleCounts, pd.DataFrame]:
    path = tmp_path / "month.csv.gz"
    facts = write_sample_month(service, JANUARY, path)
    return facts, read(service, path)


@every_service
def test_the_same_call_writes_the_same_bytes(service: Service, tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv.gz", tmp_path / "second.csv.gz"
    assert write_sample_month(service, JANUARY, first) == write_sample_month(
        service, JANUARY, second
    )
    assert first.read_bytes() == second.read_bytes()


def test_bytes_are_those_of_every_machine(tmp_path: Path) -> None:
    facts = write_sample_month(SERVICES["yellow"], JANUARY, tmp_path / "month.csv.gz", rows=1000)
    assert facts.csv_sha256 == "1314828fc36ecd9a2bb6fba2907cf40850b72fee0b36e89a4d822f888efeb22c"


def test_months_services_and_sizes_differ(tmp_path: Path) -> None:
    path = tmp_path / "month.csv.gz"
    twin = Service("twin", BOATS.pickup, BOATS.columns)
    digests = {
        write_sample_month(service, month, path, rows).csv_sha256
        for service in (BOATS, twin)
        for month in (JANUARY, Month(2021, 2), Month(2020, 1))
        for rows in (500, 501)
    }
    assert len(digests) == 12


@every_service
def test_header_and_line_ends(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "month.csv.gz"
    facts = write_sample_month(service, JANUARY, path)
    text = gzip.decompress(path.read_bytes())
    assert text.startswith(",".join(service.sample_header).encode() + b"\n")
    assert text.endswith(b"\n")
    assert b"\r" not in text
    assert text.count(b"\n") == facts.rows + 1
    assert facts.csv_bytes == len(text)
    assert facts.csv_sha256 == hashlib.sha256(text).hexdigest()


@every_taxi
def test_facts_are_what_pandas_counts(service: Service, tmp_path: Path) -> None:
    facts, frame = written(service, tmp_path)
    passengers, pickup = passengers_of(service, frame), frame[service.pickup]
    counted = {
        "rows": len(frame),
        "null_passengers": int(passengers.isna().sum()),
        "zero_passengers": int((passengers == 0).sum()),
        "outside_month": int((pickup.dt.to_period("M") != pd.Period("2021-01")).sum()),
        "negative_totals": int((frame["total_amount"] < 0).sum()),
    }
    assert counted.items() <= asdict(facts).items()


@every_service
def test_dtypes(service: Service, tmp_path: Path) -> None:
    _, frame = written(service, tmp_path)
    found = {
        c.name: str(frame[c.published].dtype) for c in service.sample_columns if c.kind != "time"
    }
    assert found.items() <= service.pandas_types.items()
    for column in service.sample_columns:
        if column.kind == "time":
            assert frame[column.published].dtype.kind == "M"


@every_taxi
def test_dirt(service: Service, tmp_path: Path) -> None:
    facts, frame = written(service, tmp_path)
    blank = passengers_of(service, frame).isna()
    assert 0.06 < blank.mean() < 0.45
    assert blank.iloc[-facts.null_passengers :].all()
    assert 0.01 < facts.zero_passengers / facts.rows < 0.03
    assert 0.002 < facts.negative_totals / facts.rows < 0.01
    outside = frame[service.pickup].dt.strftime("%Y-%m-%d")
    outside = set(outside[~outside.str.startswith("2021-01")])
    assert outside == {"2008-12-31", "2009-01-01", "2020-12-31", "2021-02-01", "2021-02-02"}
    steps = frame[service.pickup].diff().dt.total_seconds()
    assert 0.05 < (steps < 0).mean() < 0.5
    dropoff = service.header[service.pickup_index + 1]
    assert 0 < (frame[dropoff] < frame[service.pickup]).sum() < 50


def test_only_the_meter_tells(tmp_path: Path) -> None:
    for service in TAXIS[:2]:
        facts, frame = written(service, tmp_path)
        unmetered = frame.iloc[-facts.null_passengers :]
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
        always = frame.iloc[: -facts.null_passengers].isna().all()
        assert set(always[always].index) == never


@every_taxi
def test_totals_are_the_sum_of_their_parts(service: Service, tmp_path: Path) -> None:
    _, frame = written(service, tmp_path)
    parts = [c.published for c in service.sample_columns if c.unit == "dollars" and c is not TOTAL]
    difference = frame[parts].fillna(0).sum(axis=1) - frame["total_amount"]
    assert difference.abs().max() < 0.001


@every_service
def test_days_have_enough_rows_and_a_rhythm(service: Service, tmp_path: Path) -> None:
    _, frame = written(service, tmp_path)
    times = frame[service.pickup]
    inside = times[times.dt.to_period("M") == pd.Period("2021-01")]
    assert inside.dt.date.nunique() == 31
    assert inside.dt.date.value_counts().min() >= 90
    hours = inside.dt.hour.value_counts()
    assert hours[17] > 5 * hours[3]


def test_numbers_are_spelled_as_tlc_does(tmp_path: Path) -> None:
    path = tmp_path / "month.csv.gz"
    write_sample_month(SERVICES["yellow"], JANUARY, path)
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    assert frame["trip_distance"].str.fullmatch(r"([1-9]\d*)?\.\d\d").all()
    money = r"0|-?(0\.(\d?[1-9])|[1-9]\d*(\.\d?[1-9])?)"
    dollars = [c.published for c in SERVICES["yellow"].header_columns if c.unit == "dollars"]
    for name in dollars:
        assert frame[name].str.fullmatch(money).all(), name


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_tiny_months(rows: int, tmp_path: Path) -> None:
    for service in (*SERVICES.values(), BOATS):
        path = tmp_path / "month.csv.gz"
        assert write_sample_month(service, JANUARY, path, rows).rows == rows
        assert len(read(service, path)) == rows


def test_a_service_without_passengers(tmp_path: Path) -> None:
    columns = tuple(column for column in BOATS.columns if column.published != "Riders")
    freight = Service("freight", BOATS.pickup, columns)
    facts = write_sample_month(freight, JANUARY, tmp_path / "month.csv.gz")
    assert facts.null_passengers == facts.zero_passengers == 0


def test_more_rows_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxi_assets.tlc.sample.BLOCK", 1000)
    facts, frame = written(SERVICES["green"], tmp_path)
    assert len(frame) == facts.rows
    assert int(frame["passenger_count"].isna().sum()) == facts.null_passengers
