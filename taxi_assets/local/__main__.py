"""`python -m taxi_assets.local up | down | status | env | psql | duckdb`: the embedded stack."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from taxi_assets.errors import TerminalError
from taxi_assets.local.client_commands import postgres_variables, run_duckdb, run_psql
from taxi_assets.local.postgres_folder import find_chosen_folder
from taxi_assets.local.process import wait_until
from taxi_assets.local.stack import ensure_stack_running
from taxi_assets.local.state_directory import (
    LOCAL_HOST,
    Config,
    LocalStackError,
    Record,
    StateDirectory,
    hold_lock,
)
from taxi_assets.local.supervisor import stop_leftover_servers
from taxi_assets.settings import Settings
from taxi_assets.settings.environment import read_env_file
from taxi_assets.settings.private_folders import restrict_umask

STOP_SECONDS = 60
CLIENTS = {
    "psql": "open psql on the tables, as a login that can only read",
    "duckdb": "query the lake: SQL as an argument, typed or piped in",
}


def start_stack(home: StateDirectory) -> None:
    """Start what is missing and keep it up until `down`, also with nobody using it."""
    ensure_stack_running(home.path)
    # This process's lease holds the servers until it ends, after the keep-alive marker is there.
    home.keep_alive.touch(mode=0o600)


def stop_stack(home: StateDirectory) -> None:
    """Stop the servers, however they were started and whoever uses them; nothing to do is fine.

    Raises:
        LocalStackError: they don't end within a minute.
    """
    if not home.local.is_dir():
        return
    with hold_lock(home.start):
        if home.is_supervisor_alive():
            # The first moments of a supervisor have no process id yet.
            wait_until(lambda: _find_supervisor(home) > 0 or not home.is_supervisor_alive(), 5)
            if home.is_supervisor_alive():
                if not _find_supervisor(home):
                    raise LocalStackError(
                        f"{home.supervisor} is not locked by a supervisor of this folder: "
                        "a copy must not share files with its original (hard links)"
                    )
                os.kill(_find_supervisor(home), signal.SIGTERM)
            if not wait_until(lambda: not home.is_supervisor_alive(), STOP_SECONDS):
                raise LocalStackError(
                    f"the embedded stack did not stop within {STOP_SECONDS} s: see "
                    f"{home.supervisor_log}, supervisor is process {_find_supervisor(home)}"
                )
        stop_leftover_servers(home)
        home.keep_alive.unlink(missing_ok=True)


def _find_supervisor(home: StateDirectory) -> int:
    record = home.record()
    return record.supervisor if record else 0


def get_status(home: StateDirectory) -> dict[str, Any]:
    """Tell each server's state, address and folder; no secret is in it."""
    lives = home.local.is_dir() and home.is_supervisor_alive()
    record = (home.record() if lives else None) or Record(supervisor=0)
    state = "running" if record.ready else "starting" if lives else "stopped"

    def address(name: str, scheme: str) -> str | None:
        return f"{scheme}://{LOCAL_HOST}:{record.ports[name]}" if record.ready else None

    database = Path(_find_postgres_folder(home)) / "data"
    return {
        "home": str(home.path),
        "settings": [str(file) for file in read_env_file().files],
        "keeps_running": lives and home.keep_alive.exists(),
        "postgres": {
            "state": state,
            "address": address("postgres", "postgresql"),
            "folder": str(database),
        },
        "bigquery": {
            "state": state,
            "address": address("bigquery", "http"),
            "folder": str(home.bigquery),
        },
        "lake": {
            "state": "present" if home.lake.is_dir() else "absent",
            "address": home.lake.as_uri(),
            "folder": str(home.lake),
        },
    }


def _find_postgres_folder(home: StateDirectory) -> str:
    return str(find_chosen_folder(home, home.config() if home.local.is_dir() else Config()))


def get_environment(home: StateDirectory, settings: Settings) -> dict[str, str]:
    """Name what a client needs, password and token among it.

    Raises:
        LocalStackError: the stack is not up; servers started here would end with this process.
    """
    record = home.record() if home.local.is_dir() and home.is_supervisor_alive() else None
    if record is None or not record.ready:
        raise LocalStackError(
            f"the embedded stack under {home.path} is not up: run python -m taxi_assets.local up"
        )
    stack = home.stack(record)
    return {
        **postgres_variables(stack, settings.postgres.schema_name),
        "POSTGRES_HOST": stack.postgres_host,
        "POSTGRES_PORT": str(stack.postgres_port),
        "POSTGRES_DBNAME": stack.postgres_dbname,
        "POSTGRES_USER": stack.postgres_user,
        "POSTGRES_PASSWORD": stack.postgres_password,
        "POSTGRES_READER_USER": stack.postgres_reader,
        "POSTGRES_READER_PASSWORD": stack.postgres_reader_password,
        "TAXI_LAKE": str(settings.lake.path or f"gs://{settings.lake.bucket}"),
        "BIGQUERY_ENDPOINT": stack.bigquery_endpoint,
        "BIGQUERY_TOKEN": stack.bigquery_token,
        "GCP_PROJECT": settings.bigquery.project,
    }


def _format_status(home: StateDirectory) -> str:
    found = get_status(home)
    stays = "until down" if found["keeps_running"] else "while in use"
    lines = [f"home      {found['home']} (up {stays})"]
    lines.append(f"settings  {', '.join(found['settings']) or 'the environment, no .env'}")
    for name in ("postgres", "bigquery", "lake"):
        it = found[name]
        lines.append(f"{name:9} {it['state']:8} {it['address'] or '-':28} {it['folder']}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 1 with one line on standard error when it can't be done."""
    parser = argparse.ArgumentParser("python -m taxi_assets.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the servers and keep them up")
    commands.add_parser("down", help="stop the servers")
    shown = commands.add_parser("status", help="tell state, address and folder of each server")
    shown.add_argument("--json", action="store_true", help="as one JSON object")
    commands.add_parser("env", help="print export lines for a shell, with password and token")
    for name, what in CLIENTS.items():
        commands.add_parser(name, help=what)
    words = sys.argv[1:] if arguments is None else arguments
    is_client = bool(words) and words[0] in CLIENTS
    # Everything after the name is the client's own.
    asked = parser.parse_args(words[:1] if is_client else words)
    restrict_umask()
    try:
        settings = Settings.from_env()
        if settings.profile != "local":
            raise LocalStackError(
                f"TAXI_PROFILE={settings.profile}: the local stack is for profile local, unset it"
            )
        home = StateDirectory(settings.home)
        if is_client:
            return _run_client(asked.command, settings, words[1:])
        for line in _read_answer(asked, home, settings):
            print(line)  # noqa: T201
        for line in _list_remarks(asked.command, home):
            print(line, file=sys.stderr)  # noqa: T201
    except TerminalError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _run_client(name: str, settings: Settings, arguments: list[str]) -> int:
    if name == "duckdb":
        return run_duckdb(settings, arguments)
    # This process's lease keeps the server up while psql runs.
    return run_psql(ensure_stack_running(settings.home), settings.postgres.schema_name, arguments)


def _list_remarks(command: str, home: StateDirectory) -> list[str]:
    """List surprising consequences of the settings."""
    read = read_env_file()
    lines = [
        f"{name} is exported, but {read.files[0]} overrides it, as in Dagster's commands here"
        for name in read.overridden
    ]
    record = home.record() if home.local.is_dir() else None
    if record and record.notice and command in ("up", "status"):
        lines.append(record.notice)
    if command == "status" and not home.local.is_dir():
        files = " and ".join(map(str, read.files)) or f"no .env (none in {read.project})"
        lines.append(
            f"nothing was ever started under {home.path}; settings come from the environment and "
            f"{files}: if your stack is elsewhere, run this in its checkout or set TAXI_HOME"
        )
    return lines


def _read_answer(asked: argparse.Namespace, home: StateDirectory, settings: Settings) -> list[str]:
    if asked.command == "env":
        return [
            f"export {name}={shlex.quote(value)}"
            for name, value in get_environment(home, settings).items()
        ]
    if asked.command == "status":
        return [json.dumps(get_status(home), indent=2) if asked.json else _format_status(home)]
    if asked.command == "up":
        start_stack(home)
    else:
        stop_stack(home)
    return [_format_status(home)]


if __name__ == "__main__":
    sys.exit(main())
