"""A job with one empty asset and nothing else, to measure a run without the package."""

from __future__ import annotations

import dagster as dg


@dg.asset
def nothing() -> None:
    """Do nothing."""


defs = dg.Definitions(
    assets=[nothing],
    jobs=[dg.define_asset_job("nothing_job", dg.AssetSelection.assets(nothing))],
    executor=dg.in_process_executor,
)
