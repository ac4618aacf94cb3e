"""Jobs of assets: all five of a service for a day or a range of days, and its monthly report."""

from __future__ import annotations

import dagster as dg

from taxi_assets.defs.checks.specs import UP_TO_DATE
from taxi_assets.defs.freshness import STORES
from taxi_assets.tlc.schema import Service


def get_daily_job_name(service: Service) -> str:
    """Return `<service>_daily`."""
    return f"{service.name}_daily"


def build_daily_job(service: Service, assets: list[dg.AssetKey]) -> dg.UnresolvedAssetJobDefinition:
    """Build `<service>_daily`, the job of the service's assets and their checks."""
    stores = [asset for asset in assets if asset.path[-1] in STORES]
    return dg.define_asset_job(
        get_daily_job_name(service),
        # The check of the newest published month does not concern the run of a day.
        selection=dg.AssetSelection.assets(*assets)
        - dg.AssetSelection.checks(*(dg.AssetCheckKey(asset, UP_TO_DATE) for asset in stores)),
        description=f"A day, or a range of days, of {service.name} trips through all five assets.",
        tags={"service": service.name},
    )


def build_monthly_report_job(
    service: Service, report: dg.AssetKey
) -> dg.UnresolvedAssetJobDefinition:
    """Build the job `<service>_monthly_report`, which writes the report of a month."""
    return dg.define_asset_job(
        f"{service.name}_monthly_report",
        selection=dg.AssetSelection.assets(report),
        description=f"The report of a month of {service.name} trips, from the days in the lake.",
        tags={"service": service.name},
    )
