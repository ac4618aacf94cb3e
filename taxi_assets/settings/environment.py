"""The environment that settings are read from: the process's own, with the project's `.env` in it.

Dagster's commands read `.env` from the current folder and let it override the environment. Every
other entry point reads the same through `environment()`, so a value does not depend on the command:

1. `.env` of the current folder overrides the environment, as it does for Dagster's commands;
2. the environment;
3. `.env` of the project completes it, from whichever folder a command starts.

The project is the nearest folder from the current one upwards that has a `dagster.yaml`, else the
checkout that this package is imported from, else `DAGSTER_HOME`. Relative paths of a `.env` start
at its folder, and the default of `TAXI_HOME` at the project's. `TAXI_ENV_FILE` names another file
in place of both, or `none`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from taxi_assets.errors import SettingsError
from taxi_assets.redaction import quote_redacted, redact_value

ENV_FILE = "TAXI_ENV_FILE"
NONE = "none"
DAGSTER_HOME = "DAGSTER_HOME"
MARK = "dagster.yaml"
HOME = ("TAXI_HOME", ".taxi")
PATHS = ("TAXI_HOME", "TAXI_LAKE", "TAXI_SOURCE", "TAXI_ZONES", "GOOGLE_APPLICATION_CREDENTIALS")
# Neither absolute, of a home folder, a URL, nor what may hold a password.
RELATIVE = re.compile(r"(?!sample$)[^/~:@][^:@]*")


@dataclass(frozen=True)
class EnvFile:
    """What was read into this process's environment."""

    project: Path
    files: tuple[Path, ...] = ()
    overridden: tuple[str, ...] = ()
    """Variables whose exported value gave way to the current folder's `.env`."""


def read_environment() -> Mapping[str, str]:
    """Return this process's environment, completed by `.env` at the first call.

    Raises:
        SettingsError: the file that `TAXI_ENV_FILE` names does not exist, or cannot be read.
    """
    read_env_file()
    return os.environ


@cache
def read_env_file() -> EnvFile:
    """Read `.env` into this process's environment, once; the processes it starts inherit that."""
    chosen = os.environ.get(ENV_FILE)
    if chosen == NONE:
        return EnvFile(_find_current_folder())
    if chosen:
        file = Path(chosen).expanduser().absolute()
        if not file.is_file():
            raise SettingsError(
                f"{ENV_FILE}={quote_redacted(chosen)}: there is no such file; write {NONE} for none"
            )
        read = EnvFile(file.parent, (file,))
        _resolve_paths(file)
    else:
        read = _read_from_folders(_find_current_folder(), find_project_folder())
    name, default = HOME
    if not os.environ.get(name):
        os.environ[name] = str(read.project / default)
    # What was read is handed on in the environment; a file that changes meanwhile is not mixed in.
    os.environ[ENV_FILE] = NONE
    return read


def find_project_folder() -> Path:
    """Return the folder whose `.env` and `.taxi` every command uses."""
    here = _find_current_folder()
    checkout = Path(__file__).resolve().parents[2]
    candidates = [here, *here.parents, checkout]
    if os.environ.get(DAGSTER_HOME):
        candidates.append(Path(os.environ[DAGSTER_HOME]).expanduser().absolute())
    return next((folder for folder in candidates if (folder / MARK).is_file()), here)


def parse_env_text(file: Path) -> dict[str, str]:
    """Return a file's variables as Dagster reads them, with its relative paths made absolute.

    Raises:
        SettingsError: it cannot be read.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - only where there is such a file

    try:
        found = dotenv_values(file)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"cannot read {redact_value(str(file))}: {why}") from None
    values = {name: value for name, value in found.items() if value is not None}
    if any("\0" in text for pair in values.items() for text in pair):
        raise SettingsError(f"cannot read {redact_value(str(file))}: it holds a NUL byte")
    for name in PATHS:
        if RELATIVE.fullmatch(values.get(name, "")):
            values[name] = str(file.parent / values[name])
    return values


def _read_from_folders(here: Path, project: Path) -> EnvFile:
    files = list(dict.fromkeys(folder / ".env" for folder in (here, project)))
    files = [file for file in files if file.is_file()]
    overridden: list[str] = []
    if files and files[0].parent == here:
        values = parse_env_text(files[0])
        overridden = [name for name in values if os.environ.get(name, values[name]) != values[name]]
        os.environ.update(values)
    for file in files:
        _resolve_paths(file)
    return EnvFile(project, tuple(files), tuple(overridden))


def _resolve_paths(file: Path) -> None:
    """Set what is not set; but Dagster has chosen its folder by now, and one run has one."""
    for name, value in parse_env_text(file).items():
        if name != DAGSTER_HOME and not os.environ.get(name):
            os.environ[name] = value


def _find_current_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:  # It was removed under this process.
        return Path("/")
