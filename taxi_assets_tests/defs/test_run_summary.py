"""The last line of a run and its tags."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.defs.run_summary import (
    count_run,
    name_days,
    name_requester,
    tag_run,
    write_summary,
)
from taxi_assets_tests.stores import Runs

JANUARY = list(Month(2021, 1).window)
FIRST = JANUARY[0]


def make_evaluation(
    check: str, asset: str, day: date | None, *, passed: bool = True, **metadata: int
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(["yellow", asset]),
        check_name=check,
        passed=passed,
        metadata=metadata,
        severity=dg.AssetCheckSeverity.WARN,
        partition=str(day) if day else None,
    )


def make_month(rejected: date | None = None) -> list[dg.AssetCheckEvaluation]:
    evaluations = [make_evaluation("rows_outside_month", "raw_trips", None, rows=5, of_rows=6205)]
    for day in JANUARY:
        evaluations.append(
            make_evaluation(
                "rows_accounted_for", "cleaned_trips", day, raw_rows=200, dropped_zero_passengers=18
            )
        )
        stores = () if day == rejected else ("postgres_trips", "gcs_trips", "bigquery_trips")
        evaluations += [
            make_evaluation("matches_cleaned", store, day, rows=182) for store in stores
        ]
    return evaluations


def test_month_in_one_line() -> None:
    counts = count_run(
        [
            *make_month(),
            make_evaluation("negative_totals", "cleaned_trips", FIRST, passed=False, rows=9),
        ]
    )
    assert write_summary("yellow", JANUARY, counts, [], 8.21) == (
        "yellow 2021-01: 31 days, 6,205 rows read, 5,642 stored in 3 stores, 558 dropped, "
        "5 outside the month; warnings on 1 day; 8.2 s"
    )
    assert counts.rows == 5642


def test_warning_about_the_file_belongs_to_no_day() -> None:
    file_warning = make_evaluation("every_day_has_rows", "raw_trips", None, passed=False)
    day_warning = make_evaluation("negative_totals", "cleaned_trips", FIRST, passed=False, rows=9)
    for evaluations, expected in (
        ([make_evaluation("up_to_date", "gcs_trips", None, passed=False)], "month; 8.0 s"),
        ([file_warning], "; warnings about the month's file; 8.0 s"),
        ([file_warning, day_warning], "; warnings on 1 day and about the month's file; 8.0 s"),
    ):
        line = write_summary("yellow", JANUARY, count_run([*make_month(), *evaluations]), [], 8)
        assert line.endswith(expected)


def test_rows_of_a_rejected_day_are_counted_as_rejected() -> None:
    line = write_summary("yellow", JANUARY, count_run(make_month(FIRST)), [FIRST], 8)
    assert line == (
        "yellow 2021-01: 30 of 31 days, 6,205 rows read, 5,460 stored in 3 stores, 540 dropped, "
        "200 rejected, 5 outside the month; rejected: 2021-01-01; 8.0 s"
    )
    assert 5460 + 540 + 200 + 5 == 6205


def test_summary_of_a_day_omits_month_checks() -> None:
    day_evaluations = [
        evaluation for evaluation in make_month() if evaluation.partition in (str(FIRST), None)
    ]
    assert write_summary("yellow", [FIRST], count_run(day_evaluations), [], 2) == (
        "yellow 2021-01-01: 1 day, 200 rows read, 182 stored in 3 stores, 18 dropped; 2.0 s"
    )


def test_stores_with_different_rows_are_named() -> None:
    some = [
        make_evaluation("matches_cleaned", name, FIRST, rows=rows)
        for name, rows in (("a", 1), ("b", 2))
    ]
    line = write_summary("yellow", [FIRST], count_run(some), [], 2)
    assert line == "yellow 2021-01-01: 1 day, 1 stored in a, 2 stored in b; 2.0 s"


@pytest.mark.parametrize(
    ("first", "days", "expected"),
    [
        (FIRST, 1, "2021-01-01"),
        (FIRST, 31, "2021-01"),
        (FIRST, 59, "2021-01 to 2021-02"),
        (date(2021, 1, 3), 10, "2021-01-03 to 2021-01-12"),
    ],
)
def test_days_have_a_short_name(first: date, days: int, expected: str) -> None:
    assert name_days([first + timedelta(days=offset) for offset in range(days)]) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"dagster/schedule_name": "yellow_daily_schedule"}, "yellow_daily_schedule"),
        ({"dagster/backfill": "abcdef", "dagster/from_ui": "true"}, "backfill abcdef"),
        ({"dagster/from_ui": "true"}, "Dagster's UI"),
    ],
)
def test_run_names_its_requester(tags: Mapping[str, str], expected: str) -> None:
    assert name_requester(dg.DagsterRun("yellow_daily", tags=tags)) == expected


@pytest.mark.parametrize(
    ("tags", "service", "requester"),
    [
        # Of assets, from the asset graph: no job, and so none of its tags.
        ({"dagster/from_ui": "true"}, "green", "Dagster's UI"),
        # Of another service's assets too, which have already tagged it.
        ({"dagster/from_ui": "true", "service": "yellow"}, "green, yellow", "Dagster's UI"),
        # With the tags of the run that it repeats.
        (
            {
                "dagster/parent_run_id": "abc",
                "service": "green",
                "days": "2021-01-04",
                "requested_by": "ana, command line",
            },
            "green",
            "re-execution of abc",
        ),
    ],
)
def test_run_has_its_own_tags(tags: Mapping[str, str], service: str, requester: str) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.add_run(dg.DagsterRun("__ASSET_JOB", tags=tags))
        tag_run(instance, run, "green", "2021-01-05", rows="82")
        stored = instance.get_run_by_id(run.run_id)
    assert stored is not None
    expected = {"service": service, "days": "2021-01-05", "rows": "82", "requested_by": requester}
    assert expected.items() <= stored.tags.items()


def test_run_ends_with_the_summary_and_has_its_tags(home: Path, empty_stores: None) -> None:
    runs = Runs()
    result = runs.run("green", "2021-11-05")
    assert result.success
    run = runs.instance.get_run_by_id(result.run_id)
    assert run is not None
    rows = runs.materializations(result.run_id)["green/postgres_trips", "2021-11-05"].metadata[
        "rows"
    ]
    assert run.tags["days"] == "2021-11-05"
    assert run.tags["rows"] == str(rows.value)
    assert run.tags["requested_by"].endswith("command line")
    assert run.tags["service"] == "green"
    messages = [
        entry.user_message
        for entry in runs.instance.all_logs(result.run_id)
        if not entry.is_dagster_event
    ]
    assert messages[-1].startswith("green 2021-11-05: 1 day, ")
    assert f"{rows.value:,} stored in 3 stores" in messages[-1]
    raw_rows = runs.materializations(result.run_id)["green/raw_trips", "2021-11-05"].metadata[
        "rows"
    ]
    raw = runs.run("green", "2021-11-05", asset_selection=[dg.AssetKey(["green", "raw_trips"])])
    messages = [entry.user_message for entry in runs.instance.all_logs(raw.run_id)]
    assert any(f"1 day, {raw_rows.value} rows read; " in message for message in messages)
