"""Settings: every profile, every wrong value, one error for all of them, no secret in it."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from taxi_assets.errors import SettingsError
from taxi_assets.settings import (
    BigQuerySettings,
    LakeSettings,
    PostgresSettings,
    Settings,
    days_per_run,
    drop_rules,
    owners,
    retry_delay,
    start_date,
)
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


def test_local_needs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / ".taxi"
    assert Settings.from_env({}) == Settings(
        profile="local",
        home=home,
        source="sample",
        postgres=PostgresSettings(host=None),
        lake=LakeSettings("taxi", "hive", home / "lake" / "taxi"),
        bigquery=BigQuerySettings("taxi-local", "ny_taxi", "US", None, embedded=True),
        most_unreadable=0.01,
    )
    assert Settings.from_env({}).needs_local_stack


def test_gcp_takes_what_it_is_given(tmp_path: Path) -> None:
    settings = Settings.from_env({**GCP, "TAXI_HOME": str(tmp_path)})
    assert settings == Settings(
        profile="gcp",
        home=tmp_path,
        source=TEMPLATE,
        postgres=PostgresSettings("db", 5432, "trips", "loader", "hunter2", "ny_taxi", 10),
        lake=LakeSettings("my-bucket", "hive", None),
        bigquery=BigQuerySettings("my-project", "ny_taxi", "US", None, embedded=False),
    )
    assert not settings.needs_local_stack


@pytest.mark.parametrize(
    ("name", "value", "path"),
    [
        ("TAXI_HOME", "/srv/taxi", "home"),
        ("TAXI_SOURCE", TEMPLATE, "source"),
        ("TAXI_MAX_INVALID_RATIO", "0.25", "most_unreadable"),
        ("POSTGRES_HOST", "other", "postgres.host"),
        ("POSTGRES_PORT", "6543", "postgres.port"),
        ("POSTGRES_DBNAME", "other", "postgres.dbname"),
        ("POSTGRES_USER", "other", "postgres.user"),
        ("POSTGRES_PASSWORD", "other", "postgres.password"),
        ("POSTGRES_SCHEMA", "other", "postgres.schema"),
        ("POSTGRES_CONNECT_TIMEOUT", "3", "postgres.connect_timeout"),
        ("TAXI_LAKE_LAYOUT", "date", "lake.layout"),
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
def test_a_variable_overrides_its_profile(profile: str, name: str, value: str, path: str) -> None:
    found: object = Settings.from_env({**GCP, "TAXI_PROFILE": profile, name: value})
    for part in path.split("."):
        found = getattr(found, part)
    assert str(found) == value


@pytest.mark.parametrize("text", ["", "0", "0.0", "1", "1e-3", ".5"])
def test_the_share_of_unreadable_rows(text: str) -> None:
    settings = Settings.from_env({"TAXI_MAX_INVALID_RATIO": text})
    assert settings.most_unreadable == float(text or 0.01)


@pytest.mark.parametrize(
    ("days", "downloads"), [("", 90), ("1", 1), ("365", 365), ("forever", None), ("Forever", None)]
)
def test_how_long_downloads_are_kept(days: str, downloads: int | None) -> None:
    keep = Settings.from_env({"TAXI_DOWNLOAD_RETENTION_DAYS": days}).keep
    assert keep.downloads == (timedelta(days=downloads) if downloads else None)


@pytest.mark.parametrize(("hours", "temporary"), [("", 6), ("1", 1), ("48", 48)])
def test_how_long_temporary_files_are_kept(hours: str, temporary: int) -> None:
    keep = Settings.from_env({"TAXI_TEMP_RETENTION_HOURS": hours}).keep
    assert keep.temporary == timedelta(hours=temporary)


@pytest.mark.parametrize("text", ["", "2", "0.05", "3600"])
def test_the_delay_before_a_retry(text: str) -> None:
    assert retry_delay({"TAXI_RETRY_DELAY": text}) == float(text or 2)


@pytest.mark.parametrize("text", ["0", "-1", "soon", "nan", "3601"])
def test_a_wrong_delay_before_a_retry(text: str) -> None:
    with pytest.raises(SettingsError, match="write seconds, over 0 and at most 3600"):
        retry_delay({"TAXI_RETRY_DELAY": text})


def test_an_empty_variable_is_not_set() -> None:
    assert Settings.from_env({**dict.fromkeys(GCP, ""), "TAXI_HOME": "/h"}) == Settings.from_env(
        {"TAXI_HOME": "/h"}
    )


@pytest.mark.parametrize(
    ("lake", "expected"),
    [
        ("gs://other", LakeSettings("other", "hive", None)),
        ("gs://other/", LakeSettings("other", "hive", None)),
        ("/srv/lake", LakeSettings("lake", "hive", Path("/srv/lake"))),
    ],
)
@pytest.mark.parametrize("env", [{}, GCP], ids=["local", "gcp"])
def test_the_lake_is_a_bucket_or_a_folder(
    env: dict[str, str], lake: str, expected: LakeSettings
) -> None:
    assert Settings.from_env({**env, "TAXI_LAKE": lake}).lake == expected


def test_the_local_bucket_is_a_folder_under_home() -> None:
    lake = Settings.from_env({"TAXI_HOME": "/srv/taxi", "GCS_BUCKET": "own"}).lake
    assert lake == LakeSettings("own", "hive", Path("/srv/taxi/lake/own"))


def test_local_may_use_another_postgres_or_bigquery() -> None:
    assert Settings.from_env(POSTGRES).needs_local_stack
    both = {**POSTGRES, "BIGQUERY_ENDPOINT": "http://127.0.0.1:9050"}
    assert not Settings.from_env(both).needs_local_stack


WRONG = [
    ("TAXI_PROFILE", "aws", "TAXI_PROFILE='aws' is none of local, gcp"),
    ("TAXI_LAKE_LAYOUT", "flat", "TAXI_LAKE_LAYOUT='flat' is none of hive, date"),
    ("TAXI_LAKE", "gs://", "TAXI_LAKE='gs://' is no gs://<bucket>"),
    ("TAXI_LAKE", "gs://bucket/prefix", "TAXI_LAKE='gs://bucket/prefix' is no gs://<bucket>"),
    ("TAXI_SOURCE", "/data/{service}.csv", "with {year}, {month}"),
    ("TAXI_SOURCE", "samples", "neither 'sample' nor a template with {service}, {year}, {month}"),
    ("POSTGRES_SCHEMA", 'x"; DROP', "POSTGRES_SCHEMA='x\"; DROP' must match"),
    ("POSTGRES_SCHEMA", "a" * 64, "must match"),
    ("BIGQUERY_DATASET", "my-set", "BIGQUERY_DATASET='my-set' must match"),
    ("BIGQUERY_ENDPOINT", "localhost:9050", "BIGQUERY_ENDPOINT is no http://"),
    ("BIGQUERY_TOKEN", "two words", "BIGQUERY_TOKEN has other characters than letters"),
    ("GCS_BUCKET", "Bucket", "GCS_BUCKET='Bucket' must match"),
    ("GCS_BUCKET", "gs://bucket", "must match"),
    ("GCP_PROJECT", "my`project", "GCP_PROJECT='my`project' must match"),
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
            f"TAXI_MAX_INVALID_RATIO={text!r} is not a number from 0 to 1",
        )
        for text in ("-0.1", "1.1", "nan", "inf", "0,01", "1 %", "few")
    ],
    *[
        ("TAXI_DOWNLOAD_RETENTION_DAYS", text, f"={text!r} is neither 'forever' nor a whole number")
        for text in ("0", "-1", "1.5", "never", "36501")
    ],
    *[
        ("TAXI_TEMP_RETENTION_HOURS", text, "is not a whole number from 1 to 8760")
        for text in ("0", "-1", "0.5", "forever")
    ],
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_wrong_value_is_named(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({**POSTGRES, name: value})
    message = str(refused.value)
    assert said in message
    assert message.count(";") == message.count(value) * value.count(";")  # the only complaint
    assert message.endswith("Set them in the environment or in .env (see .env.example).")


@pytest.mark.parametrize("name", sorted(set(GCP) - {"TAXI_PROFILE"}))
def test_gcp_names_what_is_missing(name: str) -> None:
    for env in ({**GCP, name: ""}, {key: GCP[key] for key in GCP if key != name}):
        with pytest.raises(SettingsError, match=rf"^profile gcp: {name} is missing\. Set"):
            Settings.from_env(env)


def test_one_error_lists_everything() -> None:
    env = {"TAXI_PROFILE": "gcp", "POSTGRES_PORT": "five", "TAXI_MAX_INVALID_RATIO": "2"}
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({**env, "TAXI_LAKE_LAYOUT": "flat", "POSTGRES_SCHEMA": "a b"})
    for name in [*set(GCP) - {"TAXI_PROFILE"}, *env, "TAXI_LAKE_LAYOUT", "POSTGRES_SCHEMA"]:
        assert name in str(refused.value).replace("profile gcp", "TAXI_PROFILE")


def test_a_half_given_postgres_is_named_in_full() -> None:
    with pytest.raises(
        SettingsError, match=r"POSTGRES_DBNAME is missing; POSTGRES_USER is missing"
    ):
        Settings.from_env({"POSTGRES_HOST": "db", "POSTGRES_PASSWORD": "hunter2"})


SECRET_SOURCE = "https://me:hunter2@host/{service}/{year}-{month}.csv?sig=hunter2"  # noqa: S105 - made up


def test_no_password_is_shown() -> None:
    settings = Settings.from_env({**GCP, "TAXI_SOURCE": SECRET_SOURCE})
    assert settings.postgres.password == POSTGRES["POSTGRES_PASSWORD"]
    assert "hunter2" in settings.source
    for shown in (repr(settings), str(settings), repr(settings.postgres)):
        assert "hunter2" not in shown
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({**GCP, "TAXI_SOURCE": SECRET_SOURCE[9:-22], "POSTGRES_PORT": "x"})
    assert "TAXI_SOURCE is neither" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_SCHEMA", "own")
    monkeypatch.setenv("TAXI_START_DATE", "2020-05-01")
    monkeypatch.setenv("TAXI_MAX_PARTITIONS_PER_RUN", "7")
    assert Settings.from_env().postgres.schema == "own"
    assert (start_date(), days_per_run()) == (date(2020, 5, 1), 7)


@pytest.mark.parametrize(("text", "day"), [("", "2021-01-01"), ("2019-07-01", "2019-07-01")])
def test_the_first_partition(text: str, day: str) -> None:
    assert str(start_date({"TAXI_START_DATE": text})) == day
    assert str(start_date({})) == "2021-01-01"


@pytest.mark.parametrize("text", ["2021-1-1", "2021-02-30", "01/02/2021", "now", "2021-01"])
def test_a_first_partition_that_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(
        SettingsError, match=f"TAXI_START_DATE='{text}': write a date as 2021-01-01"
    ):
        start_date({"TAXI_START_DATE": text})


@pytest.mark.parametrize(("text", "days"), [("", 31), ("1", 1), ("366", 366)])
def test_days_of_a_run(text: str, days: int) -> None:
    assert days_per_run({"TAXI_MAX_PARTITIONS_PER_RUN": text}) == days
    assert days_per_run({}) == 31


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "all"])
def test_days_of_a_run_must_be_a_number(text: str) -> None:
    with pytest.raises(
        SettingsError, match=f"TAXI_MAX_PARTITIONS_PER_RUN='{text}': write a whole number"
    ):
        days_per_run({"TAXI_MAX_PARTITIONS_PER_RUN": text})


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["team:taxi"]),
        ("team:data", ["team:data"]),
        (" a@b.nyc , team:data-1", ["a@b.nyc", "team:data-1"]),
    ],
)
def test_owners(text: str, names: list[str]) -> None:
    assert owners({"TAXI_OWNERS": text}) == names
    assert owners({}) == ["team:taxi"]


@pytest.mark.parametrize("text", ["somebody", "team:", "a@b", "a@b.nyc, data", ","])
def test_owners_that_dagster_would_refuse_are_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match="write e-mail addresses or team:<name>") as refused:
        owners({"TAXI_OWNERS": text})
    assert repr(text) in str(refused.value)


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
def test_rules_by_name(text: str | None, rules: tuple[str, ...]) -> None:
    env = {} if text is None else {"TAXI_DROP": text}
    assert drop_rules(env) == Settings.from_env(env).drop == rules


def test_an_unknown_rule_is_refused_and_the_known_ones_named() -> None:
    with pytest.raises(
        SettingsError, match="TAXI_DROP names 'typo': the rules are zero_pass"
    ) as no:
        Settings.from_env({"TAXI_DROP": "zero_distance,typo"})
    for name in RULES:
        assert name in str(no.value)
