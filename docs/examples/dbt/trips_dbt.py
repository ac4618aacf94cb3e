"""dbt's models of green trips as assets by day: on Postgres, and on DuckDB over the lake."""

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

# dagster-dbt 0.29 asks for an extra of sqlglot that sqlglot calls deprecated.
warnings.filterwarnings("ignore", r"sqlglot\[rs\]", UserWarning)

from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, dbt_assets  # noqa: E402

from taxi_assets import definitions as taxi  # noqa: E402
from taxi_assets.partitions import daily_partitions  # noqa: E402

HERE = Path(__file__).parent
SOURCES = {"postgres": "postgres_trips", "duckdb": "gcs_trips"}
"""The asset that each target of profiles.yml reads."""
# The dbt beside this Python, whether or not its environment is activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
project = DbtProject(HERE, profiles_dir=HERE)
project.prepare_if_dev()


class OfTarget(DagsterDbtTranslator):
    """Names of assets: the models of a target, and the asset that they read."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """Return `dbt_postgres/daily_revenue`, or `green/postgres_trips` of the source."""
        if dbt_resource_props["resource_type"] == "source":
            return dg.AssetKey(["green", SOURCES[self.target]])
        return dg.AssetKey([f"dbt_{self.target}", dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Return a group for each target."""
        del dbt_resource_props
        return f"dbt_{self.target}"


def build_models(target: str) -> dg.AssetsDefinition:
    """Build the models on one target; dbt's tests are their checks."""

    @dbt_assets(
        manifest=project.manifest_path,
        name=f"dbt_{target}",
        partitions_def=daily_partitions(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        dagster_dbt_translator=OfTarget(target),
    )
    def models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
        days = context.partition_key_range
        given = json.dumps({"first_day": days.start, "last_day": days.end})
        command = ["build", "--target", target, "--vars", given]
        yield from dbt.cli(command, context=context).stream()

    return models


models = [build_models(target) for target in SOURCES]
job = dg.define_asset_job("dbt_job", selection=models)
defs = dg.Definitions.merge(
    taxi.defs,
    dg.Definitions(assets=models, jobs=[job], resources={"dbt": DbtCliResource(project)}),
)
