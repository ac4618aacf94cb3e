"""End a run at the first request, even if its step has retries left.

Dagster 1.13 treats an interrupt as a failure that the step's retry policy covers: SIGINT, SIGTERM
or the UI's terminate only start the step again, as often as the policy allows. Between two steps it
records an interrupt and ends the run. This module records an interrupt inside a step in the same
place. If a newer Dagster has no such place, the run behaves as Dagster's own, with a warning.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from taxi_assets.dagster_internals.private_names import RECEIVED_INTERRUPT


@contextmanager
def interrupt_on_cancel() -> Iterator[None]:
    """Let an interrupt inside the block end the run instead of this attempt of its step."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        _record_interrupt()
        raise


def _record_interrupt() -> None:
    """Let Dagster end the run after this step, as after an interrupt between two steps."""
    received = RECEIVED_INTERRUPT.find()
    if isinstance(received, dict) and "received" in received:
        received["received"] = True
    elif received is not None:
        RECEIVED_INTERRUPT.warn()
