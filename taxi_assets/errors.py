"""Errors, terminal and transient, and the one line in which each is shown.

A terminal error stops a step at once: a retry without a change gives the same result. Transient
errors of servers (time-outs, 429, 5xx, lost connections) are left to the retry policy. A bug in
this code is terminal.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from taxi_assets.redaction import redact_text


class TerminalError(Exception):
    """Trying again will not help. The message is one line: what, where, found, remedy."""


class SettingsError(TerminalError, click.ClickException):
    """An environment variable is missing or wrong.

    Dagster's commands import the definitions inside of click, which prints its own exceptions as
    one line and any other with a hundred lines of traceback.
    """


class SourceError(TerminalError):
    """A month file is not there, not whole, or not what it should be."""


class PartitionRejectedError(TerminalError):
    """One day's rows must not land; its neighbours may."""


class PartitionNotStoredError(PartitionRejectedError):
    """A day that the stage before has not stored: nothing is known against its rows."""


class StoreError(TerminalError):
    """A store refuses for a reason that waiting does not change (a type, a permission)."""


# Modules of the libraries that speak to servers, whose errors may pass; Dagster's storage is one.
SERVERS = (
    *("psycopg", "google", "requests", "urllib3"),
    *("dagster_postgres", "psycopg2", "sqlalchemy"),
)
# Among those: the statement or the request itself is wrong.
WRONG = (
    *("ProgrammingError", "IntegrityError", "DataError", "BadRequest"),
    *("Unauthorized", "Forbidden", "NotFound"),
)
# pyarrow gives what Google's C++ client says of GCS as an OSError, with words for its kind.
GCS, GCS_WRONG = "google::cloud::Status(", "Permanent error"
# EFBIG is a limit on the size of files (ulimit -f).
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_FULL = "53100"
"""PostgreSQL's SQLSTATE."""


class UnavailableError(Exception):
    """A server could not be reached or did not answer in time; it may later."""


def is_transient(error: BaseException) -> bool:
    """Return whether the error is transient."""
    kind = type(error)
    if isinstance(error, UnavailableError | ConnectionError | TimeoutError):
        return True
    wrong = any(base.__name__ in WRONG for base in kind.__mro__)
    if isinstance(error, TerminalError) or wrong or getattr(error, "sqlstate", None) == DISK_FULL:
        return False
    if kind.__module__ == "google.auth.exceptions" and kind.__name__ != "TransportError":
        return bool(getattr(error, "retryable", False))
    if isinstance(error, OSError) and GCS in str(error):
        return GCS_WRONG not in str(error) or _is_lost_upload(error)
    return kind.__module__.split(".")[0] in SERVERS or "Unavailable" in kind.__name__


def concerns_one_day(error: Exception) -> bool:
    """Return whether an error over one day's rows may be caused by them.

    What a server, a disk, a permission or a setting causes concerns every day of the run; a
    server's DataError is about a value, its IntegrityError about a row that a person's own
    constraint forbids.
    """
    if any(base.__name__ in ("DataError", "IntegrityError") for base in type(error).__mro__):
        return True
    elsewhere = isinstance(error, OSError | SettingsError | SourceError | StoreError)
    server = type(error).__module__.split(".")[0] in SERVERS
    return not (elsewhere or server or is_transient(error))


def _is_lost_upload(error: OSError) -> bool:
    """Return whether GCS has lost an upload in progress, which must start again."""
    return isinstance(error, FileNotFoundError) and "function=UploadChunk" in str(error)


def format_one_line(said: object) -> str:
    """Return an error's message without line breaks and secrets, as a log or an alert shows it."""
    return redact_text(" ".join(str(said).split()))


@contextmanager
def explain_full_disk(folder: Path, setting: str = "TAXI_HOME") -> Iterator[None]:
    """Say what to do when what is written under `folder` finds no room.

    Raises:
        StoreError: the disk, a quota or a limit on the size of files is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StoreError(
            f"no room in {folder} ({error.strerror}): free some, or set {setting} to a folder with "
            "more, then run again; what is stored is whole"
        ) from error


REMEDIES = {
    DISK_FULL: "free some room where Postgres keeps its data",
    "PermissionError": "give this account Storage Object Admin on the bucket",
    "FileNotFoundError": "make the bucket, or check GCS_BUCKET and TAXI_LAKE",
    **dict.fromkeys(
        ("Unauthorized", "RefreshError", "InvalidOperation"),
        "check GOOGLE_APPLICATION_CREDENTIALS, or BIGQUERY_TOKEN for an emulator",
    ),
    "Forbidden": "give this account BigQuery Data Editor and Job User on GCP_PROJECT",
}
"""By SQLSTATE, or by the name of an error of Google's."""


def find_remedy(error: BaseException) -> str:
    """Return the fix for a server's error; empty if none is known."""
    if is_transient(error) or (isinstance(error, OSError) and GCS not in str(error)):
        return ""
    found = REMEDIES.get(getattr(error, "sqlstate", None) or type(error).__name__, "")
    return f"; {found}, then run again" if found else ""
