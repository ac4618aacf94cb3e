"""No room to write: the run says where and what to do, and goes on from there when there is room.

Anybody can be refused room by a limit on the size of files; a disk that is really full is a small
one of root's.
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

from taxi_assets.local import postgres
from taxi_assets.local.state_directory import LOCAL_HOST, Config, StateDirectory
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.test_daily import trip, write_month
from taxi_assets_tests.fake_http_server import Site
from taxi_assets_tests.faults.conftest import tries_of
from taxi_assets_tests.faults.test_postgres_faults import PASSWORD, Server
from taxi_assets_tests.stores import Runs

GREEN = SERVICES["green"]
DAY = "2021-03-02"
ROWS = 30_000
ROOM = 100_000
"""Bytes that are left, less than the day needs in any place."""

Full = Callable[[], AbstractContextManager[None]]


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A disk of its own, where this user may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this user can mount no disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(folder: Path, room: int = ROOM) -> Iterator[None]:
    """Leave that many bytes on the disk of a folder."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(bytes(room)):
                pass
        file.truncate(file.tell() - room)
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def limited() -> Iterator[None]:
    """Let this process write no larger file."""
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
    """A TAXI_HOME that can be made full; its servers are the session's."""
    server = stores.stack()
    monkeypatch.setenv("BIGQUERY_ENDPOINT", server.bigquery_endpoint)
    monkeypatch.setenv("BIGQUERY_TOKEN", server.bigquery_token)
    for name, value in stores.postgres_arguments().items():
        monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(value))
    disk = small_disk(tmp_path / "disk", 8) if request.param == "disk" else None
    with disk or contextlib.nullcontext(tmp_path) as folder:
        monkeypatch.setenv("TAXI_HOME", str(folder))
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield (lambda: filled(folder)) if disk else limited


@pytest.fixture
def month(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A month's file with one large day; the source."""
    pick = random.Random(1)  # noqa: S311 - amounts that do not compress well
    lines = [trip(DAY, round(pick.uniform(1, 10_000), 2)) for _ in range(ROWS)]
    monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-03", lines))
    return tmp_path / "green_tripdata_2021-03.csv.gz"


def run(*names: str) -> dg.ExecuteInProcessResult:
    # In memory, so that the full disk does not hit Dagster's own files.
    with dg.DagsterInstance.ephemeral() as instance:
        keys = [dg.AssetKey(["green", name]) for name in names]
        return Runs(instance=instance).run("green", DAY, asset_selection=keys)


def refused(*names: str) -> str:
    result = run(*names)
    assert not result.success
    assert tries_of(result) == 0
    return stores.failure(result)


def slices(kind: str) -> dict[str, bytes]:
    folder = Path(os.environ["TAXI_HOME"], "lake", "taxi", kind)
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_download_goes_on_when_there_is_room(
    full: Full, month: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.body = month.read_bytes()
    assert len(site.body) > ROOM
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    with full():
        message = refused("raw_trips")
    assert f"green/raw_trips {DAY}: no space left in {os.environ['TAXI_HOME']}" in message
    assert "free some, or set TAXI_HOME" in message
    assert slices("_raw") == {}
    assert run("raw_trips").success
    assert slices("_raw")


@pytest.mark.parametrize(("asset", "kind"), [("raw_trips", "_raw"), ("cleaned_trips", "_cleaned")])
def test_what_is_stored_stays_whole(asset: str, kind: str, full: Full, month: Path) -> None:
    assert run("raw_trips", "cleaned_trips").success
    before = slices(kind)
    assert sum(map(len, before.values())) > ROOM
    month.write_bytes(gzip.compress(gzip.decompress(month.read_bytes()).replace(b",1.50,", b",2,")))
    with full():
        message = refused(asset)
    assert f"green/{asset} {DAY}: no space left in {os.environ['TAXI_HOME']}" in message
    assert slices(kind) == before
    assert slices("_tmp") == {}
    assert run("raw_trips", "cleaned_trips").success
    assert slices(kind) != before


def test_postgres_without_room(
    month: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_BUCKET", "full")
    assert run("raw_trips", "cleaned_trips").success
    with (
        tempfile.TemporaryDirectory(prefix="taxi-") as parent,
        small_disk(Path(parent, "disk"), 100) as disk,
    ):
        for folder in (disk, disk.parent):
            folder.chmod(0o755)
        place = StateDirectory(disk)
        place.make()
        server = Server(postgres._open_cluster(place, Config()))
        postgres._initialize_cluster(server.cluster, PASSWORD, PASSWORD)
        server.start()
        try:
            for name, value in {**server.arguments, "host": LOCAL_HOST}.items():
                monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(value))
            with filled(disk, 1_000_000):
                message = refused("postgres_trips")
            assert "No space left on device" in message
            assert "free some space on the disk of Postgres, then run again" in message
            assert run("postgres_trips").success
            connection = psycopg2.connect(**server.arguments)
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM ny_taxi.green_cab_data")
                assert cursor.fetchone() == (ROWS,)
            connection.close()
        finally:
            server.stop(signal.SIGQUIT)
