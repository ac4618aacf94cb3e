"""A docker-compose project of a copy of this checkout, under a name and a port of its own."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from taxi_assets_tests.isolation import REPOSITORY, isolation
from taxi_assets_tests.test_server import LAUNCH, STATUS, ask, until

PASSWORDS = (
    *("POSTGRES_PASSWORD", "POSTGRES_READER_PASSWORD", "DAGSTER_POSTGRES_PASSWORD"),
    "POSTGRES_SUPERUSER_PASSWORD",
)
CHECKOUT = ("docker-compose.yml", ".env.example", ".dockerignore", "deploy", "taxi_assets")
COMPARE = Path(__file__).with_name("stores_and_source.py")
RUNS = """query ($id: String!) {
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { runId status parentRunId } }
  }
}"""
FAILURES = """query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message causes { message } } }
  }
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { runId status eventConnection { events {
      ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
      ... on RunFailureEvent { message error { message } }
      ... on EngineEvent { message error { message } }
    } } } }
  }
}"""
SERVICES = ("postgres", "code", "webserver", "daemon", "bigquery")
BUSY = ("REQUESTED", "CANCELING", "FAILING")
MINUTES = 60.0


def compose_command() -> list[str]:
    """Return `docker compose` v2 if it exists, otherwise docker-compose 1.29."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if (
            shutil.which(command[0])
            and not subprocess.run(
                [*command, "version"],
                capture_output=True,
                check=False,
                env=isolation.user_environment,
            ).returncode
        ):
            return command
    pytest.skip("there is no docker compose")


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Project:
    """The stack of a checkout of its own; commands are a person's, typed in that folder."""

    folder: Path
    command: list[str] = field(default_factory=compose_command)
    name: str = field(default_factory=lambda: f"taxitest{secrets.token_hex(3)}")
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        for name in CHECKOUT:
            source, target = REPOSITORY / name, self.folder / name
            if source.is_dir():
                shutil.copytree(
                    source, target, ignore=shutil.ignore_patterns("__pycache__", "terraform")
                )
            else:
                shutil.copy(source, target)
        self.port = free_port()
        self.settings |= {"COMPOSE_PROJECT_NAME": self.name, "DAGSTER_PORT": str(self.port)}
        for name in PASSWORDS:
            self.settings[name] = self.password()
        self.settings["BIGQUERY_TOKEN"] = secrets.token_hex(16)
        self.write()

    @property
    def is_v2(self) -> bool:
        """Return whether compose is version 2."""
        return self.command[0] == "docker"

    def password(self) -> str:
        """Return a password with special characters of shells, URLs, SQL, YAML and `.env` files."""
        odd = '$HOME $$ "two" it\'s #1 \\n %41 @:/?&=;'
        # The one thing that docker-compose 1.29 replaces in single quotes.
        return f"{odd}{'${HOME}' if self.is_v2 else ''} {secrets.token_hex(8)}"

    def write(self) -> None:
        """Write `.env`: the example with a user's additions."""
        example = (self.folder / ".env.example").read_text()
        quoted = {name: value.replace("'", "\\'") for name, value in self.settings.items()}
        lines = [f"{name}='{value}'" for name, value in quoted.items()]
        (self.folder / ".env").write_text("\n".join([example, *lines, ""]))

    @contextmanager
    def changed(self, *without: str, **settings: str) -> Iterator[None]:
        """Change settings temporarily."""
        before = dict(self.settings)
        self.settings = {n: v for n, v in before.items() if n not in without} | settings
        self.write()
        try:
            yield
        finally:
            self.settings = before
            self.write()

    def up(self, *arguments: str) -> None:
        """Start the stack as documented, and check the documented result."""
        if self.is_v2:
            self.run("up", "-d", "--wait", *arguments)
            self.wait_healthy(SERVICES, 1)
        else:
            self.run("up", "-d", *arguments)
            self.wait_healthy(SERVICES)

    def remove(self) -> None:
        """Remove everything, images too."""
        # One without a name, that a container got from the one before it, is never removed.
        form = "{{range .Mounts}}{{.Name}} {{end}}"
        volumes = {
            name
            for container in self.run("ps", "-a", "-q").stdout.split()
            for name in self.docker("inspect", "-f", form, container).split()
        }
        self.run("down", "--volumes", "--remove-orphans")
        # By name: another project's image may have the same content, and so the same id.
        form = ("--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={self.name}-assets")
        for image in self.docker("images", *form).split():
            self.docker("image", "rm", image)
        kinds = (["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"])
        label = f"label=com.docker.compose.project={self.name}"
        assert {name for name in volumes if not name.startswith(f"{self.name}_")} == set()
        assert [self.docker(*kind, "--filter", label) for kind in kinds] == ["", "", ""]

    def run(self, *arguments: str, check: bool = True, **more: Any) -> subprocess.CompletedProcess:
        """Run a compose command; print its output on failure."""
        environment = {
            name: value
            for name, value in isolation.user_environment.items()
            if name.startswith(("DOCKER_", "PYTHON_IMAGE")) or name in ("PATH", "HOME")
        }
        completed = subprocess.run(
            [*self.command, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            check=False,
            **{"text": True, **more},
        )
        assert not check or completed.returncode == 0, (
            f"{arguments}: {completed.stdout} {completed.stderr}"
        )
        return completed

    def docker(self, *arguments: str) -> str:
        """Return the output of a docker command."""
        return subprocess.run(
            ["docker", *arguments],
            # Wherever this process is by then: an interrupted rehearsal is taken down, too.
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            env=isolation.user_environment,
        ).stdout

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self.run("ps", "-q", service).stdout.strip()

    def wait_healthy(self, services: tuple[str, ...], seconds: float = 5 * MINUTES) -> None:
        """Wait until all services are healthy."""

        def healthy() -> bool:
            form = "{{.State.Status}} {{.State.Health.Status}}"
            containers = [self.container(service) for service in services]
            states = [
                self.docker("inspect", "-f", form, container).split()
                for container in containers
                if container
            ]
            return states == [["running", "healthy"]] * len(services)

        until(healthy, seconds)

    @property
    def graphql(self) -> str:
        """Return the webserver's GraphQL address."""
        return f"http://127.0.0.1:{self.port}/graphql"

    def backfill(self, service: str, days: list[str]) -> str:
        """Launch a backfill; return its id."""
        names = ("raw", "cleaned", "postgres", "gcs", "bigquery")
        assets = [{"path": [service, f"{name}_trips"]} for name in names]
        params = {"partitionNames": days, "assetSelection": assets}
        launched = ask(self.graphql, LAUNCH, params=params)["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return launched["backfillId"]

    def runs(self, backfill: str) -> list[dict[str, Any]]:
        """Return the runs of a backfill, retries included."""
        return self.query_backfill(RUNS, backfill)["runsOrError"]["results"]

    def failures(self, backfill: str) -> str:
        """Return the backfill's error, its runs, and the messages of those that failed."""
        answer = self.query_backfill(FAILURES, backfill)
        lines = [str(answer["partitionBackfillOrError"])]
        for run in answer["runsOrError"]["results"]:
            lines.append(f"{run['runId'][:8]} {run['status']}")
            lines += [f"  {event}" for event in run["eventConnection"]["events"] if event]
        return "\n".join(lines)

    def query_backfill(self, query: str, backfill: str) -> dict[str, Any]:
        """Query a backfill; the first answer after an outage of Postgres may be an error."""

        def answer() -> dict[str, Any] | None:
            try:
                return ask(self.graphql, query, id=backfill)
            except AssertionError as error:
                if "OperationalError" not in str(error):
                    raise
                return None

        return until(answer, 2 * MINUTES)

    def running(self, backfill: str, but: set[str], seconds: float = 10 * MINUTES) -> str:
        """Return the id of a running run that is not in `but`."""

        def started() -> str | None:
            started_runs = [run for run in self.runs(backfill) if run["status"] == "STARTED"]
            return next((run["runId"] for run in started_runs if run["runId"] not in but), None)

        return until(started, seconds)

    def ended(self, backfill: str, seconds: float = 20 * MINUTES) -> str:
        """Return the final status of a backfill."""

        def status() -> str | None:
            backfill_status = self.query_backfill(STATUS, backfill)["partitionBackfillOrError"][
                "status"
            ]
            return None if backfill_status in BUSY else backfill_status

        return until(status, seconds)

    def compare(self, service: str, days: list[str]) -> dict[str, Any]:
        """Assert that stores and source hold the same rows; return the rows by store and day."""
        result = self.run(
            "exec", "-T", "code", "python", "-", service, *days, input=COMPARE.read_text()
        )
        payload = json.loads(result.stdout)
        assert len(set(payload["hashes"].values())) == 1
        assert all(rows > 0 for rows in payload["rows"]["source"].values())
        return payload["rows"]

    def memory(self) -> dict[str, str]:
        """Return the memory use of each container, and its limit."""
        ids = self.run("ps", "-q").stdout.split()
        lines = self.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *ids)
        return dict(line.split(maxsplit=1) for line in lines.splitlines())

    def is_answering(self) -> bool:
        """Return whether the webserver answers."""
        return requests.get(f"http://127.0.0.1:{self.port}/server_info", timeout=5).ok


class Clock:
    """Prints how long each part took."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def __call__(self, what: str) -> None:
        now = time.monotonic()
        print(f"\n{now - self.began:7.1f} s  {what}", end="", flush=True)
        self.began = now
