"""A server of month files with transient errors, restated months and terminal errors."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from datetime import date

import pandas as pd
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc import download
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import YELLOW
from taxi_assets_tests.fake_http_server import Handler, Site, serve
from taxi_assets_tests.fault_proxy import HttpProxy, http_proxy
from taxi_assets_tests.faults.conftest import DAY, Steps, assert_stores_hold

GET = "^GET "
Rows = Mapping[str, pd.DataFrame]


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the month file of the undisturbed day."""
    path = tmp_path_factory.mktemp("month") / "yellow_tripdata_2021-01.csv.gz"
    write_sample_month(YELLOW, Month.of(date.fromisoformat(DAY)), path)
    return path.read_bytes()


@pytest.fixture
def proxy(
    site: Site, month: bytes, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HttpProxy]:
    """Put a proxy before the server; its address is new, so nothing of it is cached."""
    site.body = month
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(download, "READ_SECONDS", 2)
    with http_proxy(site.address) as proxy:
        monkeypatch.setenv("TAXI_SOURCE", site.template.replace(site.address, proxy.address))
        yield proxy


def test_month_arrives_through_every_transient_fault(
    site: Site, month: bytes, proxy: HttpProxy, undisturbed: Rows
) -> None:
    lines = gzip.decompress(month)
    site.body = gzip.compress(lines.replace(b"2021-01-05", b"2021-01-06"))

    def restated(handler: Handler) -> None:
        site.etag, site.body = '"two"', month
        serve(handler)

    proxy.answer(GET, 500)
    proxy.add(GET, "answer", status=429, Retry_After="1")
    proxy.add(GET, "cut_answer")
    proxy.add(GET, "hang")
    site.get_faults = [serve, restated]
    assert Steps().succeeds() == 0
    assert proxy.left == []
    assert site.get_faults == []
    # A part of the first version arrived, and the file contains none of it.
    assert site.ranges[0] is None
    assert site.ranges[1] is not None
    assert_stores_hold(undisturbed)


def test_fault_that_outlasts_a_download_is_left_to_step_retries(
    proxy: HttpProxy, undisturbed: Rows
) -> None:
    proxy.add(GET, "answer", times=download.ATTEMPTS + 1, status=503)
    assert Steps().succeeds("raw_trips") == 1
    assert proxy.left == []
    assert_stores_hold(undisturbed)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (404, "the month is not published (TLC"),
        (403, "unpublished months; else check the URL's credentials"),
        (302, "has an invalid URL or redirects to one (TooManyRedirects); check TAXI_SOURCE"),
    ],
)
def test_terminal_status_fails_the_run_with_the_fix(
    status: int, expected: str, proxy: HttpProxy, undisturbed: Rows
) -> None:
    proxy.add(GET, "answer", times=99, status=status, Location=f"{proxy.address}/again")
    message = Steps().fails_at_once("raw_trips")
    assert f"yellow/raw_trips {DAY}: yellow 2021-01: " in message
    assert expected in message
    assert_stores_hold(undisturbed)


def test_month_that_is_not_gzip_is_rejected(
    site: Site, month: bytes, proxy: HttpProxy, undisturbed: Rows
) -> None:
    site.body = gzip.decompress(month)
    assert "though its name says .csv.gz" in Steps().fails_at_once("raw_trips")
    assert_stores_hold(undisturbed)
