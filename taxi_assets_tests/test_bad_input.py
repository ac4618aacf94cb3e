"""Bad input raises an error with place, cause and fix, and changes no store."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from taxi_assets import local
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.test_daily import DAGSTER, make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("home")
GREEN = SERVICES["green"]
DAY = "2020-11-05"


def write_valid_month(folder: Path) -> Path:
    lines = [make_trip_line(DAY, total) for total in range(2000)]
    write_month(folder, GREEN, "2020-11", lines)
    return folder / "green_tripdata_2020-11.csv.gz"


def missing(folder: Path) -> None:
    write_valid_month(folder).unlink()


def cut_short(folder: Path) -> None:
    path = write_valid_month(folder)
    path.write_bytes(path.read_bytes()[:-100])


def html(folder: Path) -> None:
    write_valid_month(folder).write_text("<!DOCTYPE html><html><body>Not found</body></html>")


def lfs_pointer(folder: Path) -> None:
    write_valid_month(folder).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


def wrong_header(folder: Path) -> None:
    path = write_valid_month(folder)
    text = gzip.decompress(path.read_bytes()).replace(b"PULocationID", b"PickupZone")
    path.write_bytes(gzip.compress(text))


def wrong_order(folder: Path) -> None:
    path = write_valid_month(folder)
    text = gzip.decompress(path.read_bytes())
    header, rest = text.split(b"\n", 1)
    names = header.split(b",")
    names[0], names[1] = names[1], names[0]
    path.write_bytes(gzip.compress(b",".join(names) + b"\n" + rest))


def other_dates(folder: Path) -> None:
    path = write_valid_month(folder)
    text = gzip.decompress(path.read_bytes()).replace(b"2020-11-05", b"05/11/2020")
    path.write_bytes(gzip.compress(text))


def empty(folder: Path) -> None:
    write_valid_month(folder).write_bytes(b"")


CASES: dict[Callable[[Path], None], str] = {
    missing: "no such file",
    cut_short: "truncated or damaged",
    html: "HTML",
    lfs_pointer: "LFS",
    wrong_header: "missing PULocationID; unknown 'PickupZone'",
    wrong_order: "in another order",
    other_dates: "is not a time as 2021-01-05 00:31:19",
    empty: "empty",
}


@pytest.fixture(scope="module")
def before(home: Path) -> dict[str, object]:
    """Return the totals of the stores, each of which has rows."""
    assert Runs().run("green", "2021-01-05").success
    return stores.store_totals(GREEN)


@pytest.mark.parametrize("spoil", CASES, ids=lambda case: case.__name__)
def test_bad_month_file_is_rejected(
    spoil: Callable[[Path], None],
    before: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_tripdata_{year}-{month}.csv.gz"))
    spoil(tmp_path)
    runs = Runs()
    result = runs.run("green", DAY)
    assert not result.success
    message = stores.failure(result)
    assert CASES[spoil].lower() in message.lower(), message
    for part in ("green/raw_trips", DAY, str(tmp_path / "green_tripdata_2020-11.csv.gz")):
        assert part in message, message
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    assert runs.materializations(result.run_id) == {}
    assert stores.store_totals(GREEN) == before


@pytest.mark.parametrize(
    ("tags", "problem", "fix"),
    [
        (
            {"dagster/partition": "2019-12-31"},
            "2019-12-31 is outside the partitions 2020-10-01",
            "change TAXI_START_DATE or TAXI_END_DATE",
        ),
        ({}, "the run's partition is None to None", "dg launch --partition 2021-01-05"),
    ],
)
def test_run_of_no_partition_is_rejected(
    tags: dict[str, str], problem: str, fix: str, before: dict[str, object]
) -> None:
    completed = subprocess.run(
        [DAGSTER, "job", "execute", "-m", "taxi_assets.definitions", "-j", "green_daily"]
        + ["--tags", json.dumps(tags)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode != 0
    output = completed.stdout + completed.stderr
    assert problem in output
    assert fix in output
    assert "STEP_UP_FOR_RETRY" not in output
    assert stores.store_totals(GREEN) == before


def test_invalid_settings_are_one_error(
    before: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_PROFILE", "gcp")
    monkeypatch.setenv("POSTGRES_PORT", "five")
    result = Runs().run("green", DAY)
    assert not result.success
    message = stores.failure(result)
    for name in (
        "GCP_PROJECT",
        "GCS_BUCKET",
        "TAXI_SOURCE",
        "POSTGRES_HOST",
        "POSTGRES_PORT='five'",
    ):
        assert name in message, message
    assert stores.store_totals(GREEN) == before


def test_unreachable_postgres_is_named_and_no_store_is_touched(
    before: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_RETRY_DELAY", "0.05")
    set_to = {
        "HOST": "127.0.0.1",
        "PORT": "1",
        "DBNAME": "ny_taxi",
        "USER": "taxi",
        "PASSWORD": "planted-secret",
    }
    runs = Runs()
    with monkeypatch.context() as down:
        for name, value in set_to.items():
            down.setenv(f"POSTGRES_{name}", value)
        result = runs.run("green", DAY)
    assert not result.success
    message = stores.failure(result)
    assert f"green/raw_trips {DAY}" in message
    assert "127.0.0.1:1/ny_taxi" in message
    assert "planted-secret" not in message
    assert runs.materializations(result.run_id) == {}
    assert stores.store_totals(GREEN) == before


def test_wrong_password_is_not_retried(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = local.ensure_stack_running(home / "taxi")
    for name, value in {
        "HOST": stack.postgres_host,
        "PORT": str(stack.postgres_port),
        "DBNAME": stack.postgres_dbname,
        "USER": stack.postgres_user,
        "PASSWORD": "planted-secret",
    }.items():
        monkeypatch.setenv(f"POSTGRES_{name}", value)
    result = Runs().run("green", "2021-01-05")
    message = stores.failure(result)
    assert "check POSTGRES_USER, POSTGRES_PASSWORD" in message
    assert "planted-secret" not in message
    assert not any(event.is_step_up_for_retry for event in result.all_events)
