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

from taxi_assets.local.client_commands import find_psql
from taxi_assets.local.state_directory import StateDirectory
from taxi_assets_tests.local.conftest import GRACE, python, servers_of


def taxi(home: Path, *words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        python("-m", "taxi_assets.local", *words),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TAXI_HOME": str(home)} | environment,
    )


def test_up_stays_until_down(home: Path) -> None:
    assert taxi(home, "up").returncode == 0
    time.sleep(3 * GRACE)
    shown = taxi(home, "status", "--json").stdout
    status = json.loads(shown)
    assert status["keeps_running"]
    assert [status[name]["state"] for name in ("postgres", "bigquery")] == ["running"] * 2
    assert status["postgres"]["folder"] == str(home / "postgres" / "data")

    values = dict(
        shlex.split(line)[1].split("=", 1) for line in taxi(home, "env").stdout.splitlines()
    )
    assert list(values) == [
        *("PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGOPTIONS"),
        *("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DBNAME", "POSTGRES_USER"),
        *("POSTGRES_PASSWORD", "POSTGRES_READER_USER", "POSTGRES_READER_PASSWORD"),
        *("TAXI_LAKE", "BIGQUERY_ENDPOINT", "BIGQUERY_TOKEN", "GCP_PROJECT"),
    ]
    assert values["TAXI_LAKE"] == str(home / "lake" / "taxi")
    assert values["BIGQUERY_ENDPOINT"] == status["bigquery"]["address"]
    assert status["postgres"]["address"].endswith(f"127.0.0.1:{values['POSTGRES_PORT']}")
    assert len(values["POSTGRES_PASSWORD"]) > 20
    assert values["POSTGRES_PASSWORD"] not in shown + taxi(home, "status").stdout

    assert taxi(home, "down").returncode == 0
    assert servers_of(home) == []
    assert not StateDirectory(home).keep_alive.exists()


def test_nothing_runs(home: Path) -> None:
    down = taxi(home, "down")
    assert (down.returncode, down.stderr) == (0, "")
    assert json.loads(taxi(home, "status", "--json").stdout)["postgres"]["state"] == "stopped"
    env = taxi(home, "env")
    assert (env.returncode, env.stdout) == (1, "")
    assert env.stderr.count("\n") == 1
    assert "is not up" in env.stderr
    assert not home.exists()


def test_other_profile(home: Path) -> None:
    settings = {"TAXI_PROFILE": "gcp", "GCP_PROJECT": "p", "GCS_BUCKET": "bucket"}
    settings |= {f"POSTGRES_{it}": "x" for it in ("HOST", "DBNAME", "USER", "PASSWORD")}
    refused = taxi(home, "up", **settings, TAXI_SOURCE="/{service}/{year}-{month}.csv")
    assert refused.returncode == 1
    assert "the local stack is for profile local" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not home.exists()


def shell(home: Path, script: str) -> str:
    """What a person sees who pastes some lines, without an activated environment."""
    variables = {"PYTHON": sys.executable, "TAXI_HOME": str(home), "PSQL": find_psql()}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | variables,
    )
    return done.stdout + done.stderr


def test_clients_reach_the_data_by_one_command(home: Path) -> None:
    assert taxi(home, "up").returncode == 0
    days = home / "lake" / "taxi" / "green"
    # The second day's object is of before the column was added.
    for day, query in (
        ("05", "1.5 AS total_amount, 2 AS night_fee"),
        ("06", "2.5 AS total_amount"),
    ):
        folder = days / f"tpep_pickup_date=2021-01-{day}"
        folder.mkdir(parents=True)
        duckdb.sql(f"COPY (SELECT {query}) TO '{folder}/trips.parquet'")

    said = taxi(
        home, "duckdb", "SELECT sum(total_amount) AS dollars, sum(night_fee) FROM green_tripdata"
    )
    assert (said.returncode, said.stderr) == (0, "")
    assert re.search(r"4\.0 .* 2 ", said.stdout), said.stdout
    piped = shell(home, "echo 'SHOW TABLES' | $PYTHON -m taxi_assets.local duckdb")
    assert "green_tripdata" in piped
    wrong = taxi(home, "duckdb", "SELECT fee FROM green_tripdata")
    assert wrong.returncode == 1
    assert 'Referenced column "fee" not found' in wrong.stderr

    # psql reads and cannot write; the variables of `env` are the owner's.
    assert taxi(home, "psql", "-Atc", "SHOW search_path").stdout == "ny_taxi,public\n"
    refused = taxi(home, "psql", "-c", "CREATE TABLE public.mine ()")
    assert refused.returncode == 1
    assert "read-only transaction" in refused.stderr
    owner = 'eval "$($PYTHON -m taxi_assets.local env)"; "$PSQL" -c "CREATE SCHEMA mine"'
    assert shell(home, owner) == "CREATE SCHEMA\n"
    assert taxi(home, "down").returncode == 0


def test_an_empty_lake_is_one_line(home: Path) -> None:
    said = taxi(home, "duckdb", "SHOW TABLES")
    assert said.returncode == 1
    assert said.stderr == f"{home}/lake/taxi has no days yet: run taxi-assets quickstart first\n"
