"""Metadata of the definitions, before any run."""

from __future__ import annotations

import warnings
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets.definitions import build_defs
from taxi_assets.defs.metadata.asset_metadata import build_definition_metadata
from taxi_assets.tlc.services import SERVICES

GREEN = SERVICES["green"]
ASSETS = ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips")
GCP = {
    "TAXI_PROFILE": "gcp",
    "TAXI_SOURCE": "/d/{service}{year}{month}.csv",
    "GCP_PROJECT": "nyc",
    "GCS_BUCKET": "rides",
    "POSTGRES_HOST": "db",
    "POSTGRES_DBNAME": "trips",
    "POSTGRES_USER": "u",
    "POSTGRES_PASSWORD": "p",
}


def list_specs(service: str = "green") -> dict[str, dg.AssetSpec]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = build_defs().resolve_asset_graph()
        return {
            key.path[1]: graph.get(key).to_asset_spec()
            for key in graph.get_all_asset_keys()
            if key.path[0] == service
        }


@pytest.mark.parametrize("service", SERVICES)
def test_every_asset_has_owner_description_and_code_reference(service: str) -> None:
    for name, spec in list_specs(service).items():
        assert list(spec.owners) == ["team:taxi"]
        assert spec.tags["service"] == service
        assert spec.tags["layer"]
        assert spec.kinds
        assert len(spec.description or "") > 40
        if name == "trip_file":
            continue
        (reference,) = spec.metadata["dagster/code_references"].code_references
        lines = Path(reference.file_path).read_text().splitlines()
        assert "@dg.asset" in lines[reference.line_number - 1]


def test_owners_are_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_OWNERS", "team:rides, somebody@tlc.nyc")
    assert list(list_specs()["raw_trips"].owners) == ["team:rides", "somebody@tlc.nyc"]


def test_columns_have_each_stores_types_with_descriptions_units_and_constraints() -> None:
    asset_specs = list_specs()
    assert "dagster/column_schema" not in asset_specs["raw_trips"].metadata
    for name in ASSETS[1:]:
        columns = {
            column.name: column
            for column in asset_specs[name].metadata["dagster/column_schema"].columns
        }
        day = {GREEN.day_column} if name in ("postgres_trips", "bigquery_trips") else set()
        assert set(columns) == {column.name for column in GREEN.columns} | day
        assert all(column.description for column in columns.values())
        assert columns["fare_amount"].description == "Time-and-distance fare (dollars)"
        assert not columns[GREEN.pickup_column].constraints.nullable
        assert columns["passenger_count"].constraints == dg.TableColumnConstraints(
            nullable=False, other=["> 0"]
        )
        types = {"postgres_trips": "DOUBLE PRECISION", "bigquery_trips": "FLOAT64"}
        assert columns["fare_amount"].type == types.get(name, "double")


def test_column_constraints_follow_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_DROP", "zero_passengers")
    columns = list_specs()["postgres_trips"].metadata["dagster/column_schema"].columns
    (passengers,) = (column for column in columns if column.name == "passenger_count")
    assert passengers.constraints == dg.TableColumnConstraints(nullable=True, other=["> 0"])


def test_store_columns_have_lineage_to_the_upstream_asset() -> None:
    asset_specs = list_specs()
    for name, upstream in (
        ("postgres_trips", "cleaned_trips"),
        ("gcs_trips", "cleaned_trips"),
        ("bigquery_trips", "gcs_trips"),
    ):
        lineage = asset_specs[name].metadata["dagster/column_lineage"].deps_by_column
        schema = asset_specs[name].metadata["dagster/column_schema"]
        assert set(lineage) == {column.name for column in schema.columns}
        for column, (dep,) in lineage.items():
            assert dep.asset_key == dg.AssetKey(["green", upstream])
            assert dep.column_name == (
                GREEN.pickup_column if column == GREEN.day_column else column
            )


def test_locations_follow_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAXI_HOME", str(tmp_path))
    local = list_specs()
    assert local["gcs_trips"].metadata["dagster/uri"] == str(tmp_path / "lake/taxi/green")
    assert (
        local["postgres_trips"].metadata["dagster/table_name"] == "ny_taxi.ny_taxi.green_cab_data"
    )
    for name, value in GCP.items():
        monkeypatch.setenv(name, value)
    google = list_specs()
    table = google["bigquery_trips"].metadata["dagster/table_name"]
    assert table == "nyc.ny_taxi.green_cab_data"
    console = google["bigquery_trips"].metadata["dagster/uri"].value
    assert console.endswith("project=nyc&p=nyc&d=ny_taxi&t=green_cab_data&page=table")
    assert "dagster/uri" not in local["bigquery_trips"].metadata
    page = "https://console.cloud.google.com/storage/browser/rides/_raw/green"
    assert google["raw_trips"].metadata["dagster/uri"] == dg.MetadataValue.url(page)
    database = google["postgres_trips"].metadata["dagster/table_name"]
    assert database == "trips.ny_taxi.green_cab_data"


def test_definitions_load_with_settings_that_a_run_rejects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAXI_LAKE_LAYOUT", "typo")
    for spec in list_specs().values():
        assert "dagster/uri" not in spec.metadata
        assert "dagster/table_name" not in spec.metadata


def test_added_store_does_not_show_another_stores_location() -> None:
    assert build_definition_metadata(GREEN, "duckdb_trips") == {}
