"""The metadata of a day: rows, sums, source, location, columns, preview, profile, picture.

There is one function per layer: raw, cleaned, stores. `table_metadata` builds the tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from taxi_assets.defs.io_managers.partition_data import SourceFile, StoredTrips
from taxi_assets.defs.metadata.table_metadata import (
    LINEAGE,
    PARTITION_ROWS,
    SCHEMA,
    Types,
    build_column_lineage,
    build_column_schema,
    build_lineage,
    build_median_metadata,
    build_picture_metadata,
    build_profile_table,
    build_published_schema,
)
from taxi_assets.defs.month_split import SplitMonth
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.report.day_picture import Figures, draw_day_hours, draw_day_picture
from taxi_assets.report.day_text import describe_day
from taxi_assets.settings import read_rules_for_definitions
from taxi_assets.tlc.csv_split import OUTSIDE, UNREADABLE
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import Cleaned
from taxi_assets.trips.profile import list_bins
from taxi_assets.trips.usual_day import Unusual

LAKE, OBJECT = "lake", "object"
"""Metadata keys of a day's object: the lake's folder, and the key in it or a `gs://` URI."""


def build_raw_metadata(split: SplitMonth, day: date) -> dict[str, Any]:
    """Return the metadata of a day of a month file."""
    month, spool = split.month, split.get_spool(day)
    rows, file = month.rows[day.day], month.file
    text = f"{rows:,} of the month file's {month.file_rows:,} rows, as published"
    metadata = {
        "summary": f"{text} (synthetic sample)" if file.synthetic else text,
        "preview": spool.build_preview(),
        PARTITION_ROWS: rows,
        "rows": rows,
        "bytes": spool.size + len(month.line),
        "month_file_rows": month.file_rows,
        "rows_outside_month": month.rows[OUTSIDE],
        "rows_unreadable": month.rows[UNREADABLE],
        **_build_published_columns(month),
        **build_source_metadata(SourceFile.of_file(file)),
        "source_bytes": file.size,
        "source_etag": file.etag or "",
        "source_last_modified": file.last_modified or "",
    }
    return {name: value for name, value in metadata.items() if value != ""}


def build_cleaned_metadata(
    service: Service, cleaned: Cleaned, figures: Figures, source_file: SourceFile
) -> dict[str, Any]:
    """Return the metadata of a cleaned day."""
    labels = {"unknown_labels": dict(cleaned.unknown_labels)} if cleaned.unknown_labels else {}
    rows = figures.profile.rows
    total = {} if figures.revenue is None else {str(service.total): figures.revenue}
    shared = {} if figures.profile.shared is None else {"shared_rides": figures.profile.shared}
    return {
        "columns": build_profile_table(figures.profile, service),
        PARTITION_ROWS: rows,
        "rows": rows,
        "raw_rows": cleaned.raw_rows,
        "dropped": sum(cleaned.dropped.values()),
        **{name: rows for name, rows in build_dropped_metadata(cleaned).items() if rows},
        **total,
        **shared,
        **_count_located(cleaned),
        "rules": ", ".join(cleaned.rules) or "none",
        **build_median_metadata(figures.profile),
        **labels,
        **build_source_metadata(source_file),
        **_build_other_schema(service, "arrow", tuple(cleaned.rules)),
        LINEAGE: build_lineage(cleaned.published, dg.AssetKey([service.name, "raw_trips"])),
    }


def _count_located(cleaned: Cleaned) -> dict[str, int]:
    """Return the number of rows with and without a zone at their coordinates."""
    rows = cleaned.table.num_rows
    located = {f"{name}_by_coordinates": zones for name, zones in cleaned.located.items()}
    return located | {f"{name}_outside_zones": rows - n for name, n in cleaned.located.items()}


def build_overview_metadata(
    service: Service,
    day: date,
    figures: Figures,
    before: Sequence[Figures],
    unusual: Sequence[Unusual],
) -> dict[str, Any]:
    """Return a sentence and pictures of a cleaned day, compared with the days before it.

    Dagster's UI shows the small one on the page, and the large one behind "[Show Markdown]".
    """
    usual = [weekday.profile.rows for weekday in before]
    text = describe_day(figures.profile.rows, figures.revenue, usual, figures.dropped)
    compared = f"beside {len(before)} earlier {day:%A}s" if before else "no earlier day to compare"
    panels = ", ".join(bins.column.replace("_", " ") for bins in list_bins(service))
    drawn = f"{service.name} trips of {day}: hours, {panels}, dropped rows, {compared}"
    if unusual:
        drawn += f"; unusual: {'; '.join(map(str, unusual))}"
    picture = draw_day_picture(service, day, figures, before, unusual)
    return {
        "summary": f"{text} (synthetic sample)" if figures.synthetic else text,
        "pickups_by_hour": dg.MetadataValue.md(draw_day_hours(day, figures, before)),
        "picture": build_picture_metadata(picture, drawn),
    }


def build_trips_metadata(
    trips: StoredTrips, service: Service, upstream: str, types: Types, seconds: float
) -> dict[str, Any]:
    """Return the metadata of a day's rows in a store, which come from an `upstream` asset.

    `dagster/row_count` of the entire table is left to stores that know it without counting:
    Postgres would scan years, and the lake would read as many footers.
    """
    return {
        PARTITION_ROWS: trips.rows,
        "rows": trips.rows,
        **trips.total_metadata,
        **(build_median_metadata(trips.profile) if trips.profile else {}),
        "seconds": round(seconds, 3),
        **build_source_metadata(trips.source_file),
        **_build_other_schema(service, types, trips.rules),
        LINEAGE: build_column_lineage(service, dg.AssetKey([service.name, upstream]), types),
    }


def _build_other_schema(service: Service, types: Types, rules: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a day that was not cleaned by the current rules.

    For all other days the asset's definition has them, because events are stored forever.
    """
    if tuple(rules) == tuple(read_rules_for_definitions()):
        return {}
    return {SCHEMA: build_column_schema(service, types, tuple(rules))}


def build_object_metadata(lake: Lake, key: str) -> dict[str, Any]:
    """Return the location of an object: texts to copy, and the page of Google's console.

    The UI breaks no line in a path or URL, so that a long one makes the page of a day scroll
    sideways. `dagster/uri` is in the asset's definition.
    """
    if lake.local:
        return {LAKE: dg.MetadataValue.path(lake.root), OBJECT: dg.MetadataValue.path(key)}
    page = dg.MetadataValue.md(f"[Open in Google Cloud's console]({lake.page(key)})")
    return {OBJECT: lake.uri(key), "console": page}


def build_other_object(lake: Lake, key: str) -> dg.PathMetadataValue | dg.MarkdownMetadataValue:
    """Return another object of a day: its path below that of the lake, or a link to its content."""
    if lake.local:
        return dg.MetadataValue.path(key)
    return dg.MetadataValue.md(f"[Open]({build_object_link(lake, key).value})")


def build_object_link(lake: Lake, key: str) -> dg.PathMetadataValue | dg.UrlMetadataValue:
    """Return a path to copy, or the URL of the object's content on GCS.

    A browser does not open file:// links from a page that was loaded over HTTP.
    """
    if lake.local:
        return dg.MetadataValue.path(lake.path(key))
    return dg.MetadataValue.url(lake.link(key))


def build_source_metadata(source_file: SourceFile) -> dict[str, Any]:
    """Return the month file of a day's rows."""
    synthetic = {"synthetic sample": True} if source_file.synthetic else {}
    return {"source": source_file.url, "source_sha256": source_file.sha256, **synthetic}


def build_dropped_metadata(cleaned: Cleaned) -> Mapping[str, int]:
    """Return the number of dropped rows by reason."""
    return {f"dropped_{reason}": rows for reason, rows in cleaned.dropped.items()}


def _build_published_columns(month: RawMonth) -> dict[str, Any]:
    """Return the published columns (text in a CSV month), and their differences from the schema."""
    header = month.header
    kinds = map(str, month.schema.types) if month.schema else ["string"] * len(header.names)
    return {
        "columns_only_in_raw": ", ".join((*header.raw_only, *header.unknown)),
        "columns_absent": ", ".join(header.absent),
        SCHEMA: build_published_schema(header.names, tuple(kinds), month.file.service),
    }
