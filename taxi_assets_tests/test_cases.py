"""Odd files, from the file to every store: an odd row affects no other row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.defs.checks.raw import check_raw_month
from taxi_assets.errors import SourceError
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.services import YELLOW
from taxi_assets.tlc.source import fetch_month_file
from taxi_assets.trips.clean import clean_partition
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.tlc.files import make_line, open_raw_month, read_slices
from taxi_assets_tests.tlc.test_parquet_batches import make_trips

DAYS = [date(2020, 12, 1), date(2020, 12, 2), date(2020, 12, 3)]
A_DAY = 150
"""Rows of a day: one that is quarantined among them is less than the 1 % that may be."""
INFINITY = 2**63 - 1
"""Microseconds, as DuckDB writes its infinite timestamp."""


BOUNDS = (datetime.min, datetime.max)  # noqa: DTZ901
"""The first and the last time that every store holds."""


def since_1970(time: datetime) -> int:
    """Microseconds."""
    return (time - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001


def odd_parquet() -> pa.Table:
    """Three days; on the second and third, rows with values that no store can hold."""
    midnights = [datetime(day.year, day.month, day.day) for day in DAYS]  # noqa: DTZ001
    pickups = [start + timedelta(minutes=at) for start in midnights for at in range(A_DAY)]
    rows = len(pickups)
    dropoffs = pa.array(pickups, pa.timestamp("us")).cast(pa.int64()).to_pylist()
    dropoffs[A_DAY + 10] = INFINITY
    dropoffs[0], dropoffs[1] = (since_1970(bound) for bound in BOUNDS)
    flags: list[bytes | None] = [(b"N", b"Y", None)[at % 3] for at in range(rows)]
    flags[2 * A_DAY + 20] = b"N\0"
    dates = [None if at % 2 else pickup.date() for at, pickup in enumerate(pickups)]
    return make_trips(
        list(pickups),
        passenger_count=pa.array([1.0] * rows),
        total_amount=pa.array([10] * rows, pa.int64()).cast(pa.decimal128(38, 2)),
        tpep_dropoff_datetime=pa.array(dropoffs).view(pa.timestamp("us")),
        store_and_fwd_flag=pa.array(flags).cast(pa.string_view(), safe=False),
        pickup_date=pa.array(dates),
        ingested=pa.array([INFINITY] * rows).view(pa.timestamp("us")),
        tags=pa.array([["a", None], None, []] * (rows // 3), pa.list_(pa.string_view())),
    )


def odd_csv() -> bytes:
    """Two days of lines with marks for "no value", truth values for flags and Excel's comma."""
    header = ",".join(YELLOW.header) + ",filename,\n"
    marks = ("NULL", r"\N", "NaN", "nan", "None", "N/A")
    lines = []
    for day in DAYS[:2]:
        for at in range(A_DAY):
            values = {"store_and_fwd_flag": ("True", "False", "what")[at % 3]}
            if at < len(marks):
                names = ("VendorID", "RatecodeID", "tip_amount", "tpep_dropoff_datetime")
                values |= dict.fromkeys(names, marks[at])
            if at == A_DAY - 1:
                values["passenger_count"] = "NULL"
            lines.append(make_line(f"{day} 00:00:{at % 60:02d}", **values) + b",m.csv,\n")
    return header.encode() + b"".join(lines)


def totals(*days: tuple[date, int, float]) -> dict[str, stores.Totals]:
    each = {day: (rows, amount) for day, rows, amount in days}
    return dict.fromkeys(("postgres", "lake", "bigquery"), each)


@pytest.mark.usefixtures("empty_stores")
def test_odd_parquet_rows_are_quarantined_and_a_useless_file_empties_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_{year}-{month}.parquet"))
    path = tmp_path / "yellow_2020-12.parquet"
    table = odd_parquet()
    pq.write_table(table, path)
    runs = Runs()
    result = runs.run("yellow", str(DAYS[0]), str(DAYS[-1]))
    assert result.success, stores.failure(result)
    rows = (A_DAY, A_DAY - 1, A_DAY - 1)
    expected_totals = totals(*((day, n, 10.0 * n) for day, n in zip(DAYS, rows, strict=True)))
    assert stores.store_totals(YELLOW) == expected_totals
    evaluations = runs.evaluations(result.run_id)
    messages = {
        str(DAYS[1]): "row 11: tpep_dropoff_datetime='294247-01-10 04:00:54.775807'",
        # Descriptions are Markdown, in which a backslash is written twice.
        str(DAYS[2]): r"row 21: store_and_fwd_flag='N\\x00'",
    }
    for day in map(str, DAYS):
        check = evaluations["yellow/cleaned_trips", "values_readable", day]
        assert check.passed == (day not in messages)
        assert check.description.endswith(messages.get(day, "type")), check.description
        assert check.severity == dg.AssetCheckSeverity.WARN or check.passed
    # Results about the file are reported once, without a day.
    assert {day for asset, _, day in evaluations if asset == "yellow/raw_trips"} == {None}
    new = evaluations["yellow/raw_trips", "known_columns", None]
    assert new.description.startswith("2020-12: ")
    assert new.metadata["unknown"].value == "pickup_date, ingested, tags"
    empty = evaluations["yellow/raw_trips", "every_day_has_rows", None]
    assert empty.metadata["without_rows"].value == "2020-12-04 to 2020-12-31"
    recorded = runs.materializations(result.run_id)
    assert (
        sum(recorded[event].metadata["rows"].value for event in recorded if "raw" in event[0])
        == 450
    )
    preview = recorded["yellow/raw_trips", str(DAYS[0])].metadata["preview"].records
    first_row = {line.data["column"]: line.data["row 1"] for line in preview}
    assert first_row["ingested"] == "294247-01-10 04:00:54.77…"
    for frame in stores.store_rows(YELLOW).values():
        assert len(frame) == sum(rows)
        assert set(frame["store_and_fwd_flag"].dropna()) == {"N", "Y"}
        dropoffs = frame["tpep_dropoff_datetime"].tolist()
        assert (str(min(dropoffs)), str(max(dropoffs))) == tuple(map(str, BOUNDS))

    pq.write_table(table[:0], path)
    for days in ((str(DAYS[1]),), (str(DAYS[0]), str(DAYS[-1]))):
        result = runs.run("yellow", *days)
        assert not result.success
        assert f"none of the 0 rows of {path} has its pickup in 2020-12" in stores.failure(result)
        assert runs.materializations(result.run_id) == {}
    assert stores.store_totals(YELLOW) == expected_totals

    pq.write_table(table.select([name for name in YELLOW.header if "passenger" not in name]), path)
    result = runs.run("yellow", str(DAYS[0]), str(DAYS[-1]))
    assert not result.success
    assert "passenger_count (rule null_passengers) is not in the month file" in stores.failure(
        result
    )
    assert stores.store_totals(YELLOW) == expected_totals


@pytest.mark.usefixtures("empty_stores")
def test_odd_csv_texts_are_read_and_a_truncated_file_empties_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_{year}-{month}.csv"))
    path = tmp_path / "yellow_2020-12.csv"
    content = odd_csv()
    path.write_bytes(content)
    runs = Runs()
    result = runs.run("yellow", str(DAYS[0]), str(DAYS[1]))
    assert result.success, stores.failure(result)
    expected_totals = totals(*((day, A_DAY - 1, float(A_DAY - 1)) for day in DAYS[:2]))
    assert stores.store_totals(YELLOW) == expected_totals
    evaluations = runs.evaluations(result.run_id)
    for day in map(str, DAYS[:2]):
        assert evaluations["yellow/cleaned_trips", "values_readable", day].passed
        labels = evaluations["yellow/cleaned_trips", "known_labels", day]
        assert (labels.passed, labels.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert labels.metadata["labels"].value == {"store_and_fwd_flag=what": A_DAY // 3}
    new = evaluations["yellow/raw_trips", "known_columns", None]
    assert new.metadata["unknown"].value == "filename"
    for frame in stores.store_rows(YELLOW).values():
        assert set(frame["store_and_fwd_flag"].dropna()) == {"Y", "N"}
        assert frame["vendorid"].isna().sum() == 2 * 6
        assert frame["tip_amount"].isna().sum() == 2 * 6

    second_day = content.index(str(DAYS[1]).encode())
    for broken, why in (
        (content[: second_day + 30], "is truncated inside line"),
        (content.partition(b"\n")[0], "none of the 0 rows"),
        (content.replace(b"2020-12", b"2020-11"), "none of the 300 rows"),
        (content.decode().encode("utf-16"), "UTF-16 text, not UTF-8"),
    ):
        path.write_bytes(broken)
        result = runs.run("yellow", str(DAYS[0]), str(DAYS[1]))
        assert not result.success
        assert why in stores.failure(result)
        assert runs.materializations(result.run_id) == {}
    assert stores.store_totals(YELLOW) == expected_totals


FOLDER = REPOSITORY.parent / "shared" / "cases" / "files"


@dataclass(frozen=True)
class Case:
    """What becomes of a file of `../shared/cases`."""

    rows: Sequence[int] = ()
    """Cleaned rows of its first days."""
    rejected: str = ""
    unreadable: Sequence[str] = ()
    unknown: str = ""
    """Columns that `known_columns` names."""


CASES = {
    "csv-header-only": Case(rejected="none of the 0 rows of .* has its pickup in 2021-01"),
    "parquet-extra-date-with-null": Case([393], unknown="tpep_pickup_date, tpep_dropoff_date"),
    "parquet-added-columns-of-all-kinds": Case(
        [393],
        unknown="trip_id, ingested_at, _dlt_load_id, tags, meta, props, geom, is_long, cost, "
        "nothing, borough, took",
    ),
    "parquet-infinity-one-day-of-three": Case(
        [338, 330, 379],
        unreadable=["row 11: tpep_dropoff_datetime='294247-01-10 04:00:54.775807'"],
    ),
    "parquet-int96-year-2300": Case([393]),
    "parquet-string-view": Case([393]),
    "csv-2017-plus-filename": Case([94], unknown="filename"),
    "csv-utf16": Case(rejected="UTF-16"),
    "csv-trailing-comma-header": Case([393]),
    "csv-null-NULL": Case([338]),
    "csv-flag-words": Case([393]),
}


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no cases in {FOLDER}")
def test_every_shared_case_is_known() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(CASES)


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no cases in {FOLDER}")
@pytest.mark.parametrize("name", CASES)
def test_shared_case_has_its_outcome(name: str, tmp_path: Path) -> None:
    (path,) = (FOLDER / name).iterdir()
    year, month = re.search(r"_(\d{4})-(\d\d)\.", path.name).groups()
    which, case = Month(int(year), int(month)), CASES[name]
    template = str(FOLDER / name / f"{{service}}_tripdata_{{year}}-{{month}}{path.suffix}")

    def opened() -> tuple[RawMonth, dict[int, pa.Buffer | pa.Table]]:
        month = open_raw_month(
            fetch_month_file(template, YELLOW, which, tmp_path, print).path, month=which
        )
        return month, read_slices(month)

    if case.rejected:
        with pytest.raises(SourceError, match=case.rejected):
            opened()
        return
    read, days = opened()
    cleaned_days = [clean_partition(days[at + 1], YELLOW) for at in range(len(case.rows))]
    assert [len(cleaned_day.frame) for cleaned_day in cleaned_days] == list(case.rows)
    assert [str(bad) for cleaned_day in cleaned_days for bad in cleaned_day.unreadable] == list(
        case.unreadable
    )
    for cleaned_day in cleaned_days:
        assert set(cleaned_day.frame["store_and_fwd_flag"].dropna()) <= {"N", "Y"}
        assert not cleaned_day.unknown_labels
    results = {result.check: result for result in check_raw_month(read)}
    assert results["known_columns"].metadata["unknown"] == case.unknown
    assert results["no_int96_times"].passed is ("int96" not in name)
    assert not results["every_day_has_rows"].passed
