"""A home that was copied or moved: its servers are its own, and its original's are left alone."""

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
from taxi_assets_tests.local.conftest import servers_of

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root must do")
DATASET = "taxi-local.kept"


@pytest.fixture
def copy(home: Path) -> Iterator[Path]:
    """Where a test puts its copy; stopped at the end."""
    yield home.with_name("copy")
    stop_stack(StateDirectory(home.with_name("copy")))


def copied(home: Path, copy: Path) -> Path:
    subprocess.run(["cp", "-a", str(home), str(copy)], check=True)
    return copy


def fill(stack: Stack) -> None:
    postgres_rows(stack, "CREATE TABLE kept AS SELECT 1 AS n", "SELECT 1")
    with bigquery_client(stack) as client:
        client.create_dataset(DATASET)


def record_of(home: Path) -> Record:
    record = StateDirectory(home).record()
    assert record
    return record


def rows(stack: Stack) -> list[int]:
    return [n for (n,) in postgres_rows(stack, "SELECT n FROM kept ORDER BY n")]


def assert_apart(original: Stack, copy: Stack) -> None:
    """The copy has the original's data, and what is written in one is not in the other."""
    assert copy.postgres_port != original.postgres_port
    assert copy.bigquery_endpoint != original.bigquery_endpoint
    assert rows(copy) == rows(original) == [1]
    postgres_rows(copy, "INSERT INTO kept VALUES (2)", "SELECT 1")
    with bigquery_client(copy) as client:
        assert [it.dataset_id for it in client.list_datasets()] == ["kept"]
        client.create_dataset("taxi-local.copied")
    postgres_rows(original, "INSERT INTO kept VALUES (3)", "SELECT 1")
    assert (rows(copy), rows(original)) == ([1, 2], [1, 3])
    with bigquery_client(original) as client:
        assert [it.dataset_id for it in client.list_datasets()] == ["kept"]


@pytest.mark.parametrize("running", [True, False])
def test_a_copy_has_servers_and_data_of_its_own(home: Path, copy: Path, running: bool) -> None:
    original = ensure_stack_running(home)
    fill(original)
    start_stack(StateDirectory(home))
    if not running:
        stop_stack(StateDirectory(home))
    copied(home, copy)
    # Nothing runs there, whatever its files say, and to stop it stops nothing.
    assert StateDirectory(copy).record() is None
    stop_stack(StateDirectory(copy))
    if not running:
        original = ensure_stack_running(home)
    servers = record_of(home).servers

    found = ensure_stack_running(copy)
    assert f"is a copy of {home}" in record_of(copy).notice
    assert ("recover as after a crash" in record_of(copy).notice) == running
    assert all(server.is_alive() for server in servers.values())
    assert_apart(original, found)
    stop_stack(StateDirectory(copy))
    assert all(server.is_alive() for server in servers.values())
    assert ensure_stack_running(copy).postgres_password == original.postgres_password
    assert record_of(copy).notice == ""


def test_a_copy_whose_original_is_gone(home: Path, copy: Path) -> None:
    fill(ensure_stack_running(home))
    stop_stack(StateDirectory(home))
    copied(home, copy)
    shutil.rmtree(home)
    assert rows(ensure_stack_running(copy)) == [1]


def test_a_home_that_is_moved_while_it_runs_keeps_its_data(home: Path, copy: Path) -> None:
    fill(ensure_stack_running(home))
    servers = record_of(home).servers
    home.rename(copy)
    found = ensure_stack_running(copy)
    assert not any(server.is_alive() for server in servers.values())
    assert rows(found) == [1]
    assert record_of(copy).notice == ""
    assert not servers_of(home)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@as_root
def test_as_an_ordinary_user(home: Path) -> None:
    home.mkdir()
    os.chown(home, 65534, 65534)
    # The right to read everything stays: the interpreter may lie in root's home.
    ordinary = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    ordinary += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    test = f"{Path(__file__).relative_to(REPOSITORY)}::test_a_copy_has_servers_and_data_of_its_own"
    done = subprocess.run(
        [*ordinary, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        + ["--rootdir", str(REPOSITORY), str(REPOSITORY / test)],
        cwd=home,
        env=os.environ | {"TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "setpriv" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "2 passed" in done.stdout


def outside_of(home: Path) -> Path:
    found = Path(StateDirectory(home).config().postgres_folder)
    assert found.parent == OUTSIDE
    assert find_folder_owner(found).is_same(StateDirectory(home).local)
    return found


@as_root
def test_the_database_outside_is_copied_once_its_original_is_stopped(
    home: Path, copy: Path
) -> None:
    home.parent.chmod(0o700)
    fill(ensure_stack_running(home))
    outside = outside_of(home)
    copied(home, copy)
    servers, there = record_of(home).servers, set(OUTSIDE.iterdir())
    with pytest.raises(LocalStackError, match=f"copy of {home}.*is in use: stop it"):
        ensure_stack_running(copy)
    made = set(OUTSIDE.iterdir()) - there
    assert not [
        folder for folder in made if find_folder_owner(folder).is_same(StateDirectory(copy).local)
    ]
    assert all(server.is_alive() for server in servers.values())
    stop_stack(StateDirectory(home))
    found = ensure_stack_running(copy)
    assert outside_of(home) == outside != outside_of(copy)
    assert_apart(ensure_stack_running(home), found)
    for directory in (home, copy):
        stop_stack(StateDirectory(directory))
        shutil.rmtree(StateDirectory(directory).config().postgres_folder)


@as_root
def test_the_database_outside_follows_a_home_that_moves_and_a_copy_that_is_left(
    home: Path, copy: Path
) -> None:
    home.parent.chmod(0o700)
    fill(ensure_stack_running(home))
    outside = outside_of(home)
    home.rename(copy)
    assert rows(ensure_stack_running(copy)) == [1]
    assert outside_of(copy) == outside
    stop_stack(StateDirectory(copy))
    copied(copy, home)
    shutil.rmtree(copy)
    assert rows(ensure_stack_running(home)) == [1]
    assert outside_of(home) == outside
    # Removed under its servers: they end, and take it along.
    shutil.rmtree(home)
    assert wait_until(lambda: not outside.exists() and not servers_of(home), 10)


@as_root
def test_data_that_root_copied_without_its_owner(home: Path, copy: Path) -> None:
    fill(ensure_stack_running(home))
    stop_stack(StateDirectory(home))
    subprocess.run(["cp", "-r", str(home), str(copy)], check=True)
    assert (copy / "postgres" / "data").stat().st_uid == 0
    assert rows(ensure_stack_running(copy)) == [1]
