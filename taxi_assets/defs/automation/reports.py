"""Monthly reports: one job per service, and the sensor that requests reports."""

from __future__ import annotations

import dagster as dg

from taxi_assets.settings.areas import AutomationSettings
from taxi_assets.tlc.schema import Service


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


def build_monthly_report_sensor(
    reports: list[dg.AssetKey], automation: AutomationSettings
) -> dg.AutomationConditionSensorDefinition:
    """Build the sensor that requests the reports whose automation condition is met."""
    return dg.AutomationConditionSensorDefinition(
        "monthly_report_sensor",
        target=dg.AssetSelection.assets(*reports),
        default_status=dg.DefaultSensorStatus.RUNNING
        if automation.running
        else dg.DefaultSensorStatus.STOPPED,
        description="Requests the report of a month once all of its days are in the lake, "
        "and again when one is replaced.",
    )
