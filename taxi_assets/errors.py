"""Terminal and transient errors, and their one-line form for logs and alerts.

A terminal error stops a step at once: a retry without a change gives the same result. The retry
policy handles transient errors of servers (timeouts, 429, 5xx, lost connections). A bug in this
code is terminal.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from taxi_assets.redaction import redact_text


class TerminalError(Exception):
    """A retry cannot succeed. The message is one line: place, value found, value expected, fix."""


class SettingsError(TerminalError, click.ClickException):
    """An environment variable is missing or wrong.

    Dagster's commands import the definitions inside click, which prints its own exceptions as one
    line and any other exception with a hundred lines of traceback.
    """


class SourceError(TerminalError):
    """A month file is missing, incomplete or in an unexpected format."""


class PartitionRejectedError(TerminalError):
    """One day's rows must not be stored; other days are not affected."""


class PartitionNotStoredError(PartitionRejectedError):
    """The upstream asset has not stored this day; its rows may be valid."""


class StoreError(TerminalError):
    """A store rejects a call for a reason that waiting does not change (a type, a permission)."""


# Client libraries of servers, whose errors are transient by default; Dagster's storage is one.
CLIENT_LIBRARIES = (
    *("psycopg", "google", "requests", "urllib3"),
    *("dagster_postgres", "psycopg2", "sqlalchemy"),
)
# Their terminal errors: the statement or the request itself is wrong.
TERMINAL_ERROR_NAMES = (
    *("ProgrammingError", "IntegrityError", "DataError", "BadRequest"),
    *("Unauthorized", "Forbidden", "NotFound"),
)
# pyarrow raises errors of Google's C++ client for GCS as OSError, with the kind in its text.
GCS_STATUS, GCS_TERMINAL = "google::cloud::Status(", "Permanent error"
# EFBIG is a limit on the size of files (ulimit -f).
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
POSTGRES_DISK_FULL = "53100"
"""PostgreSQL's SQLSTATE."""


MAX_LISTED = 5
"""Number of items of a list before `and 12 more`."""


class UnavailableError(Exception):
    """A server could not be reached or did not answer in time. Transient."""


def is_transient(error: BaseException) -> bool:
    """Return whether the error is transient."""
    kind = type(error)
    if isinstance(error, UnavailableError | ConnectionError | TimeoutError):
        return True
    if isinstance(error, TerminalError) or getattr(error, "sqlstate", None) == POSTGRES_DISK_FULL:
        return False
    if any(base.__name__ in TERMINAL_ERROR_NAMES for base in kind.__mro__):
        return False
    if kind.__module__ == "google.auth.exceptions" and kind.__name__ != "TransportError":
        return bool(getattr(error, "retryable", False))
    if isinstance(error, OSError) and GCS_STATUS in str(error):
        return GCS_TERMINAL not in str(error) or _is_lost_upload(error)
    return kind.__module__.split(".")[0] in CLIENT_LIBRARIES or "Unavailable" in kind.__name__


def concerns_one_day(error: Exception) -> bool:
    """Return whether one day's rows may have caused an error, so that only that day is rejected.

    An error of a server, a disk, a permission or a setting concerns every day of the run. The
    exceptions are a server's DataError, which is about a value, and its IntegrityError, which is
    about a row that violates a constraint of the user's own.
    """
    if any(base.__name__ in ("DataError", "IntegrityError") for base in type(error).__mro__):
        return True
    concerns_run = isinstance(error, OSError | SettingsError | SourceError | StoreError)
    from_server = type(error).__module__.split(".")[0] in CLIENT_LIBRARIES
    return not (concerns_run or from_server or is_transient(error))


def _is_lost_upload(error: OSError) -> bool:
    """Return whether GCS has lost an upload in progress, which must start again."""
    return isinstance(error, FileNotFoundError) and "function=UploadChunk" in str(error)


def format_one_line(message: object) -> str:
    """Return a message without line breaks and secrets, for a log or an alert."""
    return redact_text(" ".join(str(message).split()))


def escape_markdown(text: str) -> str:
    """Return a text that Dagster's UI, which renders descriptions as Markdown, shows unchanged."""
    return re.sub(r"([\\`*<\[\]~|]|(?<!\w)_|_(?!\w))", r"\\\1", text)


def format_list(items: Sequence[object], separator: str = ", ") -> str:
    """Format the first few items of a list and the number of the others."""
    text = separator.join(map(str, items[:MAX_LISTED]))
    return f"{text} and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else text


def format_count(number: int, noun: str) -> str:
    """Format a number of things: `1 day`, `1,440 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextmanager
def explain_full_disk(folder: Path, setting: str = "TAXI_HOME") -> Iterator[None]:
    """Replace the error of a full disk under `folder` by one that names the fix.

    Raises:
        StoreError: the disk or a quota is full, or a file exceeds the limit on file sizes.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK_ERRORS:
            raise
        raise StoreError(
            f"no space left in {folder} ({error.strerror}): free some, or set {setting} to a "
            "folder with more space, then run again; stored data is intact"
        ) from error


REMEDIES = {
    POSTGRES_DISK_FULL: "free some space on the disk of Postgres",
    "PermissionError": "give this account Storage Object Admin on the bucket",
    "FileNotFoundError": "create the bucket, or check GCS_BUCKET and TAXI_LAKE",
    **dict.fromkeys(
        ("Unauthorized", "RefreshError", "InvalidOperation"),
        "check GOOGLE_APPLICATION_CREDENTIALS, or BIGQUERY_TOKEN for an emulator",
    ),
    "Forbidden": "give this account BigQuery Data Editor and Job User on GCP_PROJECT",
}
"""By SQLSTATE, or by the class name of Google's error."""


def find_remedy(error: BaseException) -> str:
    """Return the fix for a server's error; empty if none is known."""
    if is_transient(error) or (isinstance(error, OSError) and GCS_STATUS not in str(error)):
        return ""
    remedy = REMEDIES.get(getattr(error, "sqlstate", None) or type(error).__name__, "")
    return f"; {remedy}, then run again" if remedy else ""
