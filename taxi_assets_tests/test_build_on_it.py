"""docs/build-on-it.md as printed: a day and a range of it, in this process and by its commands."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

import taxi_assets
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

PAGE = (REPOSITORY / "docs" / "build-on-it.md").read_text()
NOTEBOOK, ASSET = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
(COMMANDS,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
DAYS = ["2021-01-05", "2021-01-06", "2021-01-07"]


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with `revenue.py`, and load three days of green trips in the stores."""
    lines = [make_trip_line(day, 10.0 + at) for at, day in enumerate(DAYS) for _ in range(at + 1)]
    source = write_month(tmp_path, SERVICES["green"], "2021-01", lines)
    monkeypatch.setenv("TAXI_SOURCE", source)
    assert Runs().run("green", DAYS[0], DAYS[-1]).success
    (tmp_path / "revenue.py").write_text(ASSET)
    # Its resources are those of the environment that it was imported in.
    monkeypatch.delitem(sys.modules, "taxi_assets.definitions")
    monkeypatch.delattr(taxi_assets, "definitions")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def resolve_job(defs: dg.Definitions) -> dg.JobDefinition:
    """Return a job of the documented asset alone."""
    job = dg.define_asset_job("daily_revenue_job", selection=["daily_revenue"])
    return dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def(job.name)


def revenue(folder: Path) -> dict[str, str]:
    """Return what the asset wrote, and delete it."""
    files = sorted(folder.glob("revenue-*.txt"))
    texts = {file.stem.removeprefix("revenue-"): file.read_text().strip() for file in files}
    for file in files:
        file.unlink()
    return texts


def test_documented_asset_runs_for_a_day_and_a_range(loaded: Path) -> None:
    lines = ASSET[ASSET.index("@dg.asset") :].strip().splitlines()
    assert len([line for line in lines if line]) <= 10
    every_day = {DAYS[0]: "10.00", DAYS[1]: "22.00", DAYS[2]: "36.00"}
    defs = runpy.run_path(str(loaded / "revenue.py"))["defs"]
    job = resolve_job(defs)
    ranged = {
        "dagster/asset_partition_range_start": DAYS[0],
        "dagster/asset_partition_range_end": DAYS[-1],
    }
    for tags, expected in (
        ({"dagster/partition": DAYS[0]}, {DAYS[0]: "10.00"}),
        (ranged, every_day),
    ):
        result = job.execute_in_process(tags=tags, instance=dg.DagsterInstance.get())
        assert result.success
        assert revenue(loaded) == expected
    programs = Path(sys.executable).parent
    for command, expected in zip(
        COMMANDS.strip().splitlines(), ({DAYS[0]: "10.00"}, every_day), strict=True
    ):
        words = shlex.split(command.replace(".venv/bin", str(programs)))
        completed = subprocess.run(words, cwd=loaded, capture_output=True, text=True, check=False)
        assert completed.returncode == 0, completed.stderr[-3000:]
        assert revenue(loaded) == expected


@pytest.mark.parametrize("history", [True, False], ids=["DAGSTER_HOME", "no DAGSTER_HOME"])
def test_documented_notebook_shows_rows(
    loaded: Path, monkeypatch: pytest.MonkeyPatch, *, history: bool
) -> None:
    if not history:
        monkeypatch.delenv("DAGSTER_HOME")
    command = [sys.executable, "-c", NOTEBOOK]
    completed = subprocess.run(command, cwd=loaded, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stderr) == (0, "")
    assert re.search(r"^1 +1 +10\.0$", completed.stdout, re.MULTILINE)
    assert "1 ['VendorID', 'lpep_pickup_datetime', 'lpep_dropoff_datetime']" in completed.stdout


def test_missing_day_is_named(loaded: Path) -> None:
    job = resolve_job(runpy.run_path(str(loaded / "revenue.py"))["defs"])
    result = job.execute_in_process(
        tags={"dagster/partition": "2021-01-09"},
        instance=dg.DagsterInstance.get(),
        raise_on_error=False,
    )
    (event,) = [event for event in result.all_events if event.is_step_failure]
    message = json.dumps(event.step_failure_data.error.to_string())
    assert "materialize green/cleaned_trips for that day first" in message
