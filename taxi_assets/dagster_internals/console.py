"""The console of a run and of the daemon: expected errors take one line, without Dagster's frames.

Dagster's event log, and so the UI, has every error with its stack. Without `TaxiInstance` the
console has it, too.
"""

from __future__ import annotations

import logging
from typing import Any

import dagster as dg

from taxi_assets.errors import TerminalError

OURS = "taxi_assets."
"""Prefix of the errors of this package, in Dagster's text of an error."""
DAGSTERS = ("dagster.", "Exceeded max_retries")
"""Prefixes of Dagster's errors, which wrap the cause of a failed step."""
FAILURE = "Failure"
"""Name of `dg.Failure`, whose description is the cause."""
INTERRUPT = dg.DagsterExecutionInterruptedError.__name__
FIRST_START = "No cursor for event type"


class ExpectedErrors(logging.Handler):
    """Removes the stack of expected errors from the text that Dagster's loggers print next.

    An error of a library or a bug keeps its stack.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)

    def emit(self, record: logging.LogRecord) -> None:
        """Replace the error below an event's first line by its message."""
        event = getattr(record, "dagster_event", None)
        error = getattr(getattr(event, "event_specific_data", None), "error", None)
        message = find_expected_message(error)
        if message is not None:
            record.msg = f"{str(record.msg).partition(chr(10))[0]} {message}".rstrip()


def find_expected_message(error: Any) -> str | None:
    """Return the message of the error below Dagster's own if it is expected; None if not.

    An error of this package is expected, a failure that has no cause but such an error, and an
    interrupt, whose message Dagster has already in the event's first line. A bug is not, even if it
    appeared while an expected error was handled.
    """
    while error is not None:
        cause = error.cause or error.context
        name, _, message = error.message.strip().partition(": ")
        is_ours = cause is None or cause.message.startswith(OURS)
        if name.startswith(OURS) or (error.cls_name == FAILURE and is_ours):
            return str(message)
        if error.cls_name == INTERRUPT:
            return ""
        error = cause if name.startswith(DAGSTERS) else None
    return None


def hide_first_start(record: logging.LogRecord) -> bool:
    """Return whether a line of the daemon is more than the note that its first start is the first.

    Dagster warns that it does not retry the failed runs of before.
    """
    return not record.getMessage().startswith(FIRST_START)


def hide_event_without_run(record: logging.LogRecord) -> bool:
    """Return whether OpenLineage's package failed on more than an event that belongs to no run.

    The version of a month's file is an observation, which the package sends, and such an event.
    """
    return "UUID" not in str((record.exc_info or ("", ""))[1])


def shorten_load_error(record: logging.LogRecord) -> bool:
    """Keep a line of the code server, without the stack of an expected error.

    `dg dev` logs an error of Dagster's own type, other servers log the exception.
    """
    logged: Any = record.msg
    if hasattr(logged, "cls_name"):
        record.msg = find_expected_message(logged) or logged
    error = record.exc_info[1] if record.exc_info else None
    while error is not None and not isinstance(error, TerminalError):
        error = error.__cause__
    if error is not None:
        record.msg, record.exc_info = f"{record.msg}: {error}", None
    return True


def filter_logs() -> None:
    """Hide the warnings upon which nobody can act, and the stacks of expected errors."""
    logging.getLogger("dagster.code_server").addFilter(shorten_load_error)
    logging.getLogger("dagster.daemon.EventLogConsumerDaemon").addFilter(hide_first_start)
    logging.getLogger("dagster_openlineage.storage").addFilter(hide_event_without_run)
