"""A real local stack for the whole test session, and runs of the real jobs on it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, settings

from taxi_assets_tests.isolation import REPOSITORY, isolation

# Modules of tests read settings when they are imported.
isolation.begin()

from taxi_assets_tests import stores  # noqa: E402
from taxi_assets_tests.fake_http_server import Site, serving  # noqa: E402

# Every run draws the same values, and no time limit depends on the machine;
# `--hypothesis-profile default` draws others.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

REAL_ROWS = REPOSITORY.parent / "shared" / "data" / "tlc"


@pytest.fixture(scope="session", autouse=True)
def session_env() -> Iterator[pytest.MonkeyPatch]:
    """Set the session's working directory, and undo changes of its environment at the end."""
    with isolation.change_directory(), pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="session", autouse=True)
def end_log_readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """End what runs leave that a test kills right after Dagster has started their `tail -F`.

    Dagster starts the process that would end it only afterwards.
    """
    yield
    end_tails(tmp_path_factory.getbasetemp())


def end_tails(folder: Path) -> None:
    """End each `tail` that follows a file in a folder."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if Path(words[0]).name == "tail" and words[-1].startswith(f"{folder}/"):
            process.kill()


@pytest.fixture(autouse=True)
def leave_no_env_file() -> Iterator[None]:
    """Fail a test whose settings the tests after it would read."""
    yield
    file = isolation.folder / "project" / ".env"
    if file.exists():
        file.unlink()
        pytest.fail("the test left an .env in the session's working directory")


@pytest.fixture(scope="session")
def home(session_env: pytest.MonkeyPatch) -> Iterator[Path]:
    """Start a stack in a TAXI_HOME, beside a DAGSTER_HOME with the repository's settings."""
    folder = Path(tempfile.mkdtemp(prefix="taxi-"))
    folder.chmod(0o755)
    session_env.setenv("TAXI_HOME", str(folder / "taxi"))
    session_env.setenv("TAXI_START_DATE", "2020-10-01")
    session_env.setenv("DAGSTER_HOME", str(folder / "dagster"))
    (folder / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", folder / "dagster")
    local = [sys.executable, "-m", "taxi_assets.local"]
    subprocess.run([*local, "up"], check=True, capture_output=True, cwd=folder)
    try:
        yield folder
    finally:
        subprocess.run([*local, "down"], check=True, capture_output=True, cwd=folder)
        end_tails(folder)
        shutil.rmtree(folder)


@dataclass
class RealRows:
    """The folder of TLC's real rows."""

    folder: Path

    @property
    def template(self) -> str:
        """Return the TAXI_SOURCE of the complete green months."""
        name = "{service}_tripdata_{year}-{month}.csv.gz"
        return str(self.folder / "{service}" / name)

    def path(self, service: str, month: str) -> Path:
        """Return the path of a complete month file."""
        return self.folder / service / f"{service}_tripdata_{month}.csv.gz"


@pytest.fixture(scope="session")
def real_rows() -> RealRows:
    """Return the real rows, or skip the test: they are not part of this repository."""
    if not REAL_ROWS.is_dir():
        pytest.skip(f"no real rows in {REAL_ROWS}")
    return RealRows(REAL_ROWS)


@pytest.fixture
def empty_stores(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a new lake bucket, and drop all tables in Postgres and BigQuery."""
    monkeypatch.setenv("GCS_BUCKET", f"test-{uuid.uuid4().hex[:8]}")
    stores.drop_tables()


@pytest.fixture
def site() -> Iterator[Site]:
    """Start a server of month files."""
    with serving() as here:
        yield here
