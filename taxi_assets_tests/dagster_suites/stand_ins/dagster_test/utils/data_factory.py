"""What Dagster's storage suites take from its unpublished package of test helpers."""

from typing import Any

import dagster as dg
from dagster._core.utils import make_new_run_id


def dagster_run(**fields: Any) -> dg.DagsterRun:
    """Return a run with an id of its own and the given fields."""
    return dg.DagsterRun(**{"job_name": "job", "run_id": make_new_run_id(), **fields})
