"""The settings, names and privileges in `docker-compose.yml` agree with the package."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
import yaml

from taxi_assets.settings import AREAS
from taxi_assets_tests.conftest import REPOSITORY

# docker-compose sets these itself.
SET_BY_COMPOSE = {
    *("BIGQUERY_ENDPOINT", "TAXI_HOME", "TAXI_LOCAL_IDLE_TIMEOUT", "TAXI_PROFILE", "TAXI_ENV_FILE"),
    *("TAXI_LAKE", "STORAGE_EMULATOR_HOST"),
}
ROLES = {"code", "webserver", "daemon", "bigquery"}
PROFILES = ("deploy/local.yml", "deploy/gcp.yml")


def read(file: str) -> str:
    return (REPOSITORY / file).read_text()


def read_services(file: str) -> dict[str, Any]:
    return yaml.safe_load(read(file))["services"]


def test_every_setting_is_passed_to_the_code_server() -> None:
    named = {name for area in AREAS.values() for name in area.list_variables()}
    files = (*PROFILES, "docker-compose.yml")
    own, *_ = reached = [set(read_services(file)["code"]["environment"]) for file in files]
    assert named - SET_BY_COMPOSE - set().union(*reached) == set()
    # Every variable of the code server is a setting.
    ours = re.compile("(TAXI|POSTGRES|BIGQUERY|GCS|GCP)_")
    assert set(filter(ours.match, set().union(*reached))) - SET_BY_COMPOSE <= named
    # The emulator's token is a secret of profile local only.
    assert named - SET_BY_COMPOSE - reached[-1] == {"BIGQUERY_TOKEN"} <= own


def test_one_message_names_every_missing_setting() -> None:
    required = {}
    for file in (*PROFILES, "docker-compose.yml"):
        messages_by_setting = re.findall(r"\$\{([A-Z_]+):\?\1 is missing\. ([^}]*)}", read(file))
        assert len(messages_by_setting) == read(file).count(":?"), file
        required[file] = dict(messages_by_setting)
    messages = {
        message
        for messages_by_setting in required.values()
        for message in messages_by_setting.values()
    }
    (message,) = messages
    assert message.endswith(", see .env.example")
    assert set(re.findall(r"[A-Z]+_[A-Z_]+", message)) == set().union(*required.values())
    example = read(".env.example")
    for name in set().union(*required.values()):
        assert re.search(rf"^#? ?{name}=", example, re.MULTILINE), name
    # A setting of one profile is not required by the other.
    assert "BIGQUERY_TOKEN" not in required["docker-compose.yml"] | required["deploy/gcp.yml"]


def test_code_location_has_one_name_everywhere() -> None:
    (server,) = yaml.safe_load(read("deploy/workspace.yaml"))["load_from"]
    (module,) = yaml.safe_load(read("workspace.yaml"))["load_from"]
    name = module["python_module"]
    assert server["grpc_server"]["location_name"] == name
    assert f"--module-name={name}" in read_services("docker-compose.yml")["code"]["command"]
    launcher = yaml.safe_load(read("deploy/dagster-gcp.yaml"))["run_launcher"]["config"]
    assert list(launcher["job_name_by_code_location"]) == [name]
    assert set(re.findall(r'"repositoryLocationName": "(.*?)"', read("docs/api.md"))) == {name}


def test_runs_wait_in_the_queue_while_the_code_server_stops() -> None:
    grace = read_services("docker-compose.yml")["code"]["stop_grace_period"]
    queue = yaml.safe_load(read("deploy/dagster.yaml"))["run_queue"]
    waited = queue["max_user_code_failure_retries"] * queue["user_code_failure_retry_delay"]
    # It takes a minute to start again.
    assert waited >= int(grace.removesuffix("m")) * 60 + 60


def test_services_have_only_the_needed_privileges() -> None:
    services = read_services("docker-compose.yml")
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert ("ports" in service) == (name == "webserver"), name
        assert "docker.sock" not in str(service), name
        # `databases` runs once and ends.
        assert ("healthcheck" in service) == (name != "databases"), name
    (port,) = read_services("deploy/postgres-port.yml")["postgres"]["ports"]
    assert port.startswith("127.0.0.1:")
    for name in ROLES:
        # The log outlives the container.
        written = f"/var/lib/dagster/logs/services/{name}.log"
        assert services[name]["command"][:4] == [
            "python",
            "-m",
            "taxi_assets.local.log_file",
            written,
        ]
        assert "logs:/var/lib/dagster/logs" in services[name]["volumes"], name
        assert "cap_add" not in services[name], name
        assert "${POSTGRES_SUPERUSER_PASSWORD" not in str(services[name]), name


@pytest.mark.parametrize(
    ("user", "reader", "twice"),
    [("postgres", "r", "postgres"), ("t", "dagster", "dagster"), ("t", "t", "t")],
)
def test_one_role_with_two_passwords_is_rejected_before_it_has_one(
    user: str, reader: str, twice: str
) -> None:
    completed = subprocess.run(
        ["/bin/sh", REPOSITORY / "deploy/databases.sh"],
        env={
            "PGUSER": "postgres",
            "POSTGRES_USER": user,
            "POSTGRES_READER_USER": reader,
            "DAGSTER_POSTGRES_USER": "dagster",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1
    assert completed.stderr.startswith(f"two roles are called {twice}: POSTGRES_USER and")
