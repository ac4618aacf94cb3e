"""A restated month has the same differences in `diff`, the records, the page and the plan."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pyarrow.parquet as pq
import pytest

from taxi_assets.cli.app import main
from taxi_assets.cli.day_states import State
from taxi_assets.cli.month_plan import make_plan
from taxi_assets.cli.spans import parse_span
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.row_diff import diff_content
from taxi_assets_tests import stores
from taxi_assets_tests.cli.conftest import Months
from taxi_assets_tests.conftest import RealRows
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.tlc.files import make_line, make_slice

YELLOW, GREEN = SERVICES["yellow"], SERVICES["green"]
SPAN = "2021-01-27..2021-01-31"
DAYS = tuple(SPAN.split(".."))
RAW = [dg.AssetKey(["yellow", "raw_trips"])]


def run_days(instance: dg.DagsterInstance, **options: object) -> dg.ExecuteInProcessResult:
    result = Runs(instance=instance).run("yellow", *DAYS, **options)
    assert result.success
    return result


def read_raw_metadata(instance: dg.DagsterInstance, run_id: str) -> dict[str, dict[str, Any]]:
    """Return the metadata of the raw materializations by day."""
    materializations = Runs(instance=instance).materializations(run_id)
    return {
        day: {name: value.value for name, value in event.metadata.items()}
        for (key, day), event in materializations.items()
        if key == "yellow/raw_trips"
    }


@pytest.fixture
def restated(instance: dg.DagsterInstance, months: Months) -> dg.DagsterInstance:
    """Load five days, then restate their file.

    The 29th has a row more, the 30th one less, the 31st another fare in one row, and the rows of
    the 28th come in another order.
    """
    months.write("2021-01")
    run_days(instance)
    lines = months.lines("2021-01")
    lines_of_day = {
        day: [line for line in lines if f"2021-01-{day} " in line.decode()]
        for day in ("28", "29", "30", "31")
    }
    other_lines = [line for line in lines if not any(line in day for day in lines_of_day.values())]
    lines_of_day["28"].reverse()
    lines_of_day["29"].append(make_line("2021-01-29 09:00:00", total_amount="7"))
    del lines_of_day["30"][0]
    lines_of_day["31"][1] = make_line(
        "2021-01-31 02:00:00", total_amount="10.02", fare_amount="8.5"
    )
    months.write(
        "2021-01", [*other_lines, *(line for day in lines_of_day.values() for line in day)]
    )
    return instance


def test_restated_month_has_the_same_differences_everywhere(
    restated: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    # By the command, before anything is loaded.
    assert main(["diff", "yellow", SPAN, "--json"]) == 1
    command_diff = json.loads(capsys.readouterr().out)
    assert [
        (day["day"], day["added"], day["removed"], day["changed"]) for day in command_diff["days"]
    ] == [
        ("2021-01-29", 1, 0, 0),
        ("2021-01-30", 0, 1, 0),
        ("2021-01-31", 0, 0, 1),
    ]
    assert command_diff["total"]["columns"] == {"fare_amount": 1}
    assert command_diff["total"]["revenue_change"] == pytest.approx(7 - 10.01)
    assert main(["diff", "yellow", SPAN, "--against", "store", "--json"]) == 1
    store_diff = json.loads(capsys.readouterr().out)["days"]
    assert {day["side"] for day in store_diff} == {"postgres_trips", "gcs_trips", "bigquery_trips"}
    assert len(store_diff) == 9

    # In the materializations of the run that loads the raw rows.
    raw_metadata = read_raw_metadata(restated, run_days(restated, asset_selection=RAW).run_id)
    assert "restated" not in raw_metadata["2021-01-28"]
    changed = raw_metadata["2021-01-31"]
    assert changed["restated"] == "0 added, 0 removed, 1 changed (fare_amount in 1); revenue +0.00"
    assert changed["restatement"]["changed"] == [
        {"pickup": "2021-01-31 02:00:00", "changes": {"fare_amount": ["1.0", "8.5"]}}
    ]
    added = raw_metadata["2021-01-29"]
    assert (added["rows_added"], added["revenue_change"]) == (1, 7)

    # On the month's page.
    page = Path(changed["lake"], changed["restatement_page"]).read_text()
    assert "3 of 31 days changed: 1 added, 1 removed, 1 changed (fare_amount in 1)" in page
    assert "fare_amount: 1.0 → 8.5" in page
    assert "2021-01-28" not in page

    # Downstream, only days whose bytes changed are stale.
    plan = make_plan(restated, YELLOW, parse_span(SPAN))
    assert [day.state for month in plan.months for day in month.days] == [
        State.loaded,
        *[State.stale] * 4,
    ]
    run_days(restated)
    assert main(["diff", "yellow", SPAN]) == 0
    assert "0 of 5 days differ: 0 added, 0 removed, 0 changed" in capsys.readouterr().out
    assert main(["diff", "yellow", SPAN, "--against", "store"]) == 0


def test_differences_survive_a_second_read_of_the_file(
    restated: dg.DagsterInstance,
) -> None:
    # As after a run that was killed between the object and its record.
    first_metadata = read_raw_metadata(restated, run_days(restated, asset_selection=RAW).run_id)
    second_metadata = read_raw_metadata(restated, run_days(restated, asset_selection=RAW).run_id)
    for day in ("2021-01-29", "2021-01-30", "2021-01-31"):
        assert second_metadata[day]["restatement"] == first_metadata[day]["restatement"]
        assert second_metadata[day]["former_rows"] == first_metadata[day]["former_rows"]


def test_former_rows_are_hidden_from_readers_of_the_lake(
    restated: dg.DagsterInstance,
) -> None:
    raw_metadata = read_raw_metadata(restated, run_days(restated, asset_selection=RAW).run_id)
    former = Path(raw_metadata["2021-01-30"]["lake"], raw_metadata["2021-01-30"]["former_rows"])
    assert former.suffix == ""
    lake = LakeResource().lake
    former_objects = lake.times("_former/yellow")
    assert len(former_objects) == 3
    for pattern in ("**/*.parquet", "**/*.csv*", "**/*.zst"):
        assert not [path for path in stores.lake().glob(pattern) if "_former" in path.parts]
    days = duckdb.sql(f"SELECT count(*) FROM '{stores.lake()}/yellow/**/*.parquet'").fetchone()
    assert days == (15,)
    old = time.time() - 31 * 86_400
    os.utime(former, (old, old))
    # Any later run deletes objects replaced more than TAXI_RAW_RETENTION_DAYS ago.
    run_days(restated, asset_selection=RAW)
    assert set(lake.times("_former/yellow")) == set(former_objects) - {
        str(former.relative_to(lake.root))
    }


def test_diff_of_a_month_that_was_never_loaded(
    instance: dg.DagsterInstance, months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    months.write("2021-01")
    assert main(["diff", "yellow", "2021-01-05"]) == 1
    assert "1 of 1 day differ" in capsys.readouterr().out
    assert main(["diff", "yellow", "2021-02-05"]) == 2
    assert "yellow 2021-02" in capsys.readouterr().err
    assert main(["diff", "yellow", "2021-01-05", "--against", "rows"]) == 2


def test_day_without_published_and_stored_rows_does_not_differ(
    instance: dg.DagsterInstance, months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    months.write("2021-01", [make_line("2021-01-05 01:00:00")])
    assert main(["diff", "yellow", "2021-01-06", "--against", "store"]) == 0
    assert "0 of 1 day differ" in capsys.readouterr().out
    assert main(["diff", "yellow", "2021-01-05", "--against", "store"]) == 1


def test_csv_and_parquet_of_a_real_month_are_compared_by_value(real_rows: RealRows) -> None:
    lines = real_rows.path("green", "2020-12")
    table = pq.read_table(lines.with_name("green_tripdata_2020-12.parquet"))
    content = duckdb.sql(f"SELECT * FROM read_csv('{lines}', all_varchar=true)").arrow().read_all()
    header = ",".join(content.column_names).encode()
    rows = [
        ",".join(value or "" for value in trip.values()).encode() for trip in content.to_pylist()
    ]
    difference = diff_content(make_slice(*rows, header=header), table, GREEN)
    assert (difference.rows_before, difference.rows_after) == (83_130, 83_130)
    # Trips without a meter's report have no vendor in the CSV.
    assert (difference.added, difference.removed, difference.changed) == (0, 0, 36_838)
    assert difference.columns == {"vendorid": 36_838}
    assert difference.revenue_change == pytest.approx(0, abs=0.01)
