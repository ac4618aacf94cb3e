"""The resource of month files (TAXI_SOURCE, TAXI_HOME)."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
from pydantic import Field

from taxi_assets.date_ranges import Month
from taxi_assets.defs.resources.fields import override, read_settings_with_fields
from taxi_assets.errors import explain_full_disk
from taxi_assets.partitions import reject_unknown_days
from taxi_assets.settings import Settings
from taxi_assets.tlc.cache import MonthFile, evict_unused
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import fetch_month_file
from taxi_assets.tlc.zone_polygons import ZonePolygons
from taxi_assets.tlc.zone_source import load_zone_polygons


def load_zones(progress: Callable[[str], None]) -> ZonePolygons | None:
    """Return TLC's zone polygons (TAXI_ZONES); None if the setting is not set."""
    settings = Settings.from_env()
    address = settings.source.zones
    if address is None:
        return None
    downloads = settings.home / "downloads"
    return load_zone_polygons(address.get_secret_value(), downloads, settings.limits, progress)


class SourceResource(dg.ConfigurableResource["SourceResource"]):
    """Fetches a month's file once, and again if it was restated.

    The cache is in TAXI_HOME (TAXI_DOWNLOAD_RETENTION_DAYS).
    """

    template: str | None = override(
        "TAXI_SOURCE",
        "Template of month files. A run's config is stored and shown: never write a password here",
    )
    must_confirm: bool = Field(
        default=False,
        description="Fail instead of using a cached month file that the server does not confirm.",
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Reject no day, and unknown days, before any step, in which Dagster fails an assertion."""
        if context.run is not None:
            reject_unknown_days(context.run.tags)

    def fetch_month_file(
        self, service: Service, month: Month, progress: Callable[[str], None]
    ) -> MonthFile:
        """Return the complete and checked month file on this machine.

        Raises:
            SourceError: the file is missing or invalid.
            StoreError: the disk under TAXI_HOME is full.
        """
        settings = read_settings_with_fields(self)
        evict_unused(settings.home / "downloads", settings.runs.download_retention)
        with explain_full_disk(settings.home):
            return fetch_month_file(
                settings.source.template,
                service,
                month,
                settings.home,
                progress,
                must_confirm=self.must_confirm,
                limits=settings.limits,
            )

    def max_invalid_ratio(self) -> float:
        """Return the maximum ratio of invalid rows (TAXI_MAX_INVALID_RATIO)."""
        return Settings.from_env().cleaning.max_invalid_ratio

    def zones(self, progress: Callable[[str], None]) -> ZonePolygons | None:
        """Return TLC's zone polygons (TAXI_ZONES); None if the setting is not set."""
        return load_zones(progress)

    def max_day_bytes(self) -> int:
        """Return the largest unpacked size of a day's rows in bytes (TAXI_MAX_DAY_BYTES)."""
        return Settings.from_env().limits.max_day_bytes
