"""Malformed values of every setting that may hold a URL or a secret never show the secret."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import traceback
from pathlib import Path

import dagster as dg
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers.base import name_asset_in_errors
from taxi_assets.defs.resources.lake import open_lake
from taxi_assets.errors import SettingsError, SourceError, StoreError, format_one_line
from taxi_assets.redaction import HIDDEN, redact_text, redact_value
from taxi_assets.settings import AREAS, Settings, find_problems
from taxi_assets.settings.environment import ENV_FILE, read_env_file
from taxi_assets.tlc.month_address import describe_location
from taxi_assets.tlc.remote_version import SourceUnavailableError
from taxi_assets.tlc.services import YELLOW
from taxi_assets.tlc.source import fetch_month_file, probe_month_file
from taxi_assets_tests.conftest import REPOSITORY

PLANTED = "pl4nted"
MONTH = "{service}_tripdata_{year}-{month}.csv.gz"
HOST = f"127.0.0.1:9/{MONTH}"
MALFORMED = {
    "scheme missing": f"me:{PLANTED}@{HOST}",
    "scheme missing, token": f"{PLANTED}@{HOST}",
    "scheme without colon": f"https//me:{PLANTED}@{HOST}",
    "scheme with one slash": f"https:/me:{PLANTED}@{HOST}",
    "scheme with a typo": f"htps://me:{PLANTED}@{HOST}",
    "scheme of another store": f"s3://me:{PLANTED}@{HOST}",
    "scheme twice": f"https://https://me:{PLANTED}@{HOST}",
    "slashes alone": f"//me:{PLANTED}@{HOST}",
    "double quotes": f'"https://me:{PLANTED}@{HOST}"',
    "single quotes": f"'https://me:{PLANTED}@{HOST}'",
    "opening quote": f'"https://me:{PLANTED}@{HOST}',
    "leading blank": f" https://me:{PLANTED}@{HOST}",
    "trailing blank": f"https://me:{PLANTED}@{HOST} ",
    "trailing newline": f"https://me:{PLANTED}@{HOST}\n",
    "carriage return": f"https://me:{PLANTED}@{HOST}\r",
    "slash in the password": f"https://me:a/{PLANTED}@{HOST}",
    "slash after the password": f"https://me:{PLANTED}/b@{HOST}",
    "hash in the password": f"https://me:a#{PLANTED}@{HOST}",
    "hash after the password": f"https://me:{PLANTED}#b@{HOST}",
    "question mark in the password": f"https://me:a?{PLANTED}@{HOST}",
    "at sign in the password": f"https://me:a@{PLANTED}@{HOST}",
    "blank in the password": f"https://me:a {PLANTED}@{HOST}",
    "bracket in the password": f"https://me:[{PLANTED}@{HOST}",
    "backslash in the password": f"https:\\\\me:{PLANTED}@{HOST}",
    "at sign escaped": f"https://me:{PLANTED}%40{HOST}",
    "at sign missing": f"https://me:{PLANTED}{HOST}",
    "password as port": f"https://host:{PLANTED}/{MONTH}",
    "slash in a user alone": f"https://a/{PLANTED}@{HOST}",
    "file with a login": f"file://me:{PLANTED}@nas/{MONTH}",
    "bucket with a login": f"gs://me:{PLANTED}@bucket/{MONTH}",
    "login at a path": f"/mnt/me:{PLANTED}@nas/{MONTH}",
    "query with an at sign": f"https://127.0.0.1:9/{MONTH}?user=a@b&token={PLANTED}",
    "control character": f"https://me:\x01{PLANTED}@{HOST}",
    "connection string": f"host=db password={PLANTED} {MONTH}",
    "postgres URL": f"postgresql://me:{PLANTED}@db/{MONTH}",
    "key file's content": json.dumps({"private_key": PLANTED, "x": MONTH}),
    "name and value": f"TAXI_SOURCE=https://me:{PLANTED}@{HOST}",
}
# All documented ones and Google's own. A password may be any text, and is never shown.
SETTINGS = sorted(
    {"STORAGE_EMULATOR_HOST"}.union(
        name
        for name in re.findall(
            r"^#? ?([A-Z_]+)=", (REPOSITORY / ".env.example").read_text(), re.MULTILINE
        )
        if not name.endswith("_PASSWORD")
    )
)
READERS = (Settings.from_env, find_problems, *(area.from_env for area in AREAS.values()))
POSTGRES = {
    "POSTGRES_HOST": "db",
    "POSTGRES_DBNAME": "trips",
    "POSTGRES_USER": "loader",
    "POSTGRES_PASSWORD": "x",
}


def collect_messages(name: str, value: str) -> str:
    """Return every message of the settings when one of them is malformed."""
    text = ""
    for read in READERS:
        try:
            text += repr(read({**POSTGRES, name: value}))
        except SettingsError:
            text += traceback.format_exc(chain=True).rpartition("\n    ")[2]
    return text


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
def test_malformed_setting_is_not_shown(value: str) -> None:
    for name in SETTINGS:
        assert PLANTED not in collect_messages(name, value), name


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
def test_malformed_source_is_neither_shown_nor_requested(value: str, tmp_path: Path) -> None:
    lines: list[str] = []
    for use in (
        lambda: fetch_month_file(value, YELLOW, Month(2021, 1), tmp_path, lines.append),
        lambda: probe_month_file(value, YELLOW, Month(2021, 1)),
        lambda: describe_location(value, YELLOW, Month(2021, 1)),
    ):
        with pytest.raises((SourceError, SourceUnavailableError)) as caught:
            use()
        assert "TAXI_SOURCE" in str(caught.value)
        chain = traceback.TracebackException.from_exception(caught.value, lookup_lines=False)
        messages = [str(caught.value), repr(caught.value), *lines]
        assert not [line for line in messages if PLANTED in line]
        assert chain.__cause__ is None
    assert [path for path in tmp_path.rglob("*") if PLANTED in str(path)] == []


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
def test_local_stack_prints_no_malformed_value(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from taxi_assets.local.__main__ import main  # noqa: PLC0415 - servers' modules

    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    for name in ("TAXI_SOURCE", "TAXI_HOME", "TAXI_LAKE", "POSTGRES_HOST"):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert main(["status"]) == 2
        output = capsys.readouterr()
        assert name in output.err
        assert PLANTED not in output.out + output.err


@pytest.mark.parametrize("value", MALFORMED.values(), ids=MALFORMED)
def test_path_of_a_missing_env_file_is_not_shown(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENV_FILE, value)
    with pytest.raises(SettingsError, match="this file does not exist") as caught:
        read_env_file.__wrapped__()
    assert PLANTED not in str(caught.value)


# urllib splits the password differently for each of these.
AWKWARD = st.text("ab/#?@:%[]\\ '\"\n&=;{}", max_size=6)
FORMS = st.sampled_from(["https://{}@{}", "{}@{}", "//{}@{}", "https:/{}@{}", "file://{}@{}"])


@given(FORMS, AWKWARD, AWKWARD, st.sampled_from(SETTINGS))
@settings(max_examples=200, deadline=None)
def test_password_is_hidden_in_any_context(form: str, before: str, after: str, name: str) -> None:
    value = form.format(f"me:{before}{PLANTED}{after}", HOST)
    assert PLANTED not in redact_value(value)
    assert PLANTED not in collect_messages(name, value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "https://me:s3cret@host:8443/a/b.csv.gz?X-Goog-Signature=S1gn#t",
            "https://host:8443/a/b.csv.gz",
        ),
        ("https://me@host/a", "https://host/a"),
        ("http://[::1]:8080/{service}/a.csv", "http://[::1]:8080/{service}/a.csv"),
        ("gs://bucket/a=1/b.parquet", "gs://bucket/a=1/b.parquet"),
        ("https://host/a.csv;token=s3cret;b=c", "https://host/a.csv;token=***;b=***"),
        ("https://host/a%3Fsig=s3cret%26b=c/d", "https://host/a%3Fsig=***/d"),
        ("https://host/a.csv&sig=s3cret&b=c", "https://host/a.csv&sig=***&b=***"),
        ("user%3As3cret%40host", "***"),
        ("/data/{service}/2021.csv", "/data/{service}/2021.csv"),
        ("/home/me@host/a b.csv", "/home/me@host/a b.csv"),
        ("~/a#1.csv", "~/a#1.csv"),
        ("flat", "flat"),
        ("x" * 201, HIDDEN),
    ],
)
def test_text_without_secrets_is_unchanged(value: str, expected: str) -> None:
    assert redact_value(value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no answer from https://me:p@host/a?b=c, again", "no answer from https://host/a, again"),
        (
            "Max retries exceeded with url: /a.csv?sig=abc (x)",
            "Max retries exceeded with url: /a.csv?*** (x)",
        ),
        ("connection to me:p@host failed", "connection to *** failed"),
        ('invalid dsn: password=abc host="x"', 'invalid dsn: password=*** host="x"'),
        ("user me@project.iam.gserviceaccount.com lacks access", None),
        ("404 gs://bucket/day=2021-01-05/trips.parquet, not found", None),
        ("column 'total_amount' = 3 @ row 7", None),
    ],
)
def test_messages_of_libraries_are_redacted(text: str, expected: str | None) -> None:
    assert redact_text(text) == format_one_line(text) == (expected or text)


def test_library_error_reaches_the_event_log_without_its_secret(tmp_path: Path) -> None:
    """The whole chain of causes is stored there, and printed."""

    @dg.op
    def fails() -> None:
        with name_asset_in_errors(
            dg.AssetKey(["yellow", "raw_trips"]), [Month(2021, 1).window.start]
        ):
            requests.get(f"http://me:{PLANTED}@127.0.0.1:9/?token={PLANTED}", timeout=1)

    @dg.job
    def job() -> None:
        fails()

    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        logged = instance.all_logs(result.run_id)
        text = " ".join(str(event) for event in logged)
    assert "yellow/raw_trips 2021-01-01" in text
    assert "ConnectionError" in text
    assert PLANTED not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]


@pytest.mark.parametrize("name", ["TAXI_SOURCE", "TAXI_UI_URL", "TAXI_OWNERS", "TAXI_START_DATE"])
def test_definitions_that_fail_to_load_print_no_secret(name: str, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import taxi_assets.definitions"],
        env={"PATH": "/usr/bin:/bin", "TAXI_HOME": str(tmp_path), name: MALFORMED["double quotes"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert PLANTED not in ended.stdout + ended.stderr


def test_emulator_with_a_password_is_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://me:{PLANTED}@127.0.0.1:9")
    monkeypatch.setenv("TAXI_LAKE", "gs://bucket")
    with pytest.raises(SettingsError, match="STORAGE_EMULATOR_HOST is not host:port") as caught:
        open_lake(Settings.from_env().lake)
    assert PLANTED not in str(caught.value)


def test_redacted_errors_keep_their_type() -> None:
    for kind in (SourceError, StoreError):
        assert format_one_line(kind("what, where")) == "what, where"
