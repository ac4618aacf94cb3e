"""The metadata of an asset's definition: tags, columns, lineage, location, code."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import dagster as dg

from taxi_assets.defs.metadata.table_metadata import (
    LINEAGE,
    SCHEMA,
    TABLE_NAME,
    URI,
    Types,
    build_column_lineage,
    build_column_schema,
)
from taxi_assets.defs.resources.bigquery import build_console_url
from taxi_assets.errors import SettingsError
from taxi_assets.local.state_directory import DBNAME
from taxi_assets.settings import Settings, read_rules_for_definitions
from taxi_assets.settings.stores import LakeSettings
from taxi_assets.tlc.schema import Service

FOLDERS = {"raw_trips": "_raw/", "cleaned_trips": "_cleaned/", "gcs_trips": ""}
"""Folders of the lake, before the service's name."""
TYPES: dict[str, Types] = {
    "cleaned_trips": "arrow",
    "postgres_trips": "postgres",
    "gcs_trips": "arrow",
    "bigquery_trips": "bigquery",
}
STORES = {
    "postgres_trips": ("postgres", "cleaned_trips"),
    "gcs_trips": ("gcs", "cleaned_trips"),
    "bigquery_trips": ("bigquery", "gcs_trips"),
}
"""Kind of storage, and the asset that its rows come from."""


def add_code_references(assets: list[Any]) -> list[Any]:
    """Add the location of its code to each asset, which the UI can open in an editor."""
    return list(dg.with_source_code_references(assets))


def build_definition_tags(service: Service, name: str) -> dict[str, str]:
    """Return tags for searching and grouping."""
    tags = {"service": service.name, "layer": name.removesuffix("_trips")}
    if name in STORES:
        tags |= {"layer": "store", "dagster/storage_kind": STORES[name][0]}
    return tags


def build_definition_metadata(service: Service, name: str) -> dict[str, Any]:
    """Return columns, lineage and location, which are the same for every day.

    The names of raw columns vary by month, so they are in the metadata of its days.
    """
    metadata: dict[str, Any] = {}
    if name in TYPES:
        metadata[SCHEMA] = build_column_schema(service, TYPES[name], read_rules_for_definitions())
    if name in STORES:
        upstream = dg.AssetKey([service.name, STORES[name][1]])
        metadata[LINEAGE] = build_column_lineage(service, upstream, TYPES[name])
    with suppress(SettingsError):  # Runs report an invalid setting; the definitions must load.
        metadata |= _describe_location(service, name, Settings.from_env())
    return metadata


def _describe_location(service: Service, name: str, settings: Settings) -> dict[str, Any]:
    if name in FOLDERS:
        return {URI: _find_folder(settings.lake, f"{FOLDERS[name]}{service.name}")}
    if name == "postgres_trips":
        postgres = settings.postgres
        database = postgres.dbname if postgres.host else DBNAME
        return {TABLE_NAME: f"{database}.{postgres.schema_name}.{service.table}"}
    if name != "bigquery_trips":
        return {}
    bigquery = settings.bigquery
    table = {TABLE_NAME: f"{bigquery.project}.{bigquery.dataset}.{service.table}"}
    if bigquery.embedded or bigquery.endpoint:
        return table
    return {**table, URI: dg.MetadataValue.url(build_console_url(bigquery, service.table))}


def _find_folder(lake: LakeSettings, folder: str) -> Any:
    """Return a local folder as text to copy, or the URL of Google's console."""
    if lake.path is not None:
        return str(lake.path / folder)
    return dg.MetadataValue.url(
        f"https://console.cloud.google.com/storage/browser/{lake.bucket}/{folder}"
    )
