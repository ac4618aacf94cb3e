"""The storage lies where Dagster's own would, and is created by one process at a time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._cli.utils import get_possibly_temporary_instance_for_cli
from dagster._core.test_utils import create_run_for_test

from taxi_assets.dagster_internals.instance import TaxiInstance
from taxi_assets_tests.conftest import REPOSITORY

SETTINGS = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
STOCK = {name: value for name, value in SETTINGS.items() if name != "instance_class"}


def list_databases(folder: Path) -> set[str]:
    """Return the databases in a folder; a temporary instance's has a random name."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*.db"))
    return {re.sub(r"\.tmp_dagster_home_\w+", "temporary", name) for name in names}


def log_event(
    folder: Path, settings: dict[str, object], way: str, patch: pytest.MonkeyPatch
) -> set[str]:
    """Log an event on an instance, created in some way; return its databases."""
    home, here = folder / "x", folder / "here"
    home.mkdir(parents=True)
    here.mkdir()
    (here / "dagster.yaml").write_text("{}")
    (home / "dagster.yaml").write_text(json.dumps(settings))
    patch.chdir(here)
    patch.setenv("HOME", str(folder))
    with ExitStack() as stack:
        if way == "from_config":
            patch.setenv("DAGSTER_HOME", str(here))
            instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        elif way == "none":
            patch.delenv("DAGSTER_HOME", raising=False)
            (here / "dagster.yaml").write_text(json.dumps(settings))
            instance = stack.enter_context(get_possibly_temporary_instance_for_cli())
        else:
            patch.setenv("DAGSTER_HOME", {"tilde": "~/x", "absolute": str(home)}[way])
            instance = stack.enter_context(dg.DagsterInstance.get())
        assert isinstance(instance, TaxiInstance) == ("instance_class" in settings)
        run_id = "11111111-1111-4111-8111-111111111111"
        create_run_for_test(instance, job_name="none", run_id=run_id)
        instance.report_engine_event("stored", run_id=run_id, job_name="none")
        assert [log.message for log in instance.all_logs(run_id)] == ["stored"]
        return list_databases(folder)


STORAGE_LOCATIONS: dict[str, Callable[[str], dict[str, object]]] = {
    "nowhere else": lambda _: {},
    "storage": lambda folder: {"storage": {"sqlite": {"base_dir": folder}}},
    "local artifacts": lambda folder: {
        "local_artifact_storage": {
            "module": "dagster._core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": folder},
        }
    },
}


@pytest.mark.parametrize("way", ["absolute", "tilde", "from_config", "none"])
@pytest.mark.parametrize("elsewhere", STORAGE_LOCATIONS)
def test_files_lie_where_dagsters_own_storage_puts_them(
    way: str, elsewhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    databases = {}
    for name, settings in (("ours", SETTINGS), ("stock", STOCK)):
        storage_settings = STORAGE_LOCATIONS[elsewhere](str(tmp_path / name / "elsewhere"))
        databases[name] = log_event(
            tmp_path / name, {**settings, **storage_settings}, way, monkeypatch
        )
    assert databases["ours"] == databases["stock"]
    assert {"index.db", "runs.db", "schedules.db"} < {Path(path).name for path in databases["ours"]}


# Both get here before either continues, because imports take their time.
MAKE = """
import sys, time
import dagster as dg
from dagster._core.test_utils import create_run_for_test
import taxi_assets.dagster_internals.instance
print("ready", flush=True)
sys.stdin.readline()
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    create_run_for_test(instance, job_name="none")
"""
PAIRS = int(os.environ.get("PAIRS", "3"))


def test_two_processes_can_create_the_files_at_once(tmp_path: Path) -> None:
    failed = []
    for number in range(PAIRS):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        (folder / "dagster.yaml").write_text(json.dumps(SETTINGS))
        pair = [
            subprocess.Popen(
                [sys.executable, "-c", MAKE, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(2)
        ]
        for process in pair:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in pair:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in pair:
            _, error = process.communicate(timeout=60)
            if process.returncode:
                failed.append(error[-500:])
    assert failed == []


@dg.job
def no_location() -> None:
    """Run nothing."""


def test_runs_without_a_server_name_their_code_location(
    tmp_path: Path,
) -> None:
    (tmp_path / "dagster.yaml").write_text(json.dumps(SETTINGS))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        result = no_location.execute_in_process(instance=instance)
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.remote_job_origin is not None
        assert run.remote_job_origin.location_name == "taxi_assets.definitions"
        # The list of jobs filters by it.
        label = {".dagster/repository": "__repository__@taxi_assets.definitions"}
        (record,) = instance.get_run_records(dg.RunsFilter(tags=label))
        assert record.dagster_run.run_id == result.run_id
