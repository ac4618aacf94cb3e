"""The fenced blocks of README and docs, and those that the tests cannot paste.

`test_readme.py` pastes every block that is not in `TESTED_SEPARATELY`, in one copy of the checkout.
"""

from __future__ import annotations

import re
import subprocess
import textwrap
from pathlib import Path
from typing import NamedTuple

from taxi_assets_tests.isolation import REPOSITORY, isolation

FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
PASTED = ("bash", "python", "sql")
PAGES = ("README.md", "deploy/README.md") + tuple(
    f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md"))
)

GCLOUD = "needs a project on Google Cloud"
PSQL = "needs a PostgreSQL server of a person's own: defs/jobs/test_sql_query.py::"
COMPOSE = "needs Docker: deploy/test_compose.py::"
TERRAFORM = "needs a project on Google Cloud: deploy/test_terraform.py::"
TESTED_SEPARATELY = {
    "README.md": {
        "python3 -m venv .venv && .venv/bin/pip install --quiet -e '.[dev]' && .ci/browser && "
        ".ci/dbt && .venv/bin/pytest -q -n 2 --dist loadfile": "is this suite; .ci/run pastes it",
    },
    "docs/api.md": dict.fromkeys(
        (
            "GRAPHQL=${GRAPHQL:-http://127.0.0.1:3000/graphql}",
            "RUN=$(ask <<'JSON' | field data.launchRun.run.runId",
            "STATUS=QUEUED",
            "BACKFILL=$(ask <<'JSON' | field data.launchPartitionBackfill.backfillId",
            "STATUS=REQUESTED",
        ),
        "needs webserver and daemon: "
        "defs/automation/test_daemon.py::test_documented_commands_start_a_day_and_a_backfill",
    ),
    "docs/benchmarks.md": dict.fromkeys(
        (
            ".venv/bin/python -m benchmarks",
            ".venv/bin/python -m benchmarks --only duckdb dlt noop first rewrite",
        ),
        "takes an hour, and packages that the benchmarks download",
    ),
    "docs/docker-compose.md": {
        "(umask 077; cat .env.example >>.env)": COMPOSE + "test_every_container_becomes_healthy",
        "docker compose exec postgres psql -U taxi ny_taxi": COMPOSE
        + "test_week_in_three_stores_equals_the_source",
        "docker compose run --rm --no-deps code tail -n 200 "
        "/var/lib/dagster/logs/services/daemon.log": COMPOSE + "test_logs_survive_down",
        "COMPOSE_FILE=docker-compose.yml:deploy/postgres-port.yml": COMPOSE
        + "test_postgres_port_on_loopback_is_optional",
        'psql "host=127.0.0.1 port=5432 dbname=ny_taxi user=taxi_reader"': COMPOSE
        + "test_postgres_port_on_loopback_is_optional",
        "git pull": COMPOSE + "test_upgrade_and_rollback_preserve_data_and_runs",
        "git checkout <commit>": COMPOSE + "test_upgrade_and_rollback_preserve_data_and_runs",
        "for database in ny_taxi dagster; do": COMPOSE
        + "test_backup_is_restored_on_an_empty_volume",
        "docker compose stop": COMPOSE + "test_backup_is_restored_on_an_empty_volume",
        ".venv/bin/pytest -m deploy -s taxi_assets_tests/deploy/test_compose.py": COMPOSE
        + "test_every_container_becomes_healthy",
    },
    "docs/extending.md": {
        '"""DuckDB: one table per service in one file; days are replaced in one transaction."""': (
            "is a file of the package: test_extending.py::test_documented_changes_work"
        ),
    },
    "docs/google.md": {
        'gcloud projects add-iam-policy-binding "$GCP_PROJECT" --role roles/bigquery.jobUser '
        '--member "serviceAccount:$READER"': GCLOUD,
    },
    "docs/openlineage.md": {
        ".venv/bin/pip install --quiet -e '.[openlineage]'": "needs a catalogue: "
        "test_openlineage_page.py::test_catalogue_receives_columns_origins_checks_and_failures",
    },
    "docs/operations.md": {
        "sed -e 's/{reader}/taxi_reader/g; s/{loader}/taxi/g; s/{database}/ny_taxi/g' "
        "taxi_assets/local/reader.sql |": PSQL + "test_reader_created_by_hand_reads_its_tables",
    },
    "deploy/README.md": {
        "gcloud auth login": GCLOUD,
        "terraform -chdir=deploy/terraform init": TERRAFORM
        + "test_first_apply_recovers_from_a_failure_at_each_resource",
        "IMAGE=$(terraform -chdir=deploy/terraform output -raw image_repository)/taxi:1": GCLOUD,
        "echo 'enable_cloud_build = true' >>deploy/terraform/terraform.tfvars": GCLOUD,
        "terraform -chdir=deploy/terraform apply": TERRAFORM
        + "test_second_apply_changes_no_password",
        " printf %s 'slack://TokenA/TokenB/TokenC' | gcloud secrets create taxi-alert-urls "
        "--data-file=-": GCLOUD,
        "READER=ana@example.com": GCLOUD,
        "CONNECTION=$(terraform -chdir=deploy/terraform output -raw postgres)": GCLOUD,
        'gcloud sql backups create --instance taxi-postgres --description "before taxi:2"': GCLOUD
        + "; the migration: deploy/test_launch.py::"
        "test_upgrade_migration_runs_with_these_settings",
        "mv deploy/terraform/terraform.tfvars.before deploy/terraform/terraform.tfvars": GCLOUD,
        "uv pip compile pyproject.toml --extra gcp --extra kubernetes --universal "
        "--python-version 3.11 --generate-hashes --no-annotate \\": (
            "asks an index: deploy/test_lock_file.py::"
            "test_lock_file_was_made_by_the_documented_command"
        ),
        "gcloud scheduler jobs pause taxi-wake --location us-central1": GCLOUD,
        "terraform -chdir=deploy/terraform apply -var deletion_protection=false": GCLOUD,
        "deploy/terraform/check.sh": "needs the programs terraform and checkov, and runs: "
        "deploy/test_terraform.py::test_first_apply_recovers_from_a_failure_at_each_resource",
    },
}
"""Blocks that are not pasted, by page and first line: the reason, and the test of their effect."""


class Block(NamedTuple):
    """Commands or code of a page, and the output that the page prints after it."""

    page: str
    section: str
    language: str
    text: str
    printed: str | None

    @property
    def first_line(self) -> str:
        """Return the line that identifies a block."""
        return self.text.partition("\n")[0]

    @property
    def last_line(self) -> str:
        """Return the last line, whose output is the block's."""
        return self.text.splitlines()[-1]

    @property
    def script(self) -> str:
        """Return the commands for a shell."""
        if self.language == "python":
            return f".venv/bin/python - <<'END'\n{self.text}END\n"
        return self.text


def read_blocks(page: str) -> list[Block]:
    """Return the blocks of a page that a person pastes, each with the output that follows it."""
    blocks: list[Block] = []
    for part in re.split(r"^## ", (REPOSITORY / page).read_text(), flags=re.MULTILINE):
        section = part.partition("\n")[0]
        for _, language, text in FENCE.findall(part):
            content = textwrap.dedent(text)
            if language == "text" and blocks and blocks[-1].section == section:
                blocks[-1] = blocks[-1]._replace(printed=content)
            elif language in PASTED:
                blocks.append(Block(page, section, language, content, None))
    return blocks


def list_pasted_blocks(page: str) -> list[Block]:
    """Return the blocks of a page that the test pastes."""
    separate = TESTED_SEPARATELY.get(page, {})
    return [block for block in read_blocks(page) if block.first_line not in separate]


def paste(folder: Path, script: str, code: int = 0, **variables: str) -> str:
    """Return the output of a user's shell for a script that is pasted in the checkout."""
    inherited = {
        name: value for name, value in isolation.environment.items() if name != "TAXI_ENV_FILE"
    }
    own = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), "COLUMNS": "120"}
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=inherited | own | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == code, f"{script}\n{completed.stdout}{completed.stderr}"
    return completed.stdout if not code else completed.stderr
