"""State directories that the unprivileged database user can reach and that leave nothing."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from taxi_assets.local import Stack, ensure_stack_running
from taxi_assets.local.__main__ import stop_stack
from taxi_assets.local.state_directory import StateDirectory

GRACE = 0.3


def list_servers(home: Path) -> list[psutil.Process]:
    """Return every process that names the home, without our own commands and zombies."""
    servers: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any(word.startswith(str(home)) for word in words[1:]):
            servers.append(process)
    return servers


@pytest.fixture(autouse=True, scope="module")
def grace() -> Iterator[None]:
    """Give a module its own environment, and restore that of other tests of this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [
            name for name in os.environ if name.startswith(("TAXI_", "POSTGRES_", "BIGQ"))
        ]:
            patch.delenv(name)
        patch.setenv("TAXI_ENV_FILE", "none")
        patch.setenv("TAXI_LOCAL_IDLE_TIMEOUT", str(GRACE))
        yield


def _home() -> Iterator[Path]:
    # pytest's own tmp_path is 0700: as root, Postgres would have to live elsewhere.
    folder = Path(tempfile.mkdtemp(prefix="taxi-home-"))
    folder.chmod(0o755)
    try:
        home = folder / "O'Brien's home"
        yield home
        stop_stack(StateDirectory(home))
        assert list_servers(folder) == []
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def home() -> Iterator[Path]:
    yield from _home()


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Path]:
    yield from _home()


@pytest.fixture(scope="session")
def stack(shared_home: Path) -> Stack:
    """Return one running stack for the tests that only read from servers."""
    return ensure_stack_running(shared_home)


def python(*words: str) -> list[str]:
    return [sys.executable, *words]
