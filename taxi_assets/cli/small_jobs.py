"""The commands `taxi-assets query`, `inspect` and `export`, each of which runs a small job.

Each is an ordinary run of its job: in the list of runs, with its result on the run's page.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import dagster as dg

from taxi_assets.cli.interrupts import record_interrupts
from taxi_assets.cli.runner import QUIET, describe_failure, load_job
from taxi_assets.defs.jobs.result import format_table

HIDDEN_METADATA = {"query", "seconds", "more_rows"}
"""Metadata that is not printed."""


def run_small_job(
    instance: dg.DagsterInstance, name: str, op: str, config: Mapping[str, Any]
) -> int:
    """Run a job of one op, print its result, and return the exit code."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    op_config = {key: value for key, value in config.items() if value is not None}
    job = dg.build_reconstructable_job(load_job.__module__, load_job.__name__, (name,))
    run_config = {**QUIET, "ops": {op: {"config": op_config}}}
    with record_interrupts() as was_interrupted:
        # `execute_in_process` replaces the IO manager, so that the UI would warn of another job.
        result = dg.execute_job(job, instance, run_config)
    if was_interrupted():
        raise KeyboardInterrupt
    if not result.success:
        sys.stderr.write(f"{describe_failure(instance, result.run_id)}\n")
        return 2
    (output,) = result.filter_events(lambda event: event.is_successful_output)
    for line in _list_lines(output.step_output_data.metadata):
        sys.stdout.write(f"{line}\n")
    return 0


def _list_lines(metadata: Mapping[str, dg.MetadataValue[Any]]) -> list[str]:
    lines: list[str] = []
    for name, value in metadata.items():
        if isinstance(value, dg.TableMetadataValue):
            lines += [format_table(value), ""]
        elif isinstance(value, dg.TableSchemaMetadataValue):
            columns = value.value.columns
            lines.append(
                f"{name}: {', '.join(f'{column.name} {column.type}' for column in columns)}"
            )
        elif name not in HIDDEN_METADATA:
            number = isinstance(value.value, int) and not isinstance(value.value, bool)
            lines.append(f"{name}: {value.value:,}" if number else f"{name}: {value.value}")
    return lines
