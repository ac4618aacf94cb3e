"""A run that lost the lock of its months writes to no store, at any point."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.fs as pa_fs
import pytest

from taxi_assets.defs import daily_assets as assets
from taxi_assets.defs.io_managers.base import StoreIOManager
from taxi_assets.defs.io_managers.bigquery import BigQueryTripsIOManager
from taxi_assets.defs.io_managers.lake_parquet import LakeTripsIOManager
from taxi_assets.defs.io_managers.postgres import PostgresTripsIOManager
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.folder_lock import FolderLocks
from taxi_assets.defs.resources.lake import Lake, LakeResource
from taxi_assets.defs.resources.month_lock import MonthLocks
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.errors import StoreError
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.io_managers.test_postgres import Log, make_stored_day

GREEN = SERVICES["green"]
DAYS = [date(2021, 1, 5), date(2021, 1, 6)]
LOST = r"lost the lock of green-2021-01: .* run again"


@pytest.fixture
def lake(home: Path) -> Iterator[Lake]:
    """Return a folder that the emulator also reads."""
    root = stores.stack().lake_root / "lost-lock"
    root.mkdir()
    yield Lake(pa_fs.LocalFileSystem(), str(root), "lost-lock", "hive")
    shutil.rmtree(root)


@pytest.fixture
def locks(tmp_path: Path) -> Iterator[MonthLocks]:
    """Lock the months of one run, until the folder of the locks is deleted."""
    month_locks = MonthLocks("first", lambda: FolderLocks(tmp_path / "_locks"))
    month_locks.acquire(GREEN, DAYS, pytest.fail)
    yield month_locks
    month_locks.close()


MAKE: Mapping[str, Callable[[], StoreIOManager[Any]]] = {
    "postgres": lambda: PostgresTripsIOManager({"green": GREEN}, PostgresResource()),
    "gcs": lambda: LakeTripsIOManager({"green": GREEN}, LakeResource()),
    "bigquery": lambda: BigQueryTripsIOManager({"green": GREEN}, BigQueryResource()),
}


def read_store_totals(name: str) -> stores.Totals:
    """Return a store's totals of the days."""
    return dict(MAKE[name]().read_totals(GREEN, DAYS, Log()))


@pytest.mark.usefixtures("empty_stores")
@pytest.mark.parametrize("name", MAKE)
def test_run_without_its_lock_writes_to_no_store(
    name: str, lake: Lake, locks: MonthLocks, tmp_path: Path
) -> None:
    manager, log = MAKE[name](), Log()
    manager.month_locks = locks
    first = {day: make_stored_day(lake, day, 10) for day in DAYS}
    list(manager.store(GREEN, first, log))
    shutil.rmtree(tmp_path / "_locks")
    second = {day: make_stored_day(lake, day, 7, 2.0) for day in DAYS}
    with pytest.raises(StoreError, match=LOST):
        list(manager.store(GREEN, second, log))
    assert read_store_totals(name) == dict.fromkeys(DAYS, (10, 10.0))


@pytest.mark.usefixtures("empty_stores")
@pytest.mark.parametrize("stage", ["_raw", "_cleaned"])
def test_run_without_its_lock_writes_no_object(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = stores.lake()

    def delete_lock_before(act: Callable[..., Any]) -> Callable[..., Any]:
        def delete_and_act(*args: Any, **more: Any) -> Any:
            shutil.rmtree(root / "_locks", ignore_errors=True)
            return act(*args, **more)

        return delete_and_act

    if stage == "_raw":
        monkeypatch.setattr(RawMonth, "read_days", delete_lock_before(RawMonth.read_days))
    else:
        monkeypatch.setattr(assets, "clean_partition", delete_lock_before(assets.clean_partition))
    result = stores.Runs().run("green", str(DAYS[0]))
    assert not result.success
    assert "lost the lock of green-2021-01" in stores.failure(result)
    assert [path for path in (root / stage).rglob("*") if path.is_file()] == []


def test_every_write_to_a_lake_checks_the_lock(lake: Lake) -> None:
    lake.put("there", b"old")

    def lost() -> None:
        raise StoreError("lost")

    def write() -> None:
        with lake.writer("there") as stream:
            stream.write(b"new")

    acts: list[Callable[[], object]] = [
        lambda: lake.put("there", b"new"),
        lambda: lake.copy("there", "new"),
        lambda: lake.delete("there"),
        write,
    ]
    lake.before_write = lost
    for act in acts:
        with pytest.raises(StoreError, match="lost"):
            act()
    assert lake.keys("") == {"there"}
    assert lake.get("there") == b"old"
