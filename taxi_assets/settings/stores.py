"""The settings of the three stores: Postgres, the lake, BigQuery."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from taxi_assets.settings.addresses import (
    EMULATOR,
    ENDPOINT,
    KEY_FILE,
    POSTGRES_HOST,
    POSTGRES_NAME,
    find_path_problem,
)
from taxi_assets.settings.areas import HOUR, Profile, StateDirectory
from taxi_assets.settings.base import (
    NEVER_QUOTED,
    SettingsArea,
    is_local,
    require_integer,
    require_match,
    require_url,
    require_valid,
    split_commas,
)


class LayoutName(StrEnum):
    """The layouts of the lake."""

    hive = "hive"
    date = "date"


MAX_PORT = 65535
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
# Names go into SQL and paths. They are quoted there, but a name that needs quoting is a typo.
IDENTIFIER = require_match(
    r"[A-Za-z_][A-Za-z0-9_]{0,62}", "a name of letters, digits and _ (at most 63)"
)
# The syntax of a bearer token (RFC 6750).
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]*=*")
PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")
USER = require_match(POSTGRES_NAME, "the name of a user")
KEY_FILE_EXPECTED = "the path of a key file: write the key to a file and set its path here"
GCS_SCHEME = "gs://"


def _find_lake_problem(text: str) -> str | None:
    if not text.startswith(GCS_SCHEME):
        return find_path_problem(text)
    if BUCKET.fullmatch(text.removeprefix(GCS_SCHEME).rstrip("/")):
        return None
    return "is not gs://<bucket>"


COLUMN = re.compile(r"[a-z_][a-z0-9_]*")
LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}")
MAX_CLUSTERING = 4


class PostgresSettings(SettingsArea):
    """Postgres."""

    model_config = SettingsConfigDict(env_prefix="POSTGRES_")

    host: Annotated[
        str | None, require_match(POSTGRES_HOST, "a host name, address or folder"), NEVER_QUOTED
    ]
    """Host of Postgres; unset means the embedded server, which uses only `POSTGRES_SCHEMA` and
    `POSTGRES_TIMEOUT` of these."""
    port: Annotated[int, require_integer(MAX_PORT)] = 5432
    """Port of Postgres."""
    dbname: Annotated[str, require_match(POSTGRES_NAME, "the name of a database"), NEVER_QUOTED]
    """Database of the tables."""
    user: Annotated[str, USER, NEVER_QUOTED]
    """Role that owns the tables."""
    password: SecretStr
    """Password of that role."""
    schema_name: Annotated[str, IDENTIFIER] = Field(default="ny_taxi", alias="POSTGRES_SCHEMA")
    """Schema of the tables."""
    connect_timeout: Annotated[int, require_integer(HOUR)] = 10
    """Seconds to wait for a connection to open."""
    timeout: Annotated[int, require_integer(HOUR)] = 120
    """Seconds without a sign of life after which a statement is given up; a working one may run
    longer."""
    reader_user: Annotated[str, USER, NEVER_QUOTED] = Field(default="", examples=["taxi_reader"])
    """Read-only login role of `sql_query`
    ([how to create it](operations.md#the-role-of-sql_query)); without it `sql_query` rejects
    `store: postgres`. The embedded server has one."""
    reader_password: SecretStr = SecretStr("")
    """Password of the read-only role."""

    @classmethod
    def read_values(cls, env: Mapping[str, str]) -> dict[str, Any]:
        """Return the set values; without a host, profile `local` uses the embedded server."""
        values = super().read_values(env)
        if "host" in values or not is_local(env):
            return values
        chosen = ("POSTGRES_SCHEMA", "timeout")
        embedded = {"host": None, **dict.fromkeys(("dbname", "user", "password"), "")}
        return embedded | {name: values[name] for name in chosen if name in values}

    def has_effect(self, field: str) -> bool:
        """Return whether the server in use depends on a field."""
        return self.host is not None or field in EMBEDDED_FIELDS

    @field_validator("reader_password")
    @classmethod
    def _check_reader(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        if info.data.get("reader_user") and not password.get_secret_value():
            raise ValueError("is missing")
        return password


EMBEDDED_FIELDS = ("schema_name", "timeout")
"""Fields that apply to the embedded server too."""


class LakeSettings(SettingsArea):
    """Lake."""

    profile: Profile = "local"
    home: StateDirectory = Path(".taxi")
    bucket_name: Annotated[str, require_match(BUCKET, "the name of a bucket")] = Field(
        alias="GCS_BUCKET"
    )
    """Bucket of the lake."""
    lake: Annotated[str | None, require_valid(_find_lake_problem), NEVER_QUOTED] = Field(
        default=None, examples=["/srv/lake"]
    )
    """A folder or `gs://bucket` for the lake, in place of `GCS_BUCKET`."""
    lake_layout: LayoutName = LayoutName.hive
    """`hive`: `<service>/tpep_pickup_date=2021-01-05/trips.parquet`; `date`:
    `<service>/2021/01/05/daily-trips.parquet`."""
    retry_seconds: Annotated[int, require_integer(HOUR)] = Field(
        default=120, alias="GCS_RETRY_SECONDS"
    )
    """Seconds for which a call to GCS is retried before its step fails."""
    emulator_host: Annotated[
        str | None,
        require_url(EMULATOR, "host:port or http://host:port without user and password"),
        NEVER_QUOTED,
    ] = Field(default=None, alias="STORAGE_EMULATOR_HOST", examples=["http://127.0.0.1:4443"])
    """Address of a GCS emulator, Google's own variable."""

    local_defaults: ClassVar = {"GCS_BUCKET": "taxi"}

    @classmethod
    def read_values(cls, env: Mapping[str, str]) -> dict[str, Any]:
        """Return the set values; `TAXI_LAKE` makes `GCS_BUCKET` optional."""
        values = super().read_values(env)
        return values | {"GCS_BUCKET": ""} if "lake" in values else values

    @property
    def path(self) -> Path | None:
        """The folder of a local lake; None means a bucket on GCS."""
        if self.lake is not None:
            is_bucket = self.lake.startswith(GCS_SCHEME)
            return None if is_bucket else Path(self.lake).expanduser().absolute()
        return self.home / "lake" / self.bucket_name if self.profile == "local" else None

    @property
    def bucket(self) -> str:
        """Name of the bucket, or of the folder of a local lake."""
        if self.path is not None:
            return self.path.name
        return (self.lake or self.bucket_name).removeprefix(GCS_SCHEME).rstrip("/")

    @property
    def emulator(self) -> str | None:
        """URL of the GCS emulator; None means Google."""
        host = self.emulator_host
        return host if host is None or "://" in host else f"http://{host}"


def split_columns(value: Any) -> Any:
    """Split a comma-separated list of columns.

    Raises:
        ValueError: BigQuery cannot cluster by so many, or one is not the name of a column.
    """
    if not isinstance(value, str):
        return value
    names: tuple[str, ...] = split_commas(value.lower())
    if len(names) > MAX_CLUSTERING or not all(COLUMN.fullmatch(name) for name in names):
        raise ValueError(f"is not 1 to {MAX_CLUSTERING} names of columns, separated by commas")
    return names


def parse_labels(value: Any) -> Any:
    """Parse a comma-separated list of labels.

    Raises:
        ValueError: Google does not accept one of them.
    """
    if not isinstance(value, str):
        return value
    pairs: tuple[str, ...] = split_commas(value)
    if not all(LABEL.fullmatch(pair) for pair in pairs):
        raise ValueError("is not key=value, separated by commas: a-z, 0-9, _ and -")
    return dict(pair.split("=", 1) for pair in pairs)


class BigQuerySettings(SettingsArea):
    """BigQuery."""

    model_config = SettingsConfigDict(env_prefix="BIGQUERY_")

    profile: Profile = Field(default="local", alias="TAXI_PROFILE")
    project: Annotated[str, require_match(PROJECT, "the id of a project")] = Field(
        alias="GCP_PROJECT"
    )
    """Project of BigQuery."""
    dataset: Annotated[str, IDENTIFIER] = "ny_taxi"
    """Dataset of the tables."""
    location: Annotated[str, require_match("[A-Za-z0-9-]+", "a location such as US or EU")] = "US"
    """Location of the dataset, if it must be created."""
    endpoint: Annotated[
        str | None,
        require_url(ENDPOINT, "an http://host:port or https:// URL without user and password"),
        NEVER_QUOTED,
    ] = Field(default=None, examples=["http://127.0.0.1:9050"])
    """Endpoint of an emulator, which needs no Google credentials; by default the embedded one
    (`gcp`: Google)."""
    token: Annotated[SecretStr, require_match(TOKEN, "a token of letters, digits and ._~+/-=")] = (
        SecretStr("")
    )
    """Bearer token that the emulator at `BIGQUERY_ENDPOINT` requires, if any."""
    timeout: Annotated[int, require_integer(HOUR)] = 120
    """Seconds without an answer after which a call is retried; jobs may run longer."""
    require_partition_filter: bool = False
    """Whether a new table rejects queries without a filter on its partition column."""
    cluster_by: Annotated[tuple[str, ...], BeforeValidator(split_columns)] = ()
    """Columns by which a new table is clustered, up to 4, separated by commas; by default the
    pickup zone."""
    partition_expiration_days: Annotated[int | None, require_integer(36_500)] = Field(
        default=None, examples=["1825"]
    )
    """Days after which partitions of a new table expire; by default never."""
    labels: Annotated[dict[str, str], BeforeValidator(parse_labels)] = Field(
        default={}, examples=["team=taxi,cost_center=42"]
    )
    """Labels of a new table, for billing."""
    key_file: Annotated[str | None, require_match(KEY_FILE, KEY_FILE_EXPECTED), NEVER_QUOTED] = (
        Field(
            default=None, alias="GOOGLE_APPLICATION_CREDENTIALS", examples=["/path/of/a/key.json"]
        )
    )
    """Key file for Google Cloud; by default ambient credentials."""

    local_defaults: ClassVar = {"GCP_PROJECT": "taxi-local"}

    @property
    def embedded(self) -> bool:
        """Whether the endpoint is the embedded stack's, which is known once the stack is up."""
        return self.profile == "local" and self.endpoint is None
