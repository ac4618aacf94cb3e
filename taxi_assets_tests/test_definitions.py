"""The definitions: what is in them, how fast they load, that Dagster's own tools accept them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from taxi_assets.definitions import build_defs
from taxi_assets_tests.conftest import REPOSITORY

BIN = Path(sys.executable).parent
ASSETS = {"trip_file", "raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips"} | {
    "bigquery_trips",
    "monthly_report",
}
EDGES = {
    ("trip_file", "raw_trips"),
    ("raw_trips", "cleaned_trips"),
    ("cleaned_trips", "postgres_trips"),
    ("cleaned_trips", "gcs_trips"),
    ("gcs_trips", "bigquery_trips"),
    ("gcs_trips", "monthly_report"),
}
CHECKS = {
    "raw_trips": {"rows_outside_month", "rows_readable", "known_columns"}
    | {"every_day_has_rows", "no_int96_times"},
    "cleaned_trips": {"no_zero_passengers", "schema_matches", "rows_accounted_for"}
    | {"no_rows_outside_day", "not_empty", "negative_totals", "values_readable", "known_labels"}
    | {"values_expected", "usual_day"},
    "postgres_trips": {"matches_cleaned", "up_to_date"},
    "gcs_trips": {"matches_cleaned", "up_to_date"},
    "bigquery_trips": {"matches_cleaned", "stores_agree", "up_to_date"},
}


@pytest.mark.parametrize("service", ["yellow", "green"])
def test_service_has_its_assets_edges_checks_and_jobs(service: str) -> None:
    defs = build_defs()
    graph = defs.resolve_asset_graph()
    keys = [key for key in graph.get_all_asset_keys() if key.path[0] == service]
    assert {key.path[1] for key in keys} == ASSETS
    edges = {(up.path[1], key.path[1]) for key in keys for up in graph.get(key).parent_keys}
    assert edges == EDGES
    assets_by_job: dict[str, set[str]] = {}
    for check in graph.asset_check_keys:
        if check.asset_key.path[0] == service:
            assets_by_job.setdefault(check.asset_key.path[1], set()).add(check.name)
            daily = graph.get(check).partitions_def is not None
            assert daily == (check.name not in {"up_to_date", *CHECKS["raw_trips"]})
    assert assets_by_job == CHECKS
    job = defs.resolve_job_def(f"{service}_daily")
    job_assets = {key.path[1] for key in job.asset_layer.executable_asset_keys}
    assert job_assets == ASSETS - {"trip_file", "monthly_report"}
    report = defs.resolve_job_def(f"{service}_monthly_report")
    assert [key.path[1] for key in report.asset_layer.executable_asset_keys] == ["monthly_report"]
    for key in keys:
        node = graph.get(key)
        if key.path[1] == "monthly_report":
            assert node.group_name == "reports"
            continue
        assert node.group_name == service
        if node.is_executable:
            assert node.backfill_policy.max_partitions_per_run == 31
    assert defs.resolve_schedule_def(f"{service}_daily_schedule").job_name == job.name
    assert defs.resolve_sensor_def(f"{service}_new_month_sensor").job_name == job.name
    assert {key.name for key in job.asset_layer.asset_graph.asset_check_keys} == set.union(
        *CHECKS.values()
    ) - {"up_to_date"}


def test_chunk_size_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_MAX_PARTITIONS_PER_RUN", "7")
    graph = build_defs().resolve_asset_graph()
    daily = [key for key in graph.executable_asset_keys if key.path[1] != "monthly_report"]
    policies = {graph.get(key).backfill_policy for key in daily}
    assert {policy.max_partitions_per_run for policy in policies} == {7}


def test_loading_opens_no_connection_and_imports_no_client(tmp_path: Path) -> None:
    script = """
import sys
def audit(event, arguments):
    if event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir"):
        raise RuntimeError(f"{event} {arguments} at import")
sys.addaudithook(audit)
import taxi_assets.definitions
taxi_assets.definitions.defs.resolve_all_job_defs()
clients = {"google.cloud.bigquery", "duckdb", "bqemulator", "dagster_gcp"}
clients |= {"psycopg", "pgpq", "matplotlib", "PIL"}
print(sorted(clients & set(sys.modules)))
"""
    env = {
        "HOME": str(tmp_path),
        "TAXI_HOME": str(tmp_path / "taxi"),
        "TAXI_ENV_FILE": "none",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    completed = subprocess.run(
        [sys.executable, "-c", script],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == "[]\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ["dagster", "definitions", "validate", "-w", "workspace.yaml"],
        ["dg", "check", "defs"],
    ],
    ids=lambda command: command[0],
)
def test_dagsters_own_checks_pass(command: list[str], home: Path, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "workspace.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "taxi_assets").symlink_to(REPOSITORY / "taxi_assets")
    completed = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["dagster", "job", "execute", "-m", "taxi_assets.definitions", "-j", "yellow_daily"],
        ["dg", "launch", "--job", "yellow_daily", "--partition", "2021-01-05"],
    ],
    ids=lambda command: command[0],
)
def test_invalid_setting_is_one_line_of_dagsters_commands(
    command: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TAXI_START_DATE", "5 January")
    # With an exported DAGSTER_HOME, `dg` does not announce its telemetry to a new user.
    monkeypatch.setenv("HOME", str(tmp_path))
    completed = subprocess.run(
        [str(BIN / command[0]), *command[1:]], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 1
    lines = (completed.stdout + completed.stderr).strip().splitlines()
    assert lines[-1] == (
        "Error: profile 'local': TAXI_START_DATE='5 January' is not a date: write it as "
        "2021-01-01. Set them in the environment or in .env (see .env.example)."
    )
    assert list(tmp_path.iterdir()) == []
    # `dagster job execute` says of itself that it is superseded.
    assert [
        line for line in lines[:-1] if "superseded" not in line and "callback" not in line
    ] == []


def test_definitions_show_no_preview_warning() -> None:
    code = "from taxi_assets.definitions import build_defs; build_defs()"
    command = [sys.executable, "-W", "always", "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "BetaWarning" not in process.stderr
    assert "PreviewWarning" not in process.stderr
