"""A local server of the Cloud Run v2 API whose executions are processes of this machine.

What the run launcher calls: `Jobs.RunJob`, `Executions.GetExecution`, `Executions.CancelExecution`.
A second job is the woken daemon's, which `RunJob` starts as it is, without arguments.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.cloud import run_v2
from google.longrunning import operations_pb2

GRACE = 10
"""Seconds between SIGTERM and SIGKILL, Cloud Run's own."""


@dataclass
class Execution:
    """One execution of the job: one task without retries."""

    name: str
    args: list[str]
    process: subprocess.Popen[bytes]
    log: Path
    cancelled: bool = False

    def resource(self) -> run_v2.Execution:
        """Return the execution in the API's form."""
        code = self.process.poll()
        ended = code is not None
        return run_v2.Execution(
            name=self.name,
            task_count=1,
            reconciling=not ended,
            running_count=int(not ended),
            succeeded_count=int(ended and not self.cancelled and code == 0),
            failed_count=int(ended and not self.cancelled and code != 0),
            cancelled_count=int(ended and self.cancelled),
        )

    def kill(self) -> None:
        """Kill the process, like a container above its memory limit."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def cancel(self) -> None:
        """Send SIGTERM, and SIGKILL to remaining processes after the grace period."""
        self.cancelled = True
        self.process.terminate()
        try:
            self.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self.kill()


class CloudRun:
    """The server. `env` is the environment of the jobs' containers, `job` the runs' full name."""

    def __init__(
        self, job: str, env: Mapping[str, str], folder: Path, daemon: Sequence[str] = ()
    ) -> None:
        self.job = job
        self.env = dict(env)
        self.folder = folder
        self.daemon_job = job.replace("-run", "-daemon")
        self.daemon = list(daemon)
        """The command of the daemon's job; empty: there is none."""
        self.daemon_env = dict(env)
        self.executions: list[Execution] = []
        """Of the runs."""
        self.daemons: list[Execution] = []
        """Of the daemon's job."""
        self.unavailable = 0
        """How many of the next look-ups are answered with 503."""

    def serve(self, credentials: grpc.ServerCredentials) -> tuple[grpc.Server, int]:
        """Serve on a free port of the loopback."""
        server = grpc.server(futures.ThreadPoolExecutor(8))
        jobs = {"RunJob": _method(self.run_job, run_v2.RunJobRequest)}
        executions = {
            "GetExecution": _method(self.get_execution, run_v2.GetExecutionRequest),
            "CancelExecution": _method(self.cancel_execution, run_v2.CancelExecutionRequest),
        }
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler("google.cloud.run.v2.Jobs", jobs),
                grpc.method_handlers_generic_handler("google.cloud.run.v2.Executions", executions),
            )
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        return server, port

    def stop(self) -> None:
        """End all running executions."""
        for execution in [*self.daemons, *self.executions]:
            if execution.process.poll() is None:
                execution.kill()

    def run_job(
        self, request: run_v2.RunJobRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        if request.name == self.job:
            (override,) = request.overrides.container_overrides
            args, executions = list(override.args), self.executions
        elif self.daemon and request.name == self.daemon_job:
            args, executions = self.daemon, self.daemons
        else:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Resource '{request.name}' was not found")
        short = f"{request.name.rsplit('/', maxsplit=1)[-1]}-{uuid.uuid4().hex[:5]}"
        log = self.folder / f"{short}.log"
        process = self.start(args, log, context)
        execution = Execution(f"{request.name}/executions/{short}", args, process, log)
        executions.append(execution)
        operation = operations_pb2.Operation(name=f"operations/{uuid.uuid4()}")
        operation.metadata.Pack(run_v2.Execution.pb(execution.resource()))
        return operation

    def start(self, args: list[str], log: Path, _: grpc.ServicerContext) -> subprocess.Popen[bytes]:
        """Start the container's process."""
        # The job sets no command and the image has no entrypoint: the arguments are the command.
        with log.open("wb") as output:
            return subprocess.Popen(
                args,
                env=self.daemon_env if args is self.daemon else self.env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def get_execution(
        self, request: run_v2.GetExecutionRequest, context: grpc.ServicerContext
    ) -> Any:
        if self.unavailable:
            self.unavailable -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "The service is currently unavailable.")
        return run_v2.Execution.pb(self._find(request.name, context).resource())

    def cancel_execution(
        self, request: run_v2.CancelExecutionRequest, context: grpc.ServicerContext
    ) -> operations_pb2.Operation:
        execution = self._find(request.name, context)
        if execution.process.poll() is not None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The execution has already ended.")
        threading.Thread(target=execution.cancel).start()
        operation = operations_pb2.Operation(name=f"operations/{uuid.uuid4()}")
        operation.metadata.Pack(run_v2.Execution.pb(execution.resource()))
        return operation

    def _find(self, name: str, context: grpc.ServicerContext) -> Execution:
        for execution in self.executions:
            if execution.name == name:
                return execution
        context.abort(grpc.StatusCode.NOT_FOUND, f"Resource '{name}' was not found")
        raise AssertionError


def _method(
    call: Callable[[Any, grpc.ServicerContext], Any], request: Any
) -> grpc.RpcMethodHandler:
    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=request.deserialize,
        response_serializer=lambda message: message.SerializeToString(),
    )
