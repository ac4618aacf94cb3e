"""End the runs whose process was killed: Dagster leaves them STARTED, and its queue counts them.

A tag names the process of each run. Dagster's run monitoring covers runs in containers; the code
server of docker-compose reports its own (`code_server`).
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import dagster as dg

from taxi_assets.dagster_internals.tags import CODE_SERVER_ADDRESS, HIDDEN, MAX_RETRIES
from taxi_assets.local.process import Identity

PROCESS = f"{HIDDEN}taxi_process"
"""Tag of a run: the run's id, because a re-execution copies tags; machine, pid and start of its
process."""
PID_NAMESPACE, BOOT_ID = Path("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id")
INIT = 1
"""Process id of a container's command; whoever started the container reports its end."""
STATUSES = [
    *(dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING),
    *(dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING),
]


def name_process(run_id: str) -> str:
    """Return the value of the tag for a run in this process."""
    process = Identity.of(os.getpid())
    return f"{run_id[:8]} {_name_machine()} {os.getpid()} {process.started if process else ''}"


def end_lost_runs(instance: dg.DagsterInstance, job_name: str | None = None) -> None:
    """Report the runs of dead processes of this machine as failed.

    `run_retries` starts a run again that a code server had started, but no run of a command.
    """
    for run in instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=STATUSES)):
        if not _is_lost(run):
            continue
        # A process may end its run between the two answers.
        current = instance.get_run_by_id(run.run_id)
        if current is None or current.is_finished:
            continue
        if CODE_SERVER_ADDRESS not in run.tags:
            instance.add_run_tags(run.run_id, {MAX_RETRIES: "0"})
        instance.report_run_failed(current, "The process of this run was killed.")


def _is_lost(run: dg.DagsterRun) -> bool:
    """Return whether the run's own tag names a process of this machine that has ended."""
    run_id, _, rest = run.tags.get(PROCESS, "").partition(" ")
    machine, _, process = rest.partition(" ")
    pid, _, started = process.partition(" ")
    is_own = run_id == run.run_id[:8] and machine != "" and machine == _name_machine()
    is_known = pid.isdecimal() and int(pid) != INIT and started != ""
    return is_own and is_known and not Identity(int(pid), started).is_alive()


def _name_machine() -> str:
    """Return the name of this machine and its process ids; an empty text if Linux hides them.

    A host name is not enough: all containers of Cloud Run are called `localhost`.
    """
    if sys.platform != "linux":
        return socket.gethostname()
    try:
        return f"{socket.gethostname()}/{PID_NAMESPACE.readlink()}/{BOOT_ID.read_text().strip()}"
    except OSError:
        return ""
