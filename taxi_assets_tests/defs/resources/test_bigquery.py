"""BigQuery's resource before a client is opened."""

from __future__ import annotations

import sys
import threading

import dagster as dg
import pytest

from taxi_assets.defs.resources import bigquery


def test_other_threads_continue_while_googles_client_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = sys.getswitchinterval()
    seen: list[tuple[str, float]] = []

    def import_module(name: str) -> None:
        seen.append((name, sys.getswitchinterval()))
        raise ImportError(name)

    monkeypatch.setattr(bigquery, "import_module", import_module)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    before = set(threading.enumerate())
    bigquery.BigQueryResource().setup_for_execution(dg.build_init_resource_context())
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert seen == [("google.cloud.bigquery", pytest.approx(usual / 10))]
    assert sys.getswitchinterval() == pytest.approx(usual)


@pytest.mark.usefixtures("home")
def test_proxy_is_not_used_for_an_emulator_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with bigquery.BigQueryResource().client() as client:
        assert [tuple(row) for row in client.query_and_wait("SELECT 1")] == [(1,)]
