"""Parameters of one run reach every store; an invalid one is rejected before any write."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from taxi_assets.definitions import build_defs
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.fields import list_variables
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.settings.rule_names import RuleName
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.rules import RULES
from taxi_assets_tests import stores
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

GREEN = SERVICES["green"]
DAY = "2021-01-05"


def build_config(**resources: dict[str, Any]) -> dict[str, Any]:
    """Return a run config of resource fields."""
    return {"resources": {name: {"config": fields} for name, fields in resources.items()}}


def list_stale_assets(runs: Runs) -> set[str]:
    """Return the names of assets that the UI shows as stale on that day."""
    graph = build_defs().resolve_asset_graph()
    resolver = CachingStaleStatusResolver(
        runs.instance, graph, LoadingContextForTest(runs.instance)
    )
    keys = [key for key in graph.executable_asset_keys if key.path[0] == "green"]
    return {key.path[1] for key in keys if resolver.get_status(key, DAY) == StaleStatus.STALE}


def test_rules_row_limit_and_layout_of_one_run_reach_every_store() -> None:
    runs = Runs()
    trial = build_config(
        cleaning={"drop": ["zero_distance", "zero_passengers"], "row_limit": 7},
        lake={"layout": "date"},
    )
    result = runs.run("green", DAY, run_config=trial)
    assert result.success, stores.failure(result)

    dated = stores.lake() / "green/2021/01/05/daily-trips.parquet"
    hive = stores.lake() / f"green/lpep_pickup_date={DAY}/trips.parquet"
    assert dated.exists()
    assert not hive.exists()
    recorded = runs.materializations(result.run_id)
    rows = {key: event.metadata["rows"].value for (key, _), event in recorded.items()}
    raw = rows.pop("green/raw_trips")
    assert set(rows.values()) == {7}
    cleaned = recorded["green/cleaned_trips", DAY].metadata
    assert cleaned["rules"].value == "zero_distance, zero_passengers"
    dropped = {name: entry.value for name, entry in cleaned.items() if name.startswith("dropped_")}
    # A rule that dropped nothing is not shown.
    assert set(dropped) == {"dropped_zero_passengers", "dropped_row_limit"}
    assert raw == 7 + sum(dropped.values())
    assert dropped["dropped_row_limit"] > 0
    checked = runs.evaluations(result.run_id)
    assert checked["green/cleaned_trips", "rows_accounted_for", DAY].passed
    assert checked["green/bigquery_trips", "stores_agree", DAY].passed
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM ny_taxi.green_cab_data")
        assert cursor.fetchone() == (7,)
    # The definitions clean the day differently: it is stale until they have.
    assert list_stale_assets(runs) == {"cleaned_trips"}

    default_run = runs.run("green", DAY)
    assert default_run.success
    assert hive.exists()
    assert not dated.exists()
    default_metadata = runs.materializations(default_run.run_id)[
        "green/cleaned_trips", DAY
    ].metadata
    assert default_metadata["rules"].value == "zero_passengers, null_passengers"
    assert "dropped_row_limit" not in default_metadata
    assert default_metadata["rows"].value > 7
    totals = stores.store_totals(GREEN)
    assert totals["postgres"] == totals["lake"] == totals["bigquery"]
    assert list_stale_assets(runs) == set()


def test_no_rules_keep_every_readable_row() -> None:
    runs = Runs()
    result = runs.run("green", DAY, run_config=build_config(cleaning={"drop": []}))
    assert result.success
    recorded = runs.materializations(result.run_id)
    raw, cleaned = (
        recorded[f"green/{name}", DAY].metadata for name in ("raw_trips", "cleaned_trips")
    )
    assert cleaned["rows"].value == raw["rows"].value
    assert not any(name.startswith("dropped_") for name in cleaned)
    assert cleaned["rules"].value == "none"


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"cleaning": {"drop": ["typo"]}}, "cleaning:config:drop[0] not in enum type RuleName"),
        ({"lake": {"layout": "flat"}}, "lake:config:layout not in enum type LayoutName got flat"),
        ({"cleaning": {"row_limit": "few"}}, "cleaning:config:row_limit"),
        ({"cleaning": {"limit": 3}}, 'unexpected config entry "limit"'),
    ],
)
def test_invalid_value_is_rejected_at_launch(resources: dict[str, Any], expected: str) -> None:
    with pytest.raises(dg.DagsterInvalidConfigError) as raised:
        Runs().run("green", DAY, run_config=build_config(**resources))
    assert expected in str(raised.value)


@pytest.mark.parametrize("limit", [0, -1])
def test_invalid_row_limit_fails_the_run_before_its_first_step(limit: int) -> None:
    runs = Runs()
    result = runs.run("green", DAY, run_config=build_config(cleaning={"row_limit": limit}))
    assert not result.success
    assert not any(event.is_step_event for event in result.all_events if event.step_key)
    events = " ".join(str(event.event_specific_data) for event in result.all_events)
    assert "greater than or equal to 1" in events
    assert not (stores.lake() / "_raw").exists()


def test_every_parameter_is_described_in_the_launchpad() -> None:
    job = build_defs().resolve_job_def("green_daily")
    fields = {
        f"{name}.{field}": config_field.description
        for name in ("cleaning", "lake", "source", "postgres", "bigquery")
        for field, config_field in job.resource_defs[name].config_schema.config_type.fields.items()
    }
    assert set(fields) == {
        "cleaning.drop",
        "cleaning.row_limit",
        "lake.address",
        "lake.bucket",
        "lake.layout",
        "source.must_confirm",
        "source.template",
        *(f"postgres.{name}" for name in list_variables(PostgresResource)),
        *(f"bigquery.{name}" for name in list_variables(BigQueryResource)),
    }
    assert all(len(text or "") > 40 for text in fields.values())


def test_choices_are_the_known_names() -> None:
    assert {rule.value for rule in RuleName} == set(RULES)
