"""`taxi-assets quickstart`: one day of the sample through all five assets.

Adds `DAGSTER_HOME` to the project's `.env`, which leads every later command to the same history,
runs the main job as a person would, and says what landed where.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from taxi_assets.errors import TerminalError
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import SAMPLE
from taxi_assets.settings.environment import MARK, find_project_folder, parse_env_text
from taxi_assets.settings.private_folders import make_private_folder, restrict_umask
from taxi_assets.tlc.loaded_services import load_services

DAY = "2021-01-05"
HOME = "DAGSTER_HOME"
# What Dagster makes in a DAGSTER_HOME, with whatever umask its commands are started.
DAGSTER_FOLDERS = ("history", "logs", "schedules", "storage", ".logs_queue", ".nux", ".telemetry")
# What `.env` needs no quotes for.
PLAIN = re.compile(r"[\w./+:@%,-]+")


def main() -> int:
    """Run the main job for a day; returns the exit code."""
    restrict_umask()
    folder = find_project_folder()
    if not (folder / MARK).is_file():
        sys.stderr.write(f"{folder} has no {MARK}: run this in the checkout\n")
        return 2
    # Where Dagster's commands read `.env`.
    os.chdir(folder)
    try:
        note = write_dagster_home(folder)
        settings = Settings.from_env()
    except TerminalError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if settings.profile != "local":
        sys.stderr.write(
            f"TAXI_PROFILE={settings.profile}: the quick start is for profile local and its "
            "embedded stack; unset it, or load a day by dagster job execute (README)\n"
        )
        return 2
    sys.stdout.write(note)
    return _run(folder, settings)


def write_dagster_home(folder: Path) -> str:
    """Add `DAGSTER_HOME` to `.env` unless it is chosen already; return what a person should know.

    An exported one stays; one that `.env` has stays too, and overrides it in Dagster's commands.
    """
    file, exported = folder / ".env", os.environ.get(HOME)
    written = parse_env_text(file).get(HOME) if file.exists() else None
    if written:
        if exported and Path(exported) != Path(written):
            return (
                f"{HOME}={exported} is exported, but {file} names {written}: "
                "Dagster's commands in this folder use that.\n"
            )
        return ""
    if exported:
        return f"{HOME}={exported} is exported: runs are recorded there; .env does not name it.\n"
    for name in DAGSTER_FOLDERS:
        make_private_folder(folder / name)
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text("# See .env.example for every setting.\n")
    text = file.read_text()
    value = str(folder)
    if not PLAIN.fullmatch(value):
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    separator = "" if not text or text.endswith("\n") else "\n"
    with file.open("a") as target:
        target.write(f"{separator}{HOME}={value}\n")
    return ""


def _run(folder: Path, settings: Settings) -> int:
    service = next(iter(load_services()))
    tags = json.dumps({"dagster/partition": DAY})
    command = [str(Path(sys.executable).with_name("dagster")), "job", "execute"]
    command += ["-m", "taxi_assets.definitions", "-j", f"{service}_daily", "--tags", tags]
    stores = "the embedded stack" if settings.postgres.host is None else "your stores"
    sys.stdout.write(f"Running {service}_daily for {DAY}, all five assets, on {stores} ...\n")
    sys.stdout.flush()
    done = subprocess.run(  # noqa: S603 - our own
        command, capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode:
        sys.stderr.write(done.stderr[-5000:])
        return done.returncode
    sys.stdout.write(_landed(settings, service))
    return 0


def _landed(settings: Settings, service: str) -> str:
    """What the run recorded, a line a store."""
    import dagster as dg  # noqa: PLC0415 - after the run, which needs none of it here

    lines: list[str] = []
    with dg.DagsterInstance.get() as instance:
        for asset in ("raw", "cleaned", "postgres", "gcs", "bigquery"):
            event = instance.get_latest_materialization_event(
                dg.AssetKey([service, f"{asset}_trips"])
            )
            found = event.asset_materialization if event else None
            if found is None:
                continue
            where = found.metadata.get("dagster/table_name") or found.metadata["dagster/uri"]
            rows = found.metadata["rows"].value
            lines.append(f"  {service}/{asset}_trips".ljust(26) + f"{rows:>5} rows  {where.value}")
    data = "Data: TAXI_SOURCE, as you set it."
    if settings.source.template == SAMPLE:
        data = "Data: synthetic sample (set TAXI_SOURCE for real months, see README)."
    ui = ".venv/bin/dagster dev     opens the UI at http://127.0.0.1:3000"
    return "\n".join([*lines, data, ui, ""])
