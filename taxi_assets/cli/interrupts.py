"""Record whether a user stopped this process, even if a library handles the signal."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STOPPING = {signal.SIGINT, signal.SIGTERM}


@contextmanager
def record_interrupts() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C or SIGTERM was received within the block.

    Dagster handles the signals of a run itself: it ends the run, as failed or as cancelled, and
    raises nothing. SIGTERM ends a run as Ctrl-C does.
    """
    reading, writing = os.pipe()
    for end in (reading, writing):
        os.set_blocking(end, False)
    before = signal.set_wakeup_fd(writing)
    terminate = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    received = bytearray()

    def was_interrupted() -> bool:
        return bool(STOPPING.intersection(received))

    try:
        yield was_interrupted
    finally:
        signal.signal(signal.SIGTERM, terminate)
        signal.set_wakeup_fd(before)
        with suppress(BlockingIOError):
            received += os.read(reading, 1024)
        os.close(reading)
        os.close(writing)
