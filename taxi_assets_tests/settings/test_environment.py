"""One `.env` for every command: the same values whichever is used, from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from taxi_assets.errors import SettingsError
from taxi_assets.settings.environment import parse_env_text
from taxi_assets_tests.isolation import REPOSITORY, isolation

DAGSTER = str(Path(sys.executable).with_name("dagster"))
# The environment of a run, written by a job of the project that Dagster's command line loads.
DEFINITIONS = """
import json, os, pathlib
import dagster as dg
from taxi_assets.settings import Settings

@dg.op
def write():
    settings = Settings.from_env()
    seen = [str(settings.home), str(settings.lake.path), settings.source.template]
    seen += [settings.bigquery.dataset, settings.bigquery.key_file]
    pathlib.Path(os.environ["SEEN"]).write_text(json.dumps(seen))

@dg.job(executor_def=dg.in_process_executor)
def show():
    write()
"""
STATUS = (sys.executable, "-m", "taxi_assets", "status")
SEEN = """
import json, os
from taxi_assets.settings import Settings
settings = Settings.from_env()
seen = [str(settings.home), str(settings.lake.path), settings.source.template]
print(json.dumps([*seen, settings.bigquery.dataset, settings.bigquery.key_file]))
"""


def make_environment(**variables: str) -> dict[str, str]:
    """Return the tests' environment with our reader of `.env` switched on."""
    inherited = {
        name: value for name, value in isolation.environment.items() if name != "TAXI_ENV_FILE"
    }
    return inherited | variables


def run(
    folder: Path, *command: str, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    completed = subprocess.run(
        command,
        cwd=folder,
        env=make_environment(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == code, completed.stdout + completed.stderr
    return completed


def read_status(folder: Path, **variables: str) -> tuple[str, str]:
    """Return the home that `local status` shows, and its remark."""
    completed = run(
        folder, sys.executable, "-m", "taxi_assets.local", "status", "--json", **variables
    )
    return json.loads(completed.stdout)["home"], completed.stderr


def read_by_python(folder: Path, **variables: str) -> list[str]:
    return json.loads(run(folder, sys.executable, "-c", SEEN, **variables).stdout)


def read_by_dagster(folder: Path, **variables: str) -> list[str]:
    file, jobs = folder / "seen.json", folder / "jobs.py"
    jobs.write_text(DEFINITIONS)
    job = ("job", "execute", "-f", str(jobs), "-j", "show")
    run(folder, DAGSTER, *job, SEEN=str(file), **variables)
    return json.loads(file.read_text())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Make a project with every kind of path in its `.env`."""
    folder = tmp_path / "project"
    (folder / "below").mkdir(parents=True)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (folder / ".env").write_text(
        "TAXI_HOME=state\nTAXI_LAKE=lake\nTAXI_SOURCE='months/{service}_{year}-{month}.csv'\n"
        "BIGQUERY_DATASET=mine\nGOOGLE_APPLICATION_CREDENTIALS=key.json\n"
    )
    return folder


def test_every_command_reads_the_same_values(project: Path) -> None:
    expected = [
        str(project / "state"),
        str(project / "lake"),
        str(project / "months/{service}_{year}-{month}.csv"),
        "mine",
        str(project / "key.json"),
    ]
    assert read_by_dagster(project) == expected
    assert read_by_python(project) == expected
    assert read_by_python(project / "below") == expected
    assert read_status(project)[0] == read_status(project / "below")[0] == expected[0]


def test_current_folders_file_overrides_exported_variables_as_in_dagster(
    project: Path, tmp_path: Path
) -> None:
    exported = {"TAXI_HOME": str(tmp_path / "other"), "TAXI_PROFILE": "local"}
    home, remarks = read_status(project, **exported)
    assert home == read_by_dagster(project, **exported)[0] == str(project / "state")
    assert "TAXI_HOME is exported, but" in remarks
    assert "TAXI_PROFILE" not in remarks
    # Dagster reads no file in another folder: there ours only completes the exported variables.
    home, remarks = read_status(project / "below", **exported)
    assert home == read_by_python(project / "below", **exported)[0] == exported["TAXI_HOME"]
    assert "is exported" not in remarks
    assert read_by_python(project / "below", **exported)[3] == "mine"


def test_checkout_is_the_project_in_any_other_folder(tmp_path: Path) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkout.mkdir()
    run(tmp_path, "cp", "-r", str(REPOSITORY / "taxi_assets"), str(checkout))
    (checkout / "dagster.yaml").touch()
    imported = {"PYTHONPATH": str(checkout)}
    home, remarks = read_status(elsewhere, **imported)
    assert home == str(checkout / ".taxi")
    assert f"no stack was ever started under {checkout}/.taxi" in remarks
    (checkout / ".env").write_text("TAXI_HOME=state\n")
    assert read_status(elsewhere, **imported)[0] == str(checkout / "state")
    # A folder's own .env takes precedence, and the checkout's completes it.
    (elsewhere / ".env").write_text("BIGQUERY_DATASET=theirs\n")
    values = read_by_python(elsewhere, **imported)
    assert (values[0], values[3]) == (str(checkout / "state"), "theirs")
    assert read_by_dagster(elsewhere, **imported) == values


def test_dagster_home_does_not_change_during_a_run(project: Path, tmp_path: Path) -> None:
    with (project / ".env").open("a") as file:
        file.write(f"DAGSTER_HOME={tmp_path}\n")
    script = "import os; from taxi_assets.settings import Settings; Settings.from_env(); "
    script += "print(os.environ.get('DAGSTER_HOME'))"
    assert run(project, sys.executable, "-c", script).stdout == f"{tmp_path}\n"
    # There Dagster has read no file and uses another folder.
    assert run(project / "below", sys.executable, "-c", script).stdout == "None\n"


def test_installed_package_uses_dagster_home_as_project(project: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site-packages", tmp_path / "elsewhere"
    elsewhere.mkdir()
    site.mkdir()
    run(tmp_path, "cp", "-r", str(REPOSITORY / "taxi_assets"), str(site))
    installed = {"PYTHONPATH": str(site), "DAGSTER_HOME": str(project)}
    assert read_status(elsewhere, **installed)[0] == str(project / "state")
    home, remarks = read_status(elsewhere, PYTHONPATH=str(site))
    assert home == str(elsewhere / ".taxi")
    assert f"no .env (none in {elsewhere})" in remarks


def test_taxi_env_file_names_a_file_or_none(project: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.env"
    chosen.write_text("TAXI_HOME=here\n")
    assert read_status(project, TAXI_ENV_FILE=str(chosen))[0] == str(tmp_path / "here")
    assert read_status(project, TAXI_ENV_FILE="none")[0] == str(project / ".taxi")
    completed = run(
        project,
        *(sys.executable, "-m", "taxi_assets.local", "status"),
        code=2,
        TAXI_ENV_FILE=str(tmp_path / "lost.env"),
    )
    assert "this file does not exist" in completed.stderr
    assert completed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"TAXI_HOME=\xff\n", "it is not UTF-8"),
        (b"POSTGRES_PASSWORD=s3cret\0\n", "a NUL byte"),
        (b"TAXI_DROP=none\nTAXI_SOURCE='/s3cret\n", "line 2 is not NAME=value, or a quote"),
        (b"TAXI_DROP: none\n", "line 1 is not NAME=value"),
    ],
)
def test_wrong_env_file_is_reported_in_one_line(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError, match=problem) as rejected:
        parse_env_text(tmp_path / ".env")
    assert str(tmp_path / ".env") in str(rejected.value)
    assert "\n" not in str(rejected.value)
    assert "s3cret" not in str(rejected.value)


def test_relative_paths_start_at_their_files_folder(tmp_path: Path) -> None:
    """Only settings that name a path change; a URL or a secret stays as it is."""
    relative = ["TAXI_HOME", "TAXI_LAKE", "TAXI_SOURCE", "TAXI_ZONES"]
    relative.append("GOOGLE_APPLICATION_CREDENTIALS")
    unchanged = {"TAXI_ALERT_URLS": "json://host/a", "POSTGRES_PASSWORD": "a/b"}
    (tmp_path / ".env").write_text(
        "".join(f"{name}=below/it\n" for name in relative)
        + "".join(f"{name}={value}\n" for name, value in unchanged.items())
    )
    values = parse_env_text(tmp_path / ".env")
    assert values == dict.fromkeys(relative, str(tmp_path / "below/it")) | unchanged
    (tmp_path / ".env").write_text("TAXI_ZONES=https://host/zones.zip\nTAXI_SOURCE=sample\n")
    assert parse_env_text(tmp_path / ".env") == {
        "TAXI_ZONES": "https://host/zones.zip",
        "TAXI_SOURCE": "sample",
    }


def test_child_process_ignores_a_changed_file(project: Path) -> None:
    script = f"""
import os, pathlib, subprocess, sys
from taxi_assets.settings import Settings
Settings.from_env()
pathlib.Path({str(project / ".env")!r}).write_text("TAXI_HOME=later\\nBIGQUERY_DATASET=later\\n")
os.chdir("/")
sys.exit(subprocess.run([sys.executable, "-c", {SEEN!r}]).returncode)
"""
    values = json.loads(run(project, sys.executable, "-c", script).stdout)
    assert (values[0], values[3]) == (str(project / "state"), "mine")


@pytest.mark.parametrize("name", ["runs [old]", "what?", "*"])
def test_dagster_home_that_dagster_cannot_open_is_rejected(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    error = run(
        tmp_path,
        *STATUS,
        code=2,
        DAGSTER_HOME=str(tmp_path / name),
    ).stderr
    assert error == (
        f"DAGSTER_HOME={tmp_path / name}: Dagster does not find its files below a folder with "
        "*, ? or [ in its name: choose another one\n"
    )


def test_installation_in_which_dagster_cannot_run_is_rejected(tmp_path: Path) -> None:
    packages = Path(find_spec("dagster").origin).parents[1]
    (tmp_path / "100%").symlink_to(packages)
    error = run(
        tmp_path,
        *STATUS,
        code=2,
        DAGSTER_HOME=str(tmp_path),
        PYTHONPATH=str(tmp_path / "100%"),
    ).stderr
    assert error.startswith("Dagster does not work below a folder with % in its name")
    assert error.count("\n") == 1
