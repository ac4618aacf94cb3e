"""Measure how many runs the queue launches on Cloud Run: `python -m benchmarks.run_queue`.

The settings of `deploy/dagster-gcp.yaml`, the daemon, the run queue, Dagster's storage in Postgres,
the run launcher and Google's client are real. Cloud Run is a local server of its API whose
executions do nothing and succeed after `--seconds`. For each `max_concurrent_runs` the benchmark
drains a full queue. `--quota` limits the calls of RunJob per minute, as Google does; with
`--workers` the daemon launches in threads; `--pooled` runs share the pool of a store.
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
ROUNDS, MAX_RUNS = 4, 300
"""Runs in the queue: ROUNDS times `max_concurrent_runs`, and at most MAX_RUNS."""
WAIT_SECONDS = 600.0
HEADER = (
    "max_concurrent_runs | runs | s | runs/s | ideal | in progress | launches/s | "
    "daemon's CPU s a run | rejected"
)


@dataclass(frozen=True)
class Options:
    """The options that all rows of the table share."""

    seconds: float
    quota: int | None
    workers: int | None
    runs: int | None
    pooled: bool

    @property
    def job(self) -> str:
        """Return the empty job, with or without the pool of BigQuery."""
        return "nothing_pooled_job" if self.pooled else "nothing_job"


@dataclass(frozen=True)
class Throughput:
    """The result of draining a full queue."""

    limit: int
    runs: int
    seconds: float
    duration: float
    """Seconds from the first launch to the end of the last run."""
    burst: float
    """Launches per second while all slots were free."""
    cpu: float
    """CPU seconds of the daemon per run."""
    rejected: int
    """Calls of RunJob above the quota."""

    def row(self) -> str:
        """Format a row of the table, with a bar of runs per second."""
        rate, ideal = self.runs / self.duration, self.limit / self.seconds
        cells = [
            f"{self.limit}",
            f"{self.runs}",
            f"{self.duration:.0f}",
            f"{rate:.2f}",
            f"{ideal:.2f}",
            f"{rate * self.seconds:.1f}",
            f"{self.burst:.1f}" if self.burst else "",
            f"{self.cpu:.2f}",
            f"{self.rejected}",
            "#" * round(rate * 10),
        ]
        return " | ".join(cells)


def settings(limit: int, workers: int | None) -> dict[str, Any]:
    """Return the settings of Google Cloud, with this limit and without the log bucket."""
    gcp = yaml.safe_load((CHECKOUT / "deploy" / "dagster-gcp.yaml").read_text())
    del gcp["compute_logs"]
    gcp["concurrency"]["runs"]["max_concurrent_runs"] = limit
    jobs = gcp["run_launcher"]["config"]["job_name_by_code_location"]
    jobs[LOCATION] = jobs.pop("taxi_assets.definitions")
    if workers is not None:
        gcp["run_queue"] = {"dequeue_use_threads": True, "dequeue_num_workers": workers}
    return gcp


@contextmanager
def process(command: Sequence[str], log: Path) -> Iterator[int]:
    """Run a program until the block ends, and yield its process id."""
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
    """Wait until `ready` returns true.

    Raises:
        BenchmarkError: it did not within WAIT_SECONDS.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not ready():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"waited {WAIT_SECONDS:.0f} s for {what}")
        time.sleep(0.2)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def code_server(bench: Bench) -> Iterator[Path]:
    """Serve the definitions, and yield the path of the workspace file that names the server."""
    port = pick_free_port(None)
    where = {"host": "127.0.0.1", "port": port, "location_name": LOCATION}
    workspace = bench.dagster_home / "workspace.yaml"
    workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": where}]}))
    command = [str(bench.dagster), "api", "grpc", "-m", LOCATION, "-h", "127.0.0.1"]
    with process([*command, "-p", str(port)], bench.logs / "code.log"):
        wait_for(lambda: _listens(port), "the code server")
        yield workspace


def create_database(stores: dict[str, str], name: str) -> str:
    """Create an empty database for Dagster's storage, and return its URL."""
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


def drain_queue(
    bench: Bench, workspace: Path, limit: int, options: Options, *, job: str
) -> Throughput:
    """Fill the queue, start the daemon, and wait for the end of every run."""
    home = bench.dagster_home
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings(limit, options.workers)))
    runs = options.runs or min(ROUNDS * limit, MAX_RUNS)
    identity = Identity.new()
    with ExitStack() as stack:
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        cloud_run = TimedCloudRun(job, instance, options.seconds, options.quota)
        server, port = cloud_run.serve(identity.server_credentials())
        stack.callback(lambda: server.stop(None).wait())
        os.environ.update(identity.env(home, stack.enter_context(proxy(port))))
        fill_queue(instance, workspace, options.job, runs)
        daemon = [str(bench.dagster.with_name("dagster-daemon")), "run", "-w", str(workspace)]
        log = bench.logs / "daemon.log"
        pid = stack.enter_context(process(daemon, log))
        wait_for(lambda: bool(cloud_run.launched), f"the first launch, see {log}")
        before = cpu_of([pid])
        wait_for(lambda: len(cloud_run.ended) == runs, f"{runs} runs to end, see {log}")
        cpu = cpu_of([pid]) - before
    launched = sorted(cloud_run.launched)
    duration = max(cloud_run.ended) - launched[0]
    first = launched[: min(limit, runs)]
    burst = (len(first) - 1) / (first[-1] - first[0]) if len(first) > 1 else 0.0
    return Throughput(limit, runs, options.seconds, duration, burst, cpu / runs, cloud_run.rejected)


def main() -> None:
    """Run the benchmark and print its table."""
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
    arguments = parser.parse_args()
    options = Options(
        arguments.seconds,
        arguments.quota,
        arguments.workers,
        arguments.runs,
        arguments.pooled,
    )
    bench = Bench(arguments.work, rows=0)
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
                for limit in map(int, arguments.limits.split(",")):
                    print(drain_queue(bench, workspace, limit, options, job=job).row(), flush=True)
    finally:
        bench.clean()


if __name__ == "__main__":
    sys.exit(main())
