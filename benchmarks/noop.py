"""A job with one empty asset among the package's definitions: what Dagster itself costs."""

from __future__ import annotations

import dagster as dg

from taxi_assets import definitions


@dg.asset(group_name="benchmarks")
def nothing() -> None:
    """Do nothing."""


defs = dg.Definitions.merge(
    definitions.defs,
    dg.Definitions(
        assets=[nothing],
        jobs=[dg.define_asset_job("nothing_job", selection=dg.AssetSelection.assets(nothing))],
    ),
)
