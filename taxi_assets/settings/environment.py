"""The environment of the settings: the process's own, merged with `.env` files.

Dagster's commands read `.env` from the current folder and let it override the environment. Every
other entry point calls `read_environment`, so a value does not depend on the command. In order of
precedence:

1. `.env` of the current folder, as for Dagster's commands;
2. the environment;
3. `.env` of the project folder, wherever a command starts.

The project folder is the nearest folder with a `dagster.yaml`, from the current one upwards, else
the checkout that this package is imported from, else `DAGSTER_HOME`. Relative paths in a `.env`
start at its folder, and the default of `TAXI_HOME` at the project folder. `TAXI_ENV_FILE` names
another file in place of both, or `none`.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from taxi_assets.errors import SettingsError
from taxi_assets.redaction import quote_redacted, redact_value

ENV_FILE = "TAXI_ENV_FILE"
NO_FILE = "none"
DAGSTER_HOME = "DAGSTER_HOME"
PROJECT_MARKER = "dagster.yaml"
HOME = ("TAXI_HOME", ".taxi")
PATHS = ("TAXI_HOME", "TAXI_LAKE", "TAXI_SOURCE", "TAXI_ZONES", "GOOGLE_APPLICATION_CREDENTIALS")
STACK_VARIABLES = (
    *("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_DBNAME", "POSTGRES_USER", "POSTGRES_PASSWORD"),
    *("POSTGRES_READER_USER", "POSTGRES_READER_PASSWORD", "BIGQUERY_ENDPOINT", "BIGQUERY_TOKEN"),
)
"""Addresses of the embedded stack, which `taxi-assets local env` exports for clients."""
STACK_MARKER = "TAXI_STACK_MARKER"
"""Exported with them: their hash."""
UNUSABLE = re.compile(r"[*?\[]")
# A path that is not absolute, below a home folder, a URL or a variable, and that cannot contain a
# password.
RELATIVE = re.compile(r"(?!sample$|\$[A-Za-z_])[^/~:@][^:@]*")


@dataclass(frozen=True)
class EnvFile:
    """The project folder, and the files that were read into this process's environment."""

    project: Path
    files: tuple[Path, ...] = ()
    overridden: tuple[str, ...] = ()
    """Exported variables that the current folder's `.env` overrides."""


def read_environment() -> Mapping[str, str]:
    """Return this process's environment, merged with `.env` on the first call.

    The unchanged output of `taxi-assets local env` is left out: it is for clients, and names
    servers that may have stopped since. The package finds its stack by the folder, and starts it.

    Raises:
        SettingsError: the file in `TAXI_ENV_FILE` does not exist or cannot be read.
    """
    read_env_file()
    marker = os.environ.get(STACK_MARKER)
    if marker and marker == hash_stack_variables(os.environ):
        return {name: os.environ[name] for name in os.environ if name not in STACK_VARIABLES}
    return os.environ


def hash_stack_variables(env: Mapping[str, str]) -> str:
    """Return a hash of the addresses of the embedded stack in an environment."""
    values = "\0".join(env.get(name, "") for name in STACK_VARIABLES)
    return hashlib.sha256(values.encode(errors="surrogateescape")).hexdigest()[:16]


@cache
def read_env_file() -> EnvFile:
    """Read `.env` into this process's environment, once; child processes inherit the result."""
    chosen = os.environ.get(ENV_FILE)
    if chosen == NO_FILE:
        return EnvFile(_find_current_folder())
    if chosen:
        file = Path(chosen).expanduser().absolute()
        if not file.is_file():
            raise SettingsError(
                f"{ENV_FILE}={quote_redacted(chosen)}: this file does not exist; write {NO_FILE} "
                "to read no file"
            )
        env_file = EnvFile(file.parent, (file,))
        _set_missing_variables(file)
    else:
        env_file = _read_from_folders(_find_current_folder(), find_project_folder())
    name, default = HOME
    if not os.environ.get(name):
        os.environ[name] = str(env_file.project / default)
    check_dagster_folders(os.environ.get(DAGSTER_HOME, ""))
    # Child processes inherit these values; a file that changes meanwhile must not be mixed in.
    os.environ[ENV_FILE] = NO_FILE
    return env_file


def check_dagster_folders(home: str) -> None:
    """Reject a DAGSTER_HOME, or a place of Dagster itself, that Dagster cannot use.

    It searches `dagster.yaml` by a pattern, opens SQLite by a URL, and reads its own folder from a
    file of settings with placeholders.

    Raises:
        SettingsError: a path has a character that Dagster does not escape.
    """
    if UNUSABLE.search(home):
        raise SettingsError(
            f"{DAGSTER_HOME}={redact_value(home)}: Dagster does not find its files below a folder "
            "with *, ? or [ in its name: choose another one"
        )
    package = find_spec("dagster")
    if package and "%" in str(package.origin):
        raise SettingsError(
            f"Dagster does not work below a folder with % in its name ({package.origin}): install "
            "the package in another folder"
        )


def find_project_folder() -> Path:
    """Return the folder whose `.env` and `.taxi` every command uses."""
    current = _find_current_folder()
    checkout = Path(__file__).resolve().parents[2]
    candidates = [current, *current.parents, checkout]
    if os.environ.get(DAGSTER_HOME):
        candidates.append(Path(os.environ[DAGSTER_HOME]).expanduser().absolute())
    return next((folder for folder in candidates if (folder / PROJECT_MARKER).is_file()), current)


def parse_env_text(file: Path) -> dict[str, str]:
    """Return a file's variables as Dagster reads them, with relative paths made absolute.

    Raises:
        SettingsError: the file cannot be read, or a line of it is not NAME=value. Dagster skips
            such a line, with the setting in it.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        for binding in parse_stream(io.StringIO(text)):
            if binding.error:
                raise SettingsError(
                    f"cannot read {redact_value(str(file))}: line {binding.original.line} is not "
                    "NAME=value, or a quote is not closed"
                )
        variables = dotenv_values(stream=io.StringIO(text))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"cannot read {redact_value(str(file))}: {reason}") from None
    values = {name: value for name, value in variables.items() if value is not None}
    if any("\0" in text for pair in values.items() for text in pair):
        raise SettingsError(f"cannot read {redact_value(str(file))}: it contains a NUL byte")
    for name in PATHS:
        if RELATIVE.fullmatch(values.get(name, "")):
            values[name] = str(file.parent / values[name])
    return values


def _read_from_folders(current: Path, project: Path) -> EnvFile:
    files = list(dict.fromkeys(folder / ".env" for folder in (current, project)))
    files = [file for file in files if file.is_file()]
    overridden: list[str] = []
    if files and files[0].parent == current:
        values = parse_env_text(files[0])
        overridden = [name for name in values if os.environ.get(name, values[name]) != values[name]]
        os.environ.update(values)
    for file in files:
        _set_missing_variables(file)
    return EnvFile(project, tuple(files), tuple(overridden))


def _set_missing_variables(file: Path) -> None:
    """Set a file's variables that are not in the environment, except `DAGSTER_HOME`.

    Dagster has already chosen its folder by now, and a run must not have two.
    """
    for name, value in parse_env_text(file).items():
        if name != DAGSTER_HOME and not os.environ.get(name):
            os.environ[name] = value


def _find_current_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # The working directory no longer exists.
        return Path("/")
