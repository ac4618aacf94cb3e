"""Dagster's code server: `python -m taxi_assets.dagster_internals.code_server <options>`.

Runs are child processes of the server, and Dagster loses some in three situations. The runs of a
killed server stay STARTED: this server reports them as failed when it starts, and run retries take
over. The thread that detects dead runs ends with its first error, for example while Dagster's
database is unreachable: here it continues. A run that leaves the queue while the server waits for
its last runs to end fails for good: here the server is unavailable, as it is a moment later, and
the run returns to the queue. `dagster api grpc` with the same options is Dagster's own server.
"""

from __future__ import annotations

import argparse
import logging
import runpy
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import dagster as dg
import grpc

from taxi_assets.dagster_internals.private_names import ORPHANED_RUNS
from taxi_assets.dagster_internals.tags import CODE_SERVER_ADDRESS

logger = logging.getLogger("dagster.code_server")

LOST = "Its code server ended and has started again"
REPORT_ATTEMPTS = 120
REPORT_SECONDS = 5
"""Between attempts while Dagster's database is away."""
EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - compared only

if TYPE_CHECKING:
    StockServer = object
else:
    StockServer = ORPHANED_RUNS.find_owner() or object


SHUTTING_DOWN = "Tried to start a run on a server after telling it to shut down"
"""Dagster's answer, by which the queue cannot know that another server follows."""


class CodeServer(StockServer):
    """Dagster's code server, whose runs survive its restart and an unreachable database."""

    def StartRun(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's
        """Start a run; while the server shuts down, abort, so that the run is queued again."""
        reply = super().StartRun(request, context)  # type: ignore[misc, unused-ignore]
        if SHUTTING_DOWN in reply.serialized_start_run_result:
            context.abort(grpc.StatusCode.UNAVAILABLE, SHUTTING_DOWN)
        return reply

    def _check_for_orphaned_runs(self) -> None:
        try:
            super()._check_for_orphaned_runs()  # type: ignore[misc, unused-ignore]
        except Exception:
            logger.exception("Cannot check the runs now, retrying")


def find_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Return the ids of started runs of an earlier code server.

    Runs that no code server started (`dagster job execute`) are not affected. Runs that have not
    started yet are left to run monitoring, which has a limit for starting.
    """
    started = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    return [run.run_id for run in instance.get_runs(started) if CODE_SERVER_ADDRESS in run.tags]


def report_lost_runs(address: str, run_ids: list[str]) -> None:
    """Report runs as failed once the server at `address` answers.

    The daemon restarts a failed run at once, needs the code server for it, and tries only once. The
    wait has no limit but the life of the server, whose definitions may take any time to load: runs
    that nobody reports stay STARTED forever.
    """
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result()
    for attempt in range(REPORT_ATTEMPTS):
        try:
            with dg.DagsterInstance.get() as instance:
                for run in instance.get_runs(dg.RunsFilter(run_ids=run_ids)):
                    if not run.is_finished:
                        instance.report_run_failed(run, LOST)
                        logger.warning("Run %s ended with its code server", run.run_id)
        except Exception:
            logger.exception("Cannot report lost runs now, attempt %s", attempt + 1)
            time.sleep(REPORT_SECONDS)
        else:
            return


def find_address(options: list[str]) -> str:
    """Return where a server with these options of `dagster api grpc` can be reached from here."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-p", "--port")
    parser.add_argument("-s", "--socket")
    parser.add_argument("-h", "--host", default="localhost")
    address, _ = parser.parse_known_args(options)
    if address.socket:
        return f"unix:{address.socket}"
    host = "localhost" if address.host == EVERY_INTERFACE else address.host
    return f"{host}:{address.port}"


def main(options: list[str]) -> None:
    """Serve until SIGTERM, then until the runs in progress have ended."""
    with dg.DagsterInstance.get() as instance:
        lost = find_lost_runs(instance)
    if lost:
        where = find_address(options)
        threading.Thread(target=report_lost_runs, args=(where, lost), daemon=True).start()
    if StockServer is not object:
        # `dagster api grpc` reads the class from this module.
        sys.modules[ORPHANED_RUNS.module].DagsterApiServer = CodeServer  # type: ignore[attr-defined]
    sys.argv = ["dagster", "api", "grpc", *options]
    runpy.run_module("dagster", run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
