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
from taxi_assets.local.client_commands import build_postgres_variables, run_duckdb, run_psql
from taxi_assets.local.postgres_folder import find_chosen_folder
from taxi_assets.local.process import wait_until
from taxi_assets.local.stack import ensure_stack_running
from taxi_assets.local.state_directory import (
    LOCAL_HOST,
    LocalStackError,
    StateDirectory,
    hold_lock,
)
from taxi_assets.local.supervisor import stop_leftover_servers
from taxi_assets.settings import Settings
from taxi_assets.settings.environment import (
    DAGSTER_HOME,
    STACK_MARKER,
    hash_stack_variables,
    read_env_file,
)
from taxi_assets.settings.private_folders import restrict_umask
from taxi_assets.settings.terminal import accept_all_characters

STOP_SECONDS = 60
COMMANDS = {
    "up": "start the servers and keep them up",
    "down": "stop the servers",
    "status": "print state, address and folder of each server",
    "env": "print export lines for a shell, with password and token",
    "psql": "open psql on the tables, as a login that can only read",
    "duckdb": "query the lake: SQL as an argument, typed or piped in",
}


def start_stack(home: StateDirectory) -> None:
    """Start missing servers and keep all of them up until `down`, even without users."""
    ensure_stack_running(home.path)
    # The lease of this process keeps the servers up until the keep-alive marker exists.
    home.keep_alive.touch(mode=0o600)


def stop_stack(home: StateDirectory) -> None:
    """Stop the servers, even if processes use them; do nothing if none is running.

    Raises:
        LocalStackError: they do not stop within a minute.
    """
    if not home.local.is_dir():
        return
    with hold_lock(home.start):
        if home.is_supervisor_alive():
            # At first a supervisor has not recorded its process id.
            wait_until(lambda: home.record().supervisor > 0 or not home.is_supervisor_alive(), 5)
            supervisor = home.record().supervisor
            if home.is_supervisor_alive():
                if not supervisor:
                    raise LocalStackError(
                        f"{home.supervisor} is not locked by a supervisor of this folder: "
                        "a copy must not share files with its original (hard links)"
                    )
                os.kill(supervisor, signal.SIGTERM)
            if not wait_until(lambda: not home.is_supervisor_alive(), STOP_SECONDS):
                raise LocalStackError(
                    f"the embedded stack did not stop within {STOP_SECONDS} s: see "
                    f"{home.supervisor_log}, supervisor is process {supervisor}"
                )
        stop_leftover_servers(home)
        home.keep_alive.unlink(missing_ok=True)


def get_status(home: StateDirectory) -> dict[str, Any]:
    """Return each server's state, address and folder, without secrets."""
    is_alive = home.is_supervisor_alive()
    is_ready = is_alive and home.record().ready
    config = home.config()
    state = "running" if is_ready else "starting" if is_alive else "stopped"

    def describe(name: str, scheme: str, folder: Path) -> dict[str, str | None]:
        address = f"{scheme}://{LOCAL_HOST}:{config.ports[name]}" if is_ready else None
        return {"state": state, "address": address, "folder": str(folder)}

    return {
        "home": str(home.path),
        "settings": [str(file) for file in read_env_file().files],
        "is_up": is_alive,
        "keeps_running": is_alive and home.keep_alive.exists(),
        "postgres": describe("postgres", "postgresql", find_chosen_folder(home, config) / "data"),
        "bigquery": describe("bigquery", "http", home.bigquery),
        "lake": {
            "state": "present" if home.lake.is_dir() else "absent",
            "address": home.lake.as_uri(),
            "folder": str(home.lake),
        },
    }


def get_environment(home: StateDirectory, settings: Settings) -> dict[str, str]:
    """Return the environment variables of clients, including passwords and token.

    Raises:
        LocalStackError: the stack is not up; servers started here would stop with this process.
    """
    if not (home.is_supervisor_alive() and home.record().ready):
        raise LocalStackError(
            f"the embedded stack under {home.path} is not up: run python -m taxi_assets.local up"
        )
    stack = home.stack()
    instance = os.environ.get(DAGSTER_HOME)
    variables = {
        **({DAGSTER_HOME: instance} if instance else {}),
        **build_postgres_variables(stack, settings.postgres.schema_name),
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
    return {**variables, STACK_MARKER: hash_stack_variables(variables)}


def _format_status(home: StateDirectory) -> str:
    status = get_status(home)
    duration = "up until down" if status["keeps_running"] else "up while in use"
    lines = [f"home      {status['home']} ({duration if status['is_up'] else 'not up'})"]
    lines.append(f"settings  {', '.join(status['settings']) or 'the environment, no .env'}")
    for name in ("postgres", "bigquery", "lake"):
        part = status[name]
        lines.append(f"{name:9} {part['state']:8} {part['address'] or '-':28} {part['folder']}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; print one line to standard error and return 2 if it fails."""
    parser = argparse.ArgumentParser("python -m taxi_assets.local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {name: commands.add_parser(name, help=text) for name, text in COMMANDS.items()}
    parsers["status"].add_argument("--json", action="store_true", help="as one JSON object")
    arguments = sys.argv[1:] if arguments is None else arguments
    # All arguments after its name belong to a client.
    is_client = arguments[:1] in (["psql"], ["duckdb"])
    options = parser.parse_args(arguments[:1] if is_client else arguments)
    restrict_umask()
    accept_all_characters()
    try:
        settings = Settings.from_env()
        if settings.profile != "local":
            raise LocalStackError(
                f"TAXI_PROFILE={settings.profile}: the local stack is for profile local, unset it"
            )
        if options.command == "duckdb":
            return run_duckdb(settings, arguments[1:])
        if options.command == "psql":
            # This process's lease keeps the server up while psql runs.
            stack = ensure_stack_running(settings.home)
            return run_psql(stack, settings.postgres.schema_name, arguments[1:])
        _run_command(options, StateDirectory(settings.home), settings)
    except TerminalError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _run_command(options: argparse.Namespace, home: StateDirectory, settings: Settings) -> None:
    if options.command == "up":
        start_stack(home)
    elif options.command == "down":
        stop_stack(home)
    if options.command == "env":
        for name, value in get_environment(home, settings).items():
            print(f"export {name}={shlex.quote(value)}")
    elif options.command == "status" and options.json:
        print(json.dumps(get_status(home), indent=2))
    else:
        print(_format_status(home))
    for line in _list_remarks(options.command, home):
        print(line, file=sys.stderr)


def _list_remarks(command: str, home: StateDirectory) -> list[str]:
    """Return remarks about unexpected effects of the settings."""
    env_file = read_env_file()
    lines = [
        f"{name} is exported, but {env_file.files[0]} overrides it, as for Dagster's commands here"
        for name in env_file.overridden
    ]
    notice = home.record().notice
    if notice and command in ("up", "status"):
        lines.append(notice)
    if command == "status" and not home.local.is_dir():
        files = " and ".join(map(str, env_file.files)) or f"no .env (none in {env_file.project})"
        lines.append(
            f"no stack was ever started under {home.path}; settings come from the environment and "
            f"{files}: if your stack is in another place, run this in its checkout or set TAXI_HOME"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
