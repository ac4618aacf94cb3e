"""The command `taxi-assets quickstart`: load one day of the sample through all five assets.

It adds `DAGSTER_HOME` to the project's `.env`, so that later commands use the same history, and the
end of the sample's month, so that the UI shows only days with data. It runs the main job as a user
would, prints where the rows were stored, and shows rows of the day.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from taxi_assets.errors import TerminalError
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import SAMPLE
from taxi_assets.settings.environment import PROJECT_MARKER, find_project_folder, parse_env_text
from taxi_assets.settings.private_folders import make_private_folder, restrict_umask
from taxi_assets.settings.terminal import accept_all_characters
from taxi_assets.tlc.loaded_services import load_services

if TYPE_CHECKING:
    import dagster as dg

DAY = "2021-01-05"
END = "TAXI_END_DATE"
END_LINES = f"""# The sample's month. Remove the line, or set another day, to load later months.
{END}=2021-01-31
"""
POLL_SECONDS = 0.3
HOME = "DAGSTER_HOME"
# The folders that Dagster creates in a DAGSTER_HOME, with the umask of its command.
DAGSTER_FOLDERS = ("history", "logs", "schedules", "storage", ".logs_queue", ".nux", ".telemetry")
# A value that needs no quotes in `.env`.
PLAIN = re.compile(r"[\w./+:@%,-]+")


def main() -> int:
    """Run the main job for a day, and return the exit code."""
    restrict_umask()
    accept_all_characters()
    folder = find_project_folder()
    if not (folder / PROJECT_MARKER).is_file():
        sys.stderr.write(f"{folder} has no {PROJECT_MARKER}: run this in the checkout\n")
        return 2
    # Dagster's commands read `.env` in the working directory.
    os.chdir(folder)
    try:
        remarks = write_dagster_home(folder) + write_end_date(folder)
        settings = Settings.from_env()
    except TerminalError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if settings.profile != "local":
        sys.stderr.write(
            f"TAXI_PROFILE={settings.profile}: the quick start is for profile local and its "
            "embedded stack; unset it, or load a day by dg launch (docs/operations.md)\n"
        )
        return 2
    sys.stdout.write(remarks)
    return _run_job(folder, settings)


def write_dagster_home(folder: Path) -> str:
    """Add `DAGSTER_HOME` to `.env` unless it is set; return a remark for the user.

    An exported value stays; a value in `.env` stays too, and overrides it for Dagster's commands.
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
        file.write_text("# See .env.example for every setting.\n", encoding="utf-8")
    text = file.read_text(encoding="utf-8")
    value = str(folder)
    if not PLAIN.fullmatch(value):
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    separator = "" if not text or text.endswith("\n") else "\n"
    with file.open("a", encoding="utf-8") as target:
        target.write(f"{separator}{HOME}={value}\n")
    return ""


def write_end_date(folder: Path) -> str:
    """Add the last day of the sample's month to `.env`; return a remark for the user.

    Nothing is added if a source or an end date is set.
    """
    file = folder / ".env"
    chosen = {**os.environ, **(parse_env_text(file) if file.exists() else {})}
    if not file.exists() or chosen.get("TAXI_SOURCE", SAMPLE) != SAMPLE or chosen.get(END):
        return ""
    with file.open("a", encoding="utf-8") as target:
        target.write(END_LINES)
    return ""


def _run_job(folder: Path, settings: Settings) -> int:
    import dagster as dg

    service = next(iter(load_services()))
    tags = json.dumps({"dagster/partition": DAY})
    command = [str(Path(sys.executable).with_name("dagster")), "job", "execute"]
    command += ["-m", "taxi_assets.definitions", "-j", f"{service}_daily", "--tags", tags]
    stores = "the embedded stack" if settings.postgres.host is None else "your stores"
    sys.stdout.write(f"Running {service}_daily for {DAY}, all five assets, on {stores} ...\n")
    sys.stdout.flush()
    with (
        tempfile.TemporaryFile("w+", errors="replace") as log,
        dg.DagsterInstance.get() as instance,
    ):
        before = {run.run_id for run in instance.get_runs(limit=100)}
        run = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)  # noqa: S603 - our own
        for line in _report_assets(run, instance, before):
            sys.stdout.write(line)
            sys.stdout.flush()
        if run.wait():
            sys.stderr.write(_find_cause(instance, before) or _read_tail(log))
            return run.returncode
    sys.stdout.write(_describe_source(settings))
    _show_rows(settings, service)
    sys.stdout.write(_describe_next_steps(service, folder))
    return 0


def _find_cause(instance: dg.DagsterInstance, before: set[str]) -> str:
    """Return why the new run failed, in one line; empty if the command created no run."""
    from taxi_assets.cli.runner import describe_failure

    failed = [run.run_id for run in instance.get_runs(limit=5) if run.run_id not in before]
    causes = filter(None, (describe_failure(instance, run_id) for run_id in failed))
    return "".join(f"{cause}\n" for cause in causes)


def _read_tail(log: IO[str]) -> str:
    log.seek(0)
    return log.read()[-5000:]


def _report_assets(
    run: subprocess.Popen[bytes], instance: dg.DagsterInstance, before: set[str]
) -> Iterator[str]:
    """Yield a line for each asset as soon as it is materialized."""
    from dagster import DagsterEventType

    reported: set[str] = set()
    ended = False
    while not ended:
        try:
            run.wait(POLL_SECONDS)
            ended = True
        except subprocess.TimeoutExpired:
            pass
        for started in instance.get_runs(limit=5):
            if started.run_id in before:
                continue
            records = instance.get_records_for_run(
                started.run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
            ).records
            for record in records:
                event = record.event_log_entry.asset_materialization
                if event is not None and event.asset_key.path[-1] not in reported:
                    reported.add(event.asset_key.path[-1])
                    yield _describe_asset(event)


def _describe_asset(event: dg.AssetMaterialization) -> str:
    places = [
        str(event.metadata[key].value)
        for key in ("dagster/table_name", "lake", "object")
        if key in event.metadata
    ]
    name = f"  {event.asset_key.to_user_string()}".ljust(26)
    return f"{name}{event.metadata['rows'].value:>5} rows  {'/'.join(places)}\n"


def _describe_source(settings: Settings) -> str:
    if settings.source.template == SAMPLE:
        return "Data: synthetic sample (set TAXI_SOURCE for real months, see README).\n"
    return "Data: TAXI_SOURCE, as you set it.\n"


def _show_rows(settings: Settings, service: str) -> None:
    """Show the day's first rows, from the lake."""
    if settings.lake.path is not None:
        from taxi_assets.local.client_commands import run_duckdb

        columns = ", ".join(load_services()[service].key_columns)
        query = f"SELECT {columns} FROM {service}_tripdata LIMIT 3"  # noqa: S608 - ours
        run_duckdb(settings, [query])


def _describe_next_steps(service: str, folder: Path) -> str:
    page = f"assets/{service}/cleaned_trips?view=partitions&partition={DAY}"
    # `dg` reads `telemetry` in the dagster.yaml of an exported folder, not of one in `.env`.
    is_here = Path(os.environ.get(HOME, "")).expanduser() == folder
    home = f"{HOME}=$PWD " if is_here else ""
    return (
        f"Start the UI:         {home}.venv/bin/dg dev\n"
        f"Then the day's page:  http://127.0.0.1:3000/{page}\n"
    )
