"""Terraform providers that stand in for Google's: the real schema and an API in this process.

They implement Terraform's plugin protocol, version 6, so that the real Terraform core validates,
plans and applies `deploy/terraform` without a registry and without an account. `google_schema.py`
cuts the schema in `google_schema.json` from version 8.7.0 of the real provider. Run as a program,
the module is Terraform with this provider: `check.sh --offline`.

Free strings (roles, machine types) and rules between arguments, which Google's provider and APIs
check, are not checked here.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import grpc

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deploy import plugin_protocol as protocol

SCHEMA = Path(__file__).with_name("google_schema.json")
CONFIGURATION = REPOSITORY / "deploy" / "terraform"

Values = dict[str, Any]
Failure = Literal["rejected", "interrupted"]

RANDOM: Values = {
    "ephemeral_resource_schemas": {
        "random_password": {
            "block": {
                "attributes": {
                    "length": {"type": "number", "required": True},
                    "special": {"type": "bool", "optional": True, "computed": True},
                    "result": {"type": "string", "computed": True, "sensitive": True},
                }
            }
        }
    }
}

REPLACED_BY = {
    "google_secret_manager_secret_version": ["secret", "secret_data_wo_version"],
    "google_sql_user": ["name", "instance"],
}
"""Arguments whose change makes a new resource, as the real provider has it."""


class Google:
    """The resources of the API, and its rejections."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        """Password by name of the database's user."""
        self.secrets: dict[str, dict[str, str]] = {}
        """Data by version, by secret."""
        self.applied: list[str] = []
        """What was created, updated and destroyed, in order."""
        self.fail: Callable[[str], Failure | None] = lambda _: None
        """Called for each change: rejected, or done although its answer is lost (interrupted)."""

    def change(self, kind: str, prior: Values | None, config: Values, planned: Values) -> Values:
        """Create or update a resource; return the new state."""
        state = dict(planned)
        secret = str(config.get("secret") or config.get("secret_id"))
        if kind == "google_secret_manager_secret_version" and prior is None:
            versions = self.secrets.setdefault(secret, {})
            state["version"] = str(len(versions) + 1)
            state["name"] = f"{secret}/versions/{state['version']}"
            versions[state["version"]] = config["secret_data_wo"]
        # As the API: inserting a user that exists gives it the password.
        elif kind == "google_sql_user" and (
            prior is None or prior["password_wo_version"] != config["password_wo_version"]
        ):
            self.users[config["name"]] = config["password_wo"]
        return state

    def destroy(self, kind: str, prior: Values) -> None:
        """Destroy; a user that is abandoned stays."""
        if kind == "google_secret_manager_secret_version":
            self.secrets[prior["secret"]][prior["version"]] = "destroyed"
        elif kind == "google_sql_user" and prior["deletion_policy"] != "ABANDON":
            del self.users[prior["name"]]

    def open(self, kind: str, config: Values) -> Values:
        """Return the values of an ephemeral resource."""
        if kind == "random_password":
            return config | {"result": secrets.token_hex(16), "special": False}
        return config | {"secret_data": self.secrets[config["secret"]][config["version"]]}


def whole_schema() -> Values:
    """Return the schema's file, with the parts common to all resources."""
    return json.loads(SCHEMA.read_text())


def identity(kind: str, values: Values) -> str:
    """Return a resource's name: its type and identifying values."""
    words = [
        "service",
        "account_id",
        "secret_id",
        "secret",
        "dataset_id",
        "repository_id",
        "bucket",
        "repository",
    ]
    words += ["display_name", "role", "member"]
    if not kind.startswith("google_secret_manager_"):
        words.append("name")
    return " ".join([kind, *(values[word] for word in words if isinstance(values.get(word), str))])


class Provider:
    """Answers one provider's calls from Terraform's core."""

    def __init__(self, schema: Values, google: Google) -> None:
        self.schema = schema
        self.google = google
        self.encoded = protocol.encode_schemas(schema)

    def answer(self, method: str, request: bytes) -> bytes:
        """Return the answer to a call, as bytes."""
        fields = protocol.fields(request)
        handler = getattr(self, method, None)
        return handler(fields) if handler else b""

    def GetProviderSchema(self, _: dict[int, Any]) -> bytes:  # noqa: N802 the protocol's names
        return self.encoded

    def UpgradeResourceState(self, fields: dict[int, Any]) -> bytes:  # noqa: N802
        state = protocol.fields(fields[3]).get(1, b"null")
        return protocol.field(1, protocol.field(2, state))

    def ReadResource(self, fields: dict[int, Any]) -> bytes:  # noqa: N802
        return protocol.field(1, fields[2])

    def ReadDataSource(self, fields: dict[int, Any]) -> bytes:  # noqa: N802
        kind, config = fields[1].decode(), protocol.loads(fields[2])
        block = self.schema["data_source_schemas"][kind]["block"]
        return protocol.field(1, protocol.dumps(fill(block, unknown(block, config), kind)))

    def PlanResourceChange(self, fields: dict[int, Any]) -> bytes:  # noqa: N802
        kind, prior = fields[1].decode(), protocol.loads(fields[2])
        block = self.schema["resource_schemas"][kind]["block"]
        planned = protocol.loads(fields[3])
        if planned is None:
            return protocol.field(1, protocol.dumps(None))
        planned = unknown(block, planned) if prior is None else without_secrets(block, planned)
        changed = [
            name
            for name in REPLACED_BY.get(kind, [])
            if prior is not None and prior[name] != planned[name]
        ]
        return protocol.field(1, protocol.dumps(planned)) + b"".join(
            protocol.field(2, protocol.field(1, protocol.field(1, name))) for name in changed
        )

    def ApplyResourceChange(self, fields: dict[int, Any]) -> bytes:  # noqa: N802
        kind = fields[1].decode()
        prior, planned, config = (protocol.loads(fields[number]) for number in (2, 3, 4))
        block = self.schema["resource_schemas"][kind]["block"]
        if planned is not None:
            planned = fill(block, planned, identity(kind, planned))
        name = identity(kind, config or prior)
        failure = self.google.fail(name)
        if failure != "rejected":
            self.google.applied.append(name)
            if planned is None:
                self.google.destroy(kind, prior)
            else:
                planned = self.google.change(kind, prior, config, planned)
        if not failure:
            return protocol.field(1, protocol.dumps(planned))
        # Plugins written with Terraform's SDK 2 answer without a state if nothing was created, with
        # a tainted resource if one was, and for an update as if it had been done.
        created_nothing = failure == "rejected" and prior is None
        state = None if created_nothing else prior if planned is None else planned
        message = f"Error 503: {name}: {failure} by the rehearsal"
        return protocol.field(1, protocol.dumps(state)) + protocol.error(3, message)

    def OpenEphemeralResource(self, fields: dict[int, Any]) -> bytes:  # noqa: N802
        kind, config = fields[1].decode(), protocol.loads(fields[2])
        return protocol.field(3, protocol.dumps(self.google.open(kind, config)))


def unknown(block: Values, values: Values) -> Values:
    """Return a planned resource with unknown computed values and without write-only values."""
    planned = {}
    for name, attribute in block.get("attributes", {}).items():
        value = values.get(name)
        if attribute.get("write_only"):
            value = None
        elif attribute.get("computed") and value is None:
            value = protocol.UNKNOWN
        planned[name] = value
    for name, nested in block.get("block_types", {}).items():
        value = values.get(name)
        if isinstance(value, list):
            value = [unknown(nested["block"], item) for item in value]
        elif isinstance(value, dict):
            value = unknown(nested["block"], value)
        planned[name] = value
    return planned


def without_secrets(block: Values, values: Values) -> Values:
    """Return a planned update without write-only values."""
    hidden = {
        name for name, attribute in block["attributes"].items() if attribute.get("write_only")
    }
    return {name: None if name in hidden else value for name, value in values.items()}


def fill(block: Values, values: Values, name: str) -> Values:
    """Return an applied resource whose unknown values are filled, the same in every rehearsal."""

    def build_value(attribute: str, kind: Any) -> Any:
        project, short = "my-project-123", str(values.get("secret_id") or values.get("account_id"))
        known = {
            "connection_name": f"{project}:us-central1:{values.get('name')}",
            "email": f"{short}@{project}.iam.gserviceaccount.com",
            "member": f"serviceAccount:{short}@{project}.iam.gserviceaccount.com",
            "project": project,
        }
        if values.get("secret_id"):
            known["id"] = known["name"] = f"projects/{project}/secrets/{short}"
        simple = {"string": known.get(attribute, f"{attribute} of {name}"), "number": 1}
        if isinstance(kind, str):
            return simple.get(kind, False)
        return {} if kind[0] in ("map", "object") else []

    filled = {}
    for attribute, schema in block.get("attributes", {}).items():
        value = values.get(attribute)
        filled[attribute] = (
            build_value(attribute, schema["type"]) if protocol.is_unknown(value) else value
        )
    for attribute, nested in block.get("block_types", {}).items():
        value = values.get(attribute)
        if isinstance(value, list):
            value = [fill(nested["block"], item, name) for item in value]
        elif isinstance(value, dict):
            value = fill(nested["block"], value, name)
        filled[attribute] = value
    return filled


@contextmanager
def serving(google: Google) -> Iterator[dict[str, str]]:
    """Serve both providers; yield the environment that makes Terraform use them."""
    reattach = {}
    servers = []
    folder = tempfile.mkdtemp()
    for name, schema in {"google": whole_schema(), "random": RANDOM}.items():
        server = grpc.server(futures.ThreadPoolExecutor(8))
        server.add_generic_rpc_handlers((protocol.Handler(Provider(schema, google).answer),))
        address = f"{folder}/{name}.sock"
        server.add_insecure_port(f"unix://{address}")
        server.start()
        servers.append(server)
        reattach[f"registry.terraform.io/hashicorp/{name}"] = {
            "Protocol": "grpc",
            "ProtocolVersion": 6,
            "Pid": os.getpid(),
            "Test": True,
            "Addr": {"Network": "unix", "String": address},
        }
    try:
        yield {
            "TF_REATTACH_PROVIDERS": json.dumps(reattach),
            "TF_CLI_CONFIG_FILE": os.devnull,
            "CHECKPOINT_DISABLE": "1",
        }
    finally:
        for server in servers:
            server.stop(None).wait()
        shutil.rmtree(folder)


def main() -> int:
    """Run Terraform with this provider."""
    terraform = shutil.which("terraform") or "terraform"
    with serving(Google()) as env:
        return subprocess.run(
            [terraform, *sys.argv[1:]], env=os.environ | env, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
