"""The docker-compose stack, from nothing to nothing; see docs/docker-compose.md.

One scenario in the order of the file: each test goes on where the one before it ended.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.deploy.compose import MINUTES, PASSWORDS, Clock, Project
from taxi_assets_tests.test_server import ask, until

pytestmark = pytest.mark.deploy

WEEK = [f"2021-03-{day:02d}" for day in range(1, 8)]
DISTURBED = [f"2021-04-{day:02d}" for day in range(1, 17)]
SERVICES = ("postgres", "code", "webserver", "daemon", "bigquery")
AWAY = 20
"""Seconds that Postgres is gone: longer than Dagster tries to reconnect."""


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("compose") / ".env")
    try:
        yield project
    finally:
        project.run("down", "--volumes", "--remove-orphans")
        subprocess.run(
            ["docker", "image", "rm", "-f", f"taxi-assets:{project.name}"],
            check=False,
            capture_output=True,
        )
        clock("taken down")
        kinds = (["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"])
        label = f"label=com.docker.compose.project={project.name}"
        assert [project.docker(*kind, "--filter", label) for kind in kinds] == ["", "", ""]


@pytest.mark.parametrize("name", [*PASSWORDS, "COMPOSE_PROFILES"])
def test_without_a_password_or_profile_nothing_starts(project: Project, name: str) -> None:
    there = dict(project.settings)
    project.settings[name] = ""
    project.write()
    done = project.run("up", "-d", check=False)
    project.settings = there
    project.write()
    assert done.returncode
    assert f"set {name} in .env" in done.stderr
    assert project.run("ps", "-q").stdout == ""


def test_with_google_cloud_the_emulator_is_no_part_of_it(project: Project) -> None:
    there = dict(project.settings)
    project.settings |= {"COMPOSE_PROFILES": "gcp", "GCP_PROJECT": "p", "GCS_BUCKET": "lake"}
    project.write()
    names = project.run("config", "--services").stdout.split()
    config = project.run("config").stdout
    project.settings = there
    project.write()
    assert "TAXI_PROFILE: gcp" in config
    assert "BIGQUERY_ENDPOINT" not in config or names == []
    # docker-compose 1.29 lists services of profiles that are off, and starts none of them.
    assert {"postgres", "code", "webserver", "daemon"} <= set(names)


def test_from_nothing_every_container_becomes_healthy(project: Project, clock: Clock) -> None:
    clock("until here")
    project.run("build")
    clock("build")
    project.run("up", "-d", "--build")
    project.wait_healthy(SERVICES)
    clock("up and healthy")
    image = project.docker("image", "inspect", "-f", "{{.Size}}", f"taxi-assets:{project.name}")
    print(f"  image {int(image) / 1e6:.0f} MB", project.memory())


def test_a_week_is_in_three_stores_as_in_the_source(project: Project, clock: Clock) -> None:
    backfill = project.backfill("green", WEEK)
    assert project.ended(backfill) == "COMPLETED_SUCCESS"
    clock("backfill of a week")
    rows = project.compare("green", WEEK)
    assert set(rows) == {"source", "postgres", "lake", "bigquery"}
    clock(f"compared: {sum(rows['source'].values())} rows")
    print("", project.memory())


def test_roles_run_as_nobody_in_particular_on_a_read_only_system(project: Project) -> None:
    for service in ("code", "webserver", "daemon", "bigquery"):
        shown = project.run("exec", "-T", service, "id", "-u").stdout.strip()
        assert shown not in ("", "0"), service
        touched = project.run("exec", "-T", service, "touch", "/opt/taxi/x", check=False)
        assert "Read-only file system" in touched.stderr, service
    who = project.run("exec", "-T", "postgres", "stat", "-c", "%U", "/proc/1").stdout.strip()
    assert who == "postgres"
    superuser = project.settings["POSTGRES_SUPERUSER_PASSWORD"]
    for service in ("code", "webserver", "daemon", "bigquery"):
        assert superuser not in project.run("exec", "-T", service, "env").stdout


def test_an_upgrade_keeps_the_data(project: Project, clock: Clock, tmp_path: Path) -> None:
    context = tmp_path / "checkout"
    for part in ("taxi_assets", "deploy"):
        shutil.copytree(REPOSITORY / part, context / part)
    (context / "taxi_assets" / "__init__.py").write_text('__version__ = "upgraded"\n')
    tag = f"taxi-assets:{project.name}"
    before = project.docker("image", "inspect", "-f", "{{.Id}}", tag)
    arguments = ["-t", tag, "-f", str(context / "deploy" / "Dockerfile"), str(context)]
    project.docker("build", "-q", *arguments)
    assert project.docker("image", "inspect", "-f", "{{.Id}}", tag) != before
    # A run a day, so that there is one to disturb for each container.
    project.settings["TAXI_DAYS_PER_RUN"] = "1"
    project.write()
    clock("new image")
    project.run("up", "-d")
    project.wait_healthy(SERVICES)
    clock("upgraded")
    version = "import taxi_assets; print(taxi_assets.__version__)"
    shown = project.run("exec", "-T", "code", "python", "-c", version).stdout
    assert shown == "upgraded\n"
    project.run("exec", "-T", "code", "dagster", "instance", "migrate")
    project.compare("green", WEEK)
    runs = ask(project.graphql, "{runsOrError{... on Runs{results{status}}}}")["runsOrError"]
    assert [run["status"] for run in runs["results"]] == ["SUCCESS"]
    clock("compared")


def test_a_backfill_outlasts_the_restart_of_every_container(project: Project, clock: Clock) -> None:
    backfill = project.backfill("yellow", DISTURBED)
    seen: set[str] = set()

    def in_the_middle() -> None:
        seen.add(project.running(backfill, seen))

    for service in ("webserver", "daemon", "bigquery"):
        in_the_middle()
        project.run("restart", service)
        project.wait_healthy((service,))
        clock(f"{service} restarted")
    in_the_middle()
    project.run("stop", "postgres")
    time.sleep(AWAY)
    project.run("start", "postgres")
    project.wait_healthy(SERVICES)
    clock("postgres stopped and started")
    in_the_middle()
    # SIGTERM: the run ends, then the code server.
    project.run("restart", "-t", "300", "code")
    project.wait_healthy(("code",))
    clock("code restarted")
    in_the_middle()
    project.run("restart", "-t", "0", "code")
    project.wait_healthy(("code",))
    clock("code killed")

    assert until(project.answers, 2 * MINUTES)
    status = project.ended(backfill)
    clock("backfill ended")
    runs = project.runs(backfill)
    print("", [(run["runId"][:8], run["status"], bool(run["parentRunId"])) for run in runs])
    assert status == "COMPLETED_SUCCESS", project.failures(backfill)
    rows = project.compare("yellow", DISTURBED)
    clock(f"compared: {sum(rows['source'].values())} rows")
    print("", project.memory())


def test_a_backup_comes_back_on_an_empty_volume(project: Project, clock: Clock) -> None:
    dumps = {}
    for database in ("ny_taxi", "dagster"):
        dump = ("pg_dump", "-U", "postgres", "-Fc", database)
        dumps[database] = project.run("exec", "-T", "postgres", *dump, text=False).stdout
    clock(f"backed up: {sum(map(len, dumps.values())) / 1e6:.1f} MB")
    project.run("stop")
    project.run("rm", "-f", "-s", "-v", "postgres", "databases")
    project.docker("volume", "rm", f"{project.name}_postgres")
    project.run("run", "--rm", "databases")
    for database, dump in dumps.items():
        restore = ("pg_restore", "-U", "postgres", "-d", database, "--exit-on-error")
        project.run("exec", "-T", "postgres", *restore, input=dump, text=False)
    project.run("up", "-d")
    project.wait_healthy(SERVICES)
    clock("restored and up")
    project.compare("green", WEEK)
    project.compare("yellow", DISTURBED)
    runs = ask(project.graphql, "{runsOrError{... on Runs{results{status}}}}")["runsOrError"]
    assert len(runs["results"]) > len(DISTURBED)
    again = project.backfill("green", WEEK[:1])
    assert project.ended(again) == "COMPLETED_SUCCESS"
    clock("compared, and a day run again")
