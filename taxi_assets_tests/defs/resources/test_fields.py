"""Resources show their configuration on Dagster's page without secrets and follow their fields."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from taxi_assets import local
from taxi_assets.definitions import build_defs
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.defs.resources.source import SourceResource
from taxi_assets.errors import SettingsError
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.isolation import isolation
from taxi_assets_tests.stores import Runs

DAGSTER_GRAPHQL = str(Path(sys.executable).with_name("dagster-graphql"))
PLANTED = "pl4nted"
GREEN = SERVICES["green"]
GCP = {
    "TAXI_PROFILE": "gcp",
    "TAXI_SOURCE": "https://host/{service}_{year}-{month}.parquet",
    "TAXI_DROP": "null_passengers",
    "GCP_PROJECT": "my-project",
    "GCS_BUCKET": "my-bucket",
    "BIGQUERY_ENDPOINT": "https://bigquery.example.com",
    "BIGQUERY_TOKEN": PLANTED,
    "POSTGRES_HOST": "db",
    "POSTGRES_DBNAME": "trips",
    "POSTGRES_USER": "loader",
    "POSTGRES_PASSWORD": PLANTED,
    "POSTGRES_READER_USER": "reader",
    "POSTGRES_READER_PASSWORD": PLANTED,
}
PAGE = """query {
  topLevelResourceDetailsOrError(resourceSelector: {repositoryName: "__repository__",
      repositoryLocationName: "taxi_assets.definitions", resourceName: "%s"}) {
    ... on ResourceDetails { configuredValues { key value type } }
    ... on PythonError { message }
  }
}"""


def read_resources_page(
    folder: Path, env: dict[str, str]
) -> tuple[dict[str, dict[str, tuple[str, str]]], str]:
    """Return the fields that the Resources page shows, and the whole GraphQL answer."""
    names = ("source", "cleaning", "lake", "postgres", "bigquery")
    query = "query {" + "".join(
        PAGE.partition("{")[2].rpartition("}")[0].replace("topLevel", f"{name}: topLevel", 1) % name
        for name in names
    )
    completed = subprocess.run(
        [DAGSTER_GRAPHQL, "-m", "taxi_assets.definitions"] + ["-t", query + "}"],
        cwd=folder,
        env=dict(isolation.environment) | env | {"DAGSTER_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    line = next(line for line in completed.stdout.splitlines() if line.startswith('{"data"'))
    answers = json.loads(line)["data"]
    values_shown = {
        name: {
            entry["key"]: (entry["type"], entry["value"].strip('"'))
            for entry in answers[name]["configuredValues"]
            if entry["value"] != "null"
        }
        for name in names
    }
    return values_shown, completed.stdout + completed.stderr


def test_page_shows_configured_values_and_no_secret(tmp_path: Path) -> None:
    fields, answered = read_resources_page(tmp_path, GCP)
    assert PLANTED not in answered
    assert fields["source"]["template"] == ("VALUE", GCP["TAXI_SOURCE"])
    assert "null_passengers" in fields["cleaning"]["drop"][1]
    assert fields["lake"] == {"bucket": ("VALUE", "my-bucket"), "layout": ("VALUE", "hive")}
    assert fields["postgres"] == {
        "host": ("VALUE", "db"),
        "port": ("VALUE", "5432"),
        "dbname": ("VALUE", "trips"),
        "user": ("VALUE", "loader"),
        "password": ("ENV_VAR", "POSTGRES_PASSWORD"),
        "reader_user": ("VALUE", "reader"),
        "reader_password": ("ENV_VAR", "POSTGRES_READER_PASSWORD"),
        "schema_of_trips": ("VALUE", "ny_taxi"),
        "timeout": ("VALUE", "120"),
    }
    assert fields["bigquery"] == {
        "project": ("VALUE", "my-project"),
        "dataset_name": ("VALUE", "ny_taxi"),
        "location": ("VALUE", "US"),
        "emulator": ("VALUE", "https://bigquery.example.com"),
        "token": ("ENV_VAR", "BIGQUERY_TOKEN"),
        "timeout": ("VALUE", "120"),
    }


def test_source_with_a_password_is_shown_by_its_variable(
    tmp_path: Path,
) -> None:
    source = f"https://me:{PLANTED}@host/{{service}}_{{year}}-{{month}}.csv?sig={PLANTED}"
    half = {"TAXI_PROFILE": "gcp", "TAXI_SOURCE": source, "POSTGRES_PASSWORD": PLANTED}
    fields, answered = read_resources_page(tmp_path, half)
    assert PLANTED not in answered
    assert fields["source"]["template"] == ("ENV_VAR", "TAXI_SOURCE")
    assert fields["postgres"] == fields["bigquery"] == {}


def test_server_from_fields_gets_no_password_of_another_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in GCP.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="POSTGRES_PASSWORD is missing") as rejected:
        PostgresResource(host="elsewhere", dbname="trips", user="loader").address()
    assert str(rejected.value).count("missing") == 1
    elsewhere = BigQueryResource(emulator="http://127.0.0.1:9", project="p")
    assert elsewhere.settings.token.get_secret_value() == ""
    assert BigQueryResource().settings.token.get_secret_value() == PLANTED


def test_field_is_validated_like_its_variable() -> None:
    with pytest.raises(SettingsError, match="POSTGRES_SCHEMA='my-schema' is not a name of"):
        PostgresResource(schema_of_trips="my-schema").schema_name()


def test_fields_alone_choose_stores_and_source(home: Path, tmp_path: Path) -> None:
    """The fields name a second lake, schema and dataset on the session's servers."""
    here = local.ensure_stack_running(home / "taxi")
    day = "2020-11-05"
    postgres: dict[str, Any] = stores.postgres_arguments()
    resources: dict[str, Any] = {
        "source": SourceResource(
            template=write_month(
                tmp_path, GREEN, "2020-11", [make_trip_line(day), make_trip_line(day)]
            )
        ),
        "lake": LakeResource(address=str(tmp_path / "lake")),
        "postgres": PostgresResource(**postgres, schema_of_trips="by_fields"),
        "bigquery": BigQueryResource(
            emulator=here.bigquery_endpoint, token=here.bigquery_token, dataset_name="by_fields"
        ),
    }
    job = build_defs({"green": GREEN}, overrides=resources).resolve_job_def("green_daily")
    runs = Runs()
    # The emulator reads the stack's own lake alone: all but BigQuery.
    result = job.execute_in_process(
        partition_key=day,
        instance=runs.instance,
        op_selection=["green__raw_trips", "green__cleaned_trips", "green__postgres_trips"]
        + ["green__gcs_trips"],
    )
    assert result.success
    assert (tmp_path / "lake" / "green").is_dir()
    with resources["postgres"].connect() as connection:
        row = connection.execute("SELECT count(*) FROM by_fields.green_cab_data").fetchone()
    assert row == (2,)
    assert resources["bigquery"].dataset == "taxi-local.by_fields"
