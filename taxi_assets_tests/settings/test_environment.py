"""One `.env` for every command: the same values whichever is used, from any folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from taxi_assets.errors import SettingsError
from taxi_assets.settings.environment import parse_env_text
from taxi_assets_tests.isolation import REPOSITORY, isolation

DAGSTER = str(Path(sys.executable).with_name("dagster"))
# What a run sees: written by a job of the project's own code, loaded by Dagster's command line.
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
SEEN = """
import json, os
from taxi_assets.settings import Settings
settings = Settings.from_env()
seen = [str(settings.home), str(settings.lake.path), settings.source.template]
print(json.dumps([*seen, settings.bigquery.dataset, settings.bigquery.key_file]))
"""


def environment_of(**variables: str) -> dict[str, str]:
    """The tests' environment, with our reader of `.env` on."""
    inherited = {name: it for name, it in isolation.pristine.items() if name != "TAXI_ENV_FILE"}
    return inherited | variables


def run(
    folder: Path, *command: str, code: int = 0, **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment_of(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def status(folder: Path, **variables: str) -> tuple[str, str]:
    """The home that `local status` shows, and what it remarks."""
    done = run(folder, sys.executable, "-m", "taxi_assets.local", "status", "--json", **variables)
    return json.loads(done.stdout)["home"], done.stderr


def seen_by_python(folder: Path, **variables: str) -> list[str]:
    return json.loads(run(folder, sys.executable, "-c", SEEN, **variables).stdout)


def seen_by_dagster(folder: Path, **variables: str) -> list[str]:
    file, jobs = folder / "seen.json", folder / "jobs.py"
    jobs.write_text(DEFINITIONS)
    job = ("job", "execute", "-f", str(jobs), "-j", "show")
    run(folder, DAGSTER, *job, SEEN=str(file), **variables)
    return json.loads(file.read_text())


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with every kind of path in its `.env`."""
    folder = tmp_path / "project"
    (folder / "below").mkdir(parents=True)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    (folder / ".env").write_text(
        "TAXI_HOME=state\nTAXI_LAKE=lake\nTAXI_SOURCE='months/{service}_{year}-{month}.csv'\n"
        "BIGQUERY_DATASET=mine\nGOOGLE_APPLICATION_CREDENTIALS=key.json\n"
    )
    return folder


def test_every_command_reads_the_same_values(project: Path) -> None:
    wanted = [
        str(project / "state"),
        str(project / "lake"),
        str(project / "months/{service}_{year}-{month}.csv"),
        "mine",
        str(project / "key.json"),
    ]
    assert seen_by_dagster(project) == wanted
    assert seen_by_python(project) == wanted
    assert seen_by_python(project / "below") == wanted
    assert status(project)[0] == status(project / "below")[0] == wanted[0]


def test_the_current_folders_file_overrides_exported_variables_as_in_dagster(
    project: Path, tmp_path: Path
) -> None:
    exported = {"TAXI_HOME": str(tmp_path / "other"), "TAXI_PROFILE": "local"}
    home, remarks = status(project, **exported)
    assert home == seen_by_dagster(project, **exported)[0] == str(project / "state")
    assert "TAXI_HOME is exported, but" in remarks
    assert "TAXI_PROFILE" not in remarks
    # Dagster reads nothing in another folder: there the file only completes what is exported.
    home, remarks = status(project / "below", **exported)
    assert home == seen_by_python(project / "below", **exported)[0] == exported["TAXI_HOME"]
    assert "is exported" not in remarks
    assert seen_by_python(project / "below", **exported)[3] == "mine"


def test_from_any_other_folder_the_checkout_is_the_project(tmp_path: Path) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkout.mkdir()
    run(tmp_path, "cp", "-r", str(REPOSITORY / "taxi_assets"), str(checkout))
    (checkout / "dagster.yaml").touch()
    imported = {"PYTHONPATH": str(checkout)}
    home, remarks = status(elsewhere, **imported)
    assert home == str(checkout / ".taxi")
    assert f"no stack was ever started under {checkout}/.taxi" in remarks
    (checkout / ".env").write_text("TAXI_HOME=state\n")
    assert status(elsewhere, **imported)[0] == str(checkout / "state")
    # A folder's own .env goes first, and the checkout's completes it.
    (elsewhere / ".env").write_text("BIGQUERY_DATASET=theirs\n")
    seen = seen_by_python(elsewhere, **imported)
    assert (seen[0], seen[3]) == (str(checkout / "state"), "theirs")
    assert seen_by_dagster(elsewhere, **imported) == seen


def test_dagster_home_does_not_change_during_a_run(project: Path, tmp_path: Path) -> None:
    with (project / ".env").open("a") as file:
        file.write(f"DAGSTER_HOME={tmp_path}\n")
    script = "import os; from taxi_assets.settings import Settings; Settings.from_env(); "
    script += "print(os.environ.get('DAGSTER_HOME'))"
    assert run(project, sys.executable, "-c", script).stdout == f"{tmp_path}\n"
    # There Dagster has read no file, and taken another folder.
    assert run(project / "below", sys.executable, "-c", script).stdout == "None\n"


def test_an_installed_package_uses_dagster_home_as_project(project: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site-packages", tmp_path / "elsewhere"
    elsewhere.mkdir()
    site.mkdir()
    run(tmp_path, "cp", "-r", str(REPOSITORY / "taxi_assets"), str(site))
    installed = {"PYTHONPATH": str(site), "DAGSTER_HOME": str(project)}
    assert status(elsewhere, **installed)[0] == str(project / "state")
    home, remarks = status(elsewhere, PYTHONPATH=str(site))
    assert home == str(elsewhere / ".taxi")
    assert f"no .env (none in {elsewhere})" in remarks


def test_taxi_env_file_names_a_file_or_none(project: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen.env"
    chosen.write_text("TAXI_HOME=here\n")
    assert status(project, TAXI_ENV_FILE=str(chosen))[0] == str(tmp_path / "here")
    assert status(project, TAXI_ENV_FILE="none")[0] == str(project / ".taxi")
    done = run(
        project,
        *(sys.executable, "-m", "taxi_assets.local", "status"),
        code=1,
        TAXI_ENV_FILE=str(tmp_path / "lost.env"),
    )
    assert "this file does not exist" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"TAXI_HOME=\xff\n", "it is not UTF-8"), (b"POSTGRES_PASSWORD=s3cret\0\n", "a NUL byte")],
)
def test_a_file_that_is_not_text_is_reported_in_one_line(
    tmp_path: Path, content: bytes, what: str
) -> None:
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError, match=what) as rejected:
        parse_env_text(tmp_path / ".env")
    assert str(tmp_path / ".env") in str(rejected.value)
    assert "\n" not in str(rejected.value)
    assert "s3cret" not in str(rejected.value)


def test_relative_paths_start_at_the_folder_of_their_file(tmp_path: Path) -> None:
    """Those of the settings that name a path; a URL or a secret stays as it is."""
    relative = ["TAXI_HOME", "TAXI_LAKE", "TAXI_SOURCE", "TAXI_ZONES"]
    relative.append("GOOGLE_APPLICATION_CREDENTIALS")
    kept = {"TAXI_ALERT_URLS": "json://host/a", "POSTGRES_PASSWORD": "a/b"}
    (tmp_path / ".env").write_text(
        "".join(f"{name}=below/it\n" for name in relative)
        + "".join(f"{name}={value}\n" for name, value in kept.items())
    )
    found = parse_env_text(tmp_path / ".env")
    assert found == dict.fromkeys(relative, str(tmp_path / "below/it")) | kept
    (tmp_path / ".env").write_text("TAXI_ZONES=https://host/zones.zip\nTAXI_SOURCE=sample\n")
    assert parse_env_text(tmp_path / ".env") == {
        "TAXI_ZONES": "https://host/zones.zip",
        "TAXI_SOURCE": "sample",
    }


def test_a_child_process_does_not_mix_in_a_changed_file(project: Path) -> None:
    script = f"""
import os, pathlib, subprocess, sys
from taxi_assets.settings import Settings
Settings.from_env()
pathlib.Path({str(project / ".env")!r}).write_text("TAXI_HOME=later\\nBIGQUERY_DATASET=later\\n")
os.chdir("/")
sys.exit(subprocess.run([sys.executable, "-c", {SEEN!r}]).returncode)
"""
    seen = json.loads(run(project, sys.executable, "-c", script).stdout)
    assert (seen[0], seen[3]) == (str(project / "state"), "mine")
