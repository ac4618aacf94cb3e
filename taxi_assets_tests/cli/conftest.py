"""An instance for each test, generated months, and the command in a process of its own."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.tlc.files import HEADER, make_line

COMMAND = [sys.executable, "-m", "taxi_assets"]
ROWS = 3
"""A day."""


@dataclass
class Months:
    """Yellow month files in a folder."""

    folder: Path

    @property
    def template(self) -> str:
        return str(self.folder / "{service}_tripdata_{year}-{month}.csv.gz")

    def lines(self, month: str) -> list[bytes]:
        """Return three trips a day, of 10 dollars and a few cents each."""
        year, number = map(int, month.split("-"))
        return [
            make_line(f"{day} 0{hour}:00:00", total_amount=f"{10 + hour / 100:.2f}")
            for day in Month(year, number).window
            for hour in range(1, ROWS + 1)
        ]

    def write(self, month: str, lines: list[bytes] | None = None) -> None:
        """Publish a month, or restate it."""
        content = HEADER + b"\n".join([*(lines or self.lines(month)), b""])
        path = self.folder / f"yellow_tripdata_{month}.csv.gz"
        path.write_bytes(gzip.compress(content, mtime=0))


@pytest.fixture
def months(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Months:
    """Return the source, empty at first."""
    folder = tmp_path / "months"
    folder.mkdir()
    source_months = Months(folder)
    monkeypatch.setenv("TAXI_SOURCE", source_months.template)
    return source_months


@pytest.fixture
def instance(
    empty_stores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    """Yield an instance with the repository's settings and without events."""
    folder = tmp_path / "dagster"
    folder.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    with dg.DagsterInstance.get() as opened:
        yield opened


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _end_commands() -> Iterator[None]:
    """End the commands of a failed test, which would keep their locks."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()


def start_command(*arguments: str, **settings: str) -> subprocess.Popen[str]:
    """Start the command, both outputs in one pipe; it ends with the test."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "200", **settings},
        # A shell starts background commands, perhaps these tests, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no lock
    )
    STARTED.append(process)
    return process


def run_command(*arguments: str, code: int = 0, **settings: str) -> str:
    """Run the command to its end; return what it prints."""
    process = start_command(*arguments, **settings)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == code, output
    return output
