"""A restated month: the same differences in `diff`, in the records, on the page, in the plan."""

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


def run(instance: dg.DagsterInstance, **more: object) -> dg.ExecuteInProcessResult:
    result = Runs(instance=instance).run("yellow", *DAYS, **more)
    assert result.success
    return result


def records(instance: dg.DagsterInstance, run_id: str) -> dict[str, dict[str, Any]]:
    """Metadata of the raw records by day."""
    found = Runs(instance=instance).materializations(run_id)
    return {
        day: {name: value.value for name, value in event.metadata.items()}
        for (key, day), event in found.items()
        if key == "yellow/raw_trips"
    }


@pytest.fixture
def restated(instance: dg.DagsterInstance, months: Months) -> dg.DagsterInstance:
    """Five days are loaded; then their file changes.

    The 29th has a row more, the 30th one less, the 31st another fare in one row, and the rows of
    the 28th come in another order.
    """
    months.write("2021-01")
    run(instance)
    lines = months.lines("2021-01")
    of_day = {
        day: [line for line in lines if f"2021-01-{day} " in line.decode()]
        for day in ("28", "29", "30", "31")
    }
    rest = [line for line in lines if not any(line in day for day in of_day.values())]
    of_day["28"].reverse()
    of_day["29"].append(make_line("2021-01-29 09:00:00", total_amount="7"))
    del of_day["30"][0]
    of_day["31"][1] = make_line("2021-01-31 02:00:00", total_amount="10.02", fare_amount="8.5")
    months.write("2021-01", [*rest, *(line for day in of_day.values() for line in day)])
    return instance


def test_a_changed_month_gives_the_same_differences_everywhere(
    restated: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    # Before anything is loaded: by the command.
    assert main(["diff", "yellow", SPAN, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [
        (day["day"], day["added"], day["removed"], day["changed"]) for day in found["days"]
    ] == [
        ("2021-01-29", 1, 0, 0),
        ("2021-01-30", 0, 1, 0),
        ("2021-01-31", 0, 0, 1),
    ]
    assert found["total"]["columns"] == {"fare_amount": 1}
    assert found["total"]["revenue_change"] == pytest.approx(7 - 10.01)
    assert main(["diff", "yellow", SPAN, "--against", "store", "--json"]) == 1
    of_stores = json.loads(capsys.readouterr().out)["days"]
    assert {day["side"] for day in of_stores} == {"postgres_trips", "gcs_trips", "bigquery_trips"}
    assert len(of_stores) == 9

    # In the records of the run that loads the raw rows.
    loaded = records(restated, run(restated, asset_selection=RAW).run_id)
    assert "restated" not in loaded["2021-01-28"]
    changed = loaded["2021-01-31"]
    assert changed["restated"] == "0 added, 0 removed, 1 changed (fare_amount in 1); revenue +0.00"
    assert changed["restatement"]["changed"] == [
        {"pickup": "2021-01-31 02:00:00", "changes": {"fare_amount": ["1.0", "8.5"]}}
    ]
    added = loaded["2021-01-29"]
    assert (added["rows_added"], added["revenue_change"]) == (1, 7)

    # On the month's page.
    page = Path(changed["restatement_page"]).read_text()
    assert "3 of 31 days changed: 1 added, 1 removed, 1 changed (fare_amount in 1)" in page
    assert "fare_amount: 1.0 → 8.5" in page
    assert "2021-01-28" not in page

    # Downstream only days whose bytes changed are stale.
    plan = make_plan(restated, YELLOW, parse_span(SPAN))
    assert [day.state for month in plan.months for day in month.days] == [
        State.loaded,
        *[State.stale] * 4,
    ]
    run(restated)
    assert main(["diff", "yellow", SPAN]) == 0
    assert "0 of 5 days differ: 0 added, 0 removed, 0 changed" in capsys.readouterr().out
    assert main(["diff", "yellow", SPAN, "--against", "store"]) == 0


def test_what_a_file_changed_is_still_known_when_it_is_read_again(
    restated: dg.DagsterInstance,
) -> None:
    # As after a run that was killed between the object and its record.
    first = records(restated, run(restated, asset_selection=RAW).run_id)
    again = records(restated, run(restated, asset_selection=RAW).run_id)
    for day in ("2021-01-29", "2021-01-30", "2021-01-31"):
        assert again[day]["restatement"] == first[day]["restatement"]
        assert again[day]["former_rows"] == first[day]["former_rows"]


def test_former_rows_are_kept_where_no_reader_of_the_lake_finds_them(
    restated: dg.DagsterInstance,
) -> None:
    loaded = records(restated, run(restated, asset_selection=RAW).run_id)
    former = Path(loaded["2021-01-30"]["former_rows"])
    assert former.suffix == ""
    lake = LakeResource().lake
    kept = lake.times("_former/yellow")
    assert len(kept) == 3
    for pattern in ("**/*.parquet", "**/*.csv*", "**/*.zst"):
        assert not [path for path in stores.lake().glob(pattern) if "_former" in path.parts]
    days = duckdb.sql(f"SELECT count(*) FROM '{stores.lake()}/yellow/**/*.parquet'").fetchone()
    assert days == (15,)
    old = time.time() - 31 * 86_400
    os.utime(former, (old, old))
    # Any later run deletes what was replaced more than TAXI_RAW_RETENTION_DAYS ago.
    run(restated, asset_selection=RAW)
    assert set(lake.times("_former/yellow")) == set(kept) - {str(former.relative_to(lake.root))}


def test_a_month_that_was_never_loaded_is_absent(
    instance: dg.DagsterInstance, months: Months, capsys: pytest.CaptureFixture[str]
) -> None:
    months.write("2021-01")
    assert main(["diff", "yellow", "2021-01-05"]) == 1
    assert "1 of 1 days differ" in capsys.readouterr().out
    assert main(["diff", "yellow", "2021-02-05"]) == 2
    assert "yellow 2021-02" in capsys.readouterr().err
    assert main(["diff", "yellow", "2021-01-05", "--against", "rows"]) == 2


def test_a_csv_and_a_parquet_of_one_real_month_are_compared_by_value(real_rows: RealRows) -> None:
    lines = real_rows.path("green", "2020-12")
    table = pq.read_table(lines.with_name("green_tripdata_2020-12.parquet"))
    content = duckdb.sql(f"SELECT * FROM read_csv('{lines}', all_varchar=true)").arrow().read_all()
    header = ",".join(content.column_names).encode()
    rows = [",".join(value or "" for value in one.values()).encode() for one in content.to_pylist()]
    found = diff_content(make_slice(*rows, header=header), table, GREEN)
    assert (found.rows_before, found.rows_after) == (83_130, 83_130)
    # Trips that no meter reported have no vendor in the CSV.
    assert (found.added, found.removed, found.changed) == (0, 0, 36_838)
    assert found.columns == {"vendorid": 36_838}
    assert found.revenue_change == pytest.approx(0, abs=0.01)
