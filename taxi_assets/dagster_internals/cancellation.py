"""Lets one request end a run, whatever retries its step has left.

Dagster 1.13 counts an interrupt as a failure that the step's retry policy covers: SIGINT, SIGTERM
or the UI's terminate merely start the step again, as often as the policy allows. Between two steps
it keeps an interrupt and ends the run at the next one. An interrupt inside a step is kept here in
the same place. Where a newer Dagster has no such place, the run goes on as Dagster's own does, with
a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from taxi_assets.dagster_internals.private_names import RECEIVED_INTERRUPT


@contextmanager
def interrupt_on_cancel() -> Iterator[None]:
    """Have an interrupt inside the block end the run and not only this attempt of its step."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        _remember_interrupt()
        raise


def _remember_interrupt() -> None:
    """Have Dagster end the run at the end of this step, as it does with one between steps."""
    received = RECEIVED_INTERRUPT.find()
    if isinstance(received, dict) and "received" in received:
        received["received"] = True
    elif received is not None:
        RECEIVED_INTERRUPT.warn()
