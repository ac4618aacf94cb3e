"""What reruns and killed runs leave under TAXI_HOME and in the stores does not add up."""

from __future__ import annotations

import os
import time
import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from taxi_assets.defs.resources.lake import open_lake
from taxi_assets.settings import Settings
from taxi_assets_tests import stores
from taxi_assets_tests.stores import Runs

DAY = "2021-10-05"
MAX_BYTES_PER_RERUN = 1 << 18
"""Bytes; 60,000 were measured, of them 50,000 in DuckDB's log until its checkpoint at 16 MB."""


def measure_files(home: Path) -> dict[str, int]:
    """Return bytes by path; PostgreSQL's own log of changes is bounded by its settings."""
    sizes: dict[str, int] = {}
    for path in home.rglob("*"):
        try:
            if path.is_file() and "pg_wal" not in path.parts:
                sizes[str(path.relative_to(home))] = path.stat().st_size
        except FileNotFoundError:  # servers at work
            continue
    return sizes


def select_folder(folder: str, sizes: dict[str, int]) -> dict[str, int]:
    return {path: size for path, size in sizes.items() if path.startswith(folder)}


@pytest.mark.usefixtures("empty_stores")
def test_reruns_of_a_day_leave_the_files_of_one_run(home: Path) -> None:
    client = stores.bigquery()
    client.create_dataset("ny_taxi")
    now = int(time.time())
    others = "green_20211101_20211130_0a1b2c3d"
    left = {hours: f"_staging_{now - hours * 3600}_{others}" for hours in (5, 7)}
    for name in (*left.values(), "_staging_of_a_person"):
        client.create_table(f"taxi-local.ny_taxi.{name}")

    runs = Runs()
    assert runs.run("green", DAY).success
    tables = {table.table_id for table in client.list_tables("ny_taxi")}
    assert tables == {"green_cab_data", left[5], "_staging_of_a_person"}

    before = measure_files(home / "taxi")
    for _ in range(3):
        assert runs.run("green", DAY).success
    after = measure_files(home / "taxi")
    for folder in ("downloads", "lake"):
        assert select_folder(folder, before)
        assert select_folder(folder, after) == select_folder(folder, before)
    assert sum(after.values()) - sum(before.values()) < 3 * MAX_BYTES_PER_RERUN
    assert {table.table_id for table in client.list_tables("ny_taxi")} == tables
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('max_wal_size')")
        assert cursor.fetchone() == ("512MB",)


def test_only_our_old_temporary_files_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
    elsewhere = tmp_path / "elsewhere"
    temporary = tmp_path / "lake" / "_tmp"
    temporary.mkdir(parents=True)

    def make_old_file(name: str, hours: float, folder: Path = temporary) -> Path:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        os.utime(path, (modified_at := time.time() - hours * 3600, modified_at))
        return path

    old, young = make_old_file(uuid.uuid4().hex, 25), make_old_file(uuid.uuid4().hex, 23)
    foreign = make_old_file("report.xlsx", 25)
    target = make_old_file(uuid.uuid4().hex, 25, elsewhere)
    link = temporary / uuid.uuid4().hex
    link.symlink_to(target)
    monkeypatch.setenv("TAXI_TEMP_RETENTION_HOURS", "24")
    settings = Settings.from_env()
    open_lake(settings.lake, settings.runs.temp_retention)
    assert not old.exists()
    assert young.exists()
    assert foreign.exists()
    assert link.is_symlink()

    temporary.rename(tmp_path / "moved")
    temporary.symlink_to(elsewhere)
    open_lake(settings.lake, timedelta(0))
    assert target.exists()
