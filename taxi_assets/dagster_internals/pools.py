"""How many runs write to a store at once: the limits of Dagster's pools, from the settings.

Defined here: how the limits get into Dagster's storage. The assets name their pools themselves.
`dagster.yaml` takes one default as a plain number, and a pool that Dagster has not met does not
hold in the first pass over a queue, which launches every run that waits for it.
"""

from __future__ import annotations

import dagster as dg
from sqlalchemy.exc import IntegrityError

from taxi_assets.settings.areas import PoolSettings


def set_pool_limits(instance: dg.DagsterInstance) -> None:
    """Store the limit of each pool: that of its variable, or the default if Dagster has none.

    A limit that a person set in the UI or with `dagster instance concurrency set` stays while the
    variable is not set.

    Raises:
        SettingsError: a variable is not a number of runs.
    """
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    settings = PoolSettings.from_env()
    known = {pool.name: pool for pool in storage.get_pool_limits()}
    for field, limit in settings.model_dump().items():
        name = field.removesuffix("_pool")
        pool = known.get(name)
        is_set = field in settings.model_fields_set
        if pool is None or pool.from_default or (is_set and pool.limit != limit):
            try:
                storage.set_concurrency_slots(name, limit)
            except IntegrityError:
                # Another process of an empty instance stored its row first: update that one.
                storage.set_concurrency_slots(name, limit)
