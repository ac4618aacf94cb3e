"""A run's job on Kubernetes, built by dagster_k8s from the values of deploy/kubernetes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from taxi_assets.settings import Settings
from taxi_assets_tests.deploy.kubernetes import (
    ENV,
    VALUES,
    build_launcher,
    launch_green,
    serve_api,
)

IMAGE = "registry.example/taxi:1"
SECRETS = {"POSTGRES_PASSWORD", "POSTGRES_READER_PASSWORD", "DAGSTER_PG_PASSWORD"}


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    """Return the job that a run of green becomes."""
    kubeconfig = tmp_path / "kubeconfig"
    launcher = build_launcher(kubeconfig)
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"run_launcher": launcher}))
    with (
        serve_api(kubeconfig) as created,
        dg.DagsterInstance.from_config(str(tmp_path)) as instance,
    ):
        launch_green(instance, IMAGE, ENV, {})
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
