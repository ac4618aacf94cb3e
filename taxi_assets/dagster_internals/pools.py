"""Store the limits of Dagster's pools: the number of runs that write to a store at once.

The assets name their pools; the settings define the limits. `dagster.yaml` accepts only one default
for all pools, and a pool that is not in Dagster's storage has no effect on the first pass over a
queue, which launches every waiting run.
"""

from __future__ import annotations

import dagster as dg
from sqlalchemy.exc import IntegrityError

from taxi_assets.settings.areas import PoolSettings


def set_pool_limits(instance: dg.DagsterInstance) -> None:
    """Store the limit of each pool: the value of its variable, or a default if it has no limit.

    A limit that was set in the UI or with `dagster instance concurrency set` stays if the variable
    is not set.

    Raises:
        SettingsError: a variable is not a number of runs.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    settings = PoolSettings.from_env()
    pools = {pool.name: pool for pool in storage.get_pool_limits()}
    for field, limit in settings.model_dump().items():
        name = field.removesuffix("_pool")
        pool = pools.get(name)
        is_set = field in settings.model_fields_set
        if pool is None or pool.from_default or (is_set and pool.limit != limit):
            try:
                storage.set_concurrency_slots(name, limit)
            except IntegrityError:
                # Another process of an empty instance stored its row first: update that one.
                storage.set_concurrency_slots(name, limit)
