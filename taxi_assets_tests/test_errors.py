"""Which errors are retried, on the exceptions that the libraries raise."""

from __future__ import annotations

import errno
from datetime import date
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import requests
import sqlalchemy as sa
from dagster_postgres.utils import DagsterPostgresException
from google.api_core import exceptions as google
from google.auth import exceptions as auth

from taxi_assets.defs.io_managers.base import name_asset_in_errors
from taxi_assets.errors import (
    PartitionRejectedError,
    StoreError,
    UnavailableError,
    escape_markdown,
    explain_full_disk,
    find_remedy,
    is_transient,
)

GCS = "google::cloud::Status({}: {}, with a last message of something)"


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("down"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(),
        google.ServiceUnavailable("503"),
        google.TooManyRequests("429"),
        google.InternalServerError("500"),
        google.RetryError("Timeout of 600.0s exceeded", None),
        DagsterPostgresException("too many retries for DB connection"),
        sa.exc.OperationalError("INSERT", None, Exception("database is locked")),
        psycopg.OperationalError("server closed the connection unexpectedly"),
        psycopg.errors.AdminShutdown("terminating connection"),
        psycopg.errors.DeadlockDetected("deadlock detected"),
        requests.exceptions.ReadTimeout(),
        auth.TransportError("no answer"),
        auth.RefreshError("later", retryable=True),
        OSError(GCS.format("UNAVAILABLE", "Retry policy exhausted")),
        FileNotFoundError(
            errno.ENOENT, GCS.format("NOT_FOUND", "Permanent error, function=UploadChunk")
        ),
    ],
    ids=repr,
)
def test_transient_errors_are_retried(error: Exception) -> None:
    assert is_transient(error)
    assert find_remedy(error) == ""


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (StoreError("a type"), ""),
        (PartitionRejectedError("a check"), ""),
        (ValueError("a bug"), ""),
        (PermissionError(errno.EACCES, "a local file"), ""),
        (psycopg.errors.UndefinedTable("no table"), ""),
        (psycopg.errors.NotNullViolation("a null"), ""),
        (google.BadRequest("400"), ""),
        (google.Forbidden("403"), "BigQuery Data Editor"),
        (google.Unauthorized("401"), "GOOGLE_APPLICATION_CREDENTIALS"),
        (auth.RefreshError("invalid_grant"), "GOOGLE_APPLICATION_CREDENTIALS"),
        (OSError(GCS.format("FAILED_PRECONDITION", "Permanent error")), ""),
        (
            PermissionError(errno.EACCES, GCS.format("PERMISSION_DENIED", "Permanent error")),
            "Storage Object Admin",
        ),
        (
            FileNotFoundError(errno.ENOENT, GCS.format("NOT_FOUND", "Permanent error")),
            "check GCS_BUCKET",
        ),
    ],
    ids=repr,
)
def test_terminal_errors_are_not_retried_and_name_a_fix(error: Exception, remedy: str) -> None:
    assert not is_transient(error)
    assert remedy in find_remedy(error)
    assert bool(remedy) == bool(find_remedy(error))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_reported_with_its_fix(number: int) -> None:
    message = r"no space left in /srv/taxi \(full\): free some, or set TAXI_HOME"
    with pytest.raises(StoreError, match=message), explain_full_disk(Path("/srv/taxi")):
        raise OSError(number, "full")


def test_other_disk_errors_are_not_changed() -> None:
    with pytest.raises(PermissionError), explain_full_disk(Path("/srv/taxi")):
        raise PermissionError(errno.EACCES, "not yours")


def test_a_server_error_becomes_one_line_with_asset_and_days() -> None:
    message = psycopg.OperationalError("could not extend file:\n  no space\nHINT:  Free some.\n")
    days = [date(2021, 1, 5), date(2021, 1, 6)]
    with (
        pytest.raises(dg.Failure) as caught,
        name_asset_in_errors(dg.AssetKey(["green", "raw_trips"]), days),
    ):
        raise message
    assert caught.value.description == (
        "green/raw_trips 2021-01-05 to 2021-01-06: OperationalError: could not extend file:"
        " no space HINT: Free some."
    )
    assert caught.value.allow_retries


def test_markdown_is_shown_as_written() -> None:
    assert escape_markdown("fare_amount='|*<b>`[x]'") == r"fare_amount='\|\*\<b>\`\[x\]'"
    usual = "74 of 78 rows (95%) have a value; postgres_trips: $1,647.53, TAXI_MAX_INVALID_RATIO"
    assert escape_markdown(usual) == usual
