"""`values_expected` and `usual_day` describe a day in words and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.date_ranges import Month
from taxi_assets.defs.month_split import split_month
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.same_weekdays import SameWeekdays
from taxi_assets.defs.value_checks import (
    check_expected_values,
    check_usual_day,
    find_unusual_figures,
    name_figures,
)
from taxi_assets.report.day_picture import Figures
from taxi_assets.settings import read_rules_for_definitions
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import (
    clean_partition,
    convert_to_table,
    parse_partition,
    sum_total_amount,
)
from taxi_assets.trips.expected_values import find_violations, list_expectations
from taxi_assets.trips.profile import profile_partition
from taxi_assets.trips.rules import apply_rules
from taxi_assets.trips.usual_day import Figure, find_unusual
from taxi_assets_tests.conftest import RealRows
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.tlc.files import HEADER, make_line, make_slice, open_raw_month

YELLOW, GREEN = SERVICES["yellow"], SERVICES["green"]
DAY = date(2021, 2, 3)
GOOD = {"tpep_dropoff_datetime": "2021-02-03 08:15:00"}


def make_changed_trips(*changes: dict[str, str], good: int = 0) -> pa.Table:
    """Return trips of 08:00, the first ones with other values."""
    rows = [*changes, *[{}] * good]
    lines = [make_line("2021-02-03 08:00:00", **{**GOOD, **row}) for row in rows]
    return parse_partition(make_slice(*lines), YELLOW).table


@pytest.mark.parametrize(
    ("change", "name", "words"),
    [
        (
            {"payment_type": "9"},
            "unknown_code_payment_type",
            "have a payment_type that is not one of",
        ),
        ({"RatecodeID": "7"}, "unknown_code_ratecodeid", "not one of 1, 2, 3, 4, 5, 6, 99"),
        (
            {"VendorID": "3"},
            "unknown_code_vendorid",
            "have a vendorid that is not one of 1, 2, 6, 7",
        ),
        ({"PULocationID": "266"}, "outside_limits_pulocationid", "outside 1 to 265"),
        ({"DOLocationID": "0"}, "outside_limits_dolocationid", "outside 1 to 265"),
        ({"trip_distance": "250"}, "outside_limits_trip_distance", "outside 0 to 200 miles"),
        ({"fare_amount": "-1"}, "outside_limits_fare_amount", "outside 0 to 500 dollars"),
        (
            {"tpep_dropoff_datetime": "2021-02-03 07:59:59"},
            "dropoff_before_pickup",
            "have a tpep_dropoff_datetime before their tpep_pickup_datetime",
        ),
        ({"tpep_dropoff_datetime": "2021-02-04 08:00:00"}, "over_a_day", "take a day or longer"),
    ],
)
def test_each_expectation_is_counted_named_and_shown(
    change: dict[str, str], name: str, words: str
) -> None:
    result = check_expected_values(make_changed_trips(change, good=9), YELLOW)
    assert not result.passed
    assert result.metadata[name] == 1
    assert result.description is not None
    assert result.description.startswith("1 of 10 rows (10%) ")
    assert words in result.description
    (example,) = result.metadata["examples"].value.records
    assert words in example.data["rows"]
    # The same rows, by the rule's name in TAXI_DROP.
    rule = next(
        violation for violation in find_violations(make_changed_trips(change), YELLOW)
    ).expectation.rule
    remaining, dropped = apply_rules(make_changed_trips(change, good=9), YELLOW, [rule])
    assert (remaining.num_rows, dropped) == (9, {rule: 1})


def test_few_unexpected_rows_are_usual_and_nulls_are_ignored() -> None:
    changed_trips = make_changed_trips({"payment_type": "9"}, good=99)
    assert check_expected_values(changed_trips, YELLOW).passed
    assert check_expected_values(changed_trips, YELLOW).metadata["unknown_code_payment_type"] == 1
    empty = dict.fromkeys(("payment_type", "VendorID", "PULocationID", "fare_amount"), "")
    assert find_violations(make_changed_trips(empty), YELLOW) == []
    assert check_expected_values(make_changed_trips(), YELLOW).passed


def test_every_service_has_the_expectations_of_its_columns() -> None:
    rules = {
        name: {expectation.rule for expectation in list_expectations(service)}
        for name, service in SERVICES.items()
    }
    assert rules["yellow"] == rules["green"]
    assert {"dropoff_before_pickup", "over_a_day", "outside_limits"} <= rules["fhv"]
    assert {"dropoff_before_pickup", "over_a_day", "outside_limits"} <= rules["fhvhv"]


@pytest.mark.parametrize("month", ["2020-12", "2023-12", "2025-11"])
def test_real_months_have_expected_values(month: str, real_rows: RealRows) -> None:
    path = real_rows.folder / "green" / f"green_tripdata_{month}.parquet"
    table = parse_partition(pq.read_table(path), GREEN).table
    table, _ = apply_rules(table, GREEN)
    assert check_expected_values(table, GREEN).passed


@pytest.fixture
def days(tmp_path: Path) -> SameWeekdays:
    """Store seven Wednesdays of 40 trips in Manhattan; the last one is the day."""
    lake = Lake(pa_fs.LocalFileSystem(), str(tmp_path), "b", "hive")
    same_weekdays = SameWeekdays(lake, YELLOW, lambda _: None)
    for weeks in range(7):
        add(same_weekdays, DAY - timedelta(weeks=weeks))
    return same_weekdays


def add(days: SameWeekdays, day: date, rows: int = 40, **values: str) -> None:
    lines = {"PULocationID": "161", "total_amount": "12", "fare_amount": "9", **values}
    table = make_changed_trips(*[lines] * rows)
    days.add(day, Figures(profile_partition(table, YELLOW), Counter(), 12.0 * rows))


def check_day(days: SameWeekdays) -> CheckResult:
    return check_usual_day(DAY, find_unusual_figures(DAY, days))


def describe_day(days: SameWeekdays) -> str:
    result = check_day(days)
    assert result.description is not None
    assert str(result.severity) == "AssetCheckSeverity.WARN"
    return result.description


def test_day_like_earlier_weeks_is_usual(days: SameWeekdays) -> None:
    assert check_day(days).passed
    assert describe_day(days) == "as usual"


def test_fewer_than_four_days_are_not_compared(days: SameWeekdays) -> None:
    for weeks in (1, 2, 3):
        days.known[DAY - timedelta(weeks=weeks)] = None
    add(days, DAY, rows=1)
    assert check_day(days).passed
    assert describe_day(days) == "fewer than 4 Wednesdays before are loaded: not compared"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": 10}, "trips 10.00, usually 40.00 (-75%)"),
        ({"fare_amount": "20"}, "median fare_amount 20.00, usually 9.00 (+122%)"),
        ({"VendorID": ""}, "rows without vendorid 100.0%, usually 0.0%"),
        ({"PULocationID": "7"}, "pickups in Queens 100.0%"),
    ],
)
def test_unusual_figure_is_named(days: SameWeekdays, change: Any, words: str) -> None:
    if words.startswith("pickups"):
        for weeks in range(1, 7):
            known = days.known[DAY - timedelta(weeks=weeks)]
            assert known is not None
            known.profile.zones["7"] = 0
    add(days, DAY, **change)
    result = check_day(days)
    assert not result.passed
    assert words in describe_day(days)
    assert describe_day(days).endswith("(median of the Wednesdays before)")
    assert result.metadata["unusual"] == len(result.metadata["figures"].value.records)


def test_threshold_is_a_setting(days: SameWeekdays, monkeypatch: pytest.MonkeyPatch) -> None:
    add(days, DAY, rows=28)
    monkeypatch.setenv("TAXI_UNUSUAL_DEVIATIONS", "3")
    assert not check_day(days).passed
    monkeypatch.setenv("TAXI_UNUSUAL_DEVIATIONS", "100")
    assert check_day(days).passed


def test_snowstorm_is_the_unusual_green_day_of_2020(real_rows: RealRows) -> None:
    known: dict[date, Mapping[str, Figure]] = {}
    for number in (5, 10, 11, 12):
        month = Month(2020, number)
        file = open_raw_month(real_rows.path("green", str(month)), GREEN, month)
        split = split_month(file, lambda _: None)
        for day in month.window:
            cleaned = clean_partition(
                split.get_spool(day).read_rows(), GREEN, read_rules_for_definitions()
            )
            table = convert_to_table(cleaned.frame, GREEN)
            profile, revenue = profile_partition(table, GREEN), sum_total_amount(table, GREEN)
            known[day] = name_figures(Figures(profile, cleaned.dropped, revenue))

    def flagged(threshold: float) -> dict[str, str]:
        compared = {day: find_unusual(day, known.get, threshold) for day in known}
        assert sum(findings is not None for findings in compared.values()) == 66
        return {
            f"{day:%m-%d}": "; ".join(map(str, findings))
            for day, findings in compared.items()
            if findings
        }

    assert flagged(4) == {
        "12-17": "trips 627, usually 1,832 (-66%); revenue 11,312, usually 31,710 (-64%)"
    }
    assert list(flagged(3)) == ["05-30", "05-31", "11-27", "12-17", "12-25"]


def test_materialization_of_an_unusual_day_names_and_shows_it(
    empty_stores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = date(2021, 2, 1) - timedelta(weeks=5), date(2021, 2, 1)
    for month in ("2020-12", "2021-01", "2021-02"):
        days = [first + timedelta(days=at) for at in range((last - first).days + 1)]
        lines = [
            make_line(f"{day} {hour:02d}:00:00", total_amount="12")
            for day in days
            if str(day).startswith(month)
            for hour in range(2 if day == last else 20)
        ]
        path = tmp_path / f"yellow_{month}.csv"
        path.write_bytes(HEADER + b"\n".join([*lines, b""]))
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_{year}-{month}.csv"))
    runs, names = Runs(), ("raw_trips", "cleaned_trips")
    selected = [dg.AssetKey(["yellow", name]) for name in names]
    result = runs.run("yellow", str(first), str(last), asset_selection=selected)
    assert result.success
    checks = {
        day: evaluation
        for (_, check, day), evaluation in runs.evaluations(result.run_id).items()
        if check == "usual_day"
    }
    assert [day for day, check in checks.items() if not check.passed] == [str(last)]
    words = "trips 2.00, usually 20.00 (-90%)"
    assert words in (checks[str(last)].description or "")
    records = runs.materializations(result.run_id)
    pictures = {
        day: str(record.metadata["picture"].value)
        for (key, day), record in records.items()
        if key == "yellow/cleaned_trips"
    }
    assert f"unusual: {words}" in pictures[str(last)]
    assert [day for day, text in pictures.items() if "unusual: " in text] == [str(last)]
