"""The docker-compose stack, from nothing to nothing; see docs/docker-compose.md.

One scenario in the order of the file: each test goes on where the one before it ended.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from taxi_assets_tests.deploy.compose import (
    MINUTES,
    PASSWORDS,
    SERVICES,
    Clock,
    Project,
    free_port,
)
from taxi_assets_tests.isolation import REPOSITORY
from taxi_assets_tests.test_server import ask, until

pytestmark = pytest.mark.deploy

WEEK = [f"2021-03-{day:02d}" for day in range(1, 8)]
SMALL = [f"2021-05-{day:02d}" for day in range(1, 4)]
DISTURBED = [f"2021-04-{day:02d}" for day in range(1, 17)]
AWAY = 20
"""Seconds that Postgres is gone: longer than Dagster tries to reconnect."""
LOCKED = 45
"""Seconds for which a run must wait for a table: far longer than Docker's own 10 s to stop."""
GOOGLE = {"COMPOSE_PROFILES": "gcp", "GCP_PROJECT": "p", "GCS_BUCKET": "b", "TAXI_SOURCE": "sample"}
ALL = "{runsOrError{... on Runs{results{runId status parentRunId}}}}"


@pytest.fixture(scope="module")
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, clock: Clock) -> Iterator[Project]:
    # The name of the folder is that of any other checkout.
    project = Project(tmp_path_factory.mktemp("here") / "taxi")
    try:
        yield project
    finally:
        project.remove()
        clock("taken down")


@pytest.mark.parametrize(
    ("profile", "missing"),
    [
        *(("local", (name,)) for name in (*PASSWORDS, "COMPOSE_PROFILES", "BIGQUERY_TOKEN")),
        ("local", (*PASSWORDS, "BIGQUERY_TOKEN")),
        *(("gcp", (name,)) for name in ("GCP_PROJECT", "GCS_BUCKET", "TAXI_SOURCE")),
    ],
)
def test_one_message_names_every_missing_setting(
    project: Project, profile: str, missing: tuple[str, ...]
) -> None:
    settings = GOOGLE if profile == "gcp" else {}
    with project.changed(**settings | dict.fromkeys(missing, "")):
        completed = project.run("up", "-d", check=False)
    assert completed.returncode
    message = completed.stderr.strip().splitlines()[-1]
    assert any(f"{name} is missing. .env needs " in message for name in missing)
    for name in (*PASSWORDS, "COMPOSE_PROFILES", "BIGQUERY_TOKEN", *GOOGLE):
        assert name in message.rpartition(".env needs ")[2]
    assert message.endswith("see .env.example")
    assert project.run("ps", "-q").stdout == ""


def test_google_cloud_profile_has_no_emulator(project: Project) -> None:
    with project.changed("BIGQUERY_TOKEN", **GOOGLE):
        names = project.run("config", "--services").stdout.split()
        config = project.run("config").stdout
    assert "TAXI_PROFILE: gcp" in config
    assert "BIGQUERY_ENDPOINT" not in config
    # docker-compose 1.29 lists services of profiles that are off, and starts none of them.
    assert {"postgres", "code", "webserver", "daemon"} <= set(names)


def test_every_container_becomes_healthy(project: Project, clock: Clock) -> None:
    clock("until here")
    with project.changed(TAXI_IMAGE_TAG="1"):
        project.run("build")
        clock("build")
        project.up("--build")
        clock("up and healthy")
    tag = f"{project.name}-assets:1"
    image = project.docker("image", "inspect", "-f", "{{.Size}}", tag)
    print(f"  image {int(image) / 1e6:.0f} MB", project.memory())
    project.settings["TAXI_IMAGE_TAG"] = "1"
    project.write()


def test_week_in_three_stores_equals_the_source(project: Project, clock: Clock) -> None:
    backfill = project.backfill("green", WEEK)
    assert project.ended(backfill) == "COMPLETED_SUCCESS", project.failures(backfill)
    clock("backfill of a week")
    rows = project.compare("green", WEEK)
    assert set(rows) == {"source", "postgres", "lake", "bigquery"}
    clock(f"compared: {sum(rows['source'].values())} rows")
    print("", project.memory())


def test_documented_call_starts_a_single_day(project: Project, clock: Clock) -> None:
    page = (REPOSITORY / "docs" / "api.md").read_text().partition("## A range of days")[0]
    script = "\n".join(re.findall(r"^```bash\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "GRAPHQL": project.graphql},
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * MINUTES,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    run, ended = completed.stdout.splitlines()
    assert ended == f"{run}: SUCCESS"
    clock("a single day, as in docs/api.md")


def test_roles_run_unprivileged_on_a_read_only_system(project: Project) -> None:
    for service in ("code", "webserver", "daemon", "bigquery"):
        user_id = project.run("exec", "-T", service, "id", "-u").stdout.strip()
        assert user_id not in ("", "0"), service
        touched = project.run("exec", "-T", service, "touch", "/opt/taxi/x", check=False)
        assert "Read-only file system" in touched.stderr, service
    who = project.run("exec", "-T", "postgres", "stat", "-c", "%U", "/proc/1").stdout.strip()
    assert who == "postgres"
    superuser = project.settings["POSTGRES_SUPERUSER_PASSWORD"]
    for service in ("code", "webserver", "daemon", "bigquery"):
        assert superuser not in project.run("exec", "-T", service, "env").stdout


ASK_EMULATOR = """
import os, sys, urllib.error, urllib.request as web
host, token = sys.argv[1:]
headers = {"Authorization": "Bearer " + (os.environ["BIGQUERY_TOKEN"] if token == "-" else token)}
if len(sys.argv) > 1 and host != "bigquery":
    headers["Host"] = host
request = web.Request("http://bigquery:9050/bigquery/v2/projects", headers=headers)
try:
    print(web.urlopen(request, timeout=10).status)
except urllib.error.HTTPError as error:
    print(error.code)
"""
READ_FILE = """
from taxi_assets.defs.resources.bigquery import BigQueryResource
with BigQueryResource().client() as client:
    try:
        print(list(client.query("SELECT content FROM read_text('/etc/passwd')").result()))
    except Exception as error:
        print("no:", error)
"""


def test_emulator_demands_its_token_and_reads_only_the_lake(project: Project) -> None:
    def get_status(*arguments: str) -> str:
        command = ("exec", "-T", "code", "python", "-c", ASK_EMULATOR, *arguments)
        return project.run(*command).stdout.strip()

    assert get_status("bigquery", "-") == "200"
    assert get_status("bigquery", "another-token-of-16") == "401"
    assert get_status("rebound.example.com", "-") == "403"
    read = project.run("exec", "-T", "code", "python", "-c", READ_FILE).stdout
    assert read.startswith("no:")
    assert "root:" not in read
    # The health check, by the token it is given.
    form = "{{json .Config.Healthcheck.Test}}"
    check = json.loads(project.docker("inspect", "-f", form, project.container("bigquery")))
    for token, healthy in ((project.settings["BIGQUERY_TOKEN"], True), ("x" * 16, False)):
        own = ("exec", "-T", "-e", f"BIGQUERY_TOKEN={token}", "bigquery", *check[1:])
        assert (project.run(*own, check=False).returncode == 0) == healthy


def test_postgres_port_on_loopback_is_optional(project: Project, clock: Clock) -> None:
    assert project.docker("port", project.container("postgres")) == ""
    port = free_port()
    option = {
        "COMPOSE_FILE": "docker-compose.yml:deploy/postgres-port.yml",
        "POSTGRES_LOOPBACK_PORT": str(port),
        # A new password takes effect with the same command.
        "POSTGRES_READER_PASSWORD": project.password(),
    }
    project.settings |= option
    project.write()
    project.up()
    clock("up with a port for Postgres")
    assert (
        project.docker("port", project.container("postgres")) == f"5432/tcp -> 127.0.0.1:{port}\n"
    )

    def connect(user: str, name: str, dbname: str = "ny_taxi") -> psycopg.Connection:
        password = project.settings[name]
        return psycopg.connect(
            host="127.0.0.1", port=port, dbname=dbname, user=user, password=password
        )

    table = "ny_taxi.green_cab_data"
    with closing(connect("taxi_reader", "POSTGRES_READER_PASSWORD")) as reader:
        counted = reader.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert counted is not None
        assert counted[0] > 0
        reader.rollback()
        for statement in (
            *(f"DELETE FROM {table}", "CREATE TABLE x ()", "SET ROLE taxi"),
            *("SELECT set_config('role', 'postgres', false)", "SELECT pg_read_file('PG_VERSION')"),
        ):
            with pytest.raises(psycopg.Error):
                reader.execute(statement)
            reader.rollback()
    with pytest.raises(psycopg.OperationalError):
        connect("taxi_reader", "POSTGRES_READER_PASSWORD", "dagster")
    query = f"SELECT current_user AS who, count(*) AS trips FROM {table}"
    config = json.dumps({"ops": {"query": {"config": {"query": query}}}})
    job = (
        "exec dagster job execute -m taxi_assets.definitions -j sql_query --config /tmp/query.yaml"
    )
    script = f"cat >/tmp/query.yaml; {job}"
    completed = project.run("exec", "-T", "code", "sh", "-c", script, input=config)
    assert re.search(r"^taxi_reader +[1-9]", completed.stdout + completed.stderr, re.MULTILINE)
    # Every password is the one in `.env`, character by character.
    connect("taxi", "POSTGRES_PASSWORD").close()
    connect("dagster", "DAGSTER_POSTGRES_PASSWORD", "dagster").close()
    connect("postgres", "POSTGRES_SUPERUSER_PASSWORD").close()


def parse_version(project: Project) -> str:
    version = "import taxi_assets; print(taxi_assets.__version__)"
    return project.run("exec", "-T", "code", "python", "-c", version).stdout.strip()


def lock_table(project: Project, table: str) -> None:
    """Lock a table for `LOCKED` seconds, so that loads wait."""
    # A result on a terminal would wait for its reader.
    psql = ("psql", "-U", "postgres", "-d", "ny_taxi", "-o", "/dev/null", "-c")
    statement = f"BEGIN; LOCK TABLE {table}; SELECT pg_sleep({LOCKED})"
    project.run("exec", "-d", "postgres", *psql, statement)


def test_upgrade_and_rollback_preserve_data_and_runs(project: Project, clock: Clock) -> None:
    before = parse_version(project)
    own = project.folder / "taxi_assets" / "__init__.py"
    own.write_text('__version__ = "upgraded"\n')
    # A run a day, so that there is one to disturb for each container.
    project.settings |= {"TAXI_IMAGE_TAG": "2", "TAXI_MAX_PARTITIONS_PER_RUN": "1"}
    project.write()
    project.run("build")
    clock("new image")
    runs = ask(project.graphql, ALL)["runsOrError"]["results"]
    project.up()
    clock("upgraded")
    assert parse_version(project) == "upgraded"
    project.run("exec", "-T", "code", "dagster", "instance", "migrate")
    project.compare("green", WEEK)
    assert ask(project.graphql, ALL)["runsOrError"]["results"] == runs
    assert {run["status"] for run in runs} == {"SUCCESS"}
    clock("compared")

    # Back, while a run is at work.
    backfill = project.backfill("green", SMALL)
    lock_table(project, "ny_taxi.green_cab_data")
    run = project.running(backfill, set())
    project.settings["TAXI_IMAGE_TAG"] = "1"
    project.write()
    started = time.monotonic()
    project.up()
    took = time.monotonic() - started
    clock("rolled back")
    assert parse_version(project) == before
    assert project.ended(backfill) == "COMPLETED_SUCCESS", project.failures(backfill)
    backfill_runs = project.runs(backfill)
    print(
        "",
        [(backfill_run["runId"][:8], backfill_run["status"]) for backfill_run in backfill_runs],
        f"up took {took:.0f} s",
    )
    # None was killed and started again, nor failed for want of a code server.
    assert len(backfill_runs) == len(SMALL)
    assert all(backfill_run["parentRunId"] is None for backfill_run in backfill_runs), (
        project.failures(backfill)
    )
    assert run in {backfill_run["runId"] for backfill_run in backfill_runs}
    project.compare("green", WEEK)
    project.compare("green", SMALL)
    clock("compared")


def test_second_checkout_runs_beside_the_first(
    project: Project, clock: Clock, tmp_path: Path
) -> None:
    ids = {service: project.container(service) for service in SERVICES}
    second = Project(tmp_path / project.folder.name)
    try:
        second.up("--build")
        clock("a second stack is up")
        assert ask(second.graphql, ALL)["runsOrError"]["results"] == []
        assert ask(project.graphql, ALL)["runsOrError"]["results"] != []
        image = "{{.Config.Image}}"
        images = {
            checkout.docker("inspect", "-f", image, checkout.container("code"))
            for checkout in (project, second)
        }
        assert len(images) == 2
    finally:
        second.remove()
    assert {service: project.container(service) for service in SERVICES} == ids
    project.wait_healthy(SERVICES, 1)
    clock("the second is gone, the first is as it was")


def test_backfill_survives_the_restart_of_every_container(project: Project, clock: Clock) -> None:
    backfill = project.backfill("yellow", DISTURBED)
    disturbed_runs: set[str] = set()

    def in_the_middle() -> None:
        disturbed_runs.add(project.running(backfill, disturbed_runs))

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

    assert until(project.is_answering, 2 * MINUTES)
    status = project.ended(backfill)
    clock("backfill ended")
    runs = project.runs(backfill)
    print("", [(run["runId"][:8], run["status"], bool(run["parentRunId"])) for run in runs])
    assert status == "COMPLETED_SUCCESS", project.failures(backfill)
    rows = project.compare("yellow", DISTURBED)
    clock(f"compared: {sum(rows['source'].values())} rows")
    print("", project.memory())


def test_backup_is_restored_on_an_empty_volume(project: Project, clock: Clock) -> None:
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
    project.up()
    clock("restored and up")
    project.compare("green", WEEK)
    project.compare("yellow", DISTURBED)
    assert len(ask(project.graphql, ALL)["runsOrError"]["results"]) > len(DISTURBED)
    again = project.backfill("green", WEEK[:1])
    assert project.ended(again) == "COMPLETED_SUCCESS"
    clock("compared, and a day run again")


def test_logs_survive_down(project: Project, clock: Clock) -> None:
    # Of the first container, before any upgrade.
    run = ask(project.graphql, ALL)["runsOrError"]["results"][-1]["runId"]
    project.run("down")
    assert project.run("ps", "-q", "-a").stdout == ""
    tail = ("run", "--rm", "--no-deps", "-T", "code", "cat")
    folder = "/var/lib/dagster/logs/services"
    for service, words in (
        ("code", run),
        ("daemon", "BackfillDaemon"),
        ("webserver", "Serving dagster-webserver"),
        ("bigquery", "sql.translator.init"),
    ):
        assert words in project.run(*tail, f"{folder}/{service}.log").stdout, service
    log = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "postgres", "-c")
    log_text = project.run(*log, "cat /var/lib/postgresql/data/log/*.log").stdout
    assert "database system is ready to accept connections" in log_text
    clock("down, and the logs are there")
