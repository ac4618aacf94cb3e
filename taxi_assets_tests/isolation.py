"""Isolate the tests from the settings, files, credentials and services of their user.

The tests' processes inherit only the few variables in `INHERITED`, and have a separate `HOME` and
working directory. Dagster's commands read `.env` from the working directory and let it override the
environment, so none may be started in the checkout. The package's own reader of `.env` is off; a
process with an environment from scratch must have `TAXI_ENV_FILE=none` in it, too.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]

INHERITED = frozenset(
    # Needed to run and to print.
    ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "USER", "LOGNAME", "LANG", "LANGUAGE", "TERM")
    + ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI")
    # Switches of the tests themselves.
    + ("KILLS", "PAIRS", "SCREENSHOTS")
)
INHERITED_PREFIXES = ("LC_", "PYTEST_", "COV_")
# Files by which Dagster and our commands recognise a folder as this project.
PROJECT_FILES = ("pyproject.toml", "workspace.yaml", "dagster.yaml")


class _Isolation:
    """The working directory of this process, and its original environment."""

    def __init__(self) -> None:
        self.user_environment: Mapping[str, str] = {}
        self.environment: Mapping[str, str] = {}
        """The environment of the tests, before a fixture of the session sets anything."""
        self.folder = Path()
        self.guarded = False

    def begin(self) -> None:
        """Replace the user's environment, before modules that read settings are imported."""
        self.user_environment = dict(os.environ)
        self.folder = Path(tempfile.mkdtemp(prefix="taxi-tests-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o755)
        os.environ.clear()
        os.environ.update(
            {
                name: value
                for name, value in self.user_environment.items()
                if name in INHERITED or name.startswith(INHERITED_PREFIXES)
            }
        )
        (self.folder / "home").mkdir()
        os.environ["HOME"] = str(self.folder / "home")
        # Servers that a test kills leave their temporary folders. This process keeps its own.
        (self.folder / "tmp").mkdir()
        (self.folder / "tmp").chmod(0o1777)
        os.environ["TMPDIR"] = str(self.folder / "tmp")
        os.environ["TAXI_ENV_FILE"] = "none"
        # Processes import this checkout from any folder.
        os.environ["PYTHONPATH"] = str(REPOSITORY)
        self.environment = dict(os.environ)
        sys.addaudithook(self._guard)

    @contextmanager
    def change_directory(self) -> Iterator[Path]:
        """Work in a folder that has the project's files and no `.env`."""
        before = Path.cwd()
        folder = self.folder / "project"
        folder.mkdir()
        for name in PROJECT_FILES:
            shutil.copy(REPOSITORY / name, folder)
        os.chdir(folder)
        self.guarded = True
        try:
            yield folder
        finally:
            self.guarded = False
            os.chdir(before)

    def _guard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and self.guarded:
            folder = Path(arguments[2] or ".").resolve()
            if folder == REPOSITORY:
                raise RuntimeError(
                    f"{arguments[1]} would start in {folder}, where it can read the .env of the "
                    "person who runs the tests: start it in a folder of the test's own"
                )


isolation = _Isolation()
