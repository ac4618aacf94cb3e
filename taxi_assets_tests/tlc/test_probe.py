"""Looks at a source, and months that are restated after they were kept."""

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
    Act,
    Handler,
    Site,
    answer,
    claim,
    drip_headers,
    endless,
    serving,
    text,
)
from taxi_assets_tests.tlc.files import HEADER, row

FEBRUARY = Month(2021, 2)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)


def bring(site: Site, home: Path, *, must_confirm: bool = False) -> tuple[MonthFile, list[str]]:
    """Fetch yellow's February; the file, and the lines shown to a person."""
    lines: list[str] = []
    file = fetch_month_file(
        site.template, YELLOW, FEBRUARY, home, lines.append, must_confirm=must_confirm
    )
    return file, lines


def restate(site: Site) -> None:
    site.etag, site.body = '"two"', RESTATED


# What a look tells


def test_a_look_is_one_head(site: Site) -> None:
    site.modified = "Fri, 05 Feb 2021 10:00:00 GMT"
    seen = probe_month_file(site.template, YELLOW, FEBRUARY)
    assert seen == RemoteVersion('"one"', site.modified, len(PACKED))
    assert site.looked == ["/yellow/yellow_tripdata_2021-02.csv.gz"]
    assert site.asked == []


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_published_is_none(site: Site, status: int) -> None:
    site.looks = [answer(status)]
    site.acts = [answer(status)]
    assert probe_month_file(site.template, YELLOW, FEBRUARY) is None


@pytest.mark.parametrize("honours_range", [True, False])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 501])
def test_get_decides_where_head_is_refused(site: Site, status: int, honours_range: bool) -> None:
    """A presigned URL is signed for GET alone."""
    site.looks, site.honours_range = [answer(status)], honours_range
    assert probe_month_file(site.template, YELLOW, FEBRUARY) == RemoteVersion(
        '"one"', None, len(PACKED)
    )
    assert site.ranges == ["bytes=0-0"]


@pytest.mark.parametrize("status", [404, 410])
def test_get_decides_that_a_month_is_not_published(site: Site, status: int) -> None:
    site.looks, site.acts = [answer(403)], [answer(status)]
    assert probe_month_file(site.template, YELLOW, FEBRUARY) is None


def test_the_body_of_the_get_is_not_read(site: Site) -> None:
    site.looks, site.acts, site.etag = [answer(403)], [endless(200)], None
    began = time.monotonic()
    assert probe_month_file(site.template, YELLOW, FEBRUARY) == RemoteVersion()
    assert time.monotonic() - began < 3


def test_an_empty_file_has_no_first_byte(site: Site) -> None:
    site.looks, site.body = [answer(405)], b""
    assert probe_month_file(site.template, YELLOW, FEBRUARY) == RemoteVersion('"one"', None, 0)


@pytest.mark.parametrize("act", [drip_headers, endless(302, Location="/again")])
def test_a_look_ends_in_time(site: Site, monkeypatch: pytest.MonkeyPatch, act: Act) -> None:
    """Headers a byte at a time; a redirect whose body requests would read first."""
    monkeypatch.setattr(look_module, "TOTAL_SECONDS", 0.5)
    site.looks = [answer(405)] * 9
    site.acts = [act] * 20
    began = time.monotonic()
    with pytest.raises((SourceUnavailableError, SourceError)):
        probe_month_file(site.template, YELLOW, FEBRUARY)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_may_pass(site: Site, status: int) -> None:
    site.looks = [answer(status)]
    with pytest.raises(SourceUnavailableError, match=f"answered {status}"):
        probe_month_file(site.template, YELLOW, FEBRUARY)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (answer(401), "the server answered 401; set the user and password"),
        (answer(400), "the server answered 400; check TAXI_SOURCE"),
        (answer(302, Location="file:///etc/passwd"), "has an invalid URL or redirects to one"),
        (answer(302, Location="http://[bad"), "has an invalid URL or redirects to one"),
    ],
)
def test_refusals_are_terminal(site: Site, act: Act, said: str) -> None:
    site.looks, site.acts = [act], [act]
    with pytest.raises(SourceError, match=said):
        probe_month_file(site.template, YELLOW, FEBRUARY)


def test_a_redirect_is_followed(site: Site) -> None:
    site.looks = [answer(302, Location="/elsewhere")]
    assert probe_month_file(site.template, YELLOW, FEBRUARY) == RemoteVersion(
        '"one"', None, len(PACKED)
    )


def test_nobody_listens_and_no_secret_is_told() -> None:
    template = f"http://me:s3cret@127.0.0.1:9/{NAME}?token=t0ken"
    with pytest.raises(SourceUnavailableError, match="no answer") as caught:
        probe_month_file(template, YELLOW, FEBRUARY)
    assert "s3cret" not in str(caught.value)
    assert "t0ken" not in str(caught.value)


def test_a_file_of_this_machine(tmp_path: Path) -> None:
    template = f"{tmp_path}/{NAME}"
    assert probe_month_file(template, YELLOW, FEBRUARY) is None
    assert probe_month_file(f"{tmp_path}/none/{NAME}", YELLOW, FEBRUARY) is None
    path = tmp_path / "yellow_tripdata_2021-02.csv.gz"
    path.write_bytes(PACKED)
    home = tmp_path / "home"
    seen = probe_month_file(template, YELLOW, FEBRUARY, home=home)
    file = fetch_month_file(template, YELLOW, FEBRUARY, home, lambda _: None)
    assert seen == RemoteVersion(file.etag, file.last_modified, file.size)
    assert file.etag == file.sha256[:32]
    assert probe_month_file(f"file://{template}", YELLOW, FEBRUARY, home=home) == seen


def test_a_file_of_this_machine_restated_in_its_size_and_time(tmp_path: Path) -> None:
    """As `cp -p`, rsync and touch leave it."""
    template, home = f"{tmp_path}/{NAME.removesuffix('.gz')}", tmp_path / "home"
    path = tmp_path / "yellow_tripdata_2021-02.csv"
    path.write_bytes(HEADER + row())
    old = fetch_month_file(template, YELLOW, FEBRUARY, home, lambda _: None)
    stat = path.stat()
    path.write_bytes(HEADER + row().replace(b"04:05:06", b"04:05:07"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new = fetch_month_file(template, YELLOW, FEBRUARY, home, lambda _: None)
    assert (new.size, new.last_modified, new.mtime_ns) == (
        old.size,
        old.last_modified,
        old.mtime_ns,
    )
    assert new.sha256 != old.sha256
    seen = probe_month_file(template, YELLOW, FEBRUARY, home=home)
    assert seen is not None
    assert seen.differs_from(RemoteVersion(old.etag, old.last_modified, old.size))


def test_the_sample_is_always_there() -> None:
    assert probe_month_file(SAMPLE, YELLOW, FEBRUARY) == RemoteVersion()


def test_a_template_that_cannot_be_asked() -> None:
    with pytest.raises(SourceError, match="gs:// is not supported"):
        probe_month_file("gs://b/{service}/{year}/{month}.csv", YELLOW, FEBRUARY)


# Kept months


def test_a_restated_month_is_fetched_again(site: Site, tmp_path: Path) -> None:
    old, _ = bring(site, tmp_path)
    assert bring(site, tmp_path) == (old, [])
    restate(site)
    new, lines = bring(site, tmp_path)
    assert new.path.read_bytes() == RESTATED
    assert (new.etag, new.size) == ('"two"', len(RESTATED))
    assert new.sha256 != old.sha256
    assert "was restated: fetching it again" in lines[0]
    assert bring(site, tmp_path) == (new, [])
    assert (len(site.asked), len(site.looked)) == (2, 3)


@pytest.mark.parametrize(
    ("etag", "modified", "body"),
    [
        (None, "Sat, 06 Feb 2021 10:00:00 GMT", PACKED),
        (None, None, PACKED + gzip.compress(b"more", mtime=0)),
    ],
    ids=["Last-Modified", "size"],
)
def test_without_an_etag_time_or_size_tell(
    site: Site, tmp_path: Path, etag: str | None, modified: str | None, body: bytes
) -> None:
    site.etag, site.modified = None, "Fri, 05 Feb 2021 10:00:00 GMT" if modified else None
    bring(site, tmp_path)
    site.etag, site.modified, site.body = etag, modified, body
    bring(site, tmp_path)
    assert len(site.asked) == 2


@pytest.mark.parametrize("says_length", [True, False])
def test_no_version_is_not_the_same_version(site: Site, tmp_path: Path, says_length: bool) -> None:
    """Neither ETag nor Last-Modified, and the same size or none: only the bytes tell."""
    site.etag, site.says_length = None, says_length
    template = site.template.removesuffix(".gz")
    site.body = HEADER + row()

    def again(*, must_confirm: bool = True) -> bytes:
        lines.clear()
        return fetch_month_file(
            template, YELLOW, FEBRUARY, tmp_path, lines.append, must_confirm=must_confirm
        ).path.read_bytes()

    lines: list[str] = []
    assert again() == site.body
    written = next(tmp_path.rglob("*.csv")).stat().st_mtime_ns
    assert again() == site.body
    assert "downloading it again" in lines[0]
    assert "has not changed" in lines[-1]
    # A run that reads it meanwhile is not disturbed.
    assert next(tmp_path.rglob("*.csv")).stat().st_mtime_ns == written
    before, site.body = site.body, site.body.replace(b"04:05:06", b"04:05:07")
    site.acts = [text(b"Service busy, try later")]
    assert again(must_confirm=False) == before
    assert "the cached file is used" in lines[-1]
    site.acts = [text(b"Service busy, try later")]
    with pytest.raises(SourceError, match="names no column of yellow trips"):
        again()
    assert again() == site.body
    assert len(site.asked) == 5


@pytest.mark.parametrize("etag", ['""', 'W/""', "", None])
@pytest.mark.parametrize("modified", ["Thu, 01 Jan 1970 00:00:00 GMT", "0", "yesterday", "now"])
def test_a_version_that_names_none_is_none(
    site: Site, tmp_path: Path, etag: str | None, modified: str
) -> None:
    """The same words with other bytes of the same size: only the bytes tell."""
    site.etag = etag
    site.modified = formatdate(usegmt=True) if modified == "now" else modified
    template = site.template.removesuffix(".gz")
    site.body = HEADER + row()

    def again() -> bytes:
        return fetch_month_file(
            template, YELLOW, FEBRUARY, tmp_path, lambda _: None, must_confirm=True
        ).path.read_bytes()

    assert again() == site.body
    site.body = site.body.replace(b"04:05:06", b"04:05:07")
    assert probe_month_file(template, YELLOW, FEBRUARY) == RemoteVersion(None, None, len(site.body))
    assert again() == site.body


def test_an_etag_that_changes_with_each_answer_gives_way_to_the_time(
    site: Site, tmp_path: Path
) -> None:
    site.new_etag_each_time, site.modified = True, "Fri, 05 Feb 2021 10:00:00 GMT"
    bring(site, tmp_path, must_confirm=True)
    assert bring(site, tmp_path, must_confirm=True)[1] == []
    assert len(site.asked) == 1
    site.modified, site.body = "Sat, 06 Feb 2021 10:00:00 GMT", RESTATED
    assert bring(site, tmp_path, must_confirm=True)[0].path.read_bytes() == RESTATED


def test_an_etag_that_changes_with_each_answer_alone_confirms_nothing(
    site: Site, tmp_path: Path
) -> None:
    site.new_etag_each_time = True
    bring(site, tmp_path)
    _, lines = bring(site, tmp_path)
    assert "has no ETag or time that could confirm" in lines[0]
    assert "has not changed" in lines[-1]
    seen = probe_month_file(site.template, YELLOW, FEBRUARY)
    assert seen is not None
    assert seen.etag
    now = probe_month_file(site.template, YELLOW, FEBRUARY, before=seen)
    assert now == RemoteVersion(None, None, len(PACKED))
    assert now.differs_from(seen) is None


def test_another_etag_for_the_same_bytes_is_noted_once(site: Site, tmp_path: Path) -> None:
    bring(site, tmp_path)
    site.etag = '"other backend"'
    _, lines = bring(site, tmp_path)
    assert "has not changed" in lines[-1]
    assert bring(site, tmp_path)[1] == []
    assert len(site.asked) == 2


def test_a_head_that_does_not_know_the_length_restates_nothing(site: Site, tmp_path: Path) -> None:
    bring(site, tmp_path)
    site.looks = [claim(0)]
    assert bring(site, tmp_path)[1] == []


@pytest.mark.parametrize("status", [200, 404])
def test_a_finished_download_of_a_killed_run_is_confirmed_before_it_is_used(
    site: Site, tmp_path: Path, status: int
) -> None:
    path = bring(site, tmp_path)[0].path
    part = path.rename(path.with_name(f"{path.name}.part"))
    version = {"etag": site.etag, "last_modified": None, "total": len(site.body)}
    part.with_name(f"{part.name}.json").write_text(json.dumps(version))
    restate(site)
    site.looks = [answer(status)] if status != 200 else []
    assert bring(site, tmp_path, must_confirm=True)[0].path.read_bytes() == RESTATED


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_do_not_follow_a_redirect_to_another_host(
    site: Site, tmp_path: Path, status: int
) -> None:
    with serving() as other:
        there = f"{other.address}/elsewhere"
        site.acts = site.looks = [answer(status, Location=there) for _ in range(4)]
        template = site.template.replace("//", "//me:s3cret@")
        assert probe_month_file(template, YELLOW, FEBRUARY) is not None
        fetch_month_file(template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
        assert site.asked[0]["Authorization"].startswith("Basic ")
        assert other.looked == ["/elsewhere"]
        assert "Authorization" not in other.asked[0]


def test_the_same_etag_is_the_same_file_whatever_else_is_said(site: Site, tmp_path: Path) -> None:
    bring(site, tmp_path)
    site.etag, site.modified = 'W/"one"', "Sat, 06 Feb 2021 10:00:00 GMT"
    bring(site, tmp_path)
    assert len(site.asked) == 1


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_a_server_that_does_not_confirm_leaves_the_kept_month_in_use(
    site: Site, tmp_path: Path, status: int
) -> None:
    kept, _ = bring(site, tmp_path)
    site.looks, site.acts = [answer(status)] * 2, [answer(status)] * 2
    file, lines = bring(site, tmp_path)
    assert file == kept
    assert "the cached file is used" in lines[0]
    with pytest.raises((SourceError, SourceUnavailableError)):
        bring(site, tmp_path, must_confirm=True)


def test_offline_the_kept_month_is_used(site: Site, tmp_path: Path) -> None:
    bring(site, tmp_path)
    note = next(tmp_path.rglob("*.csv.gz.json"))
    gone = f"http://127.0.0.1:9/{{service}}/{NAME}"
    with pytest.raises(SourceUnavailableError):
        fetch_month_file(gone, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    lines: list[str] = []
    folder = next(path for path in (tmp_path / "downloads/yellow").iterdir() if path != note.parent)
    for path in (note, note.with_name(note.name.removesuffix(".json"))):
        path.rename(folder / path.name)
    file = fetch_month_file(gone, YELLOW, FEBRUARY, tmp_path, lines.append)
    assert file.path.read_bytes() == PACKED
    assert "no answer" in lines[0]


def test_a_restated_month_that_does_not_come_whole_fails_and_is_resumed(
    site: Site, tmp_path: Path
) -> None:
    bring(site, tmp_path)
    restate(site)
    site.acts = [answer(503)] * download.ATTEMPTS
    with pytest.raises(SourceUnavailableError):
        bring(site, tmp_path)
    assert bring(site, tmp_path)[0].path.read_bytes() == RESTATED


def test_killed_between_note_and_name_the_old_file_does_not_pass_for_the_new(
    site: Site, tmp_path: Path
) -> None:
    """Same size, so that nothing but the missing file tells."""
    site.body = PLAIN
    site_template = site.template.removesuffix(".gz")
    old = fetch_month_file(site_template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
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
    assert json.loads(old.path.with_name(f"{old.path.name}.json").read_text())["etag"] == '"two"'
    new = fetch_month_file(site_template, YELLOW, FEBRUARY, tmp_path, lambda _: None)
    assert new.path.read_bytes() == site.body


def test_a_month_replaced_while_it_is_read_is_read_again(site: Site, tmp_path: Path) -> None:
    def csv(handler: Handler) -> None:
        site.body = gzip.compress(HEADER + row() + b"\n")
        handler.wfile.write(handler.begin())

    site.acts = [csv]
    file, _ = bring(site, tmp_path)
    month = RawMonth(file, list(FEBRUARY.window), 1.0)
    assert len(list(month.read_days(lambda _: None))) == 1
    file.path.write_bytes(site.body)
    with pytest.raises(UnavailableError, match="was replaced while it was read"):
        list(month.read_days(lambda _: None))
    file.path.unlink()
    with pytest.raises(UnavailableError, match="was replaced"):
        list(month.read_days(lambda _: None))
