"""`<service>/monthly_report`: a month at a glance, from the days that the lake has."""

from collections.abc import Callable
from datetime import date

import dagster as dg

from taxi_assets.date_ranges import ONE_DAY, Month
from taxi_assets.defs.daily_assets import Stage, build_retry_policy
from taxi_assets.defs.io_managers.base import name_asset_in_errors
from taxi_assets.defs.io_managers.monthly_report import Report
from taxi_assets.defs.io_managers.partition_data import (
    Label,
    StoredTrips,
    open_lake_trips,
    read_trips_metadata,
)
from taxi_assets.defs.io_managers.raw_trips import file_rows
from taxi_assets.defs.metadata.asset_metadata import add_code_references
from taxi_assets.defs.resources.lake import Lake, LakeResource, build_trips_key
from taxi_assets.defs.resources.source import load_zones
from taxi_assets.errors import StoreError
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.partitions import daily_partitions, get_run_month, monthly_partitions
from taxi_assets.report.figures import (
    DayFigures,
    EarlierMonth,
    MonthFigures,
    count_day,
    list_counted_columns,
)
from taxi_assets.report.page import render_month_page
from taxi_assets.report.picture import draw_month_picture
from taxi_assets.report.zone_map import layout_zone_map
from taxi_assets.settings.areas import DefinitionSettings
from taxi_assets.tlc.schema import Service

GROUP = "reports"
"""A group of its own: the daily assets' group can be materialized for days as a whole."""


def build_monthly_report(service: Service) -> dg.AssetsDefinition:
    """Build the report asset of a service."""
    stage = Stage(service, daily_partitions())
    whenever_complete = dg.AutomationCondition.eager().without(
        dg.AutomationCondition.in_latest_time_window()
    )
    # TAXI_START_DATE may lie within a month, and the running month has days to come.
    days_of_month = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=stage.key("monthly_report"),
        group_name=GROUP,
        kinds={"html", "png"},
        owners=DefinitionSettings.from_env().owners,
        tags={"service": service.name, "layer": "report"},
        partitions_def=monthly_partitions(),
        deps=[dg.AssetDep(stage.key("gcs_trips"), partition_mapping=days_of_month)],
        automation_condition=whenever_complete,
        retry_policy=build_retry_policy(),
        io_manager_key="monthly_report",
        code_version="1",
        description=f"A month of {service.name} trips at a glance, from the days in the lake: a "
        "page and a picture. Days that are not loaded are named, not drawn as zero.",
    )
    def report(context: dg.AssetExecutionContext, lake: LakeResource) -> Report:
        month = get_run_month(context.run.tags)
        with name_asset_in_errors(context.asset_key, list(month.window)):
            figures = compute_month_figures(lake.lake, service, month)
            zone_map = layout_zone_map(figures, load_zones(context.log.info))
            page, picture = (
                render_month_page(figures, zone_map),
                draw_month_picture(figures, zone_map),
            )
            return Report(figures, page, picture)

    (asset,) = add_code_references([report])
    return asset


def compute_month_figures(lake: Lake, service: Service, month: Month) -> MonthFigures:
    """Count the month's days that are in the lake.

    Raises:
        StoreError: the lake has no day of the month, or objects that cannot be read: all are named.
    """

    def counted(day: date) -> DayFigures | None:
        trips = open_lake_trips(lake, service, day)
        if trips is None:
            return None
        return count_day(
            trips.table(list_counted_columns(service)),
            service,
            trips.dropped,
            synthetic=trips.source_file.synthetic,
        )

    found = LazyPartitions(list(month.window), counted)
    days = {day: figures for day, figures in found if figures}
    if found.rejected:
        raise StoreError("; ".join(map(str, found.rejected.values())))
    if not days:
        raise StoreError(
            f"no day of {month} is in {lake.path(service.name)}: materialize "
            f"{service.name}/gcs_trips for its days first"
        )
    rows = file_rows(lake, service, month)
    earlier = find_earlier_months(lake, service, month)
    if rows is None:
        return MonthFigures(service, month, days, None, earlier=earlier)
    counts = rows.file, rows.outside, rows.unreadable
    return MonthFigures(service, month, days, *counts, earlier)


def find_earlier_months(lake: Lake, service: Service, month: Month) -> list[EarlierMonth]:
    """Return the month before and the same one a year before, from the footers of their days.

    A day that cannot be read counts as one that is not stored.
    """
    found: list[EarlierMonth] = []
    for earlier in (Month.of(month.window.start - ONE_DAY), Month(month.year - 1, month.month)):
        days = [day for _, day in LazyPartitions(list(earlier.window), _footer_of(lake, service))]
        stored = [day for day in days if day is not None]
        if stored:
            trips, total = sum(day.rows for day in stored), sum(day.total for day in stored)
            found.append(EarlierMonth(earlier, trips / len(stored), total / len(stored)))
    return found


def _footer_of(lake: Lake, service: Service) -> Callable[[date], StoredTrips | None]:
    def read(day: date) -> StoredTrips | None:
        stored = Label(service.name, "gcs_trips", str(day))
        return read_trips_metadata(
            lake, build_trips_key(service, day, lake.layout), stored, service
        )

    return read
