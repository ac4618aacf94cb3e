"""Dagster's daemon while there is work: `python -m taxi_assets.dagster_internals.woken_daemon`.

The command of the daemon's Cloud Run job. Cloud Scheduler starts it every hour, the webserver for
every backfill and run that is queued (`waking_storage.py`). It runs `dagster-daemon` and ends it
when no run has been queued or in progress and no backfill open for a while. It does not cut off a
schedule's or sensor's evaluation, but a sensor that is always evaluated does not keep it awake.
Two of them never work at once: the second waits until the first has gone, or cannot miss its work
any more, and leaves.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg
from dagster_postgres import PostgresRunStorage

from taxi_assets.dagster_internals.history import is_backfill_open

QUIET_SECONDS = 90
"""How long nothing must be left to do: each of the daemon's loops (30 s, 60 s) has passed by."""
POLL_SECONDS = 5
START_SECONDS = 300
"""How long the daemon may take to its first heartbeats."""
STOP_SECONDS = 60
"""How long it may take to end. Together with a poll less than `HANDOVER_SECONDS`."""
HANDOVER_SECONDS = 120
"""How long to wait for another daemon. One that holds on for longer has looked again since."""
EVALUATION_SECONDS = 600
"""An evaluation of a schedule or sensor that began earlier is one whose daemon was killed."""

UNDER_WAY = "STARTED"
"""State of an evaluation that has not ended."""

LOCK = 0x7461786964616D6E
"""Key of the advisory lock in Dagster's database."""

UNFINISHED_RUNS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

logger = logging.getLogger("taxi_assets.dagster_internals.woken_daemon")


def find_work(instance: dg.DagsterInstance) -> str | None:
    """Return what the daemon has still to do, in words; None if there is nothing."""
    runs = instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED_RUNS))
    if runs:
        return f"{runs} runs are queued or in progress"
    if is_backfill_open(instance):
        return "a backfill is open"
    return None


def find_evaluation(instance: dg.DagsterInstance) -> str | None:
    """Return which schedule or sensor is evaluated, in words; None if there is none.

    What an evaluation requests is stored before it ends: ask for work afterwards, not before.
    """
    recent = time.time() - EVALUATION_SECONDS
    for state in instance.all_instigator_state():
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, after=recent)
        if any(tick.status.value == UNDER_WAY for tick in ticks):
            return f"{state.instigator_name} is evaluated"
    return None


def has_started(instance: dg.DagsterInstance, since: float) -> bool:
    """Return whether every loop of the daemon has given a heartbeat since."""
    heartbeats = instance.get_daemon_heartbeats()
    return all(
        kind in heartbeats and heartbeats[kind].timestamp >= since
        for kind in instance.get_required_daemon_types()
    )


@contextmanager
def sole_daemon(url: str, patience: float) -> Iterator[Callable[[], None] | None]:
    """Hold the daemon's lock; yields a check that it is still held, or None if another has it."""
    deadline = time.monotonic() + patience
    with psycopg.connect(url, autocommit=True, connect_timeout=30) as connection:

        def locked() -> bool:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
            return bool(row and row[0])

        while not (alone := locked()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        # A lost connection is a lost lock: the check raises and the daemon ends.
        yield (lambda: connection.execute("SELECT 1").close()) if alone else None


def wait_until_idle(
    daemon: subprocess.Popen[bytes],
    instance: dg.DagsterInstance,
    quiet_seconds: float,
    check_lock: Callable[[], None],
) -> int:
    """Return when the daemon has been without work for long enough, or has ended by itself."""
    begun = time.time()
    quiet_since: float | None = None
    started = False
    while daemon.poll() is None:
        time.sleep(POLL_SECONDS)
        check_lock()
        started = started or has_started(instance, begun)
        if not started:
            if time.time() - begun > START_SECONDS:
                raise TimeoutError(f"the daemon gave no heartbeat in {START_SECONDS} s")
            continue
        evaluation = find_evaluation(instance)
        work = find_work(instance)
        now = time.monotonic()
        if work:
            quiet_since = None
        elif quiet_since is None:
            quiet_since = now
        # An evaluation gets as long again: the alerts' sensors begin one every 10 seconds.
        elif now - quiet_since >= quiet_seconds * (2 if evaluation else 1):
            logger.info("Nothing left to do: the daemon goes to sleep")
            return 0
    return daemon.returncode or 1


def stop_daemon(daemon: subprocess.Popen[bytes]) -> None:
    """End the daemon; what it leaves is in Postgres."""
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def main() -> int:
    """Run the daemon until nothing is left to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", help="the code location, as dagster-daemon's -m takes it")
    parser.add_argument("--quiet-seconds", type=float, default=QUIET_SECONDS)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # At info an idle daemon logs nothing; at debug a line every 30 seconds, its heartbeat.
    command = ["dagster-daemon", "run", "-m", asked.module]
    command += ["--log-format", "json", "--log-level", "debug"]
    with dg.DagsterInstance.get() as instance:
        storage = instance.run_storage
        if not isinstance(storage, PostgresRunStorage):
            raise TypeError(f"DAGSTER_HOME must name Postgres as run storage, not {type(storage)}")
        woken = time.monotonic()
        with sole_daemon(storage.postgres_url, HANDOVER_SECONDS) as check_lock:
            waited = time.monotonic() - woken >= POLL_SECONDS
            idle = find_evaluation(instance) is None and find_work(instance) is None
            if check_lock is None or (waited and idle):
                logger.info("Another daemon has seen to what this one was woken for")
                return 0
            daemon = subprocess.Popen(command)  # noqa: S603
            try:
                return wait_until_idle(daemon, instance, asked.quiet_seconds, check_lock)
            finally:
                stop_daemon(daemon)


if __name__ == "__main__":
    sys.exit(main())
