"""The settings that Terraform's variables and the values for Kubernetes name, beside ours."""

from __future__ import annotations

import re

import yaml

from taxi_assets.settings import AREAS
from taxi_assets_tests.isolation import REPOSITORY

TERRAFORM = REPOSITORY / "deploy" / "terraform"
NOT_ON_GOOGLE_CLOUD = {
    *("BIGQUERY_ENDPOINT", "BIGQUERY_TOKEN", "STORAGE_EMULATOR_HOST"),
    *("GOOGLE_APPLICATION_CREDENTIALS", "TAXI_LAKE", "TAXI_LOCAL_IDLE_TIMEOUT"),
    # The image says where; a container reaches the database by a socket, which has no port.
    *("TAXI_HOME", "POSTGRES_PORT"),
}


def list_settings() -> dict[str, bool]:
    """Return whether each setting is secret, by its type."""
    return {
        variable: "SecretStr" in str(area.model_fields[name].annotation)
        for area in AREAS.values()
        for variable, name in area.list_variables().items()
    }


def read_block(file: str, begin: str) -> str:
    """Return the text from a line's start to the next line with the same indent."""
    text = (TERRAFORM / file).read_text()
    match = re.search(rf"(?ms)^( *){re.escape(begin)}.*?^\1\S", text)
    assert match, f"{begin} is not in {file}"
    return match[0]


def list_names(text: str) -> set[str]:
    return set(re.findall(r"\b(?:TAXI|POSTGRES|BIGQUERY|GCS|GCP)_[A-Z_]+\b", text))


def test_terraform_has_a_variable_for_every_setting_it_does_not_create() -> None:
    listed = list_names(read_block("settings.tf", "settings = ["))
    secret = list_names(read_block("settings.tf", "secret_settings = {"))
    created = list_names(read_block("run.tf", "env = merge(")) | list_names(
        read_block("run.tf", "taxi_secret ")
    )
    assert created >= {"TAXI_PROFILE", "POSTGRES_HOST", "GCS_BUCKET", "POSTGRES_PASSWORD"}
    assert not listed & secret
    assert not (listed | secret) & created
    assert listed | secret | created == set(list_settings()) - NOT_ON_GOOGLE_CLOUD


def test_no_secret_setting_is_in_plain_text_on_google_cloud() -> None:
    listed = list_names(read_block("settings.tf", "settings = ["))
    assert [name for name in sorted(listed) if list_settings()[name]] == []


def test_kubernetes_values_name_existing_settings() -> None:
    values = yaml.safe_load((REPOSITORY / "deploy/kubernetes/values.yaml").read_text())
    (code,) = values["dagster-user-deployments"]["deployments"]
    plain = {variable["name"] for variable in code["env"]} - {"TMPDIR"}
    readme = (REPOSITORY / "deploy/kubernetes/README.md").read_text()
    secret = set(re.findall(r"--from-literal=([A-Z_]+)=", readme))
    assert secret >= {"POSTGRES_PASSWORD", "POSTGRES_READER_PASSWORD"}
    assert plain | secret <= set(list_settings())
    assert [name for name in plain if list_settings()[name] and name != "TAXI_SOURCE"] == []


def test_chart_version_is_the_locked_dagsters() -> None:
    lock = (REPOSITORY / "deploy" / "requirements.lock").read_text()
    (locked,) = re.findall(r"^dagster==(\S+)", lock, re.MULTILINE)
    readme = (REPOSITORY / "deploy/kubernetes/README.md").read_text()
    assert re.findall(r"--version (\S+)", readme) == [locked]
