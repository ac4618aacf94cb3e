"""The IO manager of monthly reports: a page and a picture per month, and an index of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.rejections import find_rejected_days
from taxi_assets.date_ranges import Month
from taxi_assets.defs.freshness import STORES
from taxi_assets.defs.io_managers.base import name_asset_in_errors
from taxi_assets.defs.io_managers.partition_data import Label, reject_damage
from taxi_assets.defs.metadata.day_metadata import build_object_link
from taxi_assets.defs.metadata.table_metadata import build_picture_metadata, build_table
from taxi_assets.defs.resources.lake import Lake, LakeResource
from taxi_assets.defs.resources.lake_keys import REPORT_INDEX, build_report_key
from taxi_assets.defs.run_summary import measure_seconds
from taxi_assets.errors import StoreError, format_count
from taxi_assets.partitions import get_partition_range
from taxi_assets.report import month_text
from taxi_assets.report.figures import MonthFigures
from taxi_assets.report.index_page import ServiceCalendar, find_states, render_index_page
from taxi_assets.report.page import rank_pickup_zones
from taxi_assets.report.picture import draw_month_days, scale_picture
from taxi_assets.settings.alerts import AlertSettings
from taxi_assets.tlc.schema import Service

PAGE, PICTURE = "html", "png"
DIALOG_WIDTH = 1120
"""Pixels: Dagster's dialog, four fifths of the window, truncates a wider picture."""


@dataclass(frozen=True)
class Report:
    """A month's report: its figures, page and picture."""

    figures: MonthFigures
    page: bytes
    """HTML, UTF-8."""
    picture: bytes
    """PNG."""


@dataclass(eq=False)
class MonthlyReportIOManager(dg.IOManager):
    """Stores a month's report, and adds it to the materialization's metadata."""

    services: Mapping[str, Service]
    lake: LakeResource

    def handle_output(self, context: dg.OutputContext, obj: Report) -> None:
        """Store the picture, the page and the index, and log the run's last line."""
        lake, figures = self.lake.lake, obj.figures
        with name_asset_in_errors(context.asset_key, [figures.month.window.start]):
            picture, page = (
                build_report_key(figures.service, figures.month, kind) for kind in (PICTURE, PAGE)
            )
            size = lake.put(picture, obj.picture, "image/png") + lake.put_page(page, obj.page)
            written = figures.service, figures.month
            calendars = _collect_calendars(
                context.step_context.instance, self.services.values(), written
            )
            index = render_index_page(calendars, AlertSettings.from_env().ui_url)
            lake.put_page(REPORT_INDEX, index)
            context.add_output_metadata(_build_metadata(lake, obj, size))
            seconds = measure_seconds(context.step_context.instance, context.run_id)
            context.log.info(
                f"{figures.service.name} {figures.month}: report of {len(figures.days)} of "
                f"{format_count(len(figures.month.window), 'day')}, "
                f"{format_count(figures.trips, 'trip')}, in "
                f"{lake.path(build_report_key(figures.service, figures.month, PAGE))}; "
                f"{seconds:.1f} s"
            )

    def load_input(self, context: dg.InputContext) -> str:
        """Return the page as HTML."""
        month = Month.of(date.fromisoformat(context.partition_key))
        service, asset = context.asset_key.path
        lake, key = self.lake.lake, build_report_key(self.services[service], month, PAGE)
        with reject_damage(lake, key, Label(service, asset, str(month))):
            stored = lake.get(key)
            if stored is not None:
                return str(stored.to_pybytes(), "utf-8")
        raise StoreError(
            f"{lake.path(key)} does not exist: materialize {context.asset_key.to_user_string()} "
            f"for {month} first"
        )


def _build_metadata(lake: Lake, report: Report, size: int) -> dict[str, Any]:
    figures = report.figures
    key = build_report_key(figures.service, figures.month, PAGE)
    metadata: dict[str, Any] = {
        "summary": month_text.write_headline(figures),
        "trips_by_day": dg.MetadataValue.md(draw_month_days(figures)),
        "report": build_picture_metadata(
            scale_picture(report.picture, DIALOG_WIDTH), month_text.write_title(figures)
        ),
        "page": build_object_link(lake, key),
        "all_months": build_object_link(lake, REPORT_INDEX),
        "picture": build_object_link(
            lake, build_report_key(figures.service, figures.month, PICTURE)
        ),
        "dagster/uri": lake.path(key),
        "trips": figures.trips,
        "days_loaded": len(figures.days),
        "days_missing": len(figures.missing),
        "rows_dropped": figures.dropped.total(),
        "rows_outside_month": figures.outside,
        "rows_unreadable": figures.unreadable,
        "bytes": size,
    }
    if figures.missing:
        metadata["partial"] = month_text.describe_loaded_days(figures)
    if figures.file_rows is not None:
        metadata["month_file_rows"] = figures.file_rows
    if figures.has_money:
        metadata["revenue"] = round(figures.revenue, 2)
        metadata["negative_totals"] = figures.negative_totals
    if figures.zones:
        metadata["busiest_zones"] = _build_zone_table(figures)
    if figures.synthetic:
        metadata["synthetic sample"] = True
    return metadata


def _build_zone_table(figures: MonthFigures) -> dg.TableMetadataValue:
    kinds = {"zone": "string", "borough": "string", "trips": "int", "per cent": "float"}
    return build_table(
        [dg.TableColumn(name, kind) for name, kind in kinds.items()],
        [
            (row.name, row.borough, row.trips, round(100 * row.share, 1))
            for row in rank_pickup_zones(figures)
        ],
    )


def _collect_calendars(
    instance: dg.DagsterInstance, services: Iterable[Service], written: tuple[Service, Month]
) -> list[ServiceCalendar]:
    """Return the calendar of each service, including the report that is `written` now."""
    calendars: list[ServiceCalendar] = []
    days = get_partition_range()
    if days is None:
        raise dg.Failure("there is no daily partition yet: set TAXI_START_DATE to an earlier day")
    for service in services:
        keys = [dg.AssetKey([service.name, name]) for name in STORES]
        stored = [_parse_days(instance.get_materialized_partitions(key)) for key in keys]
        rejected = {day for key in keys for day in find_rejected_days(instance, key, list(days))}
        reports = instance.get_materialized_partitions(
            dg.AssetKey([service.name, "monthly_report"])
        )
        months = {Month.of(day) for day in _parse_days(reports)}
        if service == written[0]:
            months.add(written[1])
        states = find_states(days, stored, rejected)
        calendars.append(ServiceCalendar(service.name, states, months, f"{service.label} trips"))
    return calendars


def _parse_days(partitions: Iterable[str]) -> set[date]:
    return {date.fromisoformat(partition) for partition in partitions}
