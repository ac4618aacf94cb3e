"""The values that assets and IO managers exchange: the days of a run, each computed on demand.

A run covers one day or a month; either way only a handful of days is in memory at once. Each stage
maps a function over the days of the previous stage. The store at the end pulls them in order, a
few ahead in threads (Arrow, zstd and Parquet release the GIL).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, TypeVar

from taxi_assets.errors import PartitionRejectedError, concerns_one_day, format_one_line

T = TypeVar("T")
U = TypeVar("U")

WORKERS = 2
MAX_AHEAD = 1
"""Results computed ahead: enough to keep the workers busy, few enough for the memory."""
END: Any = object()
"""Follows the last item of an iterator."""


def map_with_threads(function: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Map in threads and in order, holding at most `WORKERS + MAX_AHEAD` results."""
    pending: deque[Future[U]] = deque()
    with ThreadPoolExecutor(WORKERS, "days") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= WORKERS + MAX_AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def prefetch(items: Iterator[T], ahead: int = 3) -> Generator[T]:
    """Run an iterator in a thread, at most `ahead` items ahead of its consumer."""
    with ThreadPoolExecutor(1, "prefetch") as pool:
        try:
            pending = deque(pool.submit(next, items, END) for _ in range(ahead))
            while (item := pending.popleft().result()) is not END:
                pending.append(pool.submit(next, items, END))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass
class LazyPartitions(Generic[T]):
    """The days of a run and the function that computes each of them.

    `rejected` fills while the days are pulled; a day in it was not passed to the next stage.
    """

    days: Sequence[date]
    compute: Callable[[date], T]
    rejected: dict[date, PartitionRejectedError] = field(
        default_factory=dict[date, PartitionRejectedError]
    )

    def map_with_day(self, function: Callable[[date, T], U]) -> LazyPartitions[U]:
        """Return the same days with one more stage; both share `rejected`."""
        compute = self.compute
        return LazyPartitions(self.days, lambda day: function(day, compute(day)), self.rejected)

    def iterate_outcomes(self) -> Iterator[tuple[date, T | PartitionRejectedError]]:
        """Yield each day in order, with its value or the reason why it is rejected.

        Raises:
            Exception: an error that concerns every day, such as an unreachable store.
        """
        for day, outcome in zip(
            self.days, map_with_threads(self._compute_day, self.days), strict=True
        ):
            if isinstance(outcome, PartitionRejectedError):
                self.rejected[day] = outcome
            yield day, outcome

    def __iter__(self) -> Iterator[tuple[date, T]]:
        """Yield each day that is not rejected, in order; raise what `iterate_outcomes` raises."""
        for day, outcome in self.iterate_outcomes():
            if not isinstance(outcome, PartitionRejectedError):
                yield day, outcome

    def _compute_day(self, day: date) -> T | PartitionRejectedError:
        """Compute a day; an error that its rows caused rejects this day alone."""
        try:
            return self.compute(day)
        except Exception as error:
            if not concerns_one_day(error):
                raise
            return build_rejection(error)


def build_rejection(error: Exception) -> PartitionRejectedError:
    """Return the reason why a day is rejected, with the error that its rows caused as cause."""
    if isinstance(error, PartitionRejectedError):
        return error
    rejected = PartitionRejectedError(f"{type(error).__name__}: {format_one_line(error)}")
    rejected.__cause__ = error
    return rejected
