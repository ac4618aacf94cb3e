"""The commands and their arguments.

Each command imports its code, so that `--help` takes 0.3 s and not 3.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import dagster as dg
import typer
from sqlalchemy.exc import OperationalError
from typer.core import TyperGroup

from taxi_assets.errors import SettingsError, TerminalError, format_one_line
from taxi_assets.settings.environment import (
    DAGSTER_HOME,
    check_dagster_folders,
    find_project_folder,
    parse_env_text,
    read_env_file,
)
from taxi_assets.settings.private_folders import restrict_umask
from taxi_assets.settings.terminal import accept_all_characters


class Commands(TyperGroup):
    """The commands; typer itself ends with 130 and no message when one is interrupted."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override] # typer's own
        """Run the command of the arguments."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Abort from None


app = typer.Typer(
    name="taxi-assets",
    cls=Commands,
    help="New York taxi trips: plan and run backfills, compare versions, show what is loaded.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ServiceName = Annotated[str, typer.Argument(help="One of TAXI_SERVICES.", metavar="SERVICE")]
Span = Annotated[
    str, typer.Argument(help="2021-01, 2019-01..2021-07, 2021-01-05 or 2021-01-05..2021-02-10.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
PASS_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; an error is one line on standard error and exit code 2."""
    restrict_umask()
    accept_all_characters()
    try:
        result = app(arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        sys.stderr.write("interrupted\n")
        return 130
    except Exception as error:  # noqa: BLE001 - every error is shown in one line
        sys.stderr.write(f"{_describe_error(error)}\n")
        return 2
    return result if isinstance(result, int) else 0


def _describe_error(error: Exception) -> str:
    home = os.environ.get(DAGSTER_HOME, "")
    if isinstance(error, OperationalError):
        # SQLite reports a full disk as "disk I/O error".
        free = f", {shutil.disk_usage(home).free >> 20} MB free" if os.path.isdir(home) else ""  # noqa: PTH112 - may be ""
        cause = format_one_line(error.orig)[:300]
        return f"Dagster's storage ({DAGSTER_HOME}={home}{free}) failed: {cause}"
    if isinstance(error, PermissionError):
        fix = f"set {DAGSTER_HOME} and TAXI_HOME to folders of your own"
        return f"{error.filename}: {error.strerror}: {fix}"
    if isinstance(error, TerminalError):
        return format_one_line(error)
    if format_message := getattr(error, "format_message", None):  # typer's own
        return str(format_message())
    return f"{type(error).__name__}: {format_one_line(error)}"


@contextmanager
def _open_instance() -> Iterator[dg.DagsterInstance]:
    """Open the instance of DAGSTER_HOME, which the project's `.env` may name.

    Raises:
        SettingsError: DAGSTER_HOME is not set.
    """
    read_env_file()
    if not os.environ.get(DAGSTER_HOME):
        file = find_project_folder() / ".env"
        home = parse_env_text(file).get(DAGSTER_HOME) if file.is_file() else None
        if not home:
            raise SettingsError(
                "DAGSTER_HOME is not set: export it, or run taxi-assets quickstart once, which "
                "writes it into .env"
            )
        check_dagster_folders(home)
        os.environ[DAGSTER_HOME] = home
    with dg.DagsterInstance.get() as instance:
        yield instance


def _run_small_job(name: str, op: str, config: dict[str, Any]) -> int:
    from taxi_assets.cli.small_jobs import run_small_job

    with _open_instance() as instance:
        return run_small_job(instance, name, op, config)


@app.command()
def plan(service: ServiceName, span: Span, *, as_json: AsJson = False) -> None:
    """Show by month what is published, loaded, missing, rejected, restated and stale."""
    from rich.console import Console

    from taxi_assets.cli.month_plan import make_plan
    from taxi_assets.cli.spans import find_service, parse_partition_span
    from taxi_assets.cli.tables import build_plan_table

    selected, window = find_service(service), parse_partition_span(span)
    with _open_instance() as instance:
        month_plan = make_plan(instance, selected, window)
    if as_json:
        typer.echo(json.dumps(month_plan.figures(), indent=2))
    else:
        Console().print(build_plan_table(month_plan))


@app.command()
def backfill(
    service: ServiceName,
    span: Span,
    *,
    only: Annotated[
        str, typer.Option(help="Only days in these states, separated by commas.")
    ] = "missing,rejected,restated,stale",
    max_runs: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of runs to launch.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs; start none.")] = False,
) -> int:
    """Load the days that are not loaded, by month; run it again after an interruption.

    Through the instance's queue where a daemon works on it, else in this process. Exit code 0: all
    days are loaded; 1: days are left, which the last lines name; 130: stopped by Ctrl-C.
    """
    from taxi_assets.cli.backfill import Backfill, parse_states
    from taxi_assets.cli.spans import find_service, parse_partition_span

    selected, window, states = find_service(service), parse_partition_span(span), parse_states(only)
    with _open_instance() as instance:
        job = Backfill(instance, selected, window, states, max_runs)
        return job.show_runs() if dry_run else job.run()


@app.command()
def diff(
    service: ServiceName,
    span: Span,
    *,
    against: Annotated[
        Literal["file", "store"],
        typer.Option(help="file: the rows loaded from a file; store: Postgres, lake, BigQuery"),
    ] = "file",
    as_json: AsJson = False,
) -> int:
    """Compare the published month with what was loaded, without loading it.

    Exit code 0: no row differs; 1: rows differ, or days are absent.
    """
    from rich.console import Console

    from taxi_assets.cli.diff import build_figures, compare_days, print_diff
    from taxi_assets.cli.spans import find_service, parse_partition_span

    selected, window = find_service(service), parse_partition_span(span)
    stores = against == "store"
    days = compare_days(selected, window, lambda line: typer.echo(line, err=True), stores=stores)
    day_diffs = list(days)
    if as_json:
        typer.echo(json.dumps(build_figures(day_diffs), indent=2))
    else:
        print_diff(day_diffs, Console())
    return 0 if all(day.diff is not None and day.diff.is_empty for day in day_diffs) else 1


@app.command("external-table")
def external_table(
    service: ServiceName,
    *,
    require_filter: Annotated[
        bool, typer.Option("--require-filter", help="Reject queries without a day.")
    ] = False,
) -> None:
    """Create BigQuery's external table <table>_lake over the lake's bucket."""
    from taxi_assets.cli.external_table import create_external_table
    from taxi_assets.cli.spans import find_service

    name = create_external_table(find_service(service), require_filter=require_filter)
    typer.echo(f"{name} reads the lake")


@app.command()
def status(*, as_json: AsJson = False) -> None:
    """Show services, months, stores, queue, daemon and schedules on one screen."""
    from rich.console import Console

    from taxi_assets.cli.status import collect_status, print_status

    with _open_instance() as instance:
        status = collect_status(instance)
    if as_json:
        typer.echo(json.dumps(status, indent=2))
    else:
        print_status(status, Console())


@app.command("alert-test")
def alert_test() -> int:
    """Send a test alert to every target and request the heartbeat, as the daemon does.

    Exit code 0: all were reached; 1: the lines name which was not.
    """
    from taxi_assets.cli.alert_test import send_test_alert

    read_env_file()
    return send_test_alert(typer.echo)


@app.command(context_settings={"ignore_unknown_options": True})  # SQL may begin with a comment.
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT.", metavar="SQL")],
    *,
    store: Annotated[
        Literal["postgres", "bigquery"], typer.Option(help="postgres or bigquery.")
    ] = "postgres",
    rows: Annotated[int, typer.Option(min=1, max=1000, help="Rows to show.")] = 20,
) -> int:
    """Run one SELECT, read-only, and show its first rows (job sql_query)."""
    return _run_small_job("sql_query", "query", {"query": sql, "store": store, "rows": rows})


@app.command()
def inspect(
    key: Annotated[str, typer.Argument(help="A key of the lake or a gs:// URI.", metavar="OBJECT")],
    *,
    rows: Annotated[int, typer.Option(min=1, max=1000, help="Rows to show.")] = 20,
) -> int:
    """Show columns, row count and first rows of an object (job inspect_object)."""
    return _run_small_job("inspect_object", "inspect", {"object": key, "rows": rows})


@app.command()
def export(
    service: ServiceName,
    span: Span,
    *,
    key: Annotated[
        str | None, typer.Option("--object", help="Key in the lake; replaces an object there.")
    ] = None,
    skip_missing_days: Annotated[
        bool, typer.Option("--skip-missing-days", help="Leave out days that are not loaded.")
    ] = False,
) -> int:
    """Write a month or a range of days as one Parquet object (job export_parquet)."""
    from taxi_assets.cli.spans import find_service, parse_partition_span

    selected, window = find_service(service), parse_partition_span(span)
    first, last = str(window.start), str(max(window))
    config = {
        "service": selected.name,
        "object": key or f"exports/{selected.name}_{first}_{last}.parquet",
        "first_day": first,
        "last_day": last,
        "skip_missing_days": skip_missing_days,
    }
    return _run_small_job("export_parquet", "export", config)


@app.command()
def quickstart() -> int:
    """Run one day of the synthetic sample through all five assets."""
    from taxi_assets.cli.quickstart import main as run

    return run()


@app.command(context_settings=PASS_ARGUMENTS)
def local(context: typer.Context) -> int:
    """Start, stop, show and query the embedded stack: up, down, status, env, psql, duckdb."""
    from taxi_assets.local.__main__ import main as run

    return run(context.args)
