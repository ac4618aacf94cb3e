"""What assets and IO managers exchange: a window's days, each computed when it is asked for.

A run covers one day or a month; either way at most a handful of days is in memory at once. A
stage maps a function over the days of the stage before; the store at the end pulls them through,
in order, a few ahead in threads (Arrow, zstd and Parquet release the GIL).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Generic, TypeVar

from taxi_assets.errors import PartitionRejectedError, concerns_one_day, format_one_line

T = TypeVar("T")
U = TypeVar("U")

WORKERS = 2
AHEAD = 2
"""Items computed beyond the one in hand: enough to keep the workers busy, few enough to hold."""


def map_with_threads(function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Map in threads and in order, holding at most `WORKERS + AHEAD` results."""
    pending: deque[Future[U]] = deque()
    with ThreadPoolExecutor(WORKERS, "days") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= WORKERS + AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@dataclass
class LazyPartitions(Generic[T]):
    """The days of a run and how to compute each; days that must not land are quarantined.

    `refused` fills while the days are pulled: what is in it afterwards was not handed on.
    """

    days: Sequence[date]
    compute: Callable[[date], T]
    refused: dict[date, PartitionRejectedError] = field(
        default_factory=dict[date, PartitionRejectedError]
    )

    def map_with_day(self, function: Callable[[date, T], U]) -> LazyPartitions[U]:
        """Return the same days after one more stage; they share `refused`."""
        compute = self.compute
        return LazyPartitions(self.days, lambda day: function(day, compute(day)), self.refused)

    def iterate_outcomes(self) -> Iterator[tuple[date, T | PartitionRejectedError]]:
        """Yield each day in order, with what was computed or the reason why it is rejected.

        Raises:
            Exception: what concerns every day, such as a store that is down or a full disk.
        """
        for day, outcome in zip(
            self.days, map_with_threads(self._compute_day, self.days), strict=True
        ):
            if isinstance(outcome, PartitionRejectedError):
                self.refused[day] = outcome
            yield day, outcome

    def __iter__(self) -> Iterator[tuple[date, T]]:
        """Yield each day that was not rejected, in order; raises what `outcomes` does."""
        for day, outcome in self.iterate_outcomes():
            if not isinstance(outcome, PartitionRejectedError):
                yield day, outcome

    def _compute_day(self, day: date) -> T | PartitionRejectedError:
        """Compute a day; an error that comes from its rows rejects this day alone."""
        try:
            return self.compute(day)
        except Exception as error:
            if not concerns_one_day(error):
                raise
            return build_rejection(error)


def build_rejection(error: Exception) -> PartitionRejectedError:
    """Return the reason why a day is rejected, with the error over its rows as its cause."""
    if isinstance(error, PartitionRejectedError):
        return error
    rejected = PartitionRejectedError(f"{type(error).__name__}: {format_one_line(error)}")
    rejected.__cause__ = error
    return rejected
