"""`taxi-assets query`, `inspect` and `export`: the small jobs, from one line with arguments.

Each is a run of its job like any other: in the list of runs, with its result on the run's page.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg

from taxi_assets.cli.runner import QUIET, failure_of
from taxi_assets.defs.jobs.result import format_value

SHOWN_BY_TABLE = {"query", "seconds", "more_rows"}
"""What needs no line of its own in a terminal."""


def run_small_job(
    instance: dg.DagsterInstance, name: str, op: str, config: Mapping[str, Any]
) -> int:
    """Run a job of one op, print what it found, and return the exit code."""
    from taxi_assets.definitions import defs  # noqa: PLC0415 - takes two seconds

    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    given = {key: value for key, value in config.items() if value is not None}
    result = defs.resolve_job_def(name).execute_in_process(
        run_config={**QUIET, "ops": {op: {"config": given}}},
        instance=instance,
        raise_on_error=False,
    )
    if not result.success:
        sys.stderr.write(f"{failure_of(instance, result.run_id)}\n")
        return 1
    (output,) = result.filter_events(lambda event: event.is_successful_output)
    for line in _list_lines(output.step_output_data.metadata):
        sys.stdout.write(f"{line}\n")
    return 0


def name_days(first: date, last: date) -> dict[str, str]:
    """Return a range of days as `export_parquet` takes it."""
    return {"first_day": str(first), "last_day": str(last)}


def _list_lines(metadata: Mapping[str, dg.MetadataValue[Any]]) -> list[str]:
    lines: list[str] = []
    for name, value in metadata.items():
        if isinstance(value, dg.TableMetadataValue):
            lines += [format_value(value), ""]
        elif isinstance(value, dg.TableSchemaMetadataValue):
            columns = value.value.columns
            lines.append(f"{name}: {', '.join(f'{one.name} {one.type}' for one in columns)}")
        elif name not in SHOWN_BY_TABLE:
            number = isinstance(value.value, int) and not isinstance(value.value, bool)
            lines.append(f"{name}: {value.value:,}" if number else f"{name}: {value.value}")
    return lines
