"""A copied or moved home has its own servers and does not touch those of the original."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taxi_assets.local import LocalStackError, Stack, ensure_stack_running
from taxi_assets.local.__main__ import start_stack, stop_stack
from taxi_assets.local.postgres_folder import OUTSIDE, find_folder_owner
from taxi_assets.local.process import wait_until
from taxi_assets.local.state_directory import Record, StateDirectory
from taxi_assets_tests.isolation import REPOSITORY
from taxi_assets_tests.local.clients import bigquery_client, postgres_rows
from taxi_assets_tests.local.conftest import list_servers

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root must do")
DATASET = "taxi-local.kept"


@pytest.fixture
def copy(home: Path) -> Iterator[Path]:
    """Return the folder of a copy, whose servers are stopped at the end."""
    yield home.with_name("copy")
    stop_stack(StateDirectory(home.with_name("copy")))


def copy_home(home: Path, copy: Path) -> Path:
    subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
    return copy


def fill_stores(stack: Stack) -> None:
    postgres_rows(stack, "CREATE TABLE kept AS SELECT 1 AS n", "SELECT 1")
    with bigquery_client(stack) as client:
        client.create_dataset(DATASET)


def read_record(home: Path) -> Record:
    record = StateDirectory(home).record()
    assert record.supervisor
    return record


def read_rows(stack: Stack) -> list[int]:
    return [n for (n,) in postgres_rows(stack, "SELECT n FROM kept ORDER BY n")]


def assert_independent(original: Stack, copy: Stack) -> None:
    """Assert that the copy has the original's data, and that neither gets the other's writes."""
    assert copy.postgres_port != original.postgres_port
    assert copy.bigquery_endpoint != original.bigquery_endpoint
    assert read_rows(copy) == read_rows(original) == [1]
    postgres_rows(copy, "INSERT INTO kept VALUES (2)", "SELECT 1")
    with bigquery_client(copy) as client:
        assert [dataset.dataset_id for dataset in client.list_datasets()] == ["kept"]
        client.create_dataset("taxi-local.copied")
    postgres_rows(original, "INSERT INTO kept VALUES (3)", "SELECT 1")
    assert (read_rows(copy), read_rows(original)) == ([1, 2], [1, 3])
    with bigquery_client(original) as client:
        assert [dataset.dataset_id for dataset in client.list_datasets()] == ["kept"]


@pytest.mark.parametrize("running", [True, False])
def test_copy_has_its_own_servers_and_data(home: Path, copy: Path, running: bool) -> None:
    original = ensure_stack_running(home)
    fill_stores(original)
    start_stack(StateDirectory(home))
    if not running:
        stop_stack(StateDirectory(home))
    copy_home(home, copy)
    # Nothing runs there, whatever its files contain, and stopping it stops nothing.
    assert StateDirectory(copy).record() == Record()
    stop_stack(StateDirectory(copy))
    if not running:
        original = ensure_stack_running(home)
    servers = read_record(home).servers

    copied_stack = ensure_stack_running(copy)
    assert f"is a copy of {home}" in read_record(copy).notice
    assert ("recover as after a crash" in read_record(copy).notice) == running
    assert all(server.is_alive() for server in servers.values())
    assert_independent(original, copied_stack)
    stop_stack(StateDirectory(copy))
    assert all(server.is_alive() for server in servers.values())
    assert ensure_stack_running(copy).postgres_password == original.postgres_password
    assert read_record(copy).notice == ""


def test_copy_without_its_original(home: Path, copy: Path) -> None:
    fill_stores(ensure_stack_running(home))
    stop_stack(StateDirectory(home))
    copy_home(home, copy)
    shutil.rmtree(home)
    assert read_rows(ensure_stack_running(copy)) == [1]


def test_home_moved_while_running_keeps_its_data(home: Path, copy: Path) -> None:
    fill_stores(ensure_stack_running(home))
    servers = read_record(home).servers
    home.rename(copy)
    moved_stack = ensure_stack_running(copy)
    assert not any(server.is_alive() for server in servers.values())
    assert read_rows(moved_stack) == [1]
    assert read_record(copy).notice == ""
    assert not list_servers(home)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@as_root
def test_copy_works_as_an_ordinary_user(home: Path) -> None:
    home.mkdir()
    os.chown(home, 65534, 65534)
    # It may read everything, because the interpreter may be in root's home.
    ordinary = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    ordinary += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    test = f"{Path(__file__).relative_to(REPOSITORY)}::test_copy_has_its_own_servers_and_data"
    completed = subprocess.run(
        [*ordinary, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + ["--rootdir", str(REPOSITORY), str(REPOSITORY / test)],
        cwd=home,
        env=os.environ | {"TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "setpriv" in completed.stderr:
        pytest.skip(completed.stderr)
    assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr
    assert "2 passed" in completed.stdout


def find_outside_folder(home: Path) -> Path:
    folder = Path(StateDirectory(home).config().postgres_folder)
    assert folder.parent == OUTSIDE
    assert find_folder_owner(folder).is_same(StateDirectory(home).local)
    return folder


@as_root
def test_outside_database_is_copied_after_its_original_stops(home: Path, copy: Path) -> None:
    home.parent.chmod(0o700)
    fill_stores(ensure_stack_running(home))
    outside = find_outside_folder(home)
    copy_home(home, copy)
    servers, existing_folders = read_record(home).servers, set(OUTSIDE.iterdir())
    with pytest.raises(LocalStackError, match=f"copy of {home}.*is in use: stop it"):
        ensure_stack_running(copy)
    new_folders = set(OUTSIDE.iterdir()) - existing_folders
    assert not [
        folder
        for folder in new_folders
        if find_folder_owner(folder).is_same(StateDirectory(copy).local)
    ]
    assert all(server.is_alive() for server in servers.values())
    stop_stack(StateDirectory(home))
    copied_stack = ensure_stack_running(copy)
    assert find_outside_folder(home) == outside != find_outside_folder(copy)
    assert_independent(ensure_stack_running(home), copied_stack)
    for directory in (home, copy):
        stop_stack(StateDirectory(directory))
        shutil.rmtree(StateDirectory(directory).config().postgres_folder)


@as_root
def test_outside_database_follows_a_moved_home_and_a_removed_copy(home: Path, copy: Path) -> None:
    home.parent.chmod(0o700)
    fill_stores(ensure_stack_running(home))
    outside = find_outside_folder(home)
    home.rename(copy)
    assert read_rows(ensure_stack_running(copy)) == [1]
    assert find_outside_folder(copy) == outside
    stop_stack(StateDirectory(copy))
    copy_home(copy, home)
    shutil.rmtree(copy)
    assert read_rows(ensure_stack_running(home)) == [1]
    assert find_outside_folder(home) == outside
    # Removed under its servers, which end and remove it.
    shutil.rmtree(home)
    assert wait_until(lambda: not outside.exists() and not list_servers(home), 60)


@as_root
def test_data_copied_by_root_without_its_owner(home: Path, copy: Path) -> None:
    fill_stores(ensure_stack_running(home))
    stop_stack(StateDirectory(home))
    subprocess.run(["cp", "-r", str(home), str(copy)], check=True)
    assert (copy / "postgres" / "data").stat().st_uid == 0
    assert read_rows(ensure_stack_running(copy)) == [1]
