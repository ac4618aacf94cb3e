"""GCS with transient errors, broken uploads and terminal errors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import pandas as pd
import pytest

from taxi_assets.local.server import pick_free_port
from taxi_assets_tests import stores
from taxi_assets_tests.fault_proxy import HttpProxy, http_proxy
from taxi_assets_tests.faults.conftest import DAY, Steps, assert_stores_hold
from taxi_assets_tests.gcs_server import gcs_server

CALLS = {
    "upload": r"^POST /upload/",
    "content": r"^PUT /upload/",
    "metadata": r"^GET (?!.*alt=media)",
    "download": r"^GET .*alt=media",
    "copy": r"^POST .*/rewriteTo/",
}
ASSET_NAMES = ("raw_trips", "cleaned_trips", "gcs_trips")
Rows = Mapping[str, pd.DataFrame]


@pytest.fixture(scope="module")
def served(undisturbed: Rows) -> Iterator[HttpProxy]:
    """Put GCS behind a proxy; its bucket is the folder of the undisturbed run.

    The server lists only objects uploaded through it, so they are uploaded once more.
    """
    port = pick_free_port(None)
    root = stores.lake().parent
    with (
        pytest.MonkeyPatch.context() as patch,
        gcs_server(root, port) as address,
        http_proxy(address, port) as proxy,
    ):
        patch.setenv("TAXI_LAKE", f"gs://{stores.lake().name}")
        patch.setenv("GCS_RETRY_SECONDS", "1")
        patch.setenv("STORAGE_EMULATOR_HOST", proxy.address)
        Steps().succeeds(*ASSET_NAMES)
        yield proxy


@pytest.fixture
def proxy(served: HttpProxy) -> HttpProxy:
    """Return the proxy between the project and GCS, without a fault so far."""
    served.clear()
    return served


def test_each_kind_of_call_is_retried(
    proxy: HttpProxy, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_RETRY_SECONDS", "60")
    for number, on in enumerate(CALLS.values()):
        proxy.answer(on, (503, 429, 500)[number % 3])
        proxy.add(on, "reset")
    assert Steps().succeeds(*ASSET_NAMES) == 0
    assert proxy.left == []
    assert_stores_hold(undisturbed)


@pytest.mark.parametrize("broken", ["cut_upload", "lose_answer", "cut_answer"])
def test_broken_upload_is_restarted(broken: str, proxy: HttpProxy, undisturbed: Rows) -> None:
    proxy.add(CALLS["content"], broken, times=2)
    proxy.add(CALLS["copy"], broken)
    Steps().succeeds("cleaned_trips", "gcs_trips")
    assert proxy.left == []
    assert_stores_hold(undisturbed)


def test_lasting_fault_ends_an_attempt_in_time(proxy: HttpProxy, undisturbed: Rows) -> None:
    proxy.add(CALLS["copy"], "answer", times=3, status=503)
    started = time.monotonic()
    assert Steps().succeeds("gcs_trips") > 0
    assert time.monotonic() - started < 30
    assert proxy.left == []
    assert_stores_hold(undisturbed)


def test_terminal_status_fails_the_run_with_the_fix(proxy: HttpProxy, undisturbed: Rows) -> None:
    proxy.answer(CALLS["copy"], 403)
    message = Steps().fails_at_once("gcs_trips")
    assert f"yellow/gcs_trips {DAY}: " in message
    assert "Storage Object Admin on the bucket" in message
    assert_stores_hold(undisturbed)


def test_missing_bucket_is_named(proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_LAKE", "gs://not-there")
    message = Steps().fails_at_once("raw_trips")
    assert "create the bucket, or check GCS_BUCKET and TAXI_LAKE" in message
