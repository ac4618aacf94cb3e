"""Month files from a real HTTP server on this machine, which misbehaves on command."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError, UnavailableError
from taxi_assets.settings.areas import SAMPLE, LimitSettings
from taxi_assets.tlc import cache as kept
from taxi_assets.tlc import download
from taxi_assets.tlc import integrity as whole
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.services import GREEN, YELLOW
from taxi_assets.tlc.source import fetch_month_file
from taxi_assets_tests.fake_http_server import (
    HEADER,
    NAME,
    PACKED,
    PLAIN,
    Act,
    Handler,
    Site,
    answer,
    changed,
    claim,
    cut,
    drip,
    drip_headers,
    endless,
    other_range,
    stall,
    text,
)

JANUARY = Month(2021, 1)
PAGE = b"\n  <!DOCTYPE html><title>Sign in</title>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
SECRETS = ("s3cret", "t0ken", "S1gn")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(download, "RETRY_AFTER_SECONDS", 0.3)


@dataclass
class Desk:
    """Fetches yellow's January and keeps the progress."""

    home: Path
    lines: list[str] = field(default_factory=list)
    limits: LimitSettings = field(default_factory=LimitSettings)

    def fetch(self, template: str, month: Month = JANUARY) -> MonthFile:
        return fetch_month_file(
            template, YELLOW, month, self.home, self.lines.append, limits=self.limits
        )

    def refused(self, template: str) -> str:
        """Fetch, and return the one line of the SourceError that has to come."""
        with pytest.raises(SourceError) as caught:
            self.fetch(template)
        message = str(caught.value)
        assert message.startswith("yellow 2021-01: ")
        assert "\n" not in message
        assert "; " in message
        return message

    def left(self) -> list[str]:
        """Names under the home, without lock files."""
        files = (path for path in self.home.rglob("*") if path.is_file())
        return sorted(path.name for path in files if path.suffix != ".lock")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "home")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({key: ["1", "2"] for key in YELLOW.header}), out)
    return out.getvalue()


def other_parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"VendorID": [1, 2]}), out)
    return out.getvalue()


# Downloads that go well


def test_downloaded_once(site: Site, desk: Desk) -> None:
    site.modified = "Fri, 05 Feb 2021 10:00:00 GMT"
    file = desk.fetch(site.template)
    assert file.path.read_bytes() == PACKED
    assert (file.size, file.sha256) == (len(PACKED), sha256(PACKED))
    assert (file.etag, file.last_modified) == (site.etag, site.modified)
    assert file.url == f"{site.address}/yellow/yellow_tripdata_2021-01.csv.gz"
    assert not file.synthetic
    assert file.path.name == "yellow_tripdata_2021-01.csv.gz"
    assert file.path.parent.parent == desk.home / "downloads" / "yellow"
    assert site.asked[0]["Accept-Encoding"] == "identity"
    assert desk.left() == [file.path.name, f"{file.path.name}.json"]
    assert desk.fetch(site.template) == file
    assert len(site.asked) == 1


def test_templates_and_months_of_one_file_name_do_not_collide(site: Site, desk: Desk) -> None:
    site.body = HEADER + b"1\n"
    templates = [f"{site.address}/{{year}}/{{month}}/{{service}}.csv{end}" for end in ("", "?v=2")]
    paths = {desk.fetch(one, Month(2021, n)).path for one in templates for n in (1, 2)}
    assert len(paths) == 4
    assert len(site.asked) == 4


def test_a_new_password_downloads_nothing_again(site: Site, desk: Desk) -> None:
    first = desk.fetch(site.template.replace("//", "//u:old@"))
    assert desk.fetch(site.template.replace("//", "//u:new@")) == first
    assert len(site.asked) == 1
    assert site.asked[0]["Authorization"].startswith("Basic ")


def test_a_kept_file_of_another_size_is_fetched_again(site: Site, desk: Desk) -> None:
    path = desk.fetch(site.template).path
    path.write_bytes(PACKED[:-9])
    assert desk.fetch(site.template).path.read_bytes() == PACKED


@pytest.mark.parametrize(("suffix", "body"), [(".csv", HEADER + b"1\n"), (".parquet", parquet())])
def test_other_types(site: Site, desk: Desk, suffix: str, body: bytes) -> None:
    site.body = body
    template = site.template.removesuffix(".csv.gz") + suffix
    assert desk.fetch(template).path.read_bytes() == body


def test_an_unknown_last_column_is_judged_by_the_month_of_the_file(site: Site, desk: Desk) -> None:
    """Before 2019 it is no renamed `congestion_surcharge`: no file had that yet."""
    names = YELLOW.header[: YELLOW.header.index("total_amount") + 1]
    site.body = ",".join([*names, "filename"]).encode() + b"\n"
    template = site.template.removesuffix(".gz")
    assert desk.fetch(template, Month(2017, 1)).path.read_bytes() == site.body


def test_gzip_of_several_members(site: Site, desk: Desk) -> None:
    site.body = gzip.compress(HEADER) + gzip.compress(b"1\n") + gzip.compress(b"")
    assert desk.fetch(site.template).size == len(site.body)


def test_gz_that_the_server_also_labels_as_encoding_is_kept_as_it_is(
    site: Site, desk: Desk
) -> None:
    def labelled(handler: Handler) -> None:
        handler.start(200, len(PACKED), Content_Encoding="gzip")
        handler.wfile.write(PACKED)

    site.acts = [labelled]
    assert desk.fetch(site.template).sha256 == sha256(PACKED)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".csv.gz"])
@pytest.mark.parametrize("label", ["gzip", "x-gzip"])
def test_an_encoding_that_the_server_applies_is_undone(
    site: Site, desk: Desk, suffix: str, label: str
) -> None:
    """A `.csv.gz` keeps the gzip that it is published in."""
    published = {".csv": PLAIN, ".parquet": parquet(), ".csv.gz": PACKED}[suffix]
    encoded = gzip.compress(published, 1, mtime=0)
    template = site.template.removesuffix(".csv.gz") + suffix
    site.acts = [text(encoded, Content_Encoding=label)]
    site.looks = [text(encoded, Content_Encoding=label)]
    file = desk.fetch(template)
    assert file.path.read_bytes() == published
    assert (file.size, file.sha256) == (len(published), sha256(published))
    assert desk.fetch(template) == file
    assert desk.left() == [file.path.name, f"{file.path.name}.json"]


def test_an_encoded_body_that_breaks_is_resumed(site: Site, desk: Desk) -> None:
    encoded = site.body = gzip.compress(PLAIN, 1, mtime=0)

    def half(handler: Handler) -> None:
        handler.start(200, len(encoded), Content_Encoding="gzip")
        handler.wfile.write(encoded[: len(encoded) // 2])

    site.acts = [half]
    file = desk.fetch(site.template.removesuffix(".gz"))
    assert file.path.read_bytes() == PLAIN
    assert site.ranges[1] == f"bytes={len(encoded) // 2}-"


def test_no_length_given(site: Site, desk: Desk) -> None:
    def unmeasured(handler: Handler) -> None:
        handler.start(200, None)
        handler.wfile.write(PACKED)

    site.acts = [unmeasured]
    assert desk.fetch(site.template).size == len(PACKED)
    assert desk.lines == [f"yellow 2021-01: {len(PACKED) / (1 << 20):.1f} MiB"]


def test_progress(site: Site, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PROGRESS_SECONDS", 0)
    desk.fetch(site.template)
    whole = f"{len(PACKED) / (1 << 20):.1f}"
    assert len(desk.lines) > 2
    assert desk.lines[0].startswith("yellow 2021-01: 0.")
    assert desk.lines[-1] == f"yellow 2021-01: {whole} of {whole} MiB (100 %)"


def test_progress_of_a_quick_download_is_one_line(site: Site, desk: Desk) -> None:
    desk.fetch(site.template)
    assert len(desk.lines) == 1


# Connections that break


@pytest.mark.parametrize(
    ("etag", "modified"),
    [
        ('"one"', None),
        ('W/"one"', "Fri, 05 Feb 2021 10:00:00 GMT"),
        (None, "Fri, 05 Feb 2021 10:00:00 GMT"),
    ],
)
def test_cut_body_is_resumed(
    site: Site, desk: Desk, etag: str | None, modified: str | None
) -> None:
    site.etag, site.modified = etag, modified
    site.acts = [cut, cut]
    file = desk.fetch(site.template)
    assert file.path.read_bytes() == PACKED
    assert file.sha256 == sha256(PACKED)
    half = len(PACKED) // 2
    assert site.ranges == [None, f"bytes={half}-", f"bytes={half + (len(PACKED) - half) // 2}-"]
    assert site.asked[1]["If-Range"] == (etag if etag == '"one"' else modified)
    assert "attempt 2 of 6" in desk.lines[0]


def test_nothing_to_compare_versions_by_starts_again(site: Site, desk: Desk) -> None:
    site.etag = None
    site.acts = [cut]
    assert desk.fetch(site.template).sha256 == sha256(PACKED)
    assert site.ranges == [None, None]


def test_silent_server_times_out_and_is_resumed(
    site: Site, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "READ_SECONDS", 0.3)
    site.acts = [stall]
    assert desk.fetch(site.template).sha256 == sha256(PACKED)
    assert site.ranges == [None, f"bytes={2 * download.CHUNK}-"]


@pytest.mark.parametrize("act", [changed, other_range])
def test_etag_that_changes_between_ranges_starts_again(site: Site, desk: Desk, act: Act) -> None:
    site.acts = [cut, act]
    file = desk.fetch(site.template)
    assert file.path.read_bytes() == site.body
    assert file.sha256 == sha256(site.body)
    assert file.etag == '"two"'


def test_range_that_the_server_cannot_satisfy_starts_again(site: Site, desk: Desk) -> None:
    site.acts = [cut, answer(416)]
    assert desk.fetch(site.template).sha256 == sha256(PACKED)
    assert site.ranges[-1] is None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_trouble_is_retried(site: Site, desk: Desk, status: int) -> None:
    site.acts = [answer(status), answer(status)]
    assert desk.fetch(site.template).size == len(PACKED)
    assert f"the server answered {status}" in desk.lines[0]


@pytest.mark.parametrize(("asked", "least", "most"), [("0", 0, 0.2), ("3600", 0.3, 2)])
def test_retry_after_is_honoured_up_to_a_bound(
    site: Site, desk: Desk, asked: str, least: float, most: float
) -> None:
    site.acts = [answer(503, Retry_After=asked)]
    began = time.monotonic()
    desk.fetch(site.template)
    assert least <= time.monotonic() - began < most


def test_lasting_trouble_is_not_terminal(site: Site, desk: Desk) -> None:
    site.acts = [answer(503)] * 99
    with pytest.raises(download.SourceUnavailableError, match="answered 503") as caught:
        desk.fetch(site.template)
    assert len(site.asked) == download.ATTEMPTS
    assert not isinstance(caught.value, SourceError)


def test_nobody_listens(desk: Desk) -> None:
    with pytest.raises(download.SourceUnavailableError, match="NewConnectionError"):
        desk.fetch(f"http://127.0.0.1:9/{NAME}")


# What lasts too long or is too large


@pytest.fixture
def impatient(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(download, "RATE_SECONDS", 0.2)
    monkeypatch.setattr(download, "HEADER_SECONDS", 0.3)
    desk.limits = LimitSettings(max_download_bytes=4 << 20, download_timeout_seconds=30)
    return desk


def test_a_source_at_a_few_bytes_a_second_is_given_up_and_gone_on_from(
    site: Site, impatient: Desk
) -> None:
    site.acts = [drip] * download.ATTEMPTS
    with pytest.raises(download.SourceUnavailableError, match="under 1,024 a second"):
        impatient.fetch(site.template)
    assert site.ranges[0] is None
    assert all(site.ranges[1:])
    assert impatient.fetch(site.template).sha256 == sha256(PACKED)


def test_all_attempts_together_have_an_end(site: Site, impatient: Desk) -> None:
    impatient.limits = LimitSettings(download_timeout_seconds=0.5)
    site.acts = [stall] * 9
    began = time.monotonic()
    with pytest.raises(
        download.SourceUnavailableError, match="TAXI_DOWNLOAD_TIMEOUT_SECONDS"
    ) as caught:
        impatient.fetch(site.template)
    assert time.monotonic() - began < 3
    assert "run again to resume after" in str(caught.value)
    assert impatient.fetch(site.template).sha256 == sha256(PACKED)
    assert site.ranges[-1] is not None


def test_headers_a_byte_at_a_time_are_not_waited_for(site: Site, impatient: Desk) -> None:
    site.acts = [drip_headers, drip_headers]
    began = time.monotonic()
    assert impatient.fetch(site.template).sha256 == sha256(PACKED)
    assert time.monotonic() - began < 5
    assert "no answer (ReadTimeout" in impatient.lines[0]


def test_a_redirect_with_an_endless_body_is_followed(site: Site, impatient: Desk) -> None:
    site.acts = [endless(302, Location="/elsewhere")]
    assert impatient.fetch(site.template).sha256 == sha256(PACKED)


@pytest.mark.parametrize("act", [endless(200), claim(5 << 20)])
def test_a_body_that_is_too_large_leaves_nothing(site: Site, impatient: Desk, act: Act) -> None:
    site.acts = [act]
    message = impatient.refused(site.template.removesuffix(".gz"))
    assert "over the limit of 4,194,304 for a month; check TAXI_SOURCE, or raise" in message
    assert impatient.left() == []


def test_a_bomb_as_content_encoding_is_refused(site: Site, impatient: Desk) -> None:
    site.body = gzip.compress(HEADER + bytes(8 << 20))
    site.acts = [text(site.body, Content_Encoding="gzip")]
    message = impatient.refused(site.template.removesuffix(".gz"))
    assert "unpacks to over 4,194,304 bytes" in message
    assert impatient.left() == []


def test_a_gzip_bomb_is_refused_when_it_is_checked(
    site: Site, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole, "MAX_UNPACKED_BYTES", 4 << 20)
    site.body = gzip.compress(HEADER + bytes(8 << 20))
    assert "unpacks to over 4,194,304 bytes" in desk.refused(site.template)
    assert desk.left() == []


def test_a_length_that_is_too_long_is_asked_for_again(site: Site, desk: Desk) -> None:
    site.acts = [claim(len(PACKED) + 9)]
    assert desk.fetch(site.template).sha256 == sha256(PACKED)
    site.acts = [claim(len(PACKED) + 9)] * 9


def test_a_length_that_is_too_short_is_a_cut_file(site: Site, desk: Desk) -> None:
    site.acts = [claim(len(PACKED) - 9)]
    assert "truncated gzip" in desk.refused(site.template)
    assert desk.left() == []


def test_another_run_that_hangs_is_not_waited_for(site: Site, desk: Desk) -> None:
    path = desk.fetch(site.template).path
    desk.limits = LimitSettings(download_timeout_seconds=0.3)
    with (
        kept.hold_download_lock(path, "yellow", desk.lines.append),
        pytest.raises(UnavailableError, match="if its process hangs, end it"),
    ):
        desk.fetch(site.template)


# Several at once, and killed ones

SCRIPT = """
import sys
from pathlib import Path
from taxi_assets.tlc.services import YELLOW
from taxi_assets.tlc.source import fetch_month_file
from taxi_assets.date_ranges import Month
print(fetch_month_file(sys.argv[1], YELLOW, Month(2021, 1), Path(sys.argv[2]),
            lambda line: print(line, flush=True)).sha256)
"""


def started(site: Site, desk: Desk) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, site.template, str(desk.home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_download_once(site: Site, desk: Desk) -> None:
    site.acts = [stall]
    with started(site, desk) as first:
        until(lambda: site.asked)
        with started(site, desk) as second:
            assert second.stdout
            assert "another run is fetching" in second.stdout.readline()
            site.go_on.set()
            outputs = [one.communicate(timeout=15)[0] for one in (first, second)]
    assert [text.splitlines()[-1] for text in outputs] == [sha256(PACKED)] * 2
    assert len(site.asked) == 1


def test_threads_download_once(site: Site, desk: Desk) -> None:
    with ThreadPoolExecutor(4) as pool:
        files = set(pool.map(desk.fetch, [site.template] * 4))
    assert len(files) == len(site.asked) == 1


def test_killed_download_is_resumed(site: Site, desk: Desk) -> None:
    site.acts = [stall]
    with started(site, desk) as victim:
        until(lambda: any(part.stat().st_size for part in desk.home.rglob("*.part")))
        whole = 2 * download.CHUNK
        until(lambda: max(p.stat().st_size for p in desk.home.rglob("*.part")) == whole)
        os.kill(victim.pid, signal.SIGKILL)
    assert desk.fetch(site.template).sha256 == sha256(PACKED)
    assert site.ranges == [None, f"bytes={2 * download.CHUNK}-"]


def partial(site: Site, desk: Desk, content: bytes) -> None:
    """Leave what a run leaves that was killed when `content` had come."""
    path = desk.fetch(site.template).path
    path.unlink()
    version = {"etag": site.etag, "last_modified": None, "total": len(site.body)}
    path.with_name(f"{path.name}.part").write_bytes(content)
    path.with_name(f"{path.name}.part.json").write_text(json.dumps(version))
    site.asked.clear()


def test_killed_before_the_rename_downloads_nothing(site: Site, desk: Desk) -> None:
    partial(site, desk, PACKED)
    assert desk.fetch(site.template).sha256 == sha256(PACKED)
    assert site.asked == []


def test_rotten_partial_is_fetched_from_the_start(site: Site, desk: Desk) -> None:
    partial(site, desk, PACKED[:200_000] + bytes(100_000))
    assert desk.fetch(site.template).sha256 == sha256(PACKED)
    assert site.ranges == ["bytes=300000-", None]


def test_partial_with_an_unreadable_note_is_fetched_from_the_start(site: Site, desk: Desk) -> None:
    partial(site, desk, PACKED[:1000])
    next(desk.home.rglob("*.part.json")).write_text("[")
    assert desk.fetch(site.template).sha256 == sha256(PACKED)


# What is refused

CONTENTS = [
    (".csv.gz", PACKED[:-5], "truncated gzip"),
    (".csv.gz", PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "CRC"),
    (".csv.gz", PAGE, "an HTML or XML page"),
    (".csv", b"<head><title>Sign in</title", "an HTML or XML page"),
    (".csv", b"<Error><Code>AccessDenied</Code>", "an HTML or XML page"),
    (".csv", b'{"message": "Not Found"}', "JSON, not trips"),
    (".csv.gz", b"[]", "JSON, not trips"),
    (".csv", b"Error: rate limit exceeded for token t0ken", "names no column of yellow trips"),
    (".csv.gz", gzip.compress(b"busy\n", mtime=0), "names no column of yellow trips"),
    (".csv", HEADER.replace(b"tpep_pickup_datetime", b"when"), "has a wrong header"),
    (".parquet", other_parquet(), "has a wrong header"),
    (".parquet", parquet()[:-508] + b"\xff" * 500 + parquet()[-8:], "damaged Parquet"),
    (".csv.gz", gzip.compress(PAGE, mtime=0), "inside the gzip an HTML or XML page"),
    (".csv", b"<?xml version='1.0'?><Error>", "an HTML or XML page"),
    (".parquet", b"<html>", "an HTML or XML page"),
    (".csv.gz", POINTER, "a Git LFS pointer"),
    (".csv", POINTER, "a Git LFS pointer"),
    (".csv.gz", b"", "empty"),
    (".csv.gz", gzip.compress(b"", mtime=0), "inside the gzip empty"),
    (".csv.gz", PLAIN, "neither gzip nor Parquet (starts with b'VendorID'), though"),
    (".csv", PACKED, "gzip (starts"),
    (".parquet", PLAIN, "neither gzip nor Parquet"),
    (".parquet", parquet()[:-4], "Parquet truncated"),
    (".parquet", b"PAR1PAR1", "Parquet truncated at 8 bytes"),
]


@pytest.mark.parametrize(("suffix", "content", "found"), CONTENTS)
def test_wrong_content_from_a_server(
    site: Site, desk: Desk, suffix: str, content: bytes, found: str
) -> None:
    site.body = content
    message = desk.refused(site.template.removesuffix(".csv.gz") + suffix)
    assert found in message
    assert f"{site.address}/yellow/yellow_tripdata_2021-01{suffix}" in message
    assert len(site.asked) == 1
    assert desk.left() == []


@pytest.mark.parametrize(("suffix", "content", "found"), CONTENTS[2:])
def test_wrong_content_of_a_local_file(
    tmp_path: Path, desk: Desk, suffix: str, content: bytes, found: str
) -> None:
    path = tmp_path / f"yellow_tripdata_2021-01{suffix}"
    path.write_bytes(content)
    message = desk.refused(f"{tmp_path}/{NAME.removesuffix('.csv.gz')}{suffix}")
    assert found in message
    assert str(path) in message


def test_wrong_content_is_refused_before_all_of_it_came(site: Site, desk: Desk) -> None:
    site.body = PLAIN
    site.acts = [stall]
    began = time.monotonic()
    assert "neither gzip" in desk.refused(site.template)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_refusal_of_the_server_is_terminal(site: Site, desk: Desk, status: int) -> None:
    site.acts = [answer(status)] * 9
    assert f"the server answered {status}; " in desk.refused(site.template)
    assert len(site.asked) == 1


def test_encoding_that_was_not_asked_for(site: Site, desk: Desk) -> None:
    site.acts = [answer(200, Content_Encoding="br")]
    assert "Content-Encoding br" in desk.refused(site.template.removesuffix(".gz"))


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x.csv.gz", "http://[bad"])
def test_redirect_away_from_http(site: Site, desk: Desk, place: str) -> None:
    site.acts = [answer(302, Location=place)]
    assert "has an invalid URL or redirects to one" in desk.refused(site.template)


def test_redirect_to_http(site: Site, desk: Desk) -> None:
    site.acts = [answer(302, Location="/elsewhere?X-Goog-Signature=S1gn")]
    file = desk.fetch(site.template)
    assert file.size == len(PACKED)
    assert "elsewhere" not in file.url


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("gs://b/{service}/{year}/{month}.csv", "gs:// is not supported"),
        ("file://other/{service}/{year}/{month}.csv", "is not a local file:///path"),
        ("http://127.0.0.1:9/{service}/{year}/{month}.zip", "has no known type"),
        ("http://[127/{service}/{year}/{month}.csv", "is not a valid URL"),
        ("/{service}/{year}-{month}.txt", "has no known type"),
    ],
)
def test_wrong_templates(desk: Desk, template: str, found: str) -> None:
    assert found in desk.refused(template)


# Secrets


@pytest.mark.parametrize(
    "acts",
    [
        [],
        [cut],
        [answer(404)],
        [answer(503)] * 9,
        [answer(302, Location="file:///t0ken")],
        [answer(302, Location="http://127.0.0.1:9/?token=t0ken")] * 9,
    ],
)
def test_no_secret_is_told_or_kept(site: Site, desk: Desk, acts: list[Act]) -> None:
    site.acts = acts
    secret = site.template.replace("//", "//me:s3cret@") + "?token=t0ken&X-Goog-Signature=S1gn"
    told = ""
    try:
        told = repr(desk.fetch(secret))
    except (SourceError, download.SourceUnavailableError):
        told = traceback.format_exc()
    assert site.asked[0]["path"].endswith("?token=t0ken&X-Goog-Signature=S1gn")
    kept = " ".join(p.read_text() for p in desk.home.rglob("*.json"))
    names = " ".join(str(path) for path in desk.home.rglob("*"))
    assert not [word for word in SECRETS if word in f"{told} {desk.lines} {kept} {names}"]


# Files on this machine


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """Make a folder with yellow's January."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    path = folder / "yellow_tripdata_2021-01.csv.gz"
    path.write_bytes(PACKED)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return folder


def test_local_file_is_read_in_place(
    shelf: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.fetch(f"{shelf}/{NAME}")
    assert file.path == shelf / "yellow_tripdata_2021-01.csv.gz"
    assert (file.url, file.size, file.sha256) == (str(file.path), len(PACKED), sha256(PACKED))
    assert (file.etag, file.last_modified) == (file.sha256[:32], "2020-09-13T12:26:40+00:00")
    assert not any(path.endswith(".gz") for path in desk.left())
    assert desk.fetch(f"file://{shelf}/{NAME}") == file
    monkeypatch.setenv("HOME", str(shelf.parent))
    assert desk.fetch(f"~/shelf/{NAME}") == file
    monkeypatch.chdir(shelf.parent)
    assert desk.fetch(f"shelf/{NAME}") == file


def test_digest_of_a_local_file_is_computed_once(
    shelf: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counting(path: Path) -> download.Digest:
        hashed.append(path)
        return download.start_sha256(path)

    monkeypatch.setattr(kept, "start_sha256", counting)
    files = [desk.fetch(f"{shelf}/{NAME}") for _ in range(3)]
    assert len(hashed) == 1
    assert len(set(files)) == 1
    os.utime(files[0].path)
    desk.fetch(f"{shelf}/{NAME}")
    assert len(hashed) == 2


def test_local_file_that_changes_while_it_is_read(
    shelf: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meddling(path: Path) -> download.Digest:
        with path.open("ab") as file:
            file.write(b"more")
        return download.start_sha256(path)

    monkeypatch.setattr(kept, "start_sha256", meddling)
    assert "changed while it was read" in desk.refused(f"{shelf}/{NAME}")


def test_missing_local_file_lists_the_folder(shelf: Path, desk: Desk) -> None:
    message = desk.refused(f"{shelf}/x{NAME}")
    assert "no such file; the folder has yellow_tripdata_2021-01.csv.gz;" in message
    for n in range(9):
        (shelf / f"a{n}.csv").touch()
    assert "a0.csv, a1.csv, a2.csv, a3.csv and 6 more;" in desk.refused(f"{shelf}/x{NAME}")


def test_missing_local_folder(shelf: Path, desk: Desk) -> None:
    assert "neither the file nor its folder exists" in desk.refused(f"{shelf}/none/{NAME}")
    (shelf / "empty").mkdir()
    assert "the folder is empty" in desk.refused(f"{shelf}/empty/{NAME}")
    (shelf / "empty" / "yellow_tripdata_2021-01.csv.gz").mkdir()
    assert "is not a file" in desk.refused(f"{shelf}/empty/{NAME}")


# The sample


def test_sample_is_made_once(desk: Desk) -> None:
    file = desk.fetch(SAMPLE)
    written = file.path.stat().st_mtime_ns
    assert file.synthetic
    assert file.url == "synthetic sample yellow 2021-01"
    assert file.path.parent == desk.home / "downloads" / "sample"
    assert file.sha256 == sha256(file.path.read_bytes())
    assert gzip.decompress(file.path.read_bytes()).startswith(b"VendorID,")
    assert desk.fetch(SAMPLE) == file
    assert file.path.stat().st_mtime_ns == written
    assert fetch_month_file(SAMPLE, GREEN, JANUARY, desk.home, desk.lines.append).path != file.path
