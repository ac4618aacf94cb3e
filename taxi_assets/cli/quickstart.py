"""The command `taxi-assets quickstart`: load one day of the sample through all five assets.

It adds `DAGSTER_HOME` to the project's `.env`, so that later commands use the same history, and the
end of the sample's month, so that the UI shows only days with data. It runs the main job as a user
would, prints where the rows were stored, and shows rows of the day.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_assets.errors import TerminalError
from taxi_assets.partitions import PARTITION
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import SAMPLE
from taxi_assets.settings.environment import (
    PROJECT_MARKER,
    check_dagster_folders,
    find_project_folder,
    parse_env_text,
)
from taxi_assets.settings.private_folders import make_private_folder, restrict_umask
from taxi_assets.settings.terminal import accept_all_characters
from taxi_assets.tlc.loaded_services import load_services

if TYPE_CHECKING:
    import dagster as dg

    from taxi_assets.cli.runner import Progress
    from taxi_assets.tlc.schema import Service

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
    if exported and Path(exported) != folder:
        return f"{HOME}={exported} is exported: runs are recorded there; .env does not name it.\n"
    check_dagster_folders(str(folder))
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

    from taxi_assets.cli.runner import Progress, run_daily_job

    service = next(iter(load_services().values()))
    stores = "the embedded stack" if settings.postgres.host is None else "your stores"
    sys.stdout.write(f"Running {service.name}_daily for {DAY}, all five assets, on {stores} ...\n")
    sys.stdout.flush()
    with dg.DagsterInstance.get() as instance:
        progress = Progress(instance)
        with _report_assets(progress):
            outcome = run_daily_job(service, progress, {PARTITION: DAY})
        if outcome.failure is not None:
            sys.stderr.write(f"{outcome.failure}\n")
            return 1
        _report_freshness(instance, settings, service)
    sys.stdout.write(_describe_source(settings))
    show_rows(settings, service)
    sys.stdout.write(_describe_next_steps(service, folder))
    return 0


def _report_freshness(instance: dg.DagsterInstance, settings: Settings, service: Service) -> None:
    """Evaluate the check that no daily run evaluates, so that none is empty in the UI.

    The sample publishes no month; any other source would need requests.
    """
    from taxi_assets.defs.freshness import build_evaluation, read_freshness

    if settings.source.template == SAMPLE:
        for freshness in read_freshness(instance, service, None):
            instance.report_runless_asset_event(build_evaluation(instance, freshness))


@contextmanager
def _report_assets(progress: Progress) -> Iterator[None]:
    """Write a line for each asset as soon as it is materialized within the block."""
    ended = threading.Event()

    def report() -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(POLL_SECONDS)
            for event in progress.read_events():
                sys.stdout.write(_describe_asset(event))
                sys.stdout.flush()

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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


def show_rows(settings: Settings, service: Service) -> None:
    """Show the day's first rows, from the lake."""
    if settings.lake.path is not None:
        from taxi_assets.local.client_commands import run_duckdb

        columns, time = ", ".join(service.key_columns), service.pickup_column
        query = (
            f"SELECT {columns} FROM {service.name}_tripdata "  # noqa: S608 - ours
            f"WHERE {time}::date = '{DAY}' ORDER BY {time} LIMIT 3"
        )
        run_duckdb(settings, [query])


def _describe_next_steps(service: Service, folder: Path) -> str:
    page = f"assets/{service.name}/cleaned_trips?view=partitions&partition={DAY}"
    # `dg` reads `telemetry` in the dagster.yaml of an exported folder, not of one in `.env`.
    is_here = Path(os.environ.get(HOME, "")).expanduser() == folder
    home = f"{HOME}=$PWD " if is_here else ""
    return (
        f"Start the UI:         {home}.venv/bin/dg dev\n"
        f"Then the day's page:  http://127.0.0.1:3000/{page}\n"
    )
