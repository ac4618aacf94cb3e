"""How many runs the queue launches on Cloud Run: `python -m benchmarks.run_queue`.

Real are the settings of `deploy/dagster-gcp.yaml`, the daemon, the run queue, Dagster's storage in
Postgres, the run launcher and Google's client; Cloud Run is a local server of its API whose
executions do nothing and succeed after `--seconds`. For each `max_concurrent_runs` a full queue is
worked off. `--quota` refuses more calls of RunJob a minute, as Google does; `--workers` has the
daemon launch in threads; `--pooled` runs share the pool of a store.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.definitions.selector import JobSubsetSelector
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget

from benchmarks.bench import CHECKOUT, Bench
from benchmarks.measure import BenchmarkError, cpu_of
from benchmarks.timed_cloud_run import TimedCloudRun
from taxi_assets.local.server import pick_free_port
from taxi_assets_tests.deploy.googleapis import Identity, proxy

LOCATION = "benchmarks.noop"
ROUNDS, MOST = 4, 300
"""Runs in the queue: so many times `max_concurrent_runs`, at most."""
PATIENCE = 600.0
HEADER = (
    "max_concurrent_runs | runs | s | runs/s | at most | in progress | launches/s | "
    "daemon's CPU s a run | refused"
)


@dataclass(frozen=True)
class Asked:
    """The options that do not change between the rows of the table."""

    seconds: float
    quota: int | None
    workers: int | None
    runs: int | None
    pooled: bool

    @property
    def job(self) -> str:
        """The empty job, or the one that needs the pool of BigQuery."""
        return "nothing_pooled_job" if self.pooled else "nothing_job"


@dataclass(frozen=True)
class Throughput:
    """A full queue worked off."""

    limit: int
    runs: int
    seconds: float
    took: float
    """Seconds from the first launch to the last end."""
    burst: float
    """Launches a second while every slot was free."""
    cpu: float
    """CPU seconds of the daemon a run."""
    refused: int
    """Calls of RunJob past the quota."""

    def row(self) -> str:
        """Format a row of the table, with a bar of runs per second."""
        rate, ideal = self.runs / self.took, self.limit / self.seconds
        cells = [
            f"{self.limit}",
            f"{self.runs}",
            f"{self.took:.0f}",
            f"{rate:.2f}",
            f"{ideal:.2f}",
            f"{rate * self.seconds:.1f}",
            f"{self.burst:.1f}" if self.burst else "",
            f"{self.cpu:.2f}",
            f"{self.refused}",
            "#" * round(rate * 10),
        ]
        return " | ".join(cells)


def settings(limit: int, workers: int | None) -> dict[str, Any]:
    """Those of Google Cloud, with another limit, and without the bucket of what steps print."""
    found = yaml.safe_load((CHECKOUT / "deploy" / "dagster-gcp.yaml").read_text())
    del found["compute_logs"]
    found["concurrency"]["runs"]["max_concurrent_runs"] = limit
    jobs = found["run_launcher"]["config"]["job_name_by_code_location"]
    jobs[LOCATION] = jobs.pop("taxi_assets.definitions")
    if workers is not None:
        found["run_queue"] = {"dequeue_use_threads": True, "dequeue_num_workers": workers}
    return found


@contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[int]:
    """Start a program that ends with the benchmark, and yield its id."""
    with log.open("ab") as output:
        running = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield running.pid
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for(ready: Callable[[], bool], what: str) -> None:
    """Return when something is ready.

    Raises:
        BenchmarkError: it was not in ten minutes.
    """
    deadline = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {PATIENCE:.0f} s for {what}")
        time.sleep(0.2)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def code_server(bench: Bench) -> Iterator[Path]:
    """Serve the definitions; the path of the workspace file that leads to them."""
    port = pick_free_port(None)
    where = {"host": "127.0.0.1", "port": port, "location_name": LOCATION}
    workspace = bench.dagster_home / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": where}]}))
    command = [str(bench.dagster), "api", "grpc", "-m", LOCATION, "-h", "127.0.0.1"]
    with process([*command, "-p", str(port)], bench.logs / "code.log"):
        wait_for(lambda: _listens(port), "the code server")
        yield workspace


def create_database(stores: dict[str, str], name: str) -> str:
    """Create an empty database for Dagster's storage, and yield its URL."""
    import psycopg2  # noqa: PLC0415 - Dagster's own driver, only here

    server = "postgresql://{POSTGRES_USER}:{POSTGRES_PASSWORD}@{POSTGRES_HOST}:{POSTGRES_PORT}"
    address = server.format(**stores)
    connection = psycopg2.connect(f"{address}/{stores['POSTGRES_DBNAME']}")
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    connection.close()
    return f"{address}/{name}"


def fill_queue(instance: dg.DagsterInstance, workspace_file: Path, name: str, count: int) -> None:
    """Submit runs of a job, as a backfill does."""
    target = WorkspaceFileTarget([str(workspace_file)])
    with WorkspaceProcessContext(instance, target) as context:
        workspace = context.create_request_context()
        location = workspace.get_code_location(LOCATION)
        repository = next(iter(location.get_repositories().values()))
        job = location.get_job(
            JobSubsetSelector(
                location_name=LOCATION,
                repository_name=repository.name,
                job_name=name,
                op_selection=None,
            )
        )
        plan = location.get_execution_plan(job, {}, None, None, instance=instance)
        for _ in range(count):
            run = instance.create_run(
                job_name=name,
                run_id=None,
                run_config={},
                status=None,
                tags=job.tags,
                root_run_id=None,
                parent_run_id=None,
                step_keys_to_execute=plan.execution_plan_snapshot.step_keys_to_execute,
                execution_plan_snapshot=plan.execution_plan_snapshot,
                job_snapshot=job.job_snapshot,
                parent_job_snapshot=job.parent_job_snapshot,
                asset_selection=None,
                asset_check_selection=None,
                resolved_op_selection=None,
                op_selection=None,
                remote_job_origin=job.get_remote_origin(),
                job_code_origin=job.get_python_origin(),
                asset_graph=repository.asset_graph,
            )
            instance.submit_run(run.run_id, workspace)


def work_off(bench: Bench, workspace: Path, limit: int, asked: Asked, *, job: str) -> Throughput:
    """Fill the queue, start the daemon and wait until every run has ended."""
    home = bench.dagster_home
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings(limit, asked.workers)))
    runs = asked.runs or min(ROUNDS * limit, MOST)
    identity = Identity.new()
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        cloud_run = TimedCloudRun(job, instance, asked.seconds, asked.quota)
        server, port = cloud_run.serve(identity.server_credentials())
        stack.callback(lambda: server.stop(None).wait())
        os.environ.update(identity.env(home, stack.enter_context(proxy(port))))
        fill_queue(instance, workspace, asked.job, runs)
        daemon = [str(bench.dagster.with_name("dagster-daemon")), "run", "-w", str(workspace)]
        log = bench.logs / "daemon.log"
        pid = stack.enter_context(process(daemon, log))
        wait_for(lambda: bool(cloud_run.launched), f"the first launch, see {log}")
        before = cpu_of([pid])
        wait_for(lambda: len(cloud_run.ended) == runs, f"{runs} runs to end, see {log}")
        cpu = cpu_of([pid]) - before
    launched = sorted(cloud_run.launched)
    took = max(cloud_run.ended) - launched[0]
    first = launched[: min(limit, runs)]
    burst = (len(first) - 1) / (first[-1] - first[0]) if len(first) > 1 else 0.0
    return Throughput(limit, runs, asked.seconds, took, burst, cpu / runs, cloud_run.refused)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.run_queue", description=__doc__)
    parser.add_argument("--limits", default="1,10,25,100", metavar="N,N")
    parser.add_argument("--seconds", type=float, default=10, help="how long a run takes")
    parser.add_argument("--quota", type=int, help="calls of RunJob a minute (Google: 180)")
    parser.add_argument("--workers", type=int, help="threads that launch (default: none)")
    parser.add_argument(
        "--runs", type=int, help=f"in the queue (default: {ROUNDS} times the limit)"
    )
    parser.add_argument("--pooled", action="store_true", help="runs need the pool of BigQuery")
    parser.add_argument("--work", type=Path, default=CHECKOUT / ".taxi" / "bench-queue")
    options = parser.parse_args()
    asked = Asked(options.seconds, options.quota, options.workers, options.runs, options.pooled)
    bench = Bench(options.work, rows=0)
    try:
        with bench:
            os.environ.update(bench.env | {"DAGSTER_HOME": str(bench.dagster_home)})
            os.environ["DAGSTER_PG_URL"] = create_database(bench.stores, "dagster")
            project = bench.stores["GCP_PROJECT"]
            os.environ |= {"GCP_PROJECT": project, "CLOUD_RUN_REGION": "us-central1"}
            (name,) = settings(1, None)["run_launcher"]["config"][
                "job_name_by_code_location"
            ].values()
            job = f"projects/{project}/locations/us-central1/jobs/{name}"
            (bench.dagster_home / "dagster.yaml").write_text(yaml.safe_dump(settings(1, None)))
            with code_server(bench) as workspace:
                print(HEADER, flush=True)
                for limit in map(int, options.limits.split(",")):
                    print(work_off(bench, workspace, limit, asked, job=job).row(), flush=True)
    finally:
        bench.clean()


if __name__ == "__main__":
    sys.exit(main())
