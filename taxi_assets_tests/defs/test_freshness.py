"""Freshness by months: published months beside the months of each store."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.defs.freshness import (
    STORES,
    Freshness,
    build_evaluation,
    build_up_to_date_checks,
    find_newest_published,
    read_freshness,
)
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.defs.automation.ticks import add_sensor
from taxi_assets_tests.fake_http_server import Site

YELLOW = SERVICES["yellow"]
FEBRUARY = Month(2021, 2)


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterInstance:
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    monkeypatch.setenv("TAXI_START_DATE", "2020-11-15")
    return dg.DagsterInstance.ephemeral()


def record_month(instance: dg.DagsterInstance, month: Month, *names: str) -> None:
    """Record the days of a month as stored."""
    for name in names or STORES:
        for day in month.window:
            instance.report_runless_asset_event(
                dg.AssetMaterialization(["yellow", name], partition=str(day))
            )


def read_fresh_stores(instance: dg.DagsterInstance, published: Month) -> dict[str, bool]:
    stores: list[Freshness] = read_freshness(instance, YELLOW, published)
    return {freshness.store: freshness.is_fresh for freshness in stores}


def test_newest_published_month_skips_ended_but_unpublished_months(
    instance: dg.DagsterInstance, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    monkeypatch.setattr("taxi_assets.defs.freshness.MAX_PROBES", 10_000)
    site.months = {
        f"/yellow/yellow_tripdata_{month}.csv.gz": b"x" for month in ("2020-12", "2021-02")
    }
    assert find_newest_published(YELLOW) == FEBRUARY
    assert find_newest_published(SERVICES["green"]) is None
    monkeypatch.setenv("TAXI_SOURCE", "sample")
    assert find_newest_published(YELLOW) is None


def test_backfill_of_an_old_month_makes_no_store_fresh(instance: dg.DagsterInstance) -> None:
    record_month(instance, Month(2021, 1))
    assert read_fresh_stores(instance, Month(2021, 1)) == dict.fromkeys(STORES, True)
    assert read_fresh_stores(instance, FEBRUARY) == dict.fromkeys(STORES, False)
    record_month(instance, Month(2020, 12))
    assert read_fresh_stores(instance, FEBRUARY) == dict.fromkeys(STORES, False)


def test_each_store_needs_every_day_of_its_own(instance: dg.DagsterInstance) -> None:
    record_month(instance, Month(2021, 1))
    record_month(instance, FEBRUARY, "postgres_trips", "gcs_trips")
    assert read_fresh_stores(instance, FEBRUARY) == {
        "postgres_trips": True,
        "gcs_trips": True,
        "bigquery_trips": False,
    }
    for day in FEBRUARY.window:
        if day != date(2021, 2, 14):
            event = dg.AssetMaterialization(["yellow", "bigquery_trips"], partition=str(day))
            instance.report_runless_asset_event(event)
    stale = read_freshness(instance, YELLOW, FEBRUARY)[-1]
    assert str(stale) == (
        "yellow/bigquery_trips: 2021-02 is published, 2021-01 is the newest complete month here; "
        "missing: 2021-02-14"
    )


@pytest.mark.parametrize("is_on", [False, True])
def test_loading_an_old_month_warns_only_if_the_service_is_kept_up_to_date(
    site: Site, monkeypatch: pytest.MonkeyPatch, *, is_on: bool
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    monkeypatch.setattr("taxi_assets.defs.freshness.MAX_PROBES", 10_000)
    site.months = {"/yellow/yellow_tripdata_2021-02.csv.gz": b"x"}
    store = dg.asset(lambda: None, key=["yellow", "gcs_trips"])
    check = build_up_to_date_checks(YELLOW)[STORES.index("gcs_trips")]
    alone = dg.AssetSelection.checks(*check.check_keys)
    with dg.instance_for_test() as instance:
        if is_on:
            add_sensor(instance, "yellow_new_month_sensor")
        loaded = dg.materialize([store, check], instance=instance)
        assert [result.passed for result in loaded.get_asset_check_evaluations()] == [not is_on]
        assert bool(site.head_paths) is is_on
        # A person who executes the check wants the comparison.
        checked = dg.materialize([store, check], instance=instance, selection=alone)
        assert [result.passed for result in checked.get_asset_check_evaluations()] == [False]


def test_sample_has_no_month_to_compare_with(instance: dg.DagsterInstance) -> None:
    for freshness in read_freshness(instance, YELLOW, None):
        evaluation = build_evaluation(instance, freshness)
        assert evaluation.passed
        assert str(evaluation.description).endswith(
            "or neither schedule nor sensor of yellow is on"
        )


def test_days_before_the_first_partition_are_not_required(instance: dg.DagsterInstance) -> None:
    for day in Month(2020, 11).window:
        if day >= date(2020, 11, 15):
            for name in STORES:
                event = dg.AssetMaterialization(["yellow", name], partition=str(day))
                instance.report_runless_asset_event(event)
    assert read_fresh_stores(instance, Month(2020, 11)) == dict.fromkeys(STORES, True)
