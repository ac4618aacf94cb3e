"""A psycopg connection that limits the silence of a server and ends a cancelled run at once.

psycopg waits in one place, `Connection.wait`; this class limits that wait for every statement,
COPY and COMMIT. It limits silence, not time: a statement may run for hours while its server process
makes progress. TCP does not reveal progress, because the kernel acknowledges packets for a stopped
process, so a second connection samples the statistics of the process.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import pq, waiting

from taxi_assets.errors import UnavailableError
from taxi_assets.settings.addresses import LOOPBACK

RV = TypeVar("RV")

INTERVAL = 0.1
"""Seconds between two checks for a signal or for silence."""
CANCEL_SECONDS = 2.0
"""Time limit of the request that cancels a statement; the connection closes in any case."""
PROBE_CONNECT_SECONDS = 2
"""libpq's minimum."""
PROBE_SECONDS = 5.0
"""Silence limit of the second connection; a sample takes a millisecond."""

# Statistics that change while a server process works: its wait event and its progress in long
# commands, and those of its parallel workers and of the sessions that block it.
SAMPLE = """
WITH watched AS (
    SELECT pid FROM pg_stat_activity WHERE pid = %(pid)s OR leader_pid = %(pid)s
    UNION SELECT unnest(pg_blocking_pids(%(pid)s)))
SELECT concat_ws('; ',
    (SELECT string_agg(concat_ws(' ', pid, state, state_change, query_start, wait_event_type,
        wait_event, backend_xid, backend_xmin), ', ' ORDER BY pid)
     FROM pg_stat_activity WHERE pid IN (TABLE watched)),
    (SELECT string_agg(p::text, ',') FROM pg_stat_progress_copy p WHERE pid IN (TABLE watched)),
    (SELECT string_agg(p::text, ',') FROM pg_stat_progress_vacuum p WHERE pid IN (TABLE watched)),
    (SELECT string_agg(p::text, ',') FROM pg_stat_progress_cluster p WHERE pid IN (TABLE watched)),
    (SELECT string_agg(p::text, ',') FROM pg_stat_progress_analyze p WHERE pid IN (TABLE watched)),
    (SELECT string_agg(p::text, ',') FROM pg_stat_progress_create_index p
     WHERE pid IN (TABLE watched)))
"""
BLOCKERS = """
SELECT string_agg(format('pid %%s (%%s, user %%s, %%s since %%s)',
    pid, application_name, usename, state, state_change), ', ')
FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(%(pid)s))
"""


def override_user_variables(*, embedded: bool) -> dict[str, str]:
    """Return parameters that take precedence over the variables of the user's other clients.

    libpq reads PGHOSTADDR, PGSSLMODE, PGOPTIONS and others. PGHOSTADDR would send the password to
    another server than the configured one. The embedded server is connected with libpq's defaults.
    """
    defaults = {
        option.keyword.decode(): option.compiled.decode()
        for option in pq.Conninfo.get_defaults()
        if option.envvar and option.compiled is not None
    }
    return (defaults if embedded else {}) | {"hostaddr": ""}


class WatchedConnection(psycopg.Connection[Any]):
    """A connection that ends after `silence_limit` seconds of silence."""

    overrides: Mapping[str, str] = {}
    """Parameters of `override_user_variables`."""
    silence_limit: float = 120
    watches: bool = True
    """Whether a second connection probes a silent server before the connection ends."""
    _error: BaseException | None = None

    def wait(self, gen: Generator[Any, Any, RV], *args: Any, **options: Any) -> RV:
        """Run one operation.

        Raises:
            UnavailableError: the silence of the server exceeded the limit.
        """
        if self._error is not None:
            # The end of a COPY or a transaction must neither hide this error nor wait again.
            raise self._error
        if not args:
            options.setdefault("interval", INTERVAL)
        try:
            return waiting.wait(self._wait_limited(gen), self.pgconn.socket, *args, **options)
        except psycopg.Error:
            raise
        except BaseException as error:
            self._abandon_connection(error)
            raise

    def _wait_limited(self, gen: Generator[Any, Any, RV]) -> Generator[Any, Any, RV]:
        """Forward an operation, and measure the seconds since the last byte."""
        with closing(_Silence(self)) as silence:
            try:
                state = next(gen)
                while True:
                    ready = yield state
                    if ready:
                        silence.reset()
                    else:
                        silence.check()
                    state = gen.send(ready)
            except StopIteration as stop:
                return stop.value

    def _abandon_connection(self, error: BaseException) -> None:
        """Request the cancellation of the statement and close, without waiting."""
        self._error = error
        try:
            with suppress(Exception):
                self.cancel_safe(timeout=CANCEL_SECONDS)
        finally:
            self.pgconn.finish()


class _Silence:
    """The duration of the silence of a server in one operation."""

    def __init__(self, connection: WatchedConnection) -> None:
        self.connection = connection
        self.limit = connection.silence_limit
        self.interval = min(1.0, self.limit / 10)
        self.since = self.checked = time.monotonic()
        self.next_sample = self.since + min(5.0, self.limit / 4)
        self.sample: str | None = None
        self.probe: WatchedConnection | None = None

    def reset(self) -> None:
        """Restart the measurement: bytes were transferred."""
        self.since = self.checked = time.monotonic()

    def check(self) -> None:
        """Sample the server process if a sample is due; raise if the silence exceeds its limit.

        Time in which this process did not run, stopped or on a busy machine, is not silence.
        """
        now = time.monotonic()
        self.since += max(now - self.checked - 2 * INTERVAL, 0)
        overdue = now - self.since > self.limit
        if self.connection.watches and (overdue or now >= self.next_sample):
            sample = self._probe_server(SAMPLE)
            if sample:
                sample += _read_processor_time(self.connection)
            if sample and sample != self.sample:
                # A busy machine may allow few samples: one alone proves no standstill.
                self.since, self.sample, overdue = time.monotonic(), sample, False
            self.next_sample = time.monotonic() + self.interval
        if overdue:
            self._raise_silence()
        self.checked = time.monotonic()

    def close(self) -> None:
        """Close the second connection."""
        if self.probe is not None:
            self.probe.close()

    def _raise_silence(self) -> None:
        info = self.connection.info
        problem = "does not answer"
        if self.connection.watches and (self.sample or self._probe_server(SAMPLE)):
            blockers = self._probe_server(BLOCKERS)
            pid = info.backend_pid
            problem = f"answers, but its process {pid} makes no progress"
            if blockers:
                problem = f"makes process {pid} wait for a lock of {blockers}"
            # The process may hold locks: it ends as soon as it continues.
            self._probe_server("SELECT pg_terminate_backend(%(pid)s)::text")
        raise UnavailableError(
            f"Postgres at {info.host}:{info.port}/{info.dbname} {problem} for {self.limit:g} s: "
            "check the server, end what holds the lock, or raise POSTGRES_TIMEOUT"
        )

    def _probe_server(self, query: str) -> str | None:
        """Query the server on the second connection; None if it does not respond."""
        try:
            if self.probe is None:
                self.probe = _connect_probe(self.connection)
            row = self.probe.execute(query, {"pid": self.connection.info.backend_pid}).fetchone()
        except (psycopg.Error, UnavailableError):
            self.close()
            self.probe = None
            return None
        return row[0] if row else None


def _connect_probe(connection: WatchedConnection) -> WatchedConnection:
    """Open a second connection to the same server, without a probe."""
    info = connection.info
    # The parameters leave out those that are libpq's own defaults.
    options = (
        dict(connection.overrides)
        | info.get_parameters()
        | {
            "password": info.password,
            "connect_timeout": str(PROBE_CONNECT_SECONDS),
            "application_name": "taxi_assets watch",
        }
    )
    second = WatchedConnection.connect(**options, autocommit=True)  # type: ignore[arg-type]
    second.watches, second.silence_limit = False, PROBE_SECONDS
    return second


def _read_processor_time(connection: WatchedConnection) -> str:
    """Return the processor time of a server process on this machine, otherwise an empty text."""
    if connection.info.host not in LOOPBACK:
        return ""
    with suppress(OSError):
        text = Path(f"/proc/{connection.info.backend_pid}/stat").read_text()
        # The name is in brackets and may contain spaces; utime and stime are fields 14 and 15.
        name, _, fields = text.partition(" (")[2].rpartition(") ")
        if name.startswith("postgres"):
            return " ".join(fields.split()[11:13])
    return ""
