"""The job that dagster_k8s sends to a cluster for a run, from the values of deploy/kubernetes.

What the Helm chart does with the values is done here as its templates do it (`_run-launcher.tpl`,
`deployment-user.yaml`, `configmap-instance.yaml`); the job is the request to a cluster's API.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from taxi_assets.definitions import defs
from taxi_assets_tests.isolation import REPOSITORY

VALUES = yaml.safe_load((REPOSITORY / "deploy/kubernetes/values.yaml").read_text())
(CODE,) = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
ENV = {variable["name"]: variable["value"] for variable in CODE["env"]}
"""Settings of the code server, and of runs."""
SNAKE = {
    "loadInclusterConfig": "load_incluster_config",
    "imagePullPolicy": "image_pull_policy",
    "resources": "resources",
    "securityContext": "security_context",
    "runK8sConfig": "run_k8s_config",
}
"""Values of the launcher as dagster.yaml has them."""
PARTS = {"podSpecConfig": "pod_spec_config", "jobSpecConfig": "job_spec_config"}


class Api(BaseHTTPRequestHandler):
    """Run the part of Kubernetes' API that creates jobs."""

    created: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.created.append((self.path, body))
        answer = json.dumps(body).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve_api(kubeconfig: Path) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Serve the API, write a kubeconfig that leads to it, and yield the requests."""
    created: list[tuple[str, dict[str, Any]]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Recording", (Api,), {"created": created}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "here"}}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [cluster],
                "contexts": [context],
                "users": [{"name": "here", "user": {}}],
                "current-context": "here",
            }
        )
    )
    try:
        yield created
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def build_launcher(kubeconfig: Path) -> dict[str, Any]:
    """Build `run_launcher` of the chart's dagster.yaml, for an API outside a cluster."""
    parts = {PARTS[name]: value for name, value in LAUNCHER["runK8sConfig"].items()}
    config = {SNAKE[name]: value for name, value in LAUNCHER.items()} | {
        "run_k8s_config": parts,
        "load_incluster_config": False,
        "kubeconfig_file": str(kubeconfig),
        "job_namespace": "dagster",
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "dagster_home": VALUES["global"]["dagsterHome"],
    }
    return {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": config}


def launch_green(
    instance: dg.DagsterInstance, image: str, env: Mapping[str, str], tags: Mapping[str, str]
) -> str:
    """Create a run of green's daily job, launch it, and return its id.

    Args:
        instance: an instance with the launcher of `build_launcher`.
        image: the code server's image.
        env: the code server's environment without its secrets.
        tags: the run's tags.
    """
    # The code server passes it to the process that launches a run.
    context = {
        "env_vars": [f"{name}={value}" for name, value in env.items()],
        "env_secrets": [secret["name"] for secret in CODE["envSecrets"]],
        "volumes": CODE["volumes"],
        "volume_mounts": CODE["volumeMounts"],
        "namespace": "dagster",
    }
    origin = JobPythonOrigin(
        "green_daily",
        RepositoryPythonOrigin(
            executable_path="/opt/venv/bin/python",
            code_pointer=ModuleCodePointer("taxi_assets.definitions", "defs"),
            container_image=image,
            entry_point=["dagster"],
            container_context={"k8s": context},
        ),
    )
    run = instance.create_run_for_job(
        defs.resolve_job_def("green_daily"), job_code_origin=origin, tags=dict(tags)
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run.run_id
