"""docs/examples/dbt as printed: its models on Postgres and on DuckDB, by day, with their checks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

EXAMPLE = Path("docs/examples/dbt")
(COMMANDS,) = re.findall(
    r"^```bash\n(.*?)^```",
    (REPOSITORY / EXAMPLE / "README.md").read_text(),
    re.DOTALL | re.MULTILINE,
)
DAYS = ["2021-01-05", "2021-01-06", "2021-01-07"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of an environment with dbt, which `.ci/dbt` makes before the tests."""
    folder = Path(sys.prefix, "dbt")
    if not (folder / "bin" / "dbt").exists():
        folder = tmp_path_factory.mktemp("dbt")
        command = [REPOSITORY / ".ci" / "dbt", folder, sys.executable]
        subprocess.run(command, check=True, timeout=300)
    return folder / "bin"


def run_page(folder: Path, programs: Path, *, again: bool = False) -> str:
    """Run the page's block without the lines that install and start; again, what loads days."""
    install, start, *lines = COMMANDS.replace(".venv/bin", str(programs)).splitlines()
    assert "pip install" in install
    assert "local up" in start
    lines = [line for line in lines if not again or "env" in line or "dg launch" in line]
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=folder,
        env={**os.environ, "PAGER": "cat"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr[-3000:]
    return completed.stdout


def read_models(folder: Path) -> list[dict[str, list[tuple]]]:
    """Return the rows of both tables, in Postgres and in DuckDB."""
    queries = {
        "daily": "SELECT pickup_date, sum(trips), sum(revenue) FROM dbt.daily_revenue GROUP BY 1",
        "monthly": "SELECT month, days, trips, revenue FROM dbt.monthly_revenue",
    }
    with stores.postgres() as connection, connection.cursor() as cursor:
        in_postgres = {}
        for name, query in queries.items():
            cursor.execute(f"{query} ORDER BY 1")
            in_postgres[name] = [tuple(row) for row in cursor.fetchall()]
    with duckdb.connect(str(folder / EXAMPLE / "trips.duckdb"), read_only=True) as tables:
        in_lake = {
            name: tables.execute(f"{query} ORDER BY 1").fetchall()
            for name, query in queries.items()
        }
    return [
        {
            name: [
                tuple(float(value) if not isinstance(value, date) else value for value in row)
                for row in rows
            ]
            for name, rows in values_by_store.items()
        }
        for values_by_store in (in_postgres, in_lake)
    ]


def test_models_equal_the_stores(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    green = SERVICES["green"]
    shutil.copytree(REPOSITORY / EXAMPLE, tmp_path / EXAMPLE)
    lines = [make_trip_line(day, 10.0 + at) for at, day in enumerate(DAYS) for _ in range(at + 1)]
    monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, green, "2021-01", lines))
    assert Runs().run("green", DAYS[0], DAYS[-1]).success
    try:
        printed = run_page(tmp_path, programs)
        first, second, third = (date.fromisoformat(day) for day in DAYS)
        month = date(2021, 1, 1)
        assert read_models(tmp_path) == 2 * [
            {
                "daily": [(first, 1.0, 10.0), (second, 2.0, 22.0), (third, 3.0, 36.0)],
                "monthly": [(month, 3.0, 6.0, 68.0)],
            }
        ]
        assert "2021-01-01 |    3 |     6" in printed
        checks = list_checks()
        for target in ("dbt_postgres", "dbt_duckdb"):
            assert {
                (f"{target}/daily_revenue", "a_zone_is_once_a_day"),
                (f"{target}/monthly_revenue", "a_month_is_the_sum_of_its_days"),
                (f"{target}/stg_trips", "not_null_stg_trips_pickup_date"),
            } <= checks
        # A day that became empty leaves no row, and its month is counted again.
        write_month(tmp_path, green, "2021-01", [lines[0], *lines[3:]])
        assert Runs().run("green", DAYS[0], DAYS[-1]).success
        run_page(tmp_path, programs, again=True)
        assert read_models(tmp_path) == 2 * [
            {
                "daily": [(first, 1.0, 10.0), (third, 3.0, 36.0)],
                "monthly": [(month, 2.0, 4.0, 46.0)],
            }
        ]
    finally:
        with stores.postgres() as connection, connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS dbt CASCADE")


def list_checks() -> set[tuple[str, str]]:
    """Return the checks of the latest run; assert that all passed."""
    instance = dg.DagsterInstance.get()
    (run,) = instance.get_runs(dg.RunsFilter(job_name="dbt_job"), limit=1)
    records = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    evaluations = [record.event_log_entry.asset_check_evaluation for record in records]
    assert all(evaluation.passed for evaluation in evaluations)
    return {
        (evaluation.asset_key.to_user_string(), evaluation.check_name) for evaluation in evaluations
    }
