"""A full disk: the run names the place and the fix, and continues from there afterwards.

Any user can limit the size of files; a disk that is really full is a small one of root's.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import resource
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import dagster as dg
import psycopg2
import pytest

from taxi_assets.cli.app import main
from taxi_assets.local import ensure_stack_running, postgres
from taxi_assets.local.state_directory import (
    LOCAL_HOST,
    Config,
    LocalStackError,
    StateDirectory,
)
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.fake_http_server import Site
from taxi_assets_tests.faults.conftest import count_retries
from taxi_assets_tests.faults.test_postgres_faults import PASSWORD, Server
from taxi_assets_tests.stores import Runs

GREEN = SERVICES["green"]
DAY = "2021-03-02"
ROWS = 30_000
ROOM = 100_000
"""Bytes that are left, less than the day needs in any place."""

Full = Callable[[], AbstractContextManager[None]]


@contextmanager
def mount_small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a small disk, if this user may."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user can mount no disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def fill_disk(folder: Path, free_bytes: int = ROOM) -> Iterator[None]:
    """Leave that many free bytes on the disk of a folder."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(free_bytes)):
                pass
        file.truncate(file.tell() - free_bytes)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def limit_file_size() -> Iterator[None]:
    """Limit the size of files that this process writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=["limit", "disk"])
def full(
    request: pytest.FixtureRequest, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Full]:
    """Make a TAXI_HOME that can be filled; its servers are the session's."""
    server = stores.stack()
    monkeypatch.setenv("BIGQUERY_ENDPOINT", server.bigquery_endpoint)
    monkeypatch.setenv("BIGQUERY_TOKEN", server.bigquery_token)
    for name, value in stores.postgres_arguments().items():
        monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(value))
    disk = mount_small_disk(tmp_path / "disk", 8) if request.param == "disk" else None
    with disk or contextlib.nullcontext(tmp_path) as folder:
        monkeypatch.setenv("TAXI_HOME", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield (lambda: fill_disk(folder)) if disk else limit_file_size


@pytest.fixture
def month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a month's file with one large day and use it as the source."""
    pick = random.Random(1)  # noqa: S311 - amounts that do not compress well
    lines = [make_trip_line(DAY, round(pick.uniform(1, 10_000), 2)) for _ in range(ROWS)]
    monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-03", lines))
    return tmp_path / "green_tripdata_2021-03.csv.gz"


def run_assets(*names: str) -> dg.ExecuteInProcessResult:
    # In memory, so that the full disk does not affect Dagster's own files.
    with dg.DagsterInstance.ephemeral() as instance:
        keys = [dg.AssetKey(["green", name]) for name in names]
        return Runs(instance=instance).run("green", DAY, asset_selection=keys)


def run_and_read_error(*names: str) -> str:
    result = run_assets(*names)
    assert not result.success
    assert count_retries(result) == 0
    return stores.failure(result)


def read_slices(kind: str) -> dict[str, bytes]:
    folder = Path(os.environ["TAXI_HOME"], "lake", "taxi", kind)
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_download_resumes_when_the_disk_has_room(
    full: Full, month: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.body = month.read_bytes()
    assert len(site.body) > ROOM
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    with full():
        message = run_and_read_error("raw_trips")
    assert f"green/raw_trips {DAY}: no space left in {os.environ['TAXI_HOME']}" in message
    assert "free some, or set TAXI_HOME" in message
    assert read_slices("_raw") == {}
    assert run_assets("raw_trips").success
    assert read_slices("_raw")


@pytest.mark.parametrize(("asset", "kind"), [("raw_trips", "_raw"), ("cleaned_trips", "_cleaned")])
def test_stored_slices_stay_intact_on_a_full_disk(
    asset: str, kind: str, full: Full, month: Path
) -> None:
    assert run_assets("raw_trips", "cleaned_trips").success
    slices_before = read_slices(kind)
    assert sum(map(len, slices_before.values())) > ROOM
    month.write_bytes(gzip.compress(gzip.decompress(month.read_bytes()).replace(b",1.50,", b",2,")))
    with full():
        message = run_and_read_error(asset)
    assert f"green/{asset} {DAY}: no space left in {os.environ['TAXI_HOME']}" in message
    assert read_slices(kind) == slices_before
    assert read_slices("_tmp") == {}
    assert run_assets("raw_trips", "cleaned_trips").success
    assert read_slices(kind) != slices_before


def test_postgres_on_a_full_disk(
    month: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_BUCKET", "full")
    assert run_assets("raw_trips", "cleaned_trips").success
    with (
        tempfile.TemporaryDirectory(prefix="taxi-") as parent,
        mount_small_disk(Path(parent, "disk"), 100) as disk,
    ):
        for folder in (disk, disk.parent):
            folder.chmod(0o755)
        state_directory = StateDirectory(disk)
        state_directory.make()
        server = Server(postgres._open_cluster(state_directory, Config()))
        postgres._initialize_cluster(server.cluster, PASSWORD, PASSWORD)
        server.start()
        try:
            for name, value in {**server.arguments, "host": LOCAL_HOST}.items():
                monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(value))
            with fill_disk(disk, 1_000_000):
                message = run_and_read_error("postgres_trips")
            assert "No space left on device" in message
            assert "free some space on the disk of Postgres, then run again" in message
            assert run_assets("postgres_trips").success
            connection = psycopg2.connect(**server.arguments)
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM ny_taxi.green_cab_data")
                assert cursor.fetchone() == (ROWS,)
            connection.close()
        finally:
            server.stop(signal.SIGQUIT)


def test_first_start_on_a_full_disk_names_it() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="taxi-") as parent,
        mount_small_disk(Path(parent, "disk"), 20) as disk,
    ):
        for folder in (disk, disk.parent):
            folder.chmod(0o755)
        with pytest.raises(LocalStackError) as error:
            ensure_stack_running(disk / "taxi")
    assert f"initdb in {disk}/taxi/postgres failed: " in str(error.value)
    assert ": free some space, then run again; log: " in str(error.value)


def test_dagster_home_on_a_full_disk_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with mount_small_disk(tmp_path / "disk", 1) as disk, fill_disk(disk, 50_000):
        monkeypatch.setenv("DAGSTER_HOME", str(disk))
        assert main(["status"]) == 2
        error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith(f"Dagster's storage (DAGSTER_HOME={disk}, 0 MB free) failed: ")
