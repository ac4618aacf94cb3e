"""The arguments that the assets of one service share: keys, partitions, checks, retries, metadata.

The functions of the assets belong in `daily_assets.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from taxi_assets.defs.checks.specs import RAW_CHECKS, STORE_CHECKS
from taxi_assets.defs.metadata.asset_metadata import (
    build_definition_metadata,
    build_definition_tags,
)
from taxi_assets.defs.run_restart import request_run_restart
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.partitions import daily_partitions
from taxi_assets.settings.areas import DefinitionSettings
from taxi_assets.tlc.schema import Service

DAYS = dg.DagsterType(
    name="Days",
    type_check_fn=lambda _, value: isinstance(value, LazyPartitions),
    typing_type=LazyPartitions,
    description="The days of a run, each loaded on demand.",
)


@dataclass(frozen=True)
class Stage:
    """The service and the partitions of a set of assets."""

    service: Service
    partitions: dg.DailyPartitionsDefinition = field(default_factory=daily_partitions)

    def build_key(self, name: str) -> dg.AssetKey:
        """Return the key `<service>/<name>`."""
        return dg.AssetKey([self.service.name, name])

    def build_arguments(self, name: str, *kinds: str, **more: Any) -> dict[str, Any]:
        """Return the arguments that all five assets have."""
        settings = DefinitionSettings.from_env()
        return {
            "key": self.build_key(name),
            "group_name": self.service.name,
            "kinds": set(kinds),
            "owners": settings.owners,
            "tags": build_definition_tags(self.service, name),
            "metadata": build_definition_metadata(self.service, name),
            "partitions_def": self.partitions,
            "backfill_policy": dg.BackfillPolicy.multi_run(settings.max_partitions_per_run),
            "retry_policy": build_retry_policy(),
            "hooks": {request_run_restart},
            "io_manager_key": name,
            **more,
        }

    def build_store_arguments(
        self, name: str, upstream: str, *kinds: str, **more: Any
    ) -> dict[str, Any]:
        """Return the arguments that the three store assets have."""
        return self.build_arguments(
            name,
            *kinds,
            ins={upstream: dg.AssetIn(self.build_key(upstream), dagster_type=DAYS)},
            check_specs=self.build_specs(name, STORE_CHECKS),
            code_version="1",
            **more,
        )

    def build_specs(self, name: str, checks: Mapping[str, str]) -> list[dg.AssetCheckSpec]:
        """Return the check specs of an asset, with its partitions; checks of a file have none."""
        return [
            dg.AssetCheckSpec(
                check,
                asset=self.build_key(name),
                description=description,
                partitions_def=None if check in RAW_CHECKS else self.partitions,
            )
            for check, description in checks.items()
        ]


def build_retry_policy() -> dg.RetryPolicy:
    """Build the policy that retries transient errors: timeouts, 429, 5xx, lost connections.

    Dagster cannot be interrupted while it waits for the next attempt, so a cancelled run ends after
    that wait: by default 2, 4, 6 or 8 seconds, instead of 2, 6 or 14 with exponential backoff.
    """
    delay = DefinitionSettings.from_env().retry_delay
    return dg.RetryPolicy(max_retries=4, delay=delay, backoff=dg.Backoff.LINEAR)
