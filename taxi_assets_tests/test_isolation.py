"""Neither `.env`, settings, files nor services of the person who runs the tests reach them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taxi_assets_tests.conftest import end_tails
from taxi_assets_tests.isolation import PROJECT_FILES, REPOSITORY, isolation

CHECKOUT = (*PROJECT_FILES, "README.md", "taxi_assets", "taxi_assets_tests")
# One of each kind: a command, a job by the command line, a round of the daemon, a server's runs.
TESTS = (
    "local/test_main.py::test_status_of_a_stopped_stack",
    "defs/jobs/test_sql_query.py::test_query_runs_from_the_command_line",
    "defs/automation/test_crash.py",
    "test_server.py::test_run_page_follows_the_run_within_three_seconds",
)


@contextmanager
def listen_for_connections() -> Iterator[tuple[int, list[str]]]:
    """Yield a port of the user, and the connections to it."""
    connections: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.settimeout(1)
                try:
                    connections.append(repr(connection.recv(200)))
                except TimeoutError:
                    connections.append("(a connection)")
                connection.close()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], connections
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def make_hostile_settings(folder: Path, port: int) -> dict[str, str]:
    """Return settings of a user, whose paths are in `folder` and whose addresses have `port`."""
    url = f"http://127.0.0.1:{port}"
    return {
        "DAGSTER_HOME": str(folder / "dagster"),
        "TAXI_PROFILE": "gcp",
        "TAXI_HOME": str(folder / "taxi"),
        "TAXI_LAKE": str(folder / "lake"),
        "TAXI_SOURCE": url + "/{service}_{year}-{month}.csv",
        "TAXI_START_DATE": "2024-01-01",
        "TAXI_ALERT_URLS": url,
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(port),
        "POSTGRES_DBNAME": "production",
        "POSTGRES_USER": "production",
        "POSTGRES_PASSWORD": "production",
        "PGHOST": "127.0.0.1",
        "PGPORT": str(port),
        "PGOPTIONS": "-c statement_timeout=1",
        "GCP_PROJECT": "production",
        "GCS_BUCKET": "production",
        "BIGQUERY_ENDPOINT": url,
        "BIGQUERY_DATASET": "production",
        "STORAGE_EMULATOR_HOST": url,
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "key.json"),
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), url),
        "PYTHONSTARTUP": str(folder / "start.py"),
        "PYTHONWARNINGS": "error",
        "HOME": str(folder / "home"),
    }


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy this checkout, so that nothing is written to the user's own."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in CHECKOUT:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    return copy


def test_suite_ignores_a_hostile_env_file_and_environment(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "production"
    before = sorted(path.name for path in checkout.iterdir())
    inherited = {
        name: value
        for name, value in isolation.environment.items()
        if name not in ("TAXI_ENV_FILE", "PYTHONPATH")
    }
    with listen_for_connections() as (port, connections):
        settings = make_hostile_settings(folder, port)
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        (checkout / ".env").write_text(lines)
        completed = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
            + [f"taxi_assets_tests/{test}" for test in TESTS],
            cwd=checkout,
            # Python's own warnings as errors would stop pytest itself.
            env=inherited | settings | {"PYTHONWARNINGS": "", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert completed.returncode == 0, completed.stdout[-5000:] + completed.stderr[-2000:]
    assert f"{len(TESTS)} passed" in completed.stdout
    assert connections == []
    assert not folder.exists()
    assert (checkout / ".env").read_text() == lines
    assert sorted(path.name for path in checkout.iterdir()) == sorted([*before, ".env"])


def test_temporary_folders_of_killed_processes_go_with_the_suite() -> None:
    script = "import os, tempfile; print(tempfile.mkdtemp(), flush=True); os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=False)
    left = Path(killed.stdout.decode().strip())
    assert left.is_dir()
    assert left.is_relative_to(isolation.folder)


def test_no_test_process_starts_in_the_checkout() -> None:
    with pytest.raises(RuntimeError, match="start it in a folder of the test's own"):
        subprocess.run(["true"], cwd=REPOSITORY, check=False)


def test_log_readers_of_killed_runs_end_with_the_suite(tmp_path: Path) -> None:
    inside, outside = (tmp_path / name / "stdout" for name in ("a", "b"))
    readers = [subprocess.Popen(["tail", "-F", "-c", "+0", path]) for path in (inside, outside)]
    try:
        end_tails(inside.parent)
        assert readers[0].wait(10) == -signal.SIGKILL
        assert readers[1].poll() is None
    finally:
        for reader in readers:
            reader.kill()
            reader.wait()
