"""The asset `<service>/monthly_report`: a summary of a month, from its days in the lake."""

from datetime import date

import dagster as dg

from taxi_assets.date_ranges import ONE_DAY, Month
from taxi_assets.defs.io_managers.base import name_asset_in_errors
from taxi_assets.defs.io_managers.monthly_report import Report
from taxi_assets.defs.io_managers.partition_data import (
    Label,
    StoredTrips,
    open_lake_trips,
    read_trips_metadata,
)
from taxi_assets.defs.io_managers.raw_trips import read_month_counts
from taxi_assets.defs.metadata.asset_metadata import add_code_references
from taxi_assets.defs.resources.lake import Lake, LakeResource
from taxi_assets.defs.resources.lake_keys import build_trips_key
from taxi_assets.defs.resources.source import load_zones
from taxi_assets.defs.run_summary import ROWS_TAG, tag_run
from taxi_assets.defs.stage import Stage, build_retry_policy
from taxi_assets.errors import StoreError
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.partitions import get_run_month, monthly_partitions
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
"""A separate group, so that the group of the daily assets can be materialized for days."""


def build_monthly_report(service: Service) -> dg.AssetsDefinition:
    """Build the report asset of a service."""
    stage = Stage(service)
    once_complete = dg.AutomationCondition.eager().without(
        dg.AutomationCondition.in_latest_time_window()
    )
    # TAXI_START_DATE may be within a month, and the current month has future days.
    days_of_month = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)

    @dg.asset(
        key=stage.build_key("monthly_report"),
        group_name=GROUP,
        # A node of the asset graph shows the last part of its key, the same for every service.
        kinds={"html", service.name},
        owners=DefinitionSettings.from_env().owners,
        tags={"service": service.name, "layer": "report"},
        partitions_def=monthly_partitions(),
        deps=[dg.AssetDep(stage.build_key("gcs_trips"), partition_mapping=days_of_month)],
        automation_condition=once_complete,
        retry_policy=build_retry_policy(),
        io_manager_key="monthly_report",
        code_version="1",
        description=f"A summary of a month of {service.name} trips, from its days in the lake: a "
        "page and a picture. Days that are not loaded are named instead of drawn as zero.",
    )
    def report(context: dg.AssetExecutionContext, lake: LakeResource) -> Report:
        month = get_run_month(context.run.tags)
        with name_asset_in_errors(context.asset_key, list(month.window)):
            figures = compute_month_figures(lake.lake, service, month)
            tags = service.name, str(month)
            tag_run(context.instance, context.run, *tags, **{ROWS_TAG: str(figures.trips)})
            zone_map = layout_zone_map(figures, load_zones(context.log.info))
            page = render_month_page(figures, zone_map)
            return Report(figures, page, draw_month_picture(figures, zone_map))

    (asset,) = add_code_references([report])
    return asset


def compute_month_figures(lake: Lake, service: Service, month: Month) -> MonthFigures:
    """Count the month's days that are in the lake.

    Raises:
        StoreError: the lake has no day of the month, or objects that cannot be read, all named.
    """

    def count_stored_day(day: date) -> DayFigures | None:
        trips = open_lake_trips(lake, service, day)
        if trips is None:
            return None
        return count_day(
            trips.read_table(list_counted_columns(service)),
            service,
            trips.dropped,
            synthetic=trips.source_file.synthetic,
        )

    partitions = LazyPartitions(list(month.window), count_stored_day)
    days = {day: figures for day, figures in partitions if figures}
    if partitions.rejected:
        raise StoreError("; ".join(map(str, partitions.rejected.values())))
    if not days:
        raise StoreError(
            f"no day of {month} is in {lake.path(service.name)}: materialize "
            f"{service.name}/gcs_trips for its days first"
        )
    counts = read_month_counts(lake, service, month)
    return MonthFigures(service, month, days, *counts, find_earlier_months(lake, service, month))


def find_earlier_months(lake: Lake, service: Service, month: Month) -> list[EarlierMonth]:
    """Return the previous month and the same month a year before, from the footers of their days.

    A day that cannot be read counts as not stored.
    """

    def read_footer(day: date) -> StoredTrips | None:
        label = Label(service.name, "gcs_trips", str(day))
        return read_trips_metadata(lake, build_trips_key(service, day, lake.layout), label, service)

    months: list[EarlierMonth] = []
    for earlier in (Month.of(month.window.start - ONE_DAY), Month(month.year - 1, month.month)):
        stored = [day for _, day in LazyPartitions(list(earlier.window), read_footer) if day]
        if stored:
            trips, total = sum(day.rows for day in stored), sum(day.total for day in stored)
            months.append(EarlierMonth(earlier, trips / len(stored), total / len(stored)))
    return months
