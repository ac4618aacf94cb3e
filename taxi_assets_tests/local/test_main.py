"""The command line: up, down, status, env."""

import json
import os
import shlex
import subprocess
import time
from pathlib import Path

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
        shlex.split(line)[0].split("=", 1) for line in taxi(home, "env").stdout.splitlines()
    )
    assert list(values) == [
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
