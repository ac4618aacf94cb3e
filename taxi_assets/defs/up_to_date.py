"""The check `up_to_date` of each store: it has the newest published month.

The sensor `operations_alert` evaluates it without a run; it can also be executed in the UI.
"""

import dagster as dg
from dagster import AssetCheckEvaluation, AssetCheckSeverity

from taxi_assets.defs.freshness import (
    CHECK,
    STORES,
    Freshness,
    find_newest_published,
    read_freshness,
)
from taxi_assets.tlc.schema import Service

DESCRIPTION = "WARN: the store has every day of the newest published month."


def build_up_to_date_checks(service: Service) -> list[dg.AssetChecksDefinition]:
    """Build one check per store."""
    return [_build_check(service, name) for name in STORES]


def _build_check(service: Service, name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=dg.AssetKey([service.name, name]), name=CHECK, description=DESCRIPTION)
    def up_to_date(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        published = find_newest_published(service)
        freshness = read_freshness(context.instance, service, published)[STORES.index(name)]
        return dg.AssetCheckResult(
            passed=freshness.is_fresh,
            severity=AssetCheckSeverity.WARN,
            metadata=_build_metadata(freshness),
            description=str(freshness),
        )

    return up_to_date


def build_evaluation(freshness: Freshness) -> AssetCheckEvaluation:
    """Return the check evaluation of a store, for the sensor."""
    return AssetCheckEvaluation(
        asset_key=dg.AssetKey([freshness.service, freshness.store]),
        check_name=CHECK,
        passed=freshness.is_fresh,
        severity=AssetCheckSeverity.WARN,
        metadata={
            name: dg.MetadataValue.text(text) for name, text in _build_metadata(freshness).items()
        },
        description=str(freshness),
    )


def _build_metadata(freshness: Freshness) -> dict[str, str]:
    return {
        "newest_published": str(freshness.published or "none"),
        "newest_loaded": str(freshness.loaded or "none"),
        "missing_days": str(len(freshness.missing)),
    }
