"""Lets one request end a run, whatever retries its step has left.

Dagster 1.13 counts an interrupt as a failure that the step's retry policy covers: SIGINT, SIGTERM
or the UI's terminate merely start the step again, as often as the policy allows. Between two steps
it keeps an interrupt and ends the run at the next one. An interrupt inside a step is kept here in
the same place, `dagster._utils.interrupts._received_interrupt`, the only private name that is used.
Where a newer Dagster has none, the run goes on as Dagster's own does, with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from dagster._utils import interrupts

PRIVATE = "_received_interrupt"


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
    kept = getattr(interrupts, PRIVATE, None)
    if isinstance(kept, dict) and "received" in kept:
        kept["received"] = True
        return
    warnings.warn(
        f"this Dagster has no {interrupts.__name__}.{PRIVATE}: a step that is interrupted is tried "
        "again as its retry policy says; ask for the end of the run again",
        RuntimeWarning,
        stacklevel=3,
    )
