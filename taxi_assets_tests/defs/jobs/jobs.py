"""Runs of the small jobs, and their results."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import dagster as dg

from taxi_assets.definitions import build_defs
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores

OPS = {"sql_query": "query", "inspect_object": "inspect", "export_parquet": "export"}


@cache
def build_definitions(_environment: frozenset[tuple[str, str]]) -> dg.Definitions:
    """Return the definitions, whose resources have the values of the current environment."""
    return build_defs(SERVICES)


def run_job(job: str, **config: Any) -> dg.ExecuteInProcessResult:
    return (
        build_definitions(frozenset(os.environ.items()))
        .resolve_job_def(job)
        .execute_in_process(
            run_config={"ops": {OPS[job]: {"config": config}}}, raise_on_error=False
        )
    )


def run_and_read_metadata(job: str, **config: Any) -> dict[str, Any]:
    """Run a job with success; return its metadata."""
    result = run_job(job, **config)
    assert result.success, stores.failure(result)
    (output,) = (event for event in result.all_events if event.is_successful_output)
    return {name: value.value for name, value in output.step_output_data.metadata.items()}


def run_and_read_failure(job: str, **config: Any) -> str:
    """Run a job into a Failure without retries; return its one line."""
    result = run_job(job, **config)
    assert not result.success
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    (event,) = (event for event in result.all_events if event.is_step_failure)
    description = event.step_failure_data.user_failure_data.description
    assert "\n" not in description
    return description


def read_records(value: Any) -> list[dict[str, Any]]:
    return [dict(record.data) for record in value.records]
