"""The check `up_to_date` of each store: it has the newest published month.

The sensor `operations_alert` evaluates it without a run; in the UI it can be executed, too.
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
    """One check a store."""
    return [_check(service, name) for name in STORES]


def _check(service: Service, name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=dg.AssetKey([service.name, name]), name=CHECK, description=DESCRIPTION)
    def up_to_date(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        found = read_freshness(context.instance, service, find_newest_published(service))
        one = found[STORES.index(name)]
        return dg.AssetCheckResult(
            passed=one.is_fresh,
            severity=AssetCheckSeverity.WARN,
            metadata=_metadata(one),
            description=str(one),
        )

    return up_to_date


def evaluation(found: Freshness) -> AssetCheckEvaluation:
    """Return what the sensor reports about a store."""
    return AssetCheckEvaluation(
        asset_key=dg.AssetKey([found.service, found.store]),
        check_name=CHECK,
        passed=found.is_fresh,
        severity=AssetCheckSeverity.WARN,
        metadata={name: dg.MetadataValue.text(text) for name, text in _metadata(found).items()},
        description=str(found),
    )


def _metadata(found: Freshness) -> dict[str, str]:
    return {
        "newest_published": str(found.published or "none"),
        "newest_loaded": str(found.loaded or "none"),
        "missing_days": str(len(found.missing)),
    }
