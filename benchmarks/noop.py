"""Jobs with one empty asset among the package's definitions, to measure Dagster itself."""

from __future__ import annotations

import dagster as dg

from taxi_assets import definitions


@dg.asset(group_name="benchmarks")
def nothing() -> None:
    """Do nothing."""


@dg.asset(group_name="benchmarks", pool="bigquery")
def nothing_pooled() -> None:
    """Do nothing, in the pool of a store."""


defs = dg.Definitions.merge(
    definitions.defs,
    dg.Definitions(
        assets=[nothing, nothing_pooled],
        jobs=[
            dg.define_asset_job(f"{asset.key.path[-1]}_job", dg.AssetSelection.assets(asset))
            for asset in (nothing, nothing_pooled)
        ],
    ),
)
