"""What a day's materializations show of its rows, in a chunk as in a run of that day alone."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import requests
from PIL import Image

from taxi_assets.tlc.header import header_of
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.dagster_internals.test_partition_records import fields
from taxi_assets_tests.stores import Runs

GREEN = SERVICES["green"]
# The last has the same weekday as the first.
DAYS = [f"2021-11-{day:02d}" for day in range(1, 9)]
LAST = DAYS[-1]
STORES = ("postgres_trips", "gcs_trips", "bigquery_trips")


@pytest.fixture(scope="module")
def chunk(home: Path, session_env: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Metadata by asset of the last day of a chunk of eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCS_BUCKET", "content")
        runs = Runs()
        done = runs.run("green", DAYS[0], LAST)
        assert done.success
        recorded = runs.materializations(done.run_id)
        yield {
            key.partition("/")[2]: event for (key, day), event in recorded.items() if day == LAST
        }
        with stores.postgres() as connection, connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS ny_taxi CASCADE")


def values(event: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: entry.value for name, entry in event.metadata.items()}


@pytest.fixture(scope="module")
def frame(chunk: dict[str, Any]) -> pd.DataFrame:
    return pd.read_parquet(values(chunk["cleaned_trips"])["dagster/uri"])


def records(table: dg.TableMetadataValue) -> list[dict[str, Any]]:
    return [dict(record.data) for record in table.records]


def test_numbers_for_plots(chunk: dict[str, Any], frame: pd.DataFrame) -> None:
    cleaned = values(chunk["cleaned_trips"])
    assert cleaned["dropped"] == cleaned["raw_rows"] - cleaned["rows"] > 0
    for name in ("cleaned_trips", *STORES):
        found = values(chunk[name])
        assert found["rows"] == found["dagster/partition_row_count"] == len(frame)
        assert found["total_amount"] == pytest.approx(frame["total_amount"].sum(), abs=0.01)
        for column in ("fare_amount", "trip_distance"):
            assert found[f"median_{column}"] == pytest.approx(frame[column].median(), abs=1e-4)
        assert 0 < found["seconds"] < 60
    assert 0 < values(chunk["raw_trips"])["seconds"] < 60


def test_bigquery_says_how_many_rows_the_whole_table_has(chunk: dict[str, Any]) -> None:
    whole = stores.bigquery().query(f"SELECT COUNT(*) FROM ny_taxi.{GREEN.table}").result()
    assert values(chunk["bigquery_trips"])["dagster/row_count"] == next(iter(whole))[0]
    for name in ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips"):
        assert "dagster/row_count" not in chunk[name].metadata


def test_every_place_can_be_opened(chunk: dict[str, Any]) -> None:
    for name in ("raw_trips", "cleaned_trips", "gcs_trips"):
        place = chunk[name].metadata["dagster/uri"]
        assert isinstance(place, dg.PathMetadataValue)
        assert Path(place.value).is_file()
    table = chunk["bigquery_trips"].metadata["dagster/uri"]
    assert isinstance(table, dg.TextMetadataValue)
    token = {"Authorization": f"Bearer {stores.stack().bigquery_token}"}
    opened = requests.get(table.value, headers=token, timeout=10).json()
    assert opened["tableReference"]["tableId"] == GREEN.table
    database = values(chunk["postgres_trips"])
    assert database["dagster/uri"].startswith("postgresql://127.0.0.1:")
    assert database["dagster/table_name"] == f"ny_taxi.ny_taxi.{GREEN.table}"


def test_raw_shows_header_and_first_lines_as_published(chunk: dict[str, Any]) -> None:
    raw = values(chunk["raw_trips"])
    names = list(GREEN.header)
    schema = raw["dagster/column_schema"]
    assert [column.name for column in schema.columns] == names
    assert {column.type for column in schema.columns} == {"string"}
    assert all(column.description for column in schema.columns)
    preview = raw["preview"]
    assert [column.name for column in preview.schema.columns] == names
    rows = records(preview)
    assert len(rows) == 5
    assert all(row[GREEN.pickup].startswith(LAST) for row in rows)


def test_first_rows_and_profile_are_the_same_everywhere_and_as_pandas_says(
    chunk: dict[str, Any], frame: pd.DataFrame
) -> None:
    cleaned = values(chunk["cleaned_trips"])
    for name in STORES:
        assert values(chunk[name])["preview"] == cleaned["preview"]
        assert values(chunk[name])["profile"] == cleaned["profile"]
    rows = records(cleaned["preview"])
    assert [row["total_amount"] for row in rows] == list(frame["total_amount"].head(5))
    lines = {line["column"]: line for line in records(cleaned["profile"])}
    assert list(lines) == list(frame)
    for column, line in lines.items():
        assert line["nulls %"] == pytest.approx(100 * frame[column].isna().mean(), abs=0.01)
        assert line["distinct"] == frame[column].nunique()
    fares = frame["fare_amount"]
    found = [lines["fare_amount"][name] for name in ("min", "mean", "max")]
    assert found == pytest.approx([fares.min(), fares.mean(), fares.max()], abs=1e-4)
    most = frame["payment_type"].value_counts(normalize=True)
    top = lines["payment_type"]["most frequent"]
    assert top.startswith(f"{most.index[0]} ({most.iloc[0]:.1%}), ")


def test_columns_and_where_they_come_from(chunk: dict[str, Any]) -> None:
    for name, upstream in (
        ("cleaned_trips", "raw_trips"),
        ("postgres_trips", "cleaned_trips"),
        ("gcs_trips", "cleaned_trips"),
        ("bigquery_trips", "gcs_trips"),
    ):
        found = values(chunk[name])
        types = {column.name: column.type for column in found["dagster/column_schema"].columns}
        assert set(types) >= {column.name for column in GREEN.columns}
        lineage = found["dagster/column_lineage"].deps_by_column
        assert {dep.asset_key.path[1] for (dep,) in lineage.values()} == {upstream}
        source = {column: dep.column_name for column, (dep,) in lineage.items()}
        if name == "cleaned_trips":
            assert source == header_of(GREEN.header, GREEN).published
            assert source["vendorid"] == "VendorID"
        else:
            assert set(source) == set(types)


def test_the_picture_is_a_small_png_on_the_cleaned_day_alone(chunk: dict[str, Any]) -> None:
    markdown = chunk["cleaned_trips"].metadata["picture"]
    assert isinstance(markdown, dg.MarkdownMetadataValue)
    described, _, encoded = markdown.value.partition("](data:image/png;base64,")
    assert described.startswith(f"![green trips of {LAST}: ")
    assert described.endswith("beside 1 earlier Mondays")
    png = base64.b64decode(encoded.removesuffix(")"), validate=True)
    assert len(png) < 100_000
    with Image.open(io.BytesIO(png)) as image:
        image.verify()
    for name in ("raw_trips", *STORES):
        assert "picture" not in chunk[name].metadata


def test_the_day_alone_says_the_same_the_earlier_monday_read_from_the_lake(
    chunk: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_BUCKET", "content")
    runs = Runs()
    alone = runs.run("green", LAST)
    assert alone.success
    recorded = runs.materializations(alone.run_id)
    assert {key.partition("/")[2]: fields(event) for (key, _), event in recorded.items()} == {
        name: fields(event) for name, event in chunk.items()
    }


def test_events_stay_small(chunk: dict[str, Any]) -> None:
    from dagster import serialize_value  # noqa: PLC0415

    sizes = {name: len(serialize_value(event)) for name, event in chunk.items()}
    assert max(sizes.values()) < 50_000, json.dumps(sizes)
