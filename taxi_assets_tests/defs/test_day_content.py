"""A day's materializations show its rows, in a chunk as in a run of that day alone."""

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
from dagster import serialize_value
from PIL import Image

from taxi_assets.definitions import build_defs
from taxi_assets.report.zones import find_zone
from taxi_assets.tlc.header import match_header
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.dagster_internals.test_partition_records import read_fields
from taxi_assets_tests.stores import Runs

GREEN = SERVICES["green"]
# The last has the same weekday as the first.
DAYS = [f"2021-11-{day:02d}" for day in range(1, 9)]
LAST = DAYS[-1]
STORES = ("postgres_trips", "gcs_trips", "bigquery_trips")


@pytest.fixture(scope="module")
def chunk(home: Path, session_env: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Return the metadata, by asset, of the last day of a chunk of eight."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCS_BUCKET", "content")
        runs = Runs()
        result = runs.run("green", DAYS[0], LAST)
        assert result.success
        recorded = runs.materializations(result.run_id)
        yield {
            key.partition("/")[2]: event for (key, day), event in recorded.items() if day == LAST
        }
        with stores.postgres() as connection, connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS ny_taxi CASCADE")


def read_values(event: dg.AssetMaterialization) -> dict[str, Any]:
    return {name: entry.value for name, entry in event.metadata.items()}


@pytest.fixture(scope="module")
def frame(chunk: dict[str, Any]) -> pd.DataFrame:
    return pd.read_parquet(find_object(chunk["cleaned_trips"]))


def find_object(event: dg.AssetMaterialization) -> Path:
    """Return the object of a day, by the two paths on its page."""
    lake, key = event.metadata["lake"], event.metadata["object"]
    assert isinstance(lake, dg.PathMetadataValue)
    assert isinstance(key, dg.PathMetadataValue)
    return Path(str(lake.value), str(key.value))


def read_records(table: dg.TableMetadataValue) -> list[dict[str, Any]]:
    return [dict(record.data) for record in table.records]


def test_materializations_have_numbers_for_plots(
    chunk: dict[str, Any], frame: pd.DataFrame
) -> None:
    cleaned = read_values(chunk["cleaned_trips"])
    assert cleaned["dropped"] == cleaned["raw_rows"] - cleaned["rows"] > 0
    for name in ("cleaned_trips", *STORES):
        metadata = read_values(chunk[name])
        assert metadata["rows"] == metadata["dagster/partition_row_count"] == len(frame)
        assert metadata["total_amount"] == pytest.approx(frame["total_amount"].sum(), abs=0.01)
        for column in ("fare_amount", "trip_distance"):
            assert metadata[f"median_{column}"] == pytest.approx(frame[column].median(), abs=1e-4)
        assert 0 < metadata["seconds"] < 60
    assert 0 < read_values(chunk["raw_trips"])["seconds"] < 60


def test_bigquery_shows_the_row_count_of_the_whole_table(chunk: dict[str, Any]) -> None:
    rows = stores.bigquery().query(f"SELECT COUNT(*) FROM ny_taxi.{GREEN.table}").result()
    assert read_values(chunk["bigquery_trips"])["dagster/row_count"] == next(iter(rows))[0]
    for name in ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips"):
        assert "dagster/row_count" not in chunk[name].metadata


def test_every_location_can_be_opened(chunk: dict[str, Any]) -> None:
    for name in ("raw_trips", "cleaned_trips", "gcs_trips"):
        assert find_object(chunk[name]).is_file()
        # The line of a long path does not break, and makes the page of the day scroll.
        assert "dagster/uri" not in chunk[name].metadata
    # The embedded servers have other ports the next time they start.
    assert "dagster/uri" not in read_values(chunk["postgres_trips"])
    assert "dagster/uri" not in read_values(chunk["bigquery_trips"])
    assert (
        read_values(chunk["postgres_trips"])["dagster/table_name"]
        == f"ny_taxi.ny_taxi.{GREEN.table}"
    )


def test_query_of_a_store_shows_rows_of_the_day(chunk: dict[str, Any]) -> None:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(read_values(chunk["postgres_trips"])["query"])
        in_postgres = cursor.fetch_arrow_table().to_pandas()
    query_result = stores.bigquery().query(read_values(chunk["bigquery_trips"])["query"]).result()
    in_bigquery = query_result.to_arrow(create_bqstorage_client=False).to_pandas()
    for rows in (in_postgres, in_bigquery):
        assert len(rows) == 20
        assert {str(day) for day in rows[GREEN.pickup_column].dt.date} == {LAST}


@pytest.mark.usefixtures("chunk")
def test_table_comment_describes_a_row() -> None:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT obj_description('ny_taxi.{GREEN.table}'::regclass)")
        (comment,) = cursor.fetchone()
    assert comment == (
        f"{GREEN.label} trips, one row a trip; a partition a month of lpep_pickup_datetime, "
        "New York wall time"
    )


def test_raw_trips_show_header_and_first_lines_as_published(chunk: dict[str, Any]) -> None:
    raw = read_values(chunk["raw_trips"])
    names = list(GREEN.header)
    schema = raw["dagster/column_schema"]
    assert [column.name for column in schema.columns] == names
    assert {column.type for column in schema.columns} == {"string"}
    assert all(column.description for column in schema.columns)
    assert list(raw)[:2] == ["summary", "preview"]
    assert "" not in [value for value in raw.values() if isinstance(value, str)]
    lines = {line["column"]: line for line in read_records(raw["preview"])}
    assert list(lines) == names
    assert all(lines[GREEN.pickup][f"row {row}"].startswith(LAST) for row in (1, 2, 3))


def test_cleaned_day_starts_with_a_sentence_and_its_picture(chunk: dict[str, Any]) -> None:
    cleaned = read_values(chunk["cleaned_trips"])
    assert list(cleaned)[:4] == ["summary", "pickups_by_hour", "picture", "columns"]
    rows, dollars = cleaned["rows"], cleaned["total_amount"]
    percent = round(100 * (rows / count_rows_a_week_before(chunk) - 1))
    way = "above" if percent > 0 else "below"
    assert cleaned["summary"].startswith(
        f"{rows:,} trips, ${dollars:,.0f}, {abs(percent)}% {way} usual; "
        f"{cleaned['dropped']:,} of {cleaned['raw_rows']:,} rows dropped ("
    )
    assert cleaned["summary"].endswith(" passengers) (synthetic sample)")


def count_rows_a_week_before(chunk: dict[str, Any]) -> int:
    """Count the rows of the same weekday a week before."""
    path = str(find_object(chunk["cleaned_trips"])).replace(LAST.replace("-", "/"), "2021/11/01")
    return len(pd.read_parquet(path))


def test_every_column_has_a_line_that_equals_pandas(
    chunk: dict[str, Any], frame: pd.DataFrame
) -> None:
    lines = {
        line["column"]: line
        for line in read_records(read_values(chunk["cleaned_trips"])["columns"])
    }
    assert list(lines) == list(frame)
    for column, line in lines.items():
        nulls = frame[column].isna().mean()
        assert line["distinct"].startswith(f"{frame[column].nunique():,}")
        assert line["distinct"].endswith(" null") == (nulls > 0), column
    fares = frame["fare_amount"]
    quantiles = [float(number) for number in lines["fare_amount"]["range"].split(", ")]
    assert quantiles == pytest.approx([fares.min(), fares.median(), fares.max()], abs=0.01)
    most_frequent = frame["payment_type"].value_counts(normalize=True)
    names = {1: "credit card", 2: "cash"}
    expected = ", ".join(
        f"{names[code]} {share:.0%}" for code, share in most_frequent.head(2).items()
    )
    assert lines["payment_type"]["values"] == expected
    busiest = find_zone(int(frame["pulocationid"].value_counts().index[0])).name
    assert lines["pulocationid"]["values"].startswith(busiest[:23])
    assert lines["lpep_pickup_datetime"]["range"][:3] in ("00:", "01:")
    # Nothing wider than the page of a day.
    assert max(len(word) for line in lines.values() for word in line["type"].split()) <= 8


def test_columns_have_their_lineage(chunk: dict[str, Any]) -> None:
    specs = build_defs().resolve_all_asset_specs()
    defined = {spec.key.path[1]: spec.metadata for spec in specs if spec.key.path[0] == "green"}
    for name, upstream in (
        ("cleaned_trips", "raw_trips"),
        ("postgres_trips", "cleaned_trips"),
        ("gcs_trips", "cleaned_trips"),
        ("bigquery_trips", "gcs_trips"),
    ):
        metadata = read_values(chunk[name])
        # Columns stand in the definition and not in every day's event.
        schema = defined[name]["dagster/column_schema"]
        assert "dagster/column_schema" not in metadata
        types = {column.name: column.type for column in schema.columns}
        assert set(types) >= {column.name for column in GREEN.columns}
        lineage = metadata["dagster/column_lineage"].deps_by_column
        assert {dep.asset_key.path[1] for (dep,) in lineage.values()} == {upstream}
        source = {column: dep.column_name for column, (dep,) in lineage.items()}
        if name == "cleaned_trips":
            assert source == match_header(GREEN.header, GREEN).published
            assert source["vendorid"] == "VendorID"
        else:
            assert set(source) == set(types)


def test_picture_is_a_small_png_on_the_cleaned_day_only(chunk: dict[str, Any]) -> None:
    markdown = chunk["cleaned_trips"].metadata["picture"]
    assert isinstance(markdown, dg.MarkdownMetadataValue)
    described, _, encoded = markdown.value.partition("](data:image/png;base64,")
    assert described.startswith(f"![green trips of {LAST}: ")
    assert described.endswith("beside 1 earlier Mondays")
    png = base64.b64decode(encoded.removesuffix(")"), validate=True)
    assert len(png) < 100_000
    with Image.open(io.BytesIO(png)) as image:
        image.verify()
    shown = chunk["cleaned_trips"].metadata["pickups_by_hour"].value
    assert shown.startswith("![Pickups by hour](data:image/png;base64,")
    assert shown.endswith("Orange: the Monday before.")
    for name in ("raw_trips", *STORES):
        assert not {"picture", "pickups_by_hour", "columns"} & set(chunk[name].metadata)


def test_single_day_shows_the_same_as_in_a_chunk(
    chunk: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_BUCKET", "content")
    runs = Runs()
    alone = runs.run("green", LAST)
    assert alone.success
    recorded = runs.materializations(alone.run_id)
    assert {key.partition("/")[2]: read_fields(event) for (key, _), event in recorded.items()} == {
        name: read_fields(event) for name, event in chunk.items()
    }


def test_events_stay_small(chunk: dict[str, Any]) -> None:
    sizes = {name: len(serialize_value(event)) for name, event in chunk.items()}
    assert max(sizes.values()) < 26_000, json.dumps(sizes)
