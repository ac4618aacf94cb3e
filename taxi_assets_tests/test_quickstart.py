"""The quick start: its output, its files, and its `.env` beside docker-compose's."""

from __future__ import annotations

import json
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import dagster as dg
import duckdb
import pytest
from dotenv import dotenv_values

from taxi_assets.cli.quickstart import show_rows, write_dagster_home, write_end_date
from taxi_assets.defs.checks.specs import UP_TO_DATE
from taxi_assets.defs.freshness import STORES
from taxi_assets.local.__main__ import stop_stack
from taxi_assets.local.state_directory import StateDirectory
from taxi_assets.settings import Settings
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.isolation import PROJECT_FILES, REPOSITORY, isolation

DAGSTER = str(Path(sys.executable).with_name("dagster"))
PRIVATE = (0o700, 0o600)
PASSABLE = 0o711


@contextmanager
def copy_checkout() -> Iterator[Path]:
    """Copy this checkout where the embedded database's user can reach it; stop its stack after."""
    folder = Path(tempfile.mkdtemp(prefix="taxi-checkout-"))
    folder.chmod(0o755)
    for name in PROJECT_FILES:
        shutil.copy(REPOSITORY / name, folder)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "taxi_assets", folder / "taxi_assets", ignore=ignored)
    try:
        yield folder
    finally:
        stop_stack(StateDirectory(folder / ".taxi"))
        shutil.rmtree(folder)


@pytest.fixture
def checkout() -> Iterator[Path]:
    """Copy the checkout for one test."""
    with copy_checkout() as folder:
        yield folder


def build_environment(checkout: Path) -> dict[str, str]:
    """Return the environment of a command of a checkout."""
    inherited = {
        name: value for name, value in isolation.environment.items() if name != "TAXI_ENV_FILE"
    }
    own = {
        "PYTHONPATH": str(checkout),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TAXI_LOCAL_IDLE_TIMEOUT": "1",
    }
    return inherited | own


def run(checkout: Path, *command: str, code: int = 0, **variables: str) -> str:
    """Run a command in another folder, with a world-writable umask."""
    completed = subprocess.run(
        command,
        cwd=variables.pop("cwd", "/"),
        env=build_environment(checkout) | variables,
        umask=0,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == code, completed.stdout + completed.stderr
    return completed.stdout + completed.stderr


def read_modes(folder: Path) -> dict[str, int]:
    """Return the mode of everything under a folder that is not part of the package."""
    package_files = {"taxi_assets", *PROJECT_FILES}
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in package_files
    }


def test_quickstart_runs_from_any_folder_and_its_files_are_private(checkout: Path) -> None:
    output = run(checkout, sys.executable, "-m", "taxi_assets.quickstart")
    lines = output.splitlines()
    assert lines[0].startswith("Running yellow_daily for 2021-01-05, all five assets, on the embed")
    rows = dict(re.findall(r"^  yellow/(\w+) +(\d+) rows", output, re.MULTILINE))
    assert len(rows) == 5
    assert len(set(rows.values())) == 2
    assert "Data: synthetic sample" in output
    assert dotenv_values(checkout / ".env") == {
        "DAGSTER_HOME": str(checkout),
        "TAXI_END_DATE": "2021-01-31",
    }
    # It ends with rows and the link to the day's page.
    assert len(re.findall(r"^│ 2021-01-05 \d\d:\d\d:\d\d ", output, re.MULTILINE)) == 3
    page = "http://127.0.0.1:3000/assets/yellow/cleaned_trips?view=partitions&partition=2021-01-05"
    assert output.endswith(f"{page}\n")
    assert "  DAGSTER_HOME=$PWD .venv/bin/dg dev\n" in output
    assert "Warning" not in output
    assert (checkout / "history" / "runs").is_dir()
    # No check of a loaded asset is left without a result, which would read as failed.
    with dg.DagsterInstance.from_config(str(checkout)) as instance:
        for name in STORES:
            checks = instance.event_log_storage.get_asset_check_execution_history(
                dg.AssetCheckKey(dg.AssetKey(["yellow", name]), UP_TO_DATE), limit=1
            )
            evaluation = checks[0].evaluation
            assert evaluation is not None
            assert evaluation.passed
            # The UI shows a result of another materialization as not evaluated.
            (latest,) = instance.fetch_materializations(
                dg.AssetKey(["yellow", name]), limit=1
            ).records
            assert evaluation.target_materialization_data is not None
            assert evaluation.target_materialization_data.storage_id == latest.storage_id

    modes = read_modes(checkout)
    assert [name for name, mode in modes.items() if mode not in (*PRIVATE, PASSABLE)] == []
    # Folders that others may traverse but not list.
    passable = {name for name, mode in modes.items() if mode == PASSABLE}
    assert passable <= {".taxi", ".taxi/postgres"}

    home = run(checkout, sys.executable, "-m", "taxi_assets.local", "status", "--json")
    assert json.loads(home)["home"] == str(checkout / ".taxi")

    # Dagster's own commands, run by the same user.
    tags = json.dumps({"dagster/partition": "2021-01-06"})
    job = ("job", "execute", "-m", "taxi_assets.definitions", "-j", "green_daily", "--tags", tags)
    run(checkout, DAGSTER, *job, cwd=str(checkout))
    for name, mode in (read_modes(checkout)).items():
        if name.startswith(".taxi"):
            assert mode in (*PRIVATE, PASSABLE), name
        else:
            top = (checkout / Path(name).parts[0]).stat().st_mode
            assert stat.S_IMODE(top) in PRIVATE, name


def test_shown_rows_are_those_of_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A month that was loaded since has earlier rows."""
    yellow = SERVICES["yellow"]
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    monkeypatch.setenv("TAXI_LAKE", str(tmp_path / "lake"))
    for day in ("2021-01-01", "2021-01-05"):
        folder = tmp_path / "lake" / "yellow" / f"tpep_pickup_date={day}"
        folder.mkdir(parents=True)
        rows = ", ".join(f"TIMESTAMP '{day} 10:00:00' AS {name}" for name in yellow.key_columns)
        duckdb.sql(f"SELECT {rows}").write_parquet(str(folder / "trips.parquet"))
    show_rows(Settings.from_env(), yellow)
    text = capsys.readouterr().out
    assert "2021-01-05 10:00:00" in text
    assert "2021-01-01" not in text


def test_other_profile_is_rejected_before_anything_runs(checkout: Path) -> None:
    gcp = {"TAXI_PROFILE": "gcp", "GCP_PROJECT": "p", "GCS_BUCKET": "bucket"}
    gcp |= {f"POSTGRES_{name}": "x" for name in ("HOST", "DBNAME", "USER", "PASSWORD")}
    gcp["TAXI_SOURCE"] = "/{service}/{year}-{month}.csv"
    output = run(checkout, sys.executable, "-m", "taxi_assets.quickstart", code=2, **gcp)
    assert output.startswith("TAXI_PROFILE=gcp: the quick start is for profile local")
    assert not list((checkout / "history").iterdir())


def test_interrupted_quickstart_prints_no_stack(checkout: Path) -> None:
    command = [sys.executable, "-m", "taxi_assets.quickstart"]
    with subprocess.Popen(
        command,
        cwd="/",
        env=build_environment(checkout),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Running yellow_daily")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_invalid_month_file_is_one_line(checkout: Path) -> None:
    (checkout / "yellow_2021-01.csv").write_text("a,b\n1,2\n")
    source = str(checkout / "{service}_{year}-{month}.csv")
    quickstart = (sys.executable, "-m", "taxi_assets.quickstart")
    lines = run(checkout, *quickstart, code=1, TAXI_SOURCE=source).splitlines()
    assert len(lines) == 2, lines
    assert lines[1].startswith("yellow/raw_trips 2021-01-05: yellow 2021-01: ")
    assert "first line names no column of yellow trips" in lines[1]


class Case(NamedTuple):
    """`.env` and environment before, and the named folder and message after."""

    file: str | None
    exported: str | None
    named: str | None
    said: str


@pytest.mark.parametrize(
    "case",
    [
        Case(None, None, "{here}", ""),
        Case("TAXI_SOURCE=sample", None, "{here}", ""),
        Case("TAXI_SOURCE=sample\n", None, "{here}", ""),
        Case("DAGSTER_HOME=/srv/runs\n", None, "/srv/runs", ""),
        Case("DAGSTER_HOME=/srv/runs\n", "/srv/runs/", "/srv/runs", ""),
        Case(None, "{here}", "{here}", ""),
        Case(None, "/srv/runs", None, "DAGSTER_HOME=/srv/runs is exported: runs are recorded"),
        Case("DAGSTER_HOME=/a\n", "/b", "/a", "DAGSTER_HOME=/b is exported, but {here}/.env names"),
    ],
)
def test_dagster_home_is_added_once_and_nothing_is_lost(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "it's a #1 $checkout"
    project.mkdir()
    if case.file is not None:
        (project / ".env").write_text(case.file)
    monkeypatch.setenv("DAGSTER_HOME", (case.exported or "").format(here=project))
    for _ in range(2):
        assert write_dagster_home(project).startswith(case.said.format(here=project))
        values = dotenv_values(project / ".env") if (project / ".env").exists() else {}
        assert values.get("DAGSTER_HOME") == (case.named and case.named.format(here=project))
        assert ("TAXI_SOURCE" in values) == ("TAXI" in (case.file or ""))


@pytest.mark.parametrize(
    ("file", "exported", "expected"),
    [
        ("", {}, "2021-01-31"),
        ("TAXI_SOURCE=sample\n", {}, "2021-01-31"),
        ("TAXI_END_DATE=2021-07-31\n", {}, "2021-07-31"),
        ("TAXI_SOURCE=/months/{service}_{year}-{month}.csv\n", {}, None),
        ("", {"TAXI_SOURCE": "/months/{service}_{year}-{month}.csv"}, None),
        ("", {"TAXI_END_DATE": "2021-07-31"}, None),
    ],
)
def test_days_in_the_ui_end_with_the_samples_month(
    file: str,
    exported: dict[str, str],
    expected: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / ".env").write_text(file)
    for name, value in exported.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        write_end_date(tmp_path)
        assert dotenv_values(tmp_path / ".env").get("TAXI_END_DATE") == expected
    assert (tmp_path / ".env").read_text().count("TAXI_END_DATE") <= 1


def test_env_file_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# für Grüße", encoding="utf-8")
    call = "import sys, pathlib; from taxi_assets.cli.quickstart import write_dagster_home as write"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", f"{call}; write(pathlib.Path(sys.argv[1]))", str(tmp_path)],
        env={**isolation.environment, **locale},
        cwd=tmp_path,
        check=True,
    )
    text = (tmp_path / ".env").read_text(encoding="utf-8")
    assert text == f"# für Grüße\nDAGSTER_HOME={tmp_path}\n"


def test_docker_compose_setup_preserves_the_quickstarts_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    text = (REPOSITORY / "docs" / "docker-compose.md").read_text()
    block = next(
        candidate
        for candidate in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        if ".env.ex" in candidate
    )
    steps = "".join(line for line in block.splitlines(keepends=True) if "docker " not in line)
    shutil.copy(REPOSITORY / ".env.example", tmp_path)
    write_dagster_home(tmp_path)
    (tmp_path / ".env").open("a").write("TAXI_SOURCE=sample\n")
    subprocess.run(["bash", "-euo", "pipefail", "-c", steps], cwd=tmp_path, check=True)
    values = dotenv_values(tmp_path / ".env")
    assert (values["DAGSTER_HOME"], values["TAXI_SOURCE"]) == (str(tmp_path), "sample")
    assert values["COMPOSE_PROFILES"] == "local"
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
