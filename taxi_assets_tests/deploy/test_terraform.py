"""Failed and interrupted applies of `deploy/terraform`, by Terraform and a local Google API.

The database's users and Secret Manager hold the same passwords after the next apply, wherever the
one before it ended.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from taxi_assets_tests.deploy.google_provider import (
    CONFIGURATION,
    Failure,
    Google,
    serving,
)

pytestmark = [
    pytest.mark.deploy,
    pytest.mark.skipif(shutil.which("terraform") is None, reason="needs terraform"),
]

PROJECT = "my-project-123"
SECRET = f"projects/{PROJECT}/secrets/taxi-{{}}-database"


class Terraform:
    """A copy of the configuration, with a separate local Google."""

    def __init__(self, folder: Path, env: dict[str, str], google: Google) -> None:
        self.google = google
        self.root = folder / "terraform"
        self.env = {"PATH": os.environ["PATH"], "HOME": str(folder), "TF_IN_AUTOMATION": "1"} | env
        self.root.mkdir()
        for path in CONFIGURATION.glob("*.tf"):
            shutil.copy(path, self.root)
        shutil.copy(CONFIGURATION.parent / "dagster-gcp.yaml", folder)
        assert self.run("init").returncode == 0

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["terraform", *arguments, "-input=false", "-no-color"],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def apply(self, **variables: str | int) -> subprocess.CompletedProcess[str]:
        values = {"project_id": PROJECT, **variables}
        arguments = [f"-var={name}={value}" for name, value in values.items()]
        # Nothing else changes the resources here, so a refresh would only be slow.
        return self.run("apply", "-auto-approve", "-refresh=false", *arguments)

    def apply_twice(self, name: str, failure: Failure, **variables: str | int) -> None:
        """Apply with a failure at one resource, once, and again without."""
        left = [failure]
        self.google.fail = lambda resource: left.pop() if left and resource == name else None
        first = self.apply(**variables)
        assert first.returncode == 1, f"{name}: {first.stdout}"
        assert f"{name}: {failure}" in first.stderr, first.stderr
        second = self.apply(**variables)
        assert second.returncode == 0, second.stderr

    def start_again(self) -> None:
        """Remove everything that was created."""
        for path in self.root.glob("terraform.tfstate*"):
            path.unlink()
        self.google.users.clear()
        self.google.secrets.clear()
        self.google.applied.clear()
        self.google.fail = lambda _: None

    def passwords_agree(self, version: int | None = None) -> None:
        """Fail unless users have the passwords of the newest secrets, and these are well formed."""
        newest = {name: self.google.secrets[SECRET.format(name)] for name in ("dagster", "taxi")}
        url = list(newest["dagster"].values())[-1]
        match = re.fullmatch(r"postgresql://dagster:(\w{32})@/dagster\?host=/cloudsql/.+", url)
        assert match, url
        in_secrets = {"dagster": match[1], "taxi": list(newest["taxi"].values())[-1]}
        assert self.google.users == in_secrets
        if version:
            assert {len(versions) for versions in newest.values()} == {version}


@pytest.fixture
def terraform(tmp_path: Path) -> Iterator[Terraform]:
    google = Google()
    with serving(google) as env:
        yield Terraform(tmp_path, env, google)


def test_first_apply_recovers_from_a_failure_at_each_resource(terraform: Terraform) -> None:
    first = terraform.apply()
    assert first.returncode == 0, first.stderr
    terraform.passwords_agree(version=1)
    names = list(terraform.google.applied)
    assert len(names) > 30
    for name in names:
        terraform.start_again()
        terraform.apply_twice(name, "rejected")
        terraform.passwords_agree(version=1)


@pytest.mark.parametrize("failure", ["rejected", "interrupted"])
@pytest.mark.parametrize("password_version", [1, 2])
def test_passwords_agree_after_an_interrupted_apply(
    terraform: Terraform, password_version: int, failure: Failure
) -> None:
    touched = [
        name
        for database in ("dagster", "taxi")
        for name in (
            f"google_secret_manager_secret_version {SECRET.format(database)}",
            f"google_sql_user {database}",
        )
    ]
    for name in touched:
        terraform.start_again()
        if password_version > 1:
            assert terraform.apply().returncode == 0
            before = dict(terraform.google.users)
        terraform.apply_twice(name, failure, password_version=password_version)
        terraform.passwords_agree()
        if password_version > 1:
            assert not set(before.values()) & set(terraform.google.users.values())


def test_second_apply_changes_no_password(terraform: Terraform) -> None:
    assert terraform.apply().returncode == 0
    before = dict(terraform.google.users)
    applied_count = len(terraform.google.applied)
    second = terraform.apply()
    assert "0 added, 0 changed, 0 destroyed" in second.stdout, second.stdout
    assert terraform.google.users == before
    assert len(terraform.google.applied) == applied_count


def test_state_contains_no_password(terraform: Terraform) -> None:
    assert terraform.apply().returncode == 0
    state = (terraform.root / "terraform.tfstate").read_text()
    assert "google_sql_user" in state
    assert not [word for word in terraform.google.users.values() if word in state]


def test_grown_disk_is_unchanged(terraform: Terraform) -> None:
    # Google's provider makes a database again whose disk the configuration has smaller.
    assert terraform.apply(database_disk_gb=20).returncode == 0
    second = terraform.apply(database_disk_gb=10)
    assert "0 added, 0 changed, 0 destroyed" in second.stdout, second.stdout


def test_two_deployments_in_one_project_have_different_names(terraform: Terraform) -> None:
    """`tests/house` is the module twice, with the provider of its caller and one server."""
    shutil.copytree(CONFIGURATION / "tests" / "house", terraform.root / "tests" / "house")
    terraform.root = terraform.root / "tests" / "house"
    assert terraform.run("init").returncode == 0
    both = terraform.run("apply", "-auto-approve")
    assert both.returncode == 0, both.stderr
    resources = [name for name in terraform.google.applied if "google_project_service" not in name]
    assert len(resources) == len(set(resources)), [
        name for name in resources if resources.count(name) > 1
    ]
    assert set(terraform.google.users) == {
        f"taxi_{house}_{database}" for house in ("dev", "prod") for database in ("dagster", "taxi")
    }
    assert {name.split()[0] for name in resources if "-dev-postgres" in name} == set()
