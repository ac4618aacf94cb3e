"""Secrets planted in every setting that can hold one are in no output or file of a run."""

from __future__ import annotations

import gzip
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from taxi_assets.local.__main__ import main
from taxi_assets.tlc import download
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line
from taxi_assets_tests.stores import Runs

PLANTED = "pl4nted"
"""Part of every secret; the other characters are special in URLs and shells."""
SECRET = f"{PLANTED}/p@ss:w%rd?x=1#y"
IN_URL = f"me:{PLANTED}@"
SIGNATURE = f"?X-Goog-Signature={PLANTED}&token={PLANTED}#{PLANTED}"
GREEN = SERVICES["green"]
DAY = "2020-11-05"
NAME = "green_tripdata_2020-11.csv.gz"
Set = Callable[[str, str], None]
Fail = Callable[[Set, "Site", Path], str]


@dataclass
class Site:
    """A server of one month file, with a different fault in each folder."""

    address: str = ""
    body: bytes = b""
    paths: list[str] = field(default_factory=list)

    def template(self, folder: str) -> str:
        """Return a TAXI_SOURCE that contains a user, a password and a signature."""
        place = self.address.replace("//", f"//{IN_URL}")
        return f"{place}/{folder}/{{service}}_tripdata_{{year}}-{{month}}.csv.gz{SIGNATURE}"

    def answer(self, folder: str) -> tuple[int, bytes, dict[str, str]]:
        """Return the status, body and headers of the file in a folder."""
        if folder == "redirect":
            place = self.address.replace("//", f"//{IN_URL}")
            return 302, b"", {"Location": f"{place}/404/{NAME}{SIGNATURE}"}
        if folder == "html":
            return 200, f"<!DOCTYPE html>{PLANTED}".encode(), {}
        if folder == "cut":
            return 200, self.body[:-100], {}
        return (200, self.body, {}) if folder == "good" else (int(folder), b"", {})


@pytest.fixture
def site() -> Iterator[Site]:
    here = Site()
    lines = [",".join(GREEN.header), *(make_trip_line(DAY, total) for total in range(200))]
    here.body = gzip.compress("\n".join([*lines, ""]).encode())

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            here.paths.append(self.path)
            status, body, headers = here.answer(self.path.split("/")[1])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        here.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield here
        server.shutdown()
        thread.join()


def wrong_password(set_to: Set, site: Site, folder: Path) -> str:
    del site, folder
    for name, value in stores.postgres_arguments().items():
        set_to(f"POSTGRES_{name.upper()}", str(value))
    set_to("POSTGRES_PASSWORD", SECRET)
    return "rejects user"


def postgres_away(set_to: Set, site: Site, folder: Path) -> str:
    wrong_password(set_to, site, folder)
    set_to("POSTGRES_PORT", "9")
    return "cannot be reached"


def wrong_template(set_to: Set, site: Site, folder: Path) -> str:
    del folder
    set_to("TAXI_SOURCE", site.template("good").replace("{month}", "11"))
    return "template"


def malformed_source(set_to: Set, site: Site, folder: Path) -> str:
    del site, folder
    set_to("TAXI_SOURCE", f'"https://me:{PLANTED}/@nas/{{service}}_{{year}}-{{month}}.csv"')
    return "TAXI_SOURCE begins or ends with a blank or a quote"


def key_in_place_of_its_file(set_to: Set, site: Site, folder: Path) -> str:
    del site, folder
    set_to("GOOGLE_APPLICATION_CREDENTIALS", json.dumps({"private_key": PLANTED}))
    return "GOOGLE_APPLICATION_CREDENTIALS is not the path of a key file"


def endpoint_with_password(set_to: Set, site: Site, folder: Path) -> str:
    del folder
    set_to("BIGQUERY_ENDPOINT", site.address.replace("//", f"//{IN_URL}"))
    return "BIGQUERY_ENDPOINT"


def broken_key(set_to: Set, site: Site, folder: Path) -> str:
    """Set an invalid key file, for a BigQuery that is not embedded."""
    del site
    key = folder / "key.json"
    key.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "some-project",
                "private_key_id": PLANTED,
                "private_key": f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----",
                "client_email": "me@some-project.iam.gserviceaccount.com",
                "client_id": "1",
                "token_uri": f"http://127.0.0.1:9/{PLANTED}",
            }
        )
    )
    for name, value in stores.postgres_arguments().items():
        set_to(f"POSTGRES_{name.upper()}", str(value))
    set_to("TAXI_PROFILE", "gcp")
    set_to("GCP_PROJECT", "some-project")
    set_to("TAXI_LAKE", str(folder / "lake"))
    set_to("TAXI_SOURCE", "sample")
    set_to("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    return "GOOGLE_APPLICATION_CREDENTIALS"


SOURCES = {
    "404": "404",
    "401": "401",
    "500": "500",
    "redirect": "404",
    "html": "HTML",
    "cut": "truncated",
}
"""The error of a run by the folder of the site that has its month file."""


def bad_source(folder: str) -> Fail:
    """Point to a month file that is missing or damaged."""

    def fail(set_to: Set, site: Site, _: Path) -> str:
        set_to("TAXI_SOURCE", site.template(folder))
        return SOURCES[folder]

    fail.__name__ = f"source_{folder}"
    return fail


FAILURES = [
    wrong_password,
    postgres_away,
    *map(bad_source, SOURCES),
    wrong_template,
    malformed_source,
    key_in_place_of_its_file,
    endpoint_with_password,
    broken_key,
]


def find_secret(folder: Path) -> list[str]:
    """Return files that contain the planted secret, or have it in their name."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [
        str(path) for path in files if PLANTED in path.name or PLANTED.encode() in path.read_bytes()
    ]


@pytest.fixture(scope="module")
def dagster_home(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a separate DAGSTER_HOME on the session's stack."""
    del home
    folder = tmp_path_factory.mktemp("dagster")
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(folder))
        patch.setenv("TAXI_RETRY_DELAY", "0.05")
        patch.setattr(download, "BACKOFF_SECONDS", 0.001)
        yield folder


@pytest.fixture(params=FAILURES, ids=lambda fail: fail.__name__)
def reason(
    request: pytest.FixtureRequest, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Apply settings that fail a run; return the expected reason."""
    monkeypatch.setenv("TAXI_SOURCE", site.template("good"))
    return request.param(monkeypatch.setenv, site, tmp_path)


def test_failed_run_leaves_no_secret(
    home: Path, dagster_home: Path, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result = Runs().run("green", DAY)
    assert not result.success
    assert reason in stores.failure(result)
    output = "".join(capfd.readouterr())
    assert "RUN_FAILURE" in output
    assert PLANTED not in output
    assert find_secret(dagster_home) == []
    assert find_secret(home / "taxi" / "downloads") == []
    assert not [log for log in home.glob("taxi/local/*.log") if PLANTED in log.read_text()]


def test_successful_run_leaves_no_secret(
    home: Path,
    dagster_home: Path,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", site.template("good"))
    assert Runs().run("green", DAY).success
    assert any(PLANTED in path for path in site.paths)
    monkeypatch.setenv("POSTGRES_PASSWORD", SECRET)
    main(["status", "--json"])
    main(["status"])
    password = str(stores.postgres_arguments()["password"])
    output = "".join(capfd.readouterr())
    assert "green__bigquery_trips" in output
    assert PLANTED not in output
    assert password not in output
    for folder in (dagster_home, home / "taxi" / "downloads", stores.lake()):
        assert find_secret(folder) == []
    files = [path for path in dagster_home.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if password.encode() in path.read_bytes()]
