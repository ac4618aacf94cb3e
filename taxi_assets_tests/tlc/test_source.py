"""Month files from a real HTTP server on this machine that misbehaves on request."""

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
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError, UnavailableError
from taxi_assets.settings.areas import SAMPLE, LimitSettings
from taxi_assets.tlc import cache as kept
from taxi_assets.tlc import download, integrity
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.remote_version import SourceUnavailableError
from taxi_assets.tlc.services import GREEN, YELLOW
from taxi_assets.tlc.source import fetch_month_file
from taxi_assets_tests.fake_http_server import (
    HEADER,
    NAME,
    PACKED,
    PLAIN,
    Fault,
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
def _shorten_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(download, "RETRY_AFTER_SECONDS", 0.3)


@dataclass
class Fetcher:
    """Fetches yellow's January and records the progress."""

    home: Path
    lines: list[str] = field(default_factory=list)
    limits: LimitSettings = field(default_factory=LimitSettings)

    def fetch(self, template: str, month: Month = JANUARY) -> MonthFile:
        return fetch_month_file(
            template, YELLOW, month, self.home, self.lines.append, limits=self.limits
        )

    def fetch_error(self, template: str) -> str:
        """Fetch, and return the one line of the expected SourceError."""
        with pytest.raises(SourceError) as caught:
            self.fetch(template)
        message = str(caught.value)
        assert message.startswith("yellow 2021-01: ")
        assert "\n" not in message
        assert "; " in message
        return message

    def left(self) -> list[str]:
        """Return the names under the home, without lock files."""
        files = (path for path in self.home.rglob("*") if path.is_file())
        return sorted(path.name for path in files if path.suffix != ".lock")


@pytest.fixture
def fetcher(tmp_path: Path) -> Fetcher:
    return Fetcher(tmp_path / "home")


def compute_sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({key: ["1", "2"] for key in YELLOW.header}), out)
    return out.getvalue()


def make_other_parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"VendorID": [1, 2]}), out)
    return out.getvalue()


# Downloads that succeed


def test_month_is_downloaded_once(site: Site, fetcher: Fetcher) -> None:
    site.modified = "Fri, 05 Feb 2021 10:00:00 GMT"
    file = fetcher.fetch(site.template)
    assert file.path.read_bytes() == PACKED
    assert (file.size, file.sha256) == (len(PACKED), compute_sha256(PACKED))
    assert (file.etag, file.last_modified) == (site.etag, site.modified)
    assert file.url == f"{site.address}/yellow/yellow_tripdata_2021-01.csv.gz"
    assert not file.synthetic
    assert file.path.name == "yellow_tripdata_2021-01.csv.gz"
    assert file.path.parent.parent == fetcher.home / "downloads" / "yellow"
    assert site.get_requests[0]["Accept-Encoding"] == "identity"
    assert fetcher.left() == [file.path.name, f"{file.path.name}.json"]
    assert fetcher.fetch(site.template) == file
    assert len(site.get_requests) == 1


def test_templates_and_months_of_one_file_name_do_not_collide(site: Site, fetcher: Fetcher) -> None:
    site.body = HEADER + b"1\n"
    templates = [
        f"{site.address}/{{year}}/{{month}}/{{service}}.csv{query}" for query in ("", "?v=2")
    ]
    paths = {fetcher.fetch(template, Month(2021, n)).path for template in templates for n in (1, 2)}
    assert len(paths) == 4
    assert len(site.get_requests) == 4


def test_new_password_causes_no_download(site: Site, fetcher: Fetcher) -> None:
    first_file = fetcher.fetch(site.template.replace("//", "//u:old@"))
    assert fetcher.fetch(site.template.replace("//", "//u:new@")) == first_file
    assert len(site.get_requests) == 1
    assert site.get_requests[0]["Authorization"].startswith("Basic ")


def test_cached_file_of_another_size_is_fetched_again(site: Site, fetcher: Fetcher) -> None:
    path = fetcher.fetch(site.template).path
    path.write_bytes(PACKED[:-9])
    assert fetcher.fetch(site.template).path.read_bytes() == PACKED


@pytest.mark.parametrize(
    ("suffix", "body"), [(".csv", HEADER + b"1\n"), (".parquet", make_parquet())]
)
def test_other_file_types_are_downloaded(
    site: Site, fetcher: Fetcher, suffix: str, body: bytes
) -> None:
    site.body = body
    template = site.template.removesuffix(".csv.gz") + suffix
    assert fetcher.fetch(template).path.read_bytes() == body


def test_unknown_last_column_is_judged_by_the_month(site: Site, fetcher: Fetcher) -> None:
    """Before 2019 it cannot be a renamed `congestion_surcharge`, which came later."""
    names = YELLOW.header[: YELLOW.header.index("total_amount") + 1]
    site.body = ",".join([*names, "filename"]).encode() + b"\n"
    template = site.template.removesuffix(".gz")
    assert fetcher.fetch(template, Month(2017, 1)).path.read_bytes() == site.body


def test_gzip_of_several_members_is_read(site: Site, fetcher: Fetcher) -> None:
    site.body = gzip.compress(HEADER) + gzip.compress(b"1\n") + gzip.compress(b"")
    assert fetcher.fetch(site.template).size == len(site.body)


def test_gz_labelled_as_content_encoding_stays_packed(site: Site, fetcher: Fetcher) -> None:
    def serve_labelled(handler: Handler) -> None:
        handler.start(200, len(PACKED), Content_Encoding="gzip")
        handler.wfile.write(PACKED)

    site.get_faults = [serve_labelled]
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".csv.gz"])
@pytest.mark.parametrize("label", ["gzip", "x-gzip"])
def test_content_encoding_is_undone(site: Site, fetcher: Fetcher, suffix: str, label: str) -> None:
    """A `.csv.gz` keeps the gzip that it is published in."""
    published = {".csv": PLAIN, ".parquet": make_parquet(), ".csv.gz": PACKED}[suffix]
    encoded = gzip.compress(published, 1, mtime=0)
    template = site.template.removesuffix(".csv.gz") + suffix
    site.get_faults = [text(encoded, Content_Encoding=label)]
    site.head_faults = [text(encoded, Content_Encoding=label)]
    file = fetcher.fetch(template)
    assert file.path.read_bytes() == published
    assert (file.size, file.sha256) == (len(published), compute_sha256(published))
    assert fetcher.fetch(template) == file
    assert fetcher.left() == [file.path.name, f"{file.path.name}.json"]


def test_broken_encoded_body_is_resumed(site: Site, fetcher: Fetcher) -> None:
    encoded = site.body = gzip.compress(PLAIN, 1, mtime=0)

    def serve_half(handler: Handler) -> None:
        handler.start(200, len(encoded), Content_Encoding="gzip")
        handler.wfile.write(encoded[: len(encoded) // 2])

    site.get_faults = [serve_half]
    file = fetcher.fetch(site.template.removesuffix(".gz"))
    assert file.path.read_bytes() == PLAIN
    assert site.ranges[1] == f"bytes={len(encoded) // 2}-"


def test_body_without_length_is_downloaded(site: Site, fetcher: Fetcher) -> None:
    def serve_without_length(handler: Handler) -> None:
        handler.start(200, None)
        handler.wfile.write(PACKED)

    site.get_faults = [serve_without_length]
    assert fetcher.fetch(site.template).size == len(PACKED)
    assert fetcher.lines == [f"yellow 2021-01: {len(PACKED) / (1 << 20):.1f} MiB"]


def test_progress_is_reported(
    site: Site, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PROGRESS_SECONDS", 0)
    fetcher.fetch(site.template)
    total_mebibytes = f"{len(PACKED) / (1 << 20):.1f}"
    assert len(fetcher.lines) > 2
    assert fetcher.lines[0].startswith("yellow 2021-01: 0.")
    assert (
        fetcher.lines[-1] == f"yellow 2021-01: {total_mebibytes} of {total_mebibytes} MiB (100 %)"
    )


def test_progress_of_a_short_download_is_one_line(site: Site, fetcher: Fetcher) -> None:
    fetcher.fetch(site.template)
    assert len(fetcher.lines) == 1


# Connections that break


@pytest.mark.parametrize(
    ("etag", "modified"),
    [
        ('"one"', None),
        ('W/"one"', "Fri, 05 Feb 2021 10:00:00 GMT"),
        (None, "Fri, 05 Feb 2021 10:00:00 GMT"),
    ],
)
def test_truncated_body_is_resumed(
    site: Site, fetcher: Fetcher, etag: str | None, modified: str | None
) -> None:
    site.etag, site.modified = etag, modified
    site.get_faults = [cut, cut]
    file = fetcher.fetch(site.template)
    assert file.path.read_bytes() == PACKED
    assert file.sha256 == compute_sha256(PACKED)
    half = len(PACKED) // 2
    assert site.ranges == [None, f"bytes={half}-", f"bytes={half + (len(PACKED) - half) // 2}-"]
    assert site.get_requests[1]["If-Range"] == (etag if etag == '"one"' else modified)
    assert "attempt 2 of 6" in fetcher.lines[0]


def test_download_without_version_starts_again(site: Site, fetcher: Fetcher) -> None:
    site.etag = None
    site.get_faults = [cut]
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert site.ranges == [None, None]


def test_silent_server_times_out_and_download_resumes(
    site: Site, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stall_the_first_attempt(handler: Handler) -> None:
        monkeypatch.setattr(download, "READ_SECONDS", 60)
        stall(handler)

    monkeypatch.setattr(download, "READ_SECONDS", 1)
    site.get_faults = [stall_the_first_attempt]
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert site.ranges == [None, f"bytes={2 * download.CHUNK}-"]


@pytest.mark.parametrize("fault", [changed, other_range])
def test_changed_etag_between_ranges_starts_again(
    site: Site, fetcher: Fetcher, fault: Fault
) -> None:
    site.get_faults = [cut, fault]
    file = fetcher.fetch(site.template)
    assert file.path.read_bytes() == site.body
    assert file.sha256 == compute_sha256(site.body)
    assert file.etag == '"two"'


def test_unsatisfiable_range_starts_again(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [cut, answer(416)]
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert site.ranges[-1] is None


@pytest.mark.parametrize("status", [429, 500, 503])
def test_transient_status_is_retried(site: Site, fetcher: Fetcher, status: int) -> None:
    site.get_faults = [answer(status), answer(status)]
    assert fetcher.fetch(site.template).size == len(PACKED)
    assert f"the server answered {status}" in fetcher.lines[0]


@pytest.mark.parametrize(
    ("retry_after", "expected"), [("0", pytest.approx(0, abs=0.001)), ("3600", 0.3)]
)
def test_retry_after_is_honoured_up_to_a_limit(
    site: Site,
    fetcher: Fetcher,
    retry_after: str,
    expected: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    clock = vars(time) | {"sleep": pauses.append}
    monkeypatch.setattr(download, "time", SimpleNamespace(**clock))
    site.get_faults = [answer(503, Retry_After=retry_after)]
    fetcher.fetch(site.template)
    assert pauses == [expected]


def test_lasting_transient_error_is_not_terminal(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [answer(503)] * 99
    with pytest.raises(SourceUnavailableError, match="answered 503") as caught:
        fetcher.fetch(site.template)
    assert len(site.get_requests) == download.ATTEMPTS
    assert not isinstance(caught.value, SourceError)


def test_closed_port_is_transient(fetcher: Fetcher) -> None:
    with pytest.raises(SourceUnavailableError, match="NewConnectionError"):
        fetcher.fetch(f"http://127.0.0.1:9/{NAME}")


# Too slow or too large


@pytest.fixture
def limited_fetcher(fetcher: Fetcher) -> Fetcher:
    fetcher.limits = LimitSettings(max_download_bytes=4 << 20, download_timeout_seconds=30)
    return fetcher


def test_crawling_source_is_abandoned_and_resumed(
    site: Site, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RATE_SECONDS", 0.2)
    site.get_faults = [drip] * download.ATTEMPTS
    with pytest.raises(SourceUnavailableError, match="under 1,024 a second"):
        fetcher.fetch(site.template)
    assert site.ranges[0] is None
    assert all(site.ranges[1:])
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)


def test_all_attempts_share_one_time_limit(site: Site, fetcher: Fetcher) -> None:
    fetcher.limits = LimitSettings(download_timeout_seconds=2)
    site.get_faults = [stall] * 9
    started = time.monotonic()
    with pytest.raises(SourceUnavailableError, match="TAXI_DOWNLOAD_TIMEOUT_SECONDS") as caught:
        fetcher.fetch(site.template)
    # One attempt that waits for a byte would take longer.
    assert time.monotonic() - started < download.READ_SECONDS / 2
    assert "run again to resume after" in str(caught.value)
    fetcher.limits = LimitSettings()
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert site.ranges[-1] is not None


def test_slow_headers_are_abandoned(
    site: Site, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "HEADER_SECONDS", 0.5)
    site.get_faults = [drip_headers, drip_headers]
    # A wait for the end of the headers would be endless.
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert "no answer (ReadTimeout" in fetcher.lines[0]


def test_redirect_with_an_endless_body_is_followed(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [endless(302, Location="/elsewhere")]
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert len(site.get_requests) == 2


@pytest.mark.parametrize("fault", [endless(200), claim(5 << 20)])
def test_oversized_body_leaves_nothing(site: Site, limited_fetcher: Fetcher, fault: Fault) -> None:
    site.get_faults = [fault]
    message = limited_fetcher.fetch_error(site.template.removesuffix(".gz"))
    assert "over the limit of 4,194,304 for a month; check TAXI_SOURCE, or raise" in message
    assert limited_fetcher.left() == []


def test_content_encoding_bomb_is_rejected(site: Site, limited_fetcher: Fetcher) -> None:
    site.body = gzip.compress(HEADER + bytes(8 << 20))
    site.get_faults = [text(site.body, Content_Encoding="gzip")]
    message = limited_fetcher.fetch_error(site.template.removesuffix(".gz"))
    assert "unpacks to over 4,194,304 bytes" in message
    assert limited_fetcher.left() == []


def test_gzip_bomb_is_rejected_by_the_integrity_check(
    site: Site, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "MAX_UNPACKED_BYTES", 4 << 20)
    site.body = gzip.compress(HEADER + bytes(8 << 20))
    assert "unpacks to over 4,194,304 bytes" in fetcher.fetch_error(site.template)
    assert fetcher.left() == []


def test_overstated_length_is_retried(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [claim(len(PACKED) + 9)]
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    site.get_faults = [claim(len(PACKED) + 9)] * 9


def test_understated_length_is_a_truncated_file(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [claim(len(PACKED) - 9)]
    assert "truncated gzip" in fetcher.fetch_error(site.template)
    assert fetcher.left() == []


def test_hanging_download_of_another_run_is_not_awaited(site: Site, fetcher: Fetcher) -> None:
    path = fetcher.fetch(site.template).path
    fetcher.limits = LimitSettings(download_timeout_seconds=0.3)
    with (
        kept.hold_download_lock(path, "yellow", fetcher.lines.append),
        pytest.raises(UnavailableError, match="if its process hangs, end it"),
    ):
        fetcher.fetch(site.template)


# Concurrent and killed downloads

SCRIPT = """
import sys
from pathlib import Path
from taxi_assets.tlc.services import YELLOW
from taxi_assets.tlc.source import fetch_month_file
from taxi_assets.date_ranges import Month
print(fetch_month_file(sys.argv[1], YELLOW, Month(2021, 1), Path(sys.argv[2]),
            lambda line: print(line, flush=True)).sha256)
"""


def start_download(site: Site, fetcher: Fetcher) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, site.template, str(fetcher.home)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_download_once(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [stall]
    with start_download(site, fetcher) as first:
        wait_until(lambda: site.get_requests)
        with start_download(site, fetcher) as second:
            assert second.stdout
            assert "another run is fetching" in second.stdout.readline()
            site.resume.set()
            outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [text.splitlines()[-1] for text in outputs] == [compute_sha256(PACKED)] * 2
    assert len(site.get_requests) == 1


def test_threads_download_once(site: Site, fetcher: Fetcher) -> None:
    with ThreadPoolExecutor(4) as pool:
        files = set(pool.map(fetcher.fetch, [site.template] * 4))
    assert len(files) == len(site.get_requests) == 1


def test_killed_download_is_resumed(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [stall]
    with start_download(site, fetcher) as victim:
        wait_until(
            lambda: any(part_file.stat().st_size for part_file in fetcher.home.rglob("*.part"))
        )
        total_bytes = 2 * download.CHUNK
        wait_until(
            lambda: max(p.stat().st_size for p in fetcher.home.rglob("*.part")) == total_bytes
        )
        os.kill(victim.pid, signal.SIGKILL)
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert site.ranges == [None, f"bytes={2 * download.CHUNK}-"]


def leave_partial_download(site: Site, fetcher: Fetcher, content: bytes) -> None:
    """Leave the files of a run that was killed after it received `content`."""
    path = fetcher.fetch(site.template).path
    path.unlink()
    version = {"etag": site.etag, "last_modified": None, "total": len(site.body)}
    path.with_name(f"{path.name}.part").write_bytes(content)
    path.with_name(f"{path.name}.part.json").write_text(json.dumps(version))
    site.get_requests.clear()


def test_complete_partial_file_is_not_downloaded_again(site: Site, fetcher: Fetcher) -> None:
    leave_partial_download(site, fetcher, PACKED)
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert site.get_requests == []


def test_corrupt_partial_file_is_fetched_from_the_start(site: Site, fetcher: Fetcher) -> None:
    leave_partial_download(site, fetcher, PACKED[:200_000] + bytes(100_000))
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)
    assert site.ranges == ["bytes=300000-", None]


def test_partial_file_with_an_unreadable_sidecar_is_fetched_from_the_start(
    site: Site, fetcher: Fetcher
) -> None:
    leave_partial_download(site, fetcher, PACKED[:1000])
    next(fetcher.home.rglob("*.part.json")).write_text("[")
    assert fetcher.fetch(site.template).sha256 == compute_sha256(PACKED)


# Rejected files

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
    (".parquet", make_other_parquet(), "has a wrong header"),
    (".parquet", make_parquet()[:-508] + b"\xff" * 500 + make_parquet()[-8:], "damaged Parquet"),
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
    (".parquet", make_parquet()[:-4], "Parquet truncated"),
    (".parquet", b"PAR1PAR1", "Parquet truncated at 8 bytes"),
]


@pytest.mark.parametrize(("suffix", "content", "expected"), CONTENTS)
def test_wrong_content_from_a_server_is_rejected(
    site: Site, fetcher: Fetcher, suffix: str, content: bytes, expected: str
) -> None:
    site.body = content
    message = fetcher.fetch_error(site.template.removesuffix(".csv.gz") + suffix)
    assert expected in message
    assert f"{site.address}/yellow/yellow_tripdata_2021-01{suffix}" in message
    assert len(site.get_requests) == 1
    assert fetcher.left() == []


@pytest.mark.parametrize(("suffix", "content", "expected"), CONTENTS[2:])
def test_wrong_content_of_a_local_file_is_rejected(
    tmp_path: Path, fetcher: Fetcher, suffix: str, content: bytes, expected: str
) -> None:
    path = tmp_path / f"yellow_tripdata_2021-01{suffix}"
    path.write_bytes(content)
    message = fetcher.fetch_error(f"{tmp_path}/{NAME.removesuffix('.csv.gz')}{suffix}")
    assert expected in message
    assert str(path) in message


def test_wrong_content_is_rejected_before_the_download_ends(site: Site, fetcher: Fetcher) -> None:
    site.body = PLAIN
    site.get_faults = [stall]
    started = time.monotonic()
    assert "neither gzip" in fetcher.fetch_error(site.template)
    # The rest would come after 120 s.
    assert time.monotonic() - started < download.READ_SECONDS / 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_permanent_status_is_terminal(site: Site, fetcher: Fetcher, status: int) -> None:
    site.get_faults = [answer(status)] * 9
    assert f"the server answered {status}; " in fetcher.fetch_error(site.template)
    assert len(site.get_requests) == 1


def test_unrequested_encoding_is_rejected(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [answer(200, Content_Encoding="br")]
    assert "Content-Encoding br" in fetcher.fetch_error(site.template.removesuffix(".gz"))


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/x.csv.gz", "http://[bad"]
)
def test_redirect_away_from_http_is_rejected(site: Site, fetcher: Fetcher, target: str) -> None:
    site.get_faults = [answer(302, Location=target)]
    assert "has an invalid URL or redirects to one" in fetcher.fetch_error(site.template)


def test_redirect_to_http_is_followed(site: Site, fetcher: Fetcher) -> None:
    site.get_faults = [answer(302, Location="/elsewhere?X-Goog-Signature=S1gn")]
    file = fetcher.fetch(site.template)
    assert file.size == len(PACKED)
    assert "elsewhere" not in file.url


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("gs://b/{service}/{year}/{month}.csv", "gs:// is not supported"),
        ("file://other/{service}/{year}/{month}.csv", "is not a local file:///path"),
        ("http://127.0.0.1:9/{service}/{year}/{month}.zip", "has no known type"),
        ("http://[127/{service}/{year}/{month}.csv", "is not a valid URL"),
        ("/{service}/{year}-{month}.txt", "has no known type"),
    ],
)
def test_invalid_template_is_rejected(fetcher: Fetcher, template: str, expected: str) -> None:
    assert expected in fetcher.fetch_error(template)


# Secrets


@pytest.mark.parametrize(
    "faults",
    [
        [],
        [cut],
        [answer(404)],
        [answer(503)] * 9,
        [answer(302, Location="file:///t0ken")],
        [answer(302, Location="http://127.0.0.1:9/?token=t0ken")] * 9,
    ],
)
def test_no_secret_is_shown_or_stored(site: Site, fetcher: Fetcher, faults: list[Fault]) -> None:
    site.get_faults = faults
    secret = site.template.replace("//", "//me:s3cret@") + "?token=t0ken&X-Goog-Signature=S1gn"
    output = ""
    try:
        output = repr(fetcher.fetch(secret))
    except (SourceError, SourceUnavailableError):
        output = traceback.format_exc()
    assert site.get_requests[0]["path"].endswith("?token=t0ken&X-Goog-Signature=S1gn")
    sidecars = " ".join(p.read_text() for p in fetcher.home.rglob("*.json"))
    names = " ".join(str(path) for path in fetcher.home.rglob("*"))
    assert not [word for word in SECRETS if word in f"{output} {fetcher.lines} {sidecars} {names}"]


# Files on this machine


@pytest.fixture
def local_folder(tmp_path: Path) -> Path:
    """Make a folder with yellow's January."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    path = folder / "yellow_tripdata_2021-01.csv.gz"
    path.write_bytes(PACKED)
    os.utime(path, (1_600_000_000, 1_600_000_000))
    return folder


def test_local_file_is_read_in_place(
    local_folder: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fetcher.fetch(f"{local_folder}/{NAME}")
    assert file.path == local_folder / "yellow_tripdata_2021-01.csv.gz"
    assert (file.url, file.size, file.sha256) == (
        str(file.path),
        len(PACKED),
        compute_sha256(PACKED),
    )
    assert (file.etag, file.last_modified) == (file.sha256[:32], "2020-09-13T12:26:40+00:00")
    assert not any(path.endswith(".gz") for path in fetcher.left())
    assert fetcher.fetch(f"file://{local_folder}/{NAME}") == file
    monkeypatch.setenv("HOME", str(local_folder.parent))
    assert fetcher.fetch(f"~/shelf/{NAME}") == file
    monkeypatch.chdir(local_folder.parent)
    assert fetcher.fetch(f"shelf/{NAME}") == file


def test_digest_of_a_local_file_is_computed_once(
    local_folder: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def count_digest(path: Path) -> str:
        hashed.append(path)
        return download.hash_file(path)

    monkeypatch.setattr(kept, "hash_file", count_digest)
    files = [fetcher.fetch(f"{local_folder}/{NAME}") for _ in range(3)]
    assert len(hashed) == 1
    assert len(set(files)) == 1
    os.utime(files[0].path)
    fetcher.fetch(f"{local_folder}/{NAME}")
    assert len(hashed) == 2


def test_local_file_that_changes_while_reading_is_rejected(
    local_folder: Path, fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change_file(path: Path) -> str:
        with path.open("ab") as file:
            file.write(b"more")
        return download.hash_file(path)

    monkeypatch.setattr(kept, "hash_file", change_file)
    assert "changed while it was read" in fetcher.fetch_error(f"{local_folder}/{NAME}")


def test_missing_local_file_lists_the_folder(local_folder: Path, fetcher: Fetcher) -> None:
    message = fetcher.fetch_error(f"{local_folder}/x{NAME}")
    assert "no such file; the folder has yellow_tripdata_2021-01.csv.gz;" in message
    for n in range(9):
        (local_folder / f"a{n}.csv").touch()
    assert "a0.csv, a1.csv, a2.csv, a3.csv and 6 more;" in fetcher.fetch_error(
        f"{local_folder}/x{NAME}"
    )


def test_missing_local_folder_is_named(local_folder: Path, fetcher: Fetcher) -> None:
    assert "neither the file nor its folder exists" in fetcher.fetch_error(
        f"{local_folder}/none/{NAME}"
    )
    (local_folder / "empty").mkdir()
    assert "the folder is empty" in fetcher.fetch_error(f"{local_folder}/empty/{NAME}")
    (local_folder / "empty" / "yellow_tripdata_2021-01.csv.gz").mkdir()
    assert "is not a file" in fetcher.fetch_error(f"{local_folder}/empty/{NAME}")


# The sample


def test_sample_is_generated_once(fetcher: Fetcher) -> None:
    file = fetcher.fetch(SAMPLE)
    modified_at = file.path.stat().st_mtime_ns
    assert file.synthetic
    assert file.url == "synthetic sample yellow 2021-01"
    assert file.path.parent == fetcher.home / "downloads" / "sample"
    assert file.sha256 == compute_sha256(file.path.read_bytes())
    assert gzip.decompress(file.path.read_bytes()).startswith(b"VendorID,")
    assert fetcher.fetch(SAMPLE) == file
    assert file.path.stat().st_mtime_ns == modified_at
    assert (
        fetch_month_file(SAMPLE, GREEN, JANUARY, fetcher.home, fetcher.lines.append).path
        != file.path
    )
