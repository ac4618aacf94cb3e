"""Runs of the small jobs, and what they show."""

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
def defs_of(_environment: frozenset[tuple[str, str]]) -> dg.Definitions:
    """The definitions, whose resources have the values of the environment that they load in."""
    return build_defs(SERVICES)


def run(job: str, **config: Any) -> dg.ExecuteInProcessResult:
    return (
        defs_of(frozenset(os.environ.items()))
        .resolve_job_def(job)
        .execute_in_process(
            run_config={"ops": {OPS[job]: {"config": config}}}, raise_on_error=False
        )
    )


def shown(job: str, **config: Any) -> dict[str, Any]:
    """The metadata that a run which succeeds shows."""
    result = run(job, **config)
    assert result.success, stores.failure(result)
    (output,) = (event for event in result.all_events if event.is_successful_output)
    return {name: value.value for name, value in output.step_output_data.metadata.items()}


def refused(job: str, **config: Any) -> str:
    """Why a run failed: one line, said by a Failure that is not tried again."""
    result = run(job, **config)
    assert not result.success
    assert not any(event.is_step_up_for_retry for event in result.all_events)
    (event,) = (event for event in result.all_events if event.is_step_failure)
    said = event.step_failure_data.user_failure_data.description
    assert "\n" not in said
    return said


def records(value: Any) -> list[dict[str, Any]]:
    return [dict(record.data) for record in value.records]
