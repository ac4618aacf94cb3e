"""A run's pod on Kubernetes, as a container of Docker's with the same restrictions.

The job is what dagster_k8s sends to a cluster. Its image, command, environment, user, limits,
read-only root file system and volumes become options of `docker run`; a field that has no option
here fails the test. Postgres, the BigQuery emulator, a GCS server and the sample source take the
places of the services outside the cluster.
"""

from __future__ import annotations

import secrets
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow.parquet as pq
import pytest
import yaml
from dagster import DagsterRunStatus

from taxi_assets import local
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.deploy.kubernetes import (
    ENV,
    VALUES,
    build_launcher,
    launch_green,
    serve_api,
)
from taxi_assets_tests.gcs_server import gcs_server
from taxi_assets_tests.isolation import REPOSITORY, isolation

pytestmark = pytest.mark.deploy

BUCKET = "pod-lake"
DAY = "2021-03-02"
SCHEMA = "in_a_pod"
UNITS = {"Gi": "g", "Mi": "m"}
IGNORED = {
    *("imagePullSecrets", "restartPolicy", "serviceAccountName", "automountServiceAccountToken"),
    *("containers", "volumes"),
}
"""Fields of a pod that restrict nothing; the run needs no token of the cluster's API."""


@dataclass
class Pod:
    """What a run left behind."""

    run: dg.DagsterRun
    rows: int
    """Rows of the day by its record."""
    output: str
    """Output of its container."""
    scratch: Path
    """Folder of its ephemeral volume."""


def docker(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run a docker command."""
    return subprocess.run(
        ["docker", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=isolation.user_environment,
        timeout=timeout,
    )


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    """Build the image that is deployed, and remove it."""
    if docker("version").returncode:
        pytest.skip("there is no Docker engine")
    name = f"taxitest-pod:{secrets.token_hex(3)}"
    build_args = []
    if python := isolation.user_environment.get("PYTHON_IMAGE"):
        build_args = ["--build-arg", f"PYTHON_IMAGE={python}"]
    dockerfile = str(REPOSITORY / "deploy" / "Dockerfile")
    built = docker("build", "-f", dockerfile, "-t", name, *build_args, str(REPOSITORY))
    assert built.returncode == 0, built.stderr[-2000:]
    yield name
    docker("image", "rm", name)


def write_instance(folder: Path, kubeconfig: Path) -> Mapping[str, str]:
    """Write the chart's dagster.yaml for an empty database; return the secrets of its pods."""
    where = stores.postgres_arguments()
    database = f"dagster_{uuid.uuid4().hex[:8]}"
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{database}"')
    postgres_db = {
        "hostname": where["host"],
        "port": where["port"],
        "username": where["user"],
        "db_name": database,
        "password": {"env": "DAGSTER_PG_PASSWORD"},
    }
    logs = VALUES["computeLogManager"]["config"]["gcsComputeLogManager"]
    instance = {
        "storage": {"postgres": {"postgres_db": postgres_db}},
        "run_launcher": build_launcher(kubeconfig),
        "compute_logs": {
            "module": "dagster_gcp.gcs.compute_log_manager",
            "class": "GCSComputeLogManager",
            "config": {"bucket": BUCKET, "prefix": logs["prefix"], "local_dir": logs["localDir"]},
        },
        "telemetry": VALUES["telemetry"],
    }
    (folder / "dagster.yaml").write_text(yaml.safe_dump(instance))
    return {
        "dagster-postgresql/postgresql-password": str(where["password"]),
        "taxi-secrets/POSTGRES_PASSWORD": str(where["password"]),
        "taxi-secrets/POSTGRES_READER_PASSWORD": secrets.token_hex(8),
    }


def build_options(
    job: Mapping[str, Any], pod_secrets: Mapping[str, str], scratch: Path
) -> list[str]:
    """Translate a job's pod to options of `docker run`, and its command."""
    pod = dict(job["spec"]["template"]["spec"])
    (container,) = pod["containers"]
    assert pod.keys() - IGNORED == {"securityContext"}
    user = dict(pod["securityContext"])
    assert user.pop("runAsNonRoot") is True
    assert user.pop("seccompProfile") == {"type": "RuntimeDefault"}  # Docker's default, too
    options = ["--user", f"{user.pop('runAsUser')}:{user.pop('runAsGroup')}"]
    options += ["--group-add", str(user.pop("fsGroup"))]
    assert user == {}
    locked = dict(container["securityContext"])
    assert locked.pop("readOnlyRootFilesystem") is True
    assert locked.pop("allowPrivilegeEscalation") is False
    options += ["--read-only", "--security-opt", "no-new-privileges"]
    options += [f"--cap-drop={name}" for name in locked.pop("capabilities")["drop"]]
    assert locked == {}
    limits = dict(container["resources"]["limits"])
    memory = limits.pop("memory")
    memory = memory[:-2] + UNITS[memory[-2:]]
    options += ["--cpus", limits.pop("cpu"), "--memory", memory, "--memory-swap", memory]
    assert limits.keys() == {"ephemeral-storage"}
    (volume,) = pod["volumes"]
    assert volume.keys() == {"name", "emptyDir"}
    for mount in container["volumeMounts"]:
        assert mount.keys() == {"name", "mountPath", "subPath"}
        assert mount["name"] == volume["name"]
        folder = scratch / mount["subPath"]
        folder.mkdir()
        folder.chmod(0o777)  # as an emptyDir
        options += ["--volume", f"{folder}:{mount['mountPath']}"]
    for variable in container["env"]:
        if "value" in variable:
            options += ["--env", f"{variable['name']}={variable['value']}"]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            value = pod_secrets[f"{reference['name']}/{reference['key']}"]
            options += ["--env", f"{variable['name']}={value}"]
    for source in container["envFrom"]:
        prefix = f"{source['secretRef']['name']}/"
        for name, value in pod_secrets.items():
            if name.startswith(prefix):
                options += ["--env", f"{name.removeprefix(prefix)}={value}"]
    assert "command" not in container
    return [*options, container["image"], *container["args"]]


@pytest.fixture(scope="module")
def pod(home: Path, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """Launch a run of one day, and run its pod as a container."""
    folder = tmp_path_factory.mktemp("pod")
    scratch = folder / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    servers = local.ensure_stack_running(home / "taxi")
    (servers.lake_root / BUCKET).mkdir(parents=True)
    kubeconfig = folder / "kubeconfig"
    with ExitStack() as stack:
        gcs = stack.enter_context(gcs_server(servers.lake_root))
        pod_secrets = write_instance(folder, kubeconfig)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("DAGSTER_PG_PASSWORD", pod_secrets["dagster-postgresql/postgresql-password"])
        patch.setenv("STORAGE_EMULATOR_HOST", gcs)
        created = stack.enter_context(serve_api(kubeconfig))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(folder)))
        filled = {
            "TAXI_SOURCE": "sample",
            "GCP_PROJECT": "taxi-local",
            "GCS_BUCKET": BUCKET,
            "POSTGRES_HOST": servers.postgres_host,
            "POSTGRES_DBNAME": servers.postgres_dbname,
            "POSTGRES_USER": servers.postgres_user,
        }
        outside = {
            "POSTGRES_PORT": str(servers.postgres_port),
            "POSTGRES_SCHEMA": SCHEMA,
            "BIGQUERY_DATASET": SCHEMA,
            "BIGQUERY_ENDPOINT": servers.bigquery_endpoint,
            "BIGQUERY_TOKEN": servers.bigquery_token,
            "STORAGE_EMULATOR_HOST": gcs,
        }
        run_id = launch_green(instance, image, ENV | filled | outside, {"dagster/partition": DAY})
        ((_, job),) = created
        options = build_options(job, pod_secrets, scratch)
        name = f"taxitest-pod-{run_id[:8]}"
        stack.callback(docker, "rm", "--force", name)
        ended = docker("run", "--rm", "--name", name, "--network", "host", *options)
        run, output = instance.get_run_by_id(run_id), ended.stdout + ended.stderr
        assert run.status == DagsterRunStatus.SUCCESS, output[-4000:]
        cleaned = dg.AssetKey(["green", "cleaned_trips"])
        (record,) = instance.fetch_materializations(cleaned, limit=1).records
        rows = record.asset_materialization.metadata["rows"].value
        yield Pod(run, rows, output, scratch)


def test_run_in_a_pod_stores_the_day_in_three_stores(pod: Pod) -> None:
    count = f"SELECT count(*) FROM {SCHEMA}.{SERVICES['green'].table}"
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(count)
        in_postgres = cursor.fetchone()[0]
    (in_bigquery,) = next(stores.bigquery().query(count).result())
    (trips,) = (stores.stack().lake_root / BUCKET / "green").rglob("*.parquet")
    in_lake = pq.read_metadata(trips).num_rows
    assert (in_postgres, in_bigquery, in_lake) == (pod.rows,) * 3
    assert pod.rows > 20


def test_pod_writes_only_to_its_ephemeral_volume(pod: Pod) -> None:
    """The root file system is read-only: a failed write would be in the output."""
    assert "Read-only file system" not in pod.output
    assert "Permission denied" not in pod.output
    owners = {path.stat().st_uid for path in pod.scratch.rglob("*")} - {pod.scratch.stat().st_uid}
    assert owners <= {VALUES["dagsterWebserver"]["podSecurityContext"]["runAsUser"]}


def test_output_of_a_pod_has_no_secret(pod: Pod) -> None:
    assert stores.stack().postgres_password not in pod.output
