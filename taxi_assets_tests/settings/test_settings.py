"""Settings: every profile, every invalid value, one error for all of them, without a secret."""

from __future__ import annotations

import traceback
from datetime import date, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from taxi_assets.errors import SettingsError
from taxi_assets.settings import AREAS, Settings, find_problems, read_rules_for_definitions
from taxi_assets.settings.areas import (
    CleaningSettings,
    DefinitionSettings,
    LimitSettings,
    RunSettings,
    SourceSettings,
    StackSettings,
)
from taxi_assets.settings.base import SettingsArea
from taxi_assets.settings.stores import BigQuerySettings, LakeSettings, PostgresSettings
from taxi_assets.trips.rules import RULES

POSTGRES = {
    "POSTGRES_HOST": "db",
    "POSTGRES_DBNAME": "trips",
    "POSTGRES_USER": "loader",
    "POSTGRES_PASSWORD": "hunter2",
}
TEMPLATE = "/data/{service}/{service}_tripdata_{year}-{month}.csv.gz"
GCP = {
    "TAXI_PROFILE": "gcp",
    "TAXI_SOURCE": TEMPLATE,
    "GCP_PROJECT": "my-project",
    "GCS_BUCKET": "my-bucket",
    **POSTGRES,
}


EMBEDDED = PostgresSettings(host=None, dbname="", user="", password=SecretStr(""))


def test_profile_local_needs_no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / ".taxi"
    settings = Settings.from_env({})
    assert settings == Settings(
        stack=StackSettings(profile="local", home=home),
        definitions=DefinitionSettings(),
        source=SourceSettings(source=SecretStr("sample")),
        limits=LimitSettings(),
        cleaning=CleaningSettings(),
        runs=RunSettings(),
        postgres=EMBEDDED,
        lake=LakeSettings(home=home, bucket_name="taxi"),
        bigquery=BigQuerySettings(project="taxi-local"),
    )
    assert settings.lake.path == home / "lake" / "taxi"
    assert settings.needs_local_stack
    # Not the values of another folder.
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert Settings.from_env({}).home == tmp_path / "below" / ".taxi"


def test_profile_gcp_uses_the_given_values(tmp_path: Path) -> None:
    settings = Settings.from_env({**GCP, "TAXI_HOME": str(tmp_path)})
    assert settings.profile == "gcp"
    assert settings.source.template == TEMPLATE
    assert settings.postgres == PostgresSettings(
        host="db",
        dbname="trips",
        user="loader",
        password=SecretStr("hunter2"),
    )
    assert (settings.lake.bucket, settings.lake.path) == ("my-bucket", None)
    assert settings.bigquery == BigQuerySettings(profile="gcp", project="my-project")
    assert not settings.bigquery.embedded
    assert not settings.needs_local_stack


def test_constructing_an_area_reads_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_MAX_DAY_BYTES", "1")
    monkeypatch.setenv("BIGQUERY_DATASET", "other")
    assert LimitSettings().max_day_bytes == 512 << 20
    assert BigQuerySettings(project="p").dataset == "ny_taxi"


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("TAXI_HOME", "/srv/taxi", "stack.home"),
        ("TAXI_SOURCE", TEMPLATE, "source.template"),
        ("TAXI_MAX_INVALID_RATIO", "0.25", "cleaning.max_invalid_ratio"),
        ("POSTGRES_HOST", "other", "postgres.host"),
        ("POSTGRES_PORT", "6543", "postgres.port"),
        ("POSTGRES_DBNAME", "other", "postgres.dbname"),
        ("POSTGRES_USER", "other", "postgres.user"),
        ("POSTGRES_PASSWORD", "other", "postgres.password"),
        ("POSTGRES_SCHEMA", "other", "postgres.schema_name"),
        ("POSTGRES_CONNECT_TIMEOUT", "3", "postgres.connect_timeout"),
        ("TAXI_LAKE_LAYOUT", "date", "lake.lake_layout"),
        ("GCS_BUCKET", "other", "lake.bucket"),
        ("GCP_PROJECT", "example.com:other", "bigquery.project"),
        ("BIGQUERY_DATASET", "other", "bigquery.dataset"),
        ("BIGQUERY_LOCATION", "EU", "bigquery.location"),
        ("BIGQUERY_ENDPOINT", "http://127.0.0.1:9050", "bigquery.endpoint"),
        ("BIGQUERY_TOKEN", "a.b-c_d~e+f/g=", "bigquery.token"),
        ("BIGQUERY_TIMEOUT", "5", "bigquery.timeout"),
        ("GCS_RETRY_SECONDS", "5", "lake.retry_seconds"),
    ],
)
@pytest.mark.parametrize("profile", ["local", "gcp"])
def test_variable_overrides_its_profile(profile: str, name: str, value: str, path: str) -> None:
    setting: object = Settings.from_env({**GCP, "TAXI_PROFILE": profile, name: value})
    for name_in_path in path.split("."):
        setting = getattr(setting, name_in_path)
    assert str(setting.get_secret_value() if isinstance(setting, SecretStr) else setting) == value


@pytest.mark.parametrize("text", ["", "0", "0.0", "1", "1e-3", ".5"])
def test_max_invalid_ratio(text: str) -> None:
    settings = Settings.from_env({"TAXI_MAX_INVALID_RATIO": text})
    assert settings.cleaning.max_invalid_ratio == float(text or 0.01)


@pytest.mark.parametrize(
    ("days", "downloads"), [("", 90), ("1", 1), ("365", 365), ("forever", None), ("Forever", None)]
)
def test_download_retention(days: str, downloads: int | None) -> None:
    runs = RunSettings.from_env({"TAXI_DOWNLOAD_RETENTION_DAYS": days})
    assert runs.download_retention == (timedelta(days=downloads) if downloads else None)


@pytest.mark.parametrize(("hours", "temporary"), [("", 6), ("1", 1), ("48", 48)])
def test_retention_of_temporary_files(hours: str, temporary: int) -> None:
    runs = RunSettings.from_env({"TAXI_TEMP_RETENTION_HOURS": hours})
    assert runs.temp_retention == timedelta(hours=temporary)


@pytest.mark.parametrize("text", ["", "2", "0.05", "3600"])
def test_retry_delay(text: str) -> None:
    assert DefinitionSettings.from_env({"TAXI_RETRY_DELAY": text}).retry_delay == float(text or 2)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "3601"])
def test_invalid_retry_delay(text: str) -> None:
    with pytest.raises(
        SettingsError, match=f"^profile 'local': TAXI_RETRY_DELAY='{text}' should be "
    ):
        DefinitionSettings.from_env({"TAXI_RETRY_DELAY": text})


def test_empty_variable_is_unset() -> None:
    assert Settings.from_env({**dict.fromkeys(GCP, ""), "TAXI_HOME": "/h"}) == Settings.from_env(
        {"TAXI_HOME": "/h"}
    )


@pytest.mark.parametrize(
    ("lake", "bucket", "path"),
    [
        ("gs://other", "other", None),
        ("gs://other/", "other", None),
        ("/srv/lake", "lake", Path("/srv/lake")),
    ],
)
@pytest.mark.parametrize("env", [{}, GCP, {**GCP, "GCS_BUCKET": ""}], ids=["local", "gcp", "alone"])
def test_lake_is_a_bucket_or_a_folder(
    env: dict[str, str], lake: str, bucket: str, path: Path | None
) -> None:
    lake_settings = Settings.from_env({**env, "TAXI_LAKE": lake}).lake
    assert (lake_settings.bucket, lake_settings.path, lake_settings.lake_layout) == (
        bucket,
        path,
        "hive",
    )


def test_local_bucket_is_a_folder_under_home() -> None:
    lake = Settings.from_env({"TAXI_HOME": "/srv/taxi", "GCS_BUCKET": "own"}).lake
    assert (lake.bucket, lake.path) == ("own", Path("/srv/taxi/lake/own"))


@pytest.mark.parametrize(
    ("host", "emulator"),
    [("", None), ("localhost:9", "http://localhost:9"), ("https://gcs:9", "https://gcs:9")],
)
def test_gcs_emulator(host: str, emulator: str | None) -> None:
    assert LakeSettings.from_env({"STORAGE_EMULATOR_HOST": host}).emulator == emulator


def test_profile_local_can_use_an_external_postgres_or_bigquery() -> None:
    assert Settings.from_env(POSTGRES).needs_local_stack
    external = {**POSTGRES, "BIGQUERY_ENDPOINT": "http://127.0.0.1:9050"}
    assert not Settings.from_env(external).needs_local_stack


INVALID = [
    ("TAXI_PROFILE", "aws", "TAXI_PROFILE='aws' should be 'local' or 'gcp'"),
    ("TAXI_LAKE_LAYOUT", "flat", "TAXI_LAKE_LAYOUT='flat' should be 'hive' or 'date'"),
    ("TAXI_LAKE", "gs://", "TAXI_LAKE is not gs://<bucket>"),
    ("TAXI_LAKE", "gs://bucket/prefix", "TAXI_LAKE is not gs://<bucket>"),
    ("TAXI_SOURCE", "/data/{service}.csv", "with {year}, {month}"),
    ("TAXI_SOURCE", "samples", "neither 'sample' nor a template with {service}, {year}, {month}"),
    ("POSTGRES_SCHEMA", 'x"; DROP', "POSTGRES_SCHEMA='x\"; DROP' is not a name of"),
    ("POSTGRES_SCHEMA", "a" * 64, "is not a name of"),
    ("BIGQUERY_DATASET", "my-set", "BIGQUERY_DATASET='my-set' is not a name of letters"),
    ("BIGQUERY_ENDPOINT", "localhost:9050", "BIGQUERY_ENDPOINT is not an http://"),
    ("BIGQUERY_TOKEN", "two words", "BIGQUERY_TOKEN is not a token of letters"),
    ("GCS_BUCKET", "Bucket", "GCS_BUCKET='Bucket' is not the name of a bucket"),
    ("GCS_BUCKET", "gs://bucket", "is not the name of a bucket"),
    ("GCP_PROJECT", "my`project", "GCP_PROJECT='my`project' is not the id of a project"),
    *[
        ("POSTGRES_PORT", text, f"POSTGRES_PORT={text!r} is not a whole number from 1 to 65535")
        for text in ("five", "0", "-1", "70000", "5432.0", " 5432")
    ],
    *[
        (name, text, "is not a whole number from 1 to 3600")
        for name in ("POSTGRES_CONNECT_TIMEOUT", "BIGQUERY_TIMEOUT", "GCS_RETRY_SECONDS")
        for text in ("0", "1.5", "soon")
    ],
    *[
        (
            "TAXI_MAX_INVALID_RATIO",
            text,
            f"TAXI_MAX_INVALID_RATIO={text!r} should be ",
        )
        for text in ("-0.1", "1.1", "nan", "inf", "0,01", "1 %", "few")
    ],
    *[
        ("TAXI_DOWNLOAD_RETENTION_DAYS", text, f"={text!r} is neither 'forever' nor a whole number")
        for text in ("0", "-1", "1.5", "never", "36501")
    ],
    *[
        ("TAXI_LOCK_TIMEOUT", text, "is not a whole number from 1 to 604800")
        for text in ("0", "604801", "soon")
    ],
    *[
        ("TAXI_RAW_RETENTION_DAYS", text, "is not a whole number from 0 to 36500")
        for text in ("-1", "forever")
    ],
    ("TAXI_RUN_RETENTION_DAYS", "0", "='0' is not a whole number from 1 to 36500"),
    ("TAXI_SERVICES", "Yellow Cab", "TAXI_SERVICES='Yellow Cab' is not a list of services"),
    *[
        (name, f"{value}", f"{name} begins with a variable that nothing replaces")
        for name, value in {
            "TAXI_HOME": "$HOME/taxi",
            "TAXI_LAKE": "$LAKE",
            "TAXI_ZONES": "$HOME/zones.zip",
            "TAXI_SOURCE": "$HOME/{service}_{year}-{month}.csv",
        }.items()
    ],
    ("TAXI_HOME", "/t\udcc3\udcb6", "TAXI_HOME has characters that this locale does not have"),
    ("TAXI_ZONES", "s3://bucket/zones.zip", "TAXI_ZONES cannot be used, s3:// is not supported"),
    ("TAXI_END_DATE", "2020-12-31", "='2020-12-31' is before TAXI_START_DATE (2021-01-01)"),
    ("TAXI_LOCAL_IDLE_TIMEOUT", "soon", "TAXI_LOCAL_IDLE_TIMEOUT='soon' should be a valid number"),
    *[
        ("TAXI_TEMP_RETENTION_HOURS", text, "is not a whole number from 1 to 8760")
        for text in ("0", "-1", "0.5", "forever")
    ],
]


@pytest.mark.parametrize(("name", "value", "expected"), INVALID)
def test_invalid_value_is_named(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({**POSTGRES, name: value})
    message = str(raised.value)
    assert expected in message
    assert message.count(";") == message.count(value) * value.count(";")  # the only problem
    assert message.endswith("Set them in the environment or in .env (see .env.example).")


@pytest.mark.parametrize("name", sorted(set(GCP) - {"TAXI_PROFILE"}))
def test_profile_gcp_names_missing_settings(name: str) -> None:
    for env in ({**GCP, name: ""}, {key: GCP[key] for key in GCP if key != name}):
        with pytest.raises(SettingsError, match=rf"^profile 'gcp': {name} is missing\. Set"):
            Settings.from_env(env)


def test_one_error_lists_everything() -> None:
    env = {"TAXI_PROFILE": "gcp", "POSTGRES_PORT": "five", "TAXI_MAX_INVALID_RATIO": "2"}
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({**env, "TAXI_LAKE_LAYOUT": "flat", "POSTGRES_SCHEMA": "a b"})
    for name in [*set(GCP) - {"TAXI_PROFILE"}, *env, "TAXI_LAKE_LAYOUT", "POSTGRES_SCHEMA"]:
        assert name in str(raised.value).replace("profile 'gcp'", "TAXI_PROFILE")


def test_missing_postgres_settings_are_named() -> None:
    with pytest.raises(
        SettingsError, match=r"POSTGRES_DBNAME is missing; POSTGRES_USER is missing"
    ):
        Settings.from_env({"POSTGRES_HOST": "db", "POSTGRES_PASSWORD": "hunter2"})


SECRET_SOURCE = "https://me:hunter2@host/{service}/{year}-{month}.csv?sig=hunter2"  # noqa: S105 - made up


def test_password_is_never_shown() -> None:
    settings = Settings.from_env({**GCP, "TAXI_SOURCE": SECRET_SOURCE})
    assert settings.postgres.password.get_secret_value() == POSTGRES["POSTGRES_PASSWORD"]
    assert "hunter2" in settings.source.template
    for text in (repr(settings), str(settings), settings.postgres.model_dump_json()):
        assert "hunter2" not in text
    with pytest.raises(SettingsError) as raised:
        Settings.from_env({**GCP, "TAXI_SOURCE": SECRET_SOURCE[9:-22], "POSTGRES_PORT": "x"})
    assert "TAXI_SOURCE is neither" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_SCHEMA", "own")
    monkeypatch.setenv("TAXI_START_DATE", "2020-05-01")
    assert Settings.from_env().postgres.schema_name == "own"
    assert DefinitionSettings.from_env().start_date == date(2020, 5, 1)
    monkeypatch.setenv("TAXI_START_DATE", "2020-06-01")
    assert DefinitionSettings.from_env().start_date == date(2020, 6, 1)


@pytest.mark.parametrize("name", ["TAXI_START_DATE", "TAXI_END_DATE"])
@pytest.mark.parametrize(
    "text", ["2021-1-1", "2021-02-30", "01/02/2021", "now", "2021-01", "20210101", "1609459200"]
)
def test_date_has_one_form(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}=.* is not a date: write it as 2021-01-01"):
        DefinitionSettings.from_env({name: text})


@pytest.mark.parametrize("name", ["TAXI_START_DATE", "TAXI_END_DATE"])
@pytest.mark.parametrize("text", ["0001-01-01", "1999-12-31", "9999-12-31"])
def test_date_that_dagster_has_no_partition_for_is_rejected(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"{name}='{text}' is not in the years 2000 to 2999"):
        DefinitionSettings.from_env({name: text})


def test_definition_settings_hold_services_and_dates() -> None:
    settings = DefinitionSettings.from_env({})
    assert settings.services == ()
    assert (settings.start_date, settings.end_date) == (date(2021, 1, 1), None)
    assert settings.max_partitions_per_run == 31
    env = {
        "TAXI_SERVICES": " fhv, green,fhv",
        "TAXI_START_DATE": "2019-07-01",
        "TAXI_END_DATE": "2019-07-01",
        "TAXI_MAX_PARTITIONS_PER_RUN": "366",
    }
    settings = DefinitionSettings.from_env(env)
    assert settings.services == ("fhv", "green")
    assert settings.start_date == settings.end_date == date(2019, 7, 1)
    assert settings.max_partitions_per_run == 366


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "all"])
def test_days_of_a_run_must_be_a_number(text: str) -> None:
    wanted = f"TAXI_MAX_PARTITIONS_PER_RUN='{text}' is not a whole number from 1 to 36500"
    with pytest.raises(SettingsError, match=wanted):
        DefinitionSettings.from_env({"TAXI_MAX_PARTITIONS_PER_RUN": text})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ("team:taxi",)),
        ("team:data", ("team:data",)),
        (" a@b.nyc , team:data-1", ("a@b.nyc", "team:data-1")),
    ],
)
def test_owners_are_addresses_or_teams(text: str, names: tuple[str, ...]) -> None:
    assert DefinitionSettings.from_env({"TAXI_OWNERS": text}).owners == names


@pytest.mark.parametrize("text", ["somebody", "team:", "a@b", "a@b.nyc, data", ","])
def test_invalid_owners_are_named(text: str) -> None:
    with pytest.raises(SettingsError, match="write e-mail addresses or team:<name>") as rejected:
        DefinitionSettings.from_env({"TAXI_OWNERS": text})
    assert f"TAXI_OWNERS ({text.strip(',')})" in str(rejected.value)


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        (None, ("zero_passengers", "null_passengers")),
        ("", ("zero_passengers", "null_passengers")),
        ("none", ()),
        ("zero_distance", ("zero_distance",)),
        (" Zero_Distance , null_vendor,zero_distance", ("zero_distance", "null_vendor")),
    ],
)
def test_rules_are_chosen_by_name(text: str | None, rules: tuple[str, ...]) -> None:
    env = {} if text is None else {"TAXI_DROP": text}
    assert Settings.from_env(env).cleaning.drop == rules


def test_unknown_rule_is_rejected_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(
        SettingsError, match="TAXI_DROP names 'typo': the rules are zero_pass"
    ) as no:
        Settings.from_env({"TAXI_DROP": "zero_distance,typo"})
    for name in RULES:
        assert name in str(no.value)
    # The definitions load all the same, so that a run can report it.
    monkeypatch.setenv("TAXI_DROP", "zero_distance,typo")
    assert read_rules_for_definitions() == ("zero_passengers", "null_passengers")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TAXI_DAYS_PER_RUN", ", the closest is TAXI_MAX_PARTITIONS_PER_RUN"),
        ("TAXI_STARTDATE", ", the closest is TAXI_START_DATE"),
        ("TAXI_ALERT_URL", ", the closest is TAXI_ALERT_URLS"),
        ("TAXI_ALERT_SLACK_WEBHOOK", ""),
        ("TAXI_X", ""),
    ],
)
def test_unknown_taxi_variable_is_an_error(name: str, expected: str) -> None:
    with pytest.raises(
        SettingsError, match=f"{name} is not a setting{expected}[.] Set"
    ) as rejected:
        Settings.from_env({name: "hunter2"})
    assert "hunter2" not in str(rejected.value)
    assert Settings.from_env({name.lower(): "x", "TAXI_IMAGE_TAG": "1"}) == Settings.from_env({})


def test_problems_of_all_areas_are_in_one_error() -> None:
    env = {
        "TAXI_PROFILE": "aws",
        "TAXI_HOME": "a:b@c",
        "TAXI_START_DATE": "x",
        "TAXI_SOURCE": "x",
        "TAXI_MAX_DAY_BYTES": "x",
        "TAXI_DROP": "x",
        "TAXI_LOCK_TIMEOUT": "x",
        "POSTGRES_SCHEMA": "-",
        "STORAGE_EMULATOR_HOST": "a@b",
        "BIGQUERY_TIMEOUT": "x",
        "TAXI_AUTOMATION": "x",
        "TAXI_ALERT_URLS": "x",
        "TAXI_TYPO": "x",
    }
    problems = find_problems(env)
    assert [problem.partition("=")[0].split()[0] for problem in problems] == list(env)
    assert find_problems({}) == []


@pytest.mark.parametrize("area", AREAS.values(), ids=AREAS)
def test_messages_show_no_text_of_pydantic(area: type[SettingsArea]) -> None:
    """Its `input_value=` would show the mistyped value."""
    env = dict.fromkeys(area.list_variables(), "a:hunter2@b\n")
    with pytest.raises(SettingsError) as rejected:
        area.from_env(env)
    chain = "".join(traceback.format_exception(rejected.value))
    assert "hunter2" not in chain
    for word in ("input_value", "pydantic.dev", "ValidationError", "Input should"):
        assert word not in chain


def test_error_of_one_area_reads_as_that_of_all() -> None:
    """Assets read their area alone, commands read all."""
    env = {"TAXI_START_DATE": "2021-13-01"}
    with pytest.raises(SettingsError) as of_one:
        DefinitionSettings.from_env(env)
    with pytest.raises(SettingsError) as of_all:
        Settings.from_env(env)
    assert str(of_one.value) == str(of_all.value)
    assert str(of_one.value).startswith("profile 'local': TAXI_START_DATE='2021-13-01' is not a ")
