"""Dagster's daemon on demand: `python -m taxi_assets.dagster_internals.woken_daemon`.

This is the command of the daemon's Cloud Run job. Cloud Scheduler starts it every hour, and the
webserver for every backfill and queued run (`waking_storage.py`). It runs `dagster-daemon` until,
for some time, no run is queued or in progress and no backfill is open. It does not cut off the
evaluation of a schedule or sensor, but a sensor that is always being evaluated does not keep it
running. Two of them never work at once: the second ends as soon as the first has ended or will
certainly process the work.
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
from taxi_assets.errors import format_count

QUIET_SECONDS = 90
"""Time without work before the daemon ends: each of its loops (30 s, 60 s) has run."""
POLL_SECONDS = 5
START_SECONDS = 300
"""Limit for the daemon's first heartbeats."""
STOP_SECONDS = 60
"""Limit for its end. Together with a poll it is less than `HANDOVER_SECONDS`."""
HANDOVER_SECONDS = 120
"""Longest wait for another daemon. One that runs longer has checked for work since."""
EVALUATION_SECONDS = 600
"""An evaluation of a schedule or sensor that began earlier belongs to a killed daemon."""

IN_PROGRESS = "STARTED"
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
    """Return a description of the daemon's remaining work; None if there is none."""
    runs = instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED_RUNS))
    if runs:
        return f"{format_count(runs, 'run')} queued or in progress"
    if is_backfill_open(instance):
        return "a backfill is open"
    return None


def find_evaluation(instance: dg.DagsterInstance) -> str | None:
    """Return the schedule or sensor that is being evaluated, as a sentence; None if none is.

    The requests of an evaluation are stored before it ends: check for work afterwards.
    """
    recent = time.time() - EVALUATION_SECONDS
    for state in instance.all_instigator_state():
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, after=recent)
        if any(tick.status.value == IN_PROGRESS for tick in ticks):
            return f"{state.instigator_name} is being evaluated"
    return None


def has_started(instance: dg.DagsterInstance, since: float) -> bool:
    """Return whether every loop of the daemon has sent a heartbeat since a time."""
    heartbeats = instance.get_daemon_heartbeats()
    return all(
        kind in heartbeats and heartbeats[kind].timestamp >= since
        for kind in instance.get_required_daemon_types()
    )


@contextmanager
def hold_daemon_lock(url: str, patience: float) -> Iterator[Callable[[], None] | None]:
    """Hold the daemon's lock; yield a function that checks it, or None if another holds it."""
    deadline = time.monotonic() + patience
    with psycopg.connect(url, autocommit=True, connect_timeout=30) as connection:

        def try_lock() -> bool:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
            return bool(row and row[0])

        while not (is_locked := try_lock()) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        # A lost connection is a lost lock: the check raises, and the daemon ends.
        yield (lambda: connection.execute("SELECT 1").close()) if is_locked else None


def wait_until_idle(
    daemon: subprocess.Popen[bytes],
    instance: dg.DagsterInstance,
    quiet_seconds: float,
    check_lock: Callable[[], None],
) -> int:
    """Wait until the daemon has been idle for `quiet_seconds` or has ended; return its code."""
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
        # An evaluation gets twice the time: the alerts' sensors start one every 10 seconds.
        elif now - quiet_since >= quiet_seconds * (2 if evaluation else 1):
            logger.info("No work left: stopping the daemon")
            return 0
    return daemon.returncode or 1


def stop_daemon(daemon: subprocess.Popen[bytes]) -> None:
    """Stop the daemon; its state is in Postgres."""
    daemon.terminate()
    try:
        daemon.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def main() -> int:
    """Run the daemon until no work is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("module", help="the code location, as for -m of dagster-daemon")
    parser.add_argument("--quiet-seconds", type=float, default=QUIET_SECONDS)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    # At level info an idle daemon logs nothing; at debug it logs its heartbeat every 30 seconds.
    command = ["dagster-daemon", "run", "-m", options.module]
    command += ["--log-format", "json", "--log-level", "debug"]
    with dg.DagsterInstance.get() as instance:
        storage = instance.run_storage
        if not isinstance(storage, PostgresRunStorage):
            raise TypeError(f"DAGSTER_HOME must name Postgres as run storage, not {type(storage)}")
        woken = time.monotonic()
        with hold_daemon_lock(storage.postgres_url, HANDOVER_SECONDS) as check_lock:
            waited = time.monotonic() - woken >= POLL_SECONDS
            idle = find_evaluation(instance) is None and find_work(instance) is None
            if check_lock is None or (waited and idle):
                logger.info("Another daemon has done the work")
                return 0
            daemon = subprocess.Popen(command)  # noqa: S603
            try:
                return wait_until_idle(daemon, instance, options.quiet_seconds, check_lock)
            finally:
                stop_daemon(daemon)


if __name__ == "__main__":
    sys.exit(main())
