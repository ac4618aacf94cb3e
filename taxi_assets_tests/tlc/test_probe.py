"""Probes of a source, and months restated after they were cached."""

from __future__ import annotations

import gzip
import json
import os
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError, UnavailableError
from taxi_assets.settings.areas import SAMPLE
from taxi_assets.tlc import download
from taxi_assets.tlc import probe as look_module
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.remote_version import RemoteVersion, SourceUnavailableError
from taxi_assets.tlc.services import YELLOW
from taxi_assets.tlc.source import fetch_month_file, probe_month_file
from taxi_assets_tests.fake_http_server import (
    NAME,
    PACKED,
    PLAIN,
    RESTATED,
    Fault,
    Handler,
    Site,
    answer,
    claim,
    drip_headers,
    endless,
    serving,
    text,
)
from taxi_assets_tests.tlc.files import HEADER, make_line

FEBRUARY = Month(2021, 2)


@pytest.fixture(autouse=True)
def _shorten_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)


def fetch_february(
    site: Site, home: Path, *, must_confirm: bool = False
) -> tuple[MonthFile, list[str]]:
    """Fetch yellow's February; return the file and the progress lines."""
    lines: list[str] = []
    file = fetch_month_file(
        site.template, YELLOW, FEBRUARY, home, lines.append, must_confirm=must_confirm
    )
    return file, lines


def restate(site: Site) -> None:
    site.etag, site.body = '"two"', RESTATED


# The result of a probe


def test_probe_sends_one_head_request(site: Site) -> None:
    site.modified = "Fri, 05 Feb 2021 10:00:00 GMT"
    version = probe_month_file(site.template, YELLOW, FEBRUARY)
    assert version == RemoteVersion('"one"', site.modified, len(PACKED))
    assert site.head_paths == ["/yellow/yellow_tripdata_2021-02.csv.gz"]
    assert site.get_requests == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_unpublished_month_is_none(site: Site, status: int) -> None:
    site.head_faults = [answer(status)]
    site.get_faults = [answer(status)]
    assert probe_month_file(site.template, YELLOW, FEBRUARY) is None


@pytest.mark.parametrize("supports_range", [True, False])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_probe_falls_back_to_get_if_head_is_rejected(
    site: Site, status: int, supports_range: bool
) -> None:
    """A presigned URL is signed for GET alone."""
    site.head_faults, site.supports_range = [answer(status)], supports_range
    assert probe_month_file(site.template, YELLOW, FEBRUARY) == RemoteVersion(
        '"one"', None, len(PACKED)
    )
    assert site.ranges == ["bytes=0-0"]


@pytest.mark.parametrize("status", [404, 410])
def test_get_confirms_that_a_month_is_unpublished(site: Site, status: int) -> None:
    site.head_faults, site.get_faults = [answer(403)], [answer(status)]
    assert probe_month_file(site.template, YELLOW, FEBRUARY) is None


def test_probe_does_not_read_the_body(site: Site) -> None:
    site.head_faults, site.get_faults, site.etag = [answer(403)], [endless(200)], None
    started = time.monotonic()
    assert probe_month_file(site.template, YELLOW, FEBRUARY) == RemoteVersion()
    assert time.monotonic() - started < look_module.TOTAL_SECONDS - 5


def test_probe_of_an_empty_file(site: Site) -> None:
    site.head_faults, site.body = [answer(405)], b""
    assert probe_month_file(site.template, YELLOW, FEBRUARY) == RemoteVersion('"one"', None, 0)


@pytest.mark.parametrize("fault", [drip_headers, endless(302, Location="/again")])
def test_probe_ends_in_time(site: Site, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Headers a byte at a time, and a redirect whose body requests would read first."""
    monkeypatch.setattr(look_module, "TOTAL_SECONDS", 0.5)
    site.head_faults = [answer(405)] * 9
    site.get_faults = [fault] * 20
    started = time.monotonic()
    with pytest.raises((SourceUnavailableError, SourceError)):
        probe_month_file(site.template, YELLOW, FEBRUARY)
    assert time.monotonic() - started < 8


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_status_is_transient(site: Site, status: int) -> None:
    site.head_faults = [answer(status)]
    with pytest.raises(SourceUnavailableError, match=f"answered {status}"):
        probe_month_file(site.template, YELLOW, FEBRUARY)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (answer(401), "the server answered 401; set the user and password"),
        (answer(400), "the server answered 400; check TAXI_SOURCE"),
        (answer(302, Location="file:///etc/passwd"), "has an invalid URL or redirects to one"),
        (answer(302, Location="http://[bad"), "has an invalid URL or redirects to one"),
    ],
)
def test_permanent_status_is_terminal(site: Site, fault: Fault, expected: str) -> None:
    site.head_faults, site.get_faults = [fault], [fault]
    with pytest.raises(SourceError, match=expected):
        probe_month_file(site.template, YELLOW, FEBRUARY)


def test_redirect_is_followed(site: Site) -> None:
    site.head_faults = [answer(302, Location="/elsewhere")]
    assert probe_month_file(site.template, YELLOW, FEBRUARY) == RemoteVersion(
        '"one"', None, len(PACKED)
    )


def test_closed_port_is_transient_and_shows_no_secret() -> None:
    template = f"http://me:s3cret@127.0.0.1:9/{NAME}?token=t0ken"
    with pytest.raises(SourceUnavailableError, match="no answer") as caught:
        probe_month_file(template, YELLOW, FEBRUARY)
    assert "s3cret" not in str(caught.value)
    assert "t0ken" not in str(caught.value)


def test_local_file(tmp_path: Path) -> None:
    template = f"{tmp_path}/{NAME}"
    assert probe_month_file(template, YELLOW, FEBRUARY) is None
    assert probe_month_file(f"{tmp_path}/none/{NAME}", YELLOW, FEBRUARY) is None
    path = tmp_path / "yellow_tripdata_2021-02.csv.gz"
    path.write_bytes(PACKED)
    home = tmp_path / "home"
    version = probe_month_file(template, YELLOW, FEBRUARY, home=home)
    file = fetch_month_file(template, YELLOW, FEBRUARY, home, lambda _: None)
    assert version == RemoteVersion(file.etag, file.last_modified, file.size)
    assert file.etag == file.sha256[:32]
    assert probe_month_file(f"file://{template}", YELLOW, FEBRUARY, home=home) == version


def test_local_file_restated_with_the_same_size_and_time(tmp_path: Path) -> None:
    """As `cp -p`, rsync and touch leave it."""
    template, home = f"{tmp_path}/{NAME.removesuffix('.gz')}", tmp_path / "home"
    path = tmp_path / "yellow_tripdata_2021-02.csv"
    path.write_bytes(HEADER + make_line())
    cached = fetch_month_file(template, YELLOW, FEBRUARY, home, lambda _: None)
    stat = path.stat()
    path.write_bytes(HEADER + make_line().replace(b"04:05:06", b"04:05:07"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new = fetch_month_file(template, YELLOW, FEBRUARY, home, lambda _: None)
    assert (new.size, new.last_modified, new.mtime_ns) == (
        cached.size,
        cached.last_modified,
        cached.mtime_ns,
    )
    assert new.sha256 != cached.sha256
    version = probe_month_file(template, YELLOW, FEBRUARY, home=home)
    assert version is not None
    assert version.differs_from(RemoteVersion(cached.etag, cached.last_modified, cached.size))


def test_sample_is_always_published() -> None:
    assert probe_month_file(SAMPLE, YELLOW, FEBRUARY) == RemoteVersion()


def test_invalid_template_is_rejected() -> None:
    with pytest.raises(SourceError, match="gs:// is not supported"):
        probe_month_file("gs://b/{service}/{year}/{month}.csv", YELLOW, FEBRUARY)


# Cached months


def test_restated_month_is_fetched_again(site: Site, tmp_path: Path) -> None:
    cached, _ = fetch_february(site, tmp_path)
    assert fetch_february(site, tmp_path) == (cached, [])
    restate(site)
    new, lines = fetch_february(site, tmp_path)
    assert new.path.read_bytes() == RESTATED
    assert (new.etag, new.size) == ('"two"', len(RESTATED))
    assert new.sha256 != cached.sha256
    assert "was restated: fetching it again" in lines[0]
    assert fetch_february(site, tmp_path) == (new, [])
    assert (len(site.get_requests), len(site.head_paths)) == (2, 3)


@pytest.mark.parametrize(
    ("etag", "modified", "body"),
    [
        (None, "Sat, 06 Feb 2021 10:00:00 GMT", PACKED),
        (None, None, PACKED + gzip.compress(b"more", mtime=0)),
    ],
    ids=["Last-Modified", "size"],
)
def test_time_or_size_decide_without_an_etag(
    site: Site, tmp_path: Path, etag: str | None, modified: str | None, body: bytes
) -> None:
    site.etag, site.modified = None, "Fri, 05 Feb 2021 10:00:00 GMT" if modified else None
    fetch_february(site, tmp_path)
    site.etag, site.modified, site.body = etag, modified, body
    fetch_february(site, tmp_path)
    assert len(site.get_requests) == 2


@pytest.mark.parametrize("sends_length", [True, False])
def test_missing_version_is_never_the_same_version(
    site: Site, tmp_path: Path, sends_length: bool
) -> None:
    """Without ETag and Last-Modified, and with the same size or none, only the bytes decide."""
    site.etag, site.sends_length = None, sends_length
    template = site.template.removesuffix(".gz")
    site.body = HEADER + make_line()

    def fetch_again(*, must_confirm: bool = True) -> bytes:
        lines.clear()
        return fetch_month_file(
            template, YELLOW, FEBRUARY, tmp_path, lines.append, must_confirm=must_confirm
        ).path.read_bytes()

    lines: list[str] = []
    assert fetch_again() == site.body
    modified_at = next(tmp_path.rglob("*.csv")).stat().st_mtime_ns
    assert fetch_again() == site.body
    assert "downloading it again" in lines[0]
    assert "has not changed" in lines[-1]
    # A run that is reading it is not disturbed.
    assert next(tmp_path.rglob("*.csv")).stat().st_mtime_ns == modified_at
    original_body, site.body = site.body, site.body.replace(b"04:05:06", b"04:05:07")
    site.get_faults = [text(b"Service busy, try later")]
    assert fetch_again(must_confirm=False) == original_body
    assert "the cached file is used" in lines[-1]
    site.get_faults = [text(b"Service busy, try later")]
    with pytest.raises(SourceError, match="names no column of yellow trips"):
        fetch_again()
    assert fetch_again() == site.body
    assert len(site.get_requests) == 5


@pytest.mark.parametrize("etag", ['""', 'W/""', "", None])
@pytest.mark.parametrize("modified", ["Thu, 01 Jan 1970 00:00:00 GMT", "0", "yesterday", "now"])
def test_meaningless_version_is_ignored(
    site: Site, tmp_path: Path, etag: str | None, modified: str
) -> None:
    """With the same headers and other bytes of the same size, only the bytes decide."""
    site.etag = etag
    site.modified = formatdate(usegmt=True) if modified == "now" else modified
    template = site.template.removesuffix(".gz")
    site.body = HEADER + make_line()

    def fetch_again() -> bytes:
        return fetch_month_file(
            template, YELLOW, FEBRUARY, tmp_path, lambda _: None, must_confirm=True
        ).path.read_bytes()

    assert fetch_again() == site.body
    site.body = site.body.replace(b"04:05:06", b"04:05:07")
    assert probe_month_file(template, YELLOW, FEBRUARY) == RemoteVersion(None, None, len(site.body))
    assert fetch_again() == site.body


def test_volatile_etag_gives_way_to_last_modified(site: Site, tmp_path: Path) -> None:
    site.new_etag_each_time, site.modified = True, "Fri, 05 Feb 2021 10:00:00 GMT"
    fetch_february(site, tmp_path, must_confirm=True)
    assert fetch_february(site, tmp_path, must_confirm=True)[1] == []
    assert len(site.get_requests) == 1
    site.modified, site.body = "Sat, 06 Feb 2021 10:00:00 GMT", RESTATED
    assert fetch_february(site, tmp_path, must_confirm=True)[0].path.read_bytes() == RESTATED


def test_volatile_etag_alone_confirms_nothing(site: Site, tmp_path: Path) -> None:
    site.new_etag_each_time = True
    fetch_february(site, tmp_path)
    _, lines = fetch_february(site, tmp_path)
    assert "has no ETag or time that could confirm" in lines[0]
    assert "has not changed" in lines[-1]
    first_version = probe_month_file(site.template, YELLOW, FEBRUARY)
    assert first_version is not None
    assert first_version.etag
    second_version = probe_month_file(site.template, YELLOW, FEBRUARY, before=first_version)
    assert second_version == RemoteVersion(None, None, len(PACKED))
    assert second_version.differs_from(first_version) is None


def test_new_etag_for_the_same_bytes_is_recorded_once(site: Site, tmp_path: Path) -> None:
    fetch_february(site, tmp_path)
    site.etag = '"other backend"'
    _, lines = fetch_february(site, tmp_path)
    assert "has not changed" in lines[-1]
    assert fetch_february(site, tmp_path)[1] == []
    assert len(site.get_requests) == 2


def test_head_without_length_restates_nothing(site: Site, tmp_path: Path) -> None:
    fetch_february(site, tmp_path)
    site.head_faults = [claim(0)]
    assert fetch_february(site, tmp_path)[1] == []


@pytest.mark.parametrize("status", [200, 404])
def test_finished_download_of_a_killed_run_is_confirmed_first(
    site: Site, tmp_path: Path, status: int
) -> None:
    path = fetch_february(site, tmp_path)[0].path
    part_file = path.rename(path.with_name(f"{path.name}.part"))
    version = {"etag": site.etag, "last_modified": None, "total": len(site.body)}
    part_file.with_name(f"{part_file.name}.json").write_text(json.dumps(version))
    restate(site)
    site.head_faults = [answer(status)] if status != 200 else []
    assert fetch_february(site, tmp_path, must_confirm=True)[0].path.read_bytes() == RESTATED


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_do_not_follow_a_redirect_to_another_host(
    site: Site, tmp_path: Path, status: int
) -> None:
    with serving() as other_site:
        target = f"{other_site.address}/elsewhere"
        site.get_faults = site.head_faults = [answer(status, Location=target) for _ in range(4)]
        template = site.template.replace("//", "//me:s3cret@")
        assert probe_month_file(template, YELLOW, FEBRUARY) is not None
        fetch_month_file(template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
        assert site.get_requests[0]["Authorization"].startswith("Basic ")
        assert other_site.head_paths == ["/elsewhere"]
        assert "Authorization" not in other_site.get_requests[0]


def test_same_etag_is_the_same_file(site: Site, tmp_path: Path) -> None:
    fetch_february(site, tmp_path)
    site.etag, site.modified = 'W/"one"', "Sat, 06 Feb 2021 10:00:00 GMT"
    fetch_february(site, tmp_path)
    assert len(site.get_requests) == 1


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_failing_server_leaves_the_cached_month_in_use(
    site: Site, tmp_path: Path, status: int
) -> None:
    cached, _ = fetch_february(site, tmp_path)
    site.head_faults, site.get_faults = [answer(status)] * 2, [answer(status)] * 2
    file, lines = fetch_february(site, tmp_path)
    assert file == cached
    assert "the cached file is used" in lines[0]
    with pytest.raises((SourceError, SourceUnavailableError)):
        fetch_february(site, tmp_path, must_confirm=True)


def test_cached_month_is_used_offline(site: Site, tmp_path: Path) -> None:
    fetch_february(site, tmp_path)
    sidecar = next(tmp_path.rglob("*.csv.gz.json"))
    unreachable = f"http://127.0.0.1:9/{{service}}/{NAME}"
    with pytest.raises(SourceUnavailableError):
        fetch_month_file(unreachable, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    lines: list[str] = []
    folder = next(
        path for path in (tmp_path / "downloads/yellow").iterdir() if path != sidecar.parent
    )
    for path in (sidecar, sidecar.with_name(sidecar.name.removesuffix(".json"))):
        path.rename(folder / path.name)
    file = fetch_month_file(unreachable, YELLOW, FEBRUARY, tmp_path, lines.append)
    assert file.path.read_bytes() == PACKED
    assert "no answer" in lines[0]


def test_incomplete_restated_month_fails_and_is_resumed(site: Site, tmp_path: Path) -> None:
    fetch_february(site, tmp_path)
    restate(site)
    site.get_faults = [answer(503)] * download.ATTEMPTS
    with pytest.raises(SourceUnavailableError):
        fetch_february(site, tmp_path)
    assert fetch_february(site, tmp_path)[0].path.read_bytes() == RESTATED


def test_kill_between_sidecar_and_rename_does_not_pass_off_the_old_file(
    site: Site, tmp_path: Path
) -> None:
    """Both have the same size, so that only the missing file shows it."""
    site.body = PLAIN
    site_template = site.template.removesuffix(".gz")
    cached = fetch_month_file(site_template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    site.etag, site.body = '"two"', PLAIN[:-1] + b"x"

    def die(self: Path, target: Path) -> Path:
        if self.suffix == ".part" and not target.name.endswith(".json"):
            raise KeyboardInterrupt
        return original(self, target)

    original = Path.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(KeyboardInterrupt):
            fetch_month_file(site_template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    assert (
        json.loads(cached.path.with_name(f"{cached.path.name}.json").read_text())["etag"] == '"two"'
    )
    new = fetch_month_file(site_template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    assert new.path.read_bytes() == site.body


def test_month_replaced_while_reading_is_read_again(site: Site, tmp_path: Path) -> None:
    def serve_csv(handler: Handler) -> None:
        site.body = gzip.compress(HEADER + make_line() + b"\n")
        handler.wfile.write(handler.begin())

    site.get_faults = [serve_csv]
    file, _ = fetch_february(site, tmp_path)
    month = RawMonth(file, list(FEBRUARY.window), 1.0)
    assert len(list(month.read_days(lambda _: None))) == 1
    file.path.write_bytes(site.body)
    with pytest.raises(UnavailableError, match="was replaced while it was read"):
        list(month.read_days(lambda _: None))
    file.path.unlink()
    with pytest.raises(UnavailableError, match="was replaced"):
        list(month.read_days(lambda _: None))
