"""The UI's plots by partition end with the last partition, not with yesterday.

The UI draws the last 120 partitions. Dagster 1.13 counts them back from today and disregards an
`end_date`, so the plots of January 2021 would be empty.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import dagster as dg


@cache
def end_with_last_partition() -> None:
    """Let time windows list their latest partitions from their end on, if it is in the past.

    A Dagster without the method lists them in some other way, which stays as it is.
    """
    owner: Any = dg.TimeWindowPartitionsDefinition
    stock = getattr(owner, "get_paginated_partition_keys", None)
    if stock is None:
        return

    def get_paginated_partition_keys(self: Any, context: Any, **options: Any) -> Any:
        if self.end is not None and self.end < context.effective_dt:
            context = context.updated(effective_dt=self.end, dynamic_partitions_store=None)
        return stock(self, context=context, **options)

    owner.get_paginated_partition_keys = get_paginated_partition_keys
