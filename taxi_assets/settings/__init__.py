"""Every setting, read from the environment and validated in one place.

A profile gives the defaults (`local`: the embedded stack; `gcp`: Google Cloud), each variable
overrides its profile's value. Reading opens nothing; a wrong or missing value is one
`SettingsError` that lists everything that is wanted, at the first use and not at import.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Literal, cast

from taxi_assets.errors import SettingsError
from taxi_assets.redaction import CREDENTIALS, HIDDEN, shown
from taxi_assets.settings.addresses import (
    EMULATOR,
    ENDPOINT,
    KEY_FILE,
    POSTGRES_HOST,
    POSTGRES_NAME,
    matches_url,
    path_complaint,
    source_complaint,
)
from taxi_assets.settings.environment import environment
from taxi_assets.settings.rule_names import DEFAULT_RULES, RuleName
from taxi_assets.settings.variables import Variables

Profile = Literal["local", "gcp"]
Layout = Literal["hive", "date"]

PROFILES = ("local", "gcp")
SAMPLE = "sample"
PLACEHOLDERS = ("{service}", "{year}", "{month}")
POSTGRES_NAMES = ("HOST", "PORT", "DBNAME", "USER", "PASSWORD")
# Names go into SQL and paths: quoted there all the same, but a name that needs quoting is a typo.
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]*")
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
LOCATION = re.compile(r"[A-Za-z0-9-]+")
# What can follow `Bearer` in a header (RFC 6750).
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]*=*")
# What Dagster takes for an owner.
OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")

OWNERS_SHOWN = re.compile(r"[\w.%+@:, -]*")
LARGEST_PORT = 65535
FOR_EVER = "forever"
MOST_DAYS = range(1, 36_501)
MAX_BYTES = 1 << 40
LONGEST_DELAY = 3600
LONGEST_LOCK = 604_800
MOST_UNREADABLE = 0.01


@dataclass(frozen=True)
class PostgresSettings:
    """Where Postgres is. `host` None means the embedded server."""

    host: str | None
    port: int = 5432
    dbname: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    schema: str = "ny_taxi"
    connect_timeout: int = 10
    """Seconds."""
    timeout: int = 120
    """Seconds that the server may show no sign of life; a statement may run longer."""
    reader_user: str = ""
    """The role of `sql_query`, which can only read; empty if there is none."""
    reader_password: str = field(default="", repr=False)


@dataclass(frozen=True)
class LakeSettings:
    """Which bucket. `path` set means a folder on this machine."""

    bucket: str
    layout: Layout
    path: Path | None
    """The folder that is the bucket; None means `gs://<bucket>`."""
    retry_seconds: int = 120
    """How long GCS is asked again within one attempt."""


@dataclass(frozen=True)
class BigQuerySettings:
    """Which dataset. `endpoint` set means an emulator, without credentials."""

    project: str
    dataset: str
    location: str
    endpoint: str | None
    embedded: bool
    """Whether the endpoint is that of the embedded stack, known once it is up."""
    token: str = field(default="", repr=False)
    """What the emulator at `endpoint` wants; empty: nothing."""
    timeout: int = 120
    """Seconds that a call may stay without an answer; how long a job runs is not bounded."""


@dataclass(frozen=True)
class KeepSettings:
    """How long what nobody uses any more is kept."""

    downloads: timedelta | None = timedelta(days=90)
    """Since a run last asked for the month; None means for ever."""
    temporary: timedelta = timedelta(hours=6)
    """Since it was made; a run is over by then, or it was killed."""


@dataclass(frozen=True)
class LimitSettings:
    """How much a month file and a day of it may be, and how long a download may take."""

    max_day_bytes: int = 512 << 20
    """Rows of one day, unpacked; the largest published one takes a third of it."""
    max_download_bytes: int = 8 << 30
    """A month file; the largest published one has 2.9 GB."""
    download_seconds: float = 3600
    """All attempts together. What came by then is kept and gone on from."""


@dataclass(frozen=True)
class Settings:
    """The validated environment."""

    profile: Profile
    home: Path
    source: str = field(repr=False)
    """`sample`, or a template, which may hold a password."""
    postgres: PostgresSettings
    lake: LakeSettings
    bigquery: BigQuerySettings
    most_unreadable: float = MOST_UNREADABLE
    """Share of a month's rows that may be unreadable before the month is refused."""
    drop: tuple[str, ...] = DEFAULT_RULES
    """Names of the cleaning rules."""
    keep: KeepSettings = KeepSettings()
    limits: LimitSettings = LimitSettings()

    @property
    def needs_local_stack(self) -> bool:
        """Whether any store is the embedded one."""
        return self.postgres.host is None or self.bigquery.embedded

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Read the environment.

        Raises:
            SettingsError: naming every variable that is missing or wrong.
        """
        return _Reader(environment() if env is None else env).settings()


def start_date(env: Mapping[str, str] | None = None) -> date:
    """First daily partition, `TAXI_START_DATE` (default 2021-01-01)."""
    text = (environment() if env is None else env).get("TAXI_START_DATE") or "2021-01-01"
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingsError(f"TAXI_START_DATE={shown(text)}: write a date as 2021-01-01") from None


def storage_emulator(env: Mapping[str, str] | None = None) -> str | None:
    """URL of a GCS emulator, `STORAGE_EMULATOR_HOST` (Google's own variable); None for Google."""
    text = (environment() if env is None else env).get("STORAGE_EMULATOR_HOST")
    if not text:
        return None
    if not matches_url(EMULATOR, text):
        raise SettingsError(
            "STORAGE_EMULATOR_HOST is no host:port or http://host:port without user and password"
        )
    return text if "://" in text else f"http://{text}"


def days_per_run(env: Mapping[str, str] | None = None) -> int:
    """Most days in one run of a backfill, `TAXI_MAX_PARTITIONS_PER_RUN` (default 31)."""
    text = (environment() if env is None else env).get("TAXI_MAX_PARTITIONS_PER_RUN") or "31"
    if not text.isdecimal() or int(text) < 1:
        raise SettingsError(
            f"TAXI_MAX_PARTITIONS_PER_RUN={shown(text)}: write a whole number from 1"
        )
    return int(text)


def retry_delay(env: Mapping[str, str] | None = None) -> float:
    """Seconds before a step's first retry (`TAXI_RETRY_DELAY`, default 2); later ones add it."""
    text = (environment() if env is None else env).get("TAXI_RETRY_DELAY") or "2"
    try:
        delay = float(text)
    except ValueError:
        delay = math.nan
    if not 0 < delay <= LONGEST_DELAY:
        raise SettingsError(
            f"TAXI_RETRY_DELAY={shown(text)}: write seconds, over 0 and at most {LONGEST_DELAY}"
        )
    return delay


def lock_timeout(env: Mapping[str, str] | None = None) -> int:
    """Seconds that a run waits for another one's month, `TAXI_LOCK_TIMEOUT` (default 7200)."""
    text = (environment() if env is None else env).get("TAXI_LOCK_TIMEOUT") or "7200"
    if not text.isdecimal() or not 1 <= int(text) <= LONGEST_LOCK:
        raise SettingsError(
            f"TAXI_LOCK_TIMEOUT={shown(text)}: write whole seconds from 1 to {LONGEST_LOCK}"
        )
    return int(text)


def owners(env: Mapping[str, str] | None = None) -> list[str]:
    """Who looks after the assets, `TAXI_OWNERS` (default team:taxi): e-mail addresses, teams."""
    text = (environment() if env is None else env).get("TAXI_OWNERS") or "team:taxi"
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = [name for name in names if not OWNER.fullmatch(name)]
    if wrong or not names:
        raise SettingsError(
            f"TAXI_OWNERS={_owners_shown(text)}: write e-mail addresses or team:<name>, with "
            "commas between"
        )
    return names


def _owners_shown(text: str) -> str:
    """The names as a message quotes them, among them the @ of e-mail addresses."""
    harmless = OWNERS_SHOWN.fullmatch(text) and not CREDENTIALS.search(text)
    return repr(text if harmless else HIDDEN)


def drop_rules(env: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Names of the cleaning rules, in order, `TAXI_DROP` (default those of passengers).

    `none` is no rule. The names are checked where the rules are used, by `Settings.from_env`.
    """
    text = (environment() if env is None else env).get("TAXI_DROP")
    if text is None or not text.strip():
        return DEFAULT_RULES
    names = (name.strip().lower() for name in text.split(","))
    return tuple(dict.fromkeys(name for name in names if name and name != "none"))


class _Reader(Variables):
    """Collects every complaint before it raises one error."""

    def settings(self) -> Settings:
        profile = self.choice("TAXI_PROFILE", PROFILES, "local")
        local = profile != "gcp"
        settings = Settings(
            profile=cast("Profile", profile),
            home=self.path("TAXI_HOME", ".taxi"),
            source=self.source(local=local),
            postgres=self.postgres(local=local),
            lake=self.lake(local=local),
            bigquery=self.bigquery(local=local),
            most_unreadable=self.share("TAXI_MAX_INVALID_RATIO", MOST_UNREADABLE),
            drop=self.drop(),
            keep=self.keep(),
            limits=self.limits(),
        )
        self.google()
        if self.wrong:
            raise SettingsError(
                f"profile {profile if profile in PROFILES else shown(profile)}: "
                + "; ".join(self.wrong)
                + ". Set them in the environment or in .env (see .env.example)."
            )
        return settings

    def drop(self) -> tuple[str, ...]:
        names = drop_rules(self.env)
        unknown = [name for name in names if name not in set(RuleName)]
        if unknown:
            self.wrong.append(
                f"TAXI_DROP names {', '.join(map(shown, unknown))}: the rules are "
                f"{', '.join(RuleName)}; none leaves every row in"
            )
        return names

    def keep(self) -> KeepSettings:
        days = self.text("TAXI_DOWNLOAD_RETENTION_DAYS", "90").lower()
        if days != FOR_EVER and not (days.isdecimal() and int(days) in MOST_DAYS):
            self.wrong.append(
                f"TAXI_DOWNLOAD_RETENTION_DAYS={shown(days)} is neither {FOR_EVER!r} nor a whole "
                f"number from 1 to {MOST_DAYS[-1]}"
            )
            days = FOR_EVER
        return KeepSettings(
            downloads=None if days == FOR_EVER else timedelta(days=int(days)),
            temporary=timedelta(hours=self.number("TAXI_TEMP_RETENTION_HOURS", 6, 8760)),
        )

    def limits(self) -> LimitSettings:
        default = LimitSettings()
        return LimitSettings(
            self.number("TAXI_MAX_DAY_BYTES", default.max_day_bytes, MAX_BYTES),
            self.number("TAXI_MAX_DOWNLOAD_BYTES", default.max_download_bytes, MAX_BYTES),
            self.number("TAXI_DOWNLOAD_TIMEOUT_SECONDS", int(default.download_seconds), 86_400),
        )

    def source(self, *, local: bool) -> str:
        template = self.text("TAXI_SOURCE", SAMPLE if local else None)
        missing = [name for name in PLACEHOLDERS if name not in template]
        if template and template != SAMPLE and missing:
            self.wrong.append(
                # Not shown: a URL may hold a password.
                f"TAXI_SOURCE is neither 'sample' nor a template with {', '.join(missing)}"
            )
        elif template and (complaint := source_complaint(template)):
            self.wrong.append(f"TAXI_SOURCE {complaint}")
        return template

    def path(self, name: str, default: str) -> Path:
        """A path of this machine."""
        text = self.text(name, default)
        if complaint := path_complaint(text):
            self.wrong.append(f"{name} {complaint}")
        return Path(text).expanduser().absolute()

    def google(self) -> None:
        """Google's own variables, which its clients read themselves and quote in their errors."""
        key = self.env.get("GOOGLE_APPLICATION_CREDENTIALS")
        if key and not KEY_FILE.fullmatch(key):
            self.wrong.append(
                "GOOGLE_APPLICATION_CREDENTIALS is no path of a key file: write the key into a "
                "file and its path here"
            )
        try:
            storage_emulator(self.env)
        except SettingsError as error:
            self.wrong.append(str(error))

    def postgres(self, *, local: bool) -> PostgresSettings:
        schema = self.matching("POSTGRES_SCHEMA", IDENTIFIER, "ny_taxi")
        timeout = self.number("POSTGRES_TIMEOUT", 120, LONGEST_DELAY)
        if local and not self.env.get("POSTGRES_HOST"):
            return PostgresSettings(host=None, schema=schema, timeout=timeout)
        reader = self.secretive("POSTGRES_READER_USER", POSTGRES_NAME, "the name of a user", "")
        return PostgresSettings(
            host=self.secretive("POSTGRES_HOST", POSTGRES_HOST, "a host name, address or folder"),
            port=self.number("POSTGRES_PORT", 5432, LARGEST_PORT),
            dbname=self.secretive("POSTGRES_DBNAME", POSTGRES_NAME, "the name of a database"),
            user=self.secretive("POSTGRES_USER", POSTGRES_NAME, "the name of a user"),
            password=self.text("POSTGRES_PASSWORD"),
            schema=schema,
            connect_timeout=self.number("POSTGRES_CONNECT_TIMEOUT", 10, 3600),
            timeout=timeout,
            reader_user=reader,
            reader_password=self.text("POSTGRES_READER_PASSWORD", None if reader else ""),
        )

    def lake(self, *, local: bool) -> LakeSettings:
        layout = cast("Layout", self.choice("TAXI_LAKE_LAYOUT", ("hive", "date"), "hive"))
        seconds = self.number("GCS_RETRY_SECONDS", 120, LONGEST_DELAY)
        lake = self.env.get("TAXI_LAKE", "")
        if lake.startswith("gs://"):
            bucket = lake.removeprefix("gs://").rstrip("/")
            if not BUCKET.fullmatch(bucket):
                self.wrong.append(f"TAXI_LAKE={shown(lake)} is no gs://<bucket>")
            return LakeSettings(bucket, layout, None, seconds)
        if lake:
            path = self.path("TAXI_LAKE", "")
            return LakeSettings(path.name, layout, path, seconds)
        bucket = self.matching("GCS_BUCKET", BUCKET, "taxi" if local else None)
        if not local:
            return LakeSettings(bucket, layout, None, seconds)
        home = Path(self.env.get("TAXI_HOME") or ".taxi").expanduser().absolute()
        return LakeSettings(bucket, layout, home / "lake" / bucket, seconds)

    def token(self, name: str) -> str:
        token = self.env.get(name, "")
        if not TOKEN.fullmatch(token):
            # Not shown: it is a secret.
            self.wrong.append(f"{name} has other characters than letters, digits and ._~+/-=")
        return token

    def bigquery(self, *, local: bool) -> BigQuerySettings:
        endpoint = self.env.get("BIGQUERY_ENDPOINT") or None
        if endpoint and not matches_url(ENDPOINT, endpoint):
            self.wrong.append(
                # Not shown: it may hold a password. Client errors would show it, too.
                "BIGQUERY_ENDPOINT is no http://host:port or https:// URL without user and password"
            )
        return BigQuerySettings(
            project=self.matching("GCP_PROJECT", PROJECT, "taxi-local" if local else None),
            dataset=self.matching("BIGQUERY_DATASET", IDENTIFIER, "ny_taxi"),
            location=self.matching("BIGQUERY_LOCATION", LOCATION, "US"),
            endpoint=endpoint,
            embedded=local and endpoint is None,
            token=self.token("BIGQUERY_TOKEN"),
            timeout=self.number("BIGQUERY_TIMEOUT", 120, LONGEST_DELAY),
        )
