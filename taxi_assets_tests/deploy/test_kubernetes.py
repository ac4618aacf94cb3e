"""A run's job on Kubernetes, built by dagster_k8s from the values of deploy/kubernetes.

What the Helm chart does with the values is done here as its templates do it (`_run-launcher.tpl`,
`deployment-user.yaml`); what a cluster's API is sent is read from the request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.launcher.base import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin

from taxi_assets.definitions import defs
from taxi_assets.settings import Settings
from taxi_assets_tests.isolation import REPOSITORY

VALUES = yaml.safe_load((REPOSITORY / "deploy/kubernetes/values.yaml").read_text())
(CODE,) = VALUES["dagster-user-deployments"]["deployments"]
LAUNCHER = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
IMAGE = "registry.example/taxi:1"
SNAKE = {
    "loadInclusterConfig": "load_incluster_config",
    "imagePullPolicy": "image_pull_policy",
    "resources": "resources",
    "securityContext": "security_context",
    "runK8sConfig": "run_k8s_config",
}
"""Values of the launcher as dagster.yaml has them."""
PARTS = {"podSpecConfig": "pod_spec_config", "jobSpecConfig": "job_spec_config"}
SECRETS = {"POSTGRES_PASSWORD", "POSTGRES_READER_PASSWORD", "DAGSTER_PG_PASSWORD"}


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


@pytest.fixture
def api(tmp_path: Path) -> Iterator[tuple[Path, list[tuple[str, dict[str, Any]]]]]:
    """A kubeconfig that leads to the API, and what it was sent."""
    created: list[tuple[str, dict[str, Any]]] = []
    server = HTTPServer(("127.0.0.1", 0), type("Recording", (Api,), {"created": created}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    kubeconfig = tmp_path / "kubeconfig"
    named = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": "here"}}
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [named],
                "contexts": [context],
                "users": [{"name": "here", "user": {}}],
                "current-context": "here",
            }
        )
    )
    yield kubeconfig, created
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def job(api: tuple[Path, list[tuple[str, dict[str, Any]]]], tmp_path: Path) -> dict[str, Any]:
    """Return the job that a run of green becomes."""
    kubeconfig, created = api
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
    launcher = {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": config}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": launcher}))
    # Of the code server, which tells it to whoever launches a run.
    context = {
        "env_vars": [f"{variable['name']}={variable['value']}" for variable in CODE["env"]],
        "env_secrets": [envSecret["name"] for envSecret in CODE["envSecrets"]],
        "volumes": CODE["volumes"],
        "volume_mounts": CODE["volumeMounts"],
        "namespace": "dagster",
    }
    origin = JobPythonOrigin(
        "green_daily",
        RepositoryPythonOrigin(
            executable_path="/opt/venv/bin/python",
            code_pointer=ModuleCodePointer("taxi_assets.definitions", "defs"),
            container_image=IMAGE,
            entry_point=["dagster"],
            container_context={"k8s": context},
        ),
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.create_run_for_job(
            defs.resolve_job_def("green_daily"), job_code_origin=origin
        )
        instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    ((path, body),) = created
    assert path.startswith("/apis/batch/v1/namespaces/dagster/jobs")
    return body


def test_pod_runs_the_image_within_limits_and_without_root(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["args"][:3] == ["dagster", "api", "execute_run"]
    resources = container["resources"]
    for kind in ("requests", "limits"):
        assert set(resources[kind]) == {"cpu", "memory", "ephemeral-storage"}
    assert pod["securityContext"] | {"runAsNonRoot": True} == pod["securityContext"]
    assert pod["securityContext"]["runAsUser"] == 1000
    locked = container["securityContext"]
    assert locked["readOnlyRootFilesystem"] is True
    assert locked["allowPrivilegeEscalation"] is False
    assert locked["capabilities"]["drop"] == ["ALL"]
    assert pod["restartPolicy"] == "Never"
    assert job["spec"]["backoffLimit"] == 0


def test_run_writes_to_ephemeral_storage(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {variable["name"]: variable.get("value") for variable in container["env"]}
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for name in ("TAXI_HOME", "TMPDIR"):
        folder = environment[name]
        assert "emptyDir" in volumes[mounted[folder]], name
    size = volumes[mounted[environment["TAXI_HOME"]]]["emptyDir"]["sizeLimit"]
    assert size == container["resources"]["limits"]["ephemeral-storage"]


def test_job_and_values_contain_no_secret(job: dict[str, Any]) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    values = {
        variable["name"] for variable in container["env"] if variable.get("value") is not None
    }
    assert not values & SECRETS
    from_secrets = {
        source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source
    }
    assert from_secrets == {"taxi-secrets"}
    (password,) = [
        variable for variable in container["env"] if variable["name"] == "DAGSTER_PG_PASSWORD"
    ]
    assert password["valueFrom"]["secretKeyRef"]["name"] == "dagster-postgresql"
    assert "postgresqlPassword" not in json.dumps(VALUES)


def test_run_settings_are_valid(job: dict[str, Any]) -> None:
    (container,) = job["spec"]["template"]["spec"]["containers"]
    environment = {
        variable["name"]: variable["value"]
        for variable in container["env"]
        if variable.get("value")
    }
    filled = {
        name: "project" if value.startswith("<") else value for name, value in environment.items()
    }
    settings = Settings.from_env(
        {name: value for name, value in filled.items() if name.startswith(("TAXI_", "GC", "POST"))}
        | dict.fromkeys(SECRETS - {"DAGSTER_PG_PASSWORD"}, "secret")
    )
    assert settings.profile == "gcp"
