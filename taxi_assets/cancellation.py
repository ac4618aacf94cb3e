"""Lets one request end a run, whatever retries its step has left.

Dagster 1.13 counts an interrupt as a failure that the step's retry policy covers: SIGINT, SIGTERM
or the UI's terminate merely start the step again, up to three times. Between two steps it keeps an
interrupt and ends the run at the next one. An interrupt inside a step is kept here in the same
place, `dagster._utils.interrupts._received_interrupt`, the only private name that is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dagster as dg


@contextmanager
def ending_the_run() -> Iterator[None]:
    """Have an interrupt inside the block end the run and not only this attempt of its step."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        # Without the name the run goes on as Dagster's own does: a second request ends it.
        with suppress(ImportError):
            from dagster._utils.interrupts import _received_interrupt  # noqa: PLC0415

            _received_interrupt["received"] = True
        raise
