"""Build the results of checks: counts with shares, and tables of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
from dagster import AssetCheckSeverity

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.date_ranges import Month
from taxi_assets.defs.checks.specs import ERROR
from taxi_assets.defs.metadata.table_metadata import build_table
from taxi_assets.report.value_names import format_share, format_value, shorten, shorten_words

EXAMPLES = 5
"""Number of rows that a check shows."""
MAX_LENGTH, MAX_WORD_LENGTH = 1000, 40
"""Characters of a value, and of a word in it, in the table of examples."""


def build_count_result(  # noqa: PLR0913 - one check, by name
    check: str,
    rows: int,
    of_rows: int,
    predicate: str,
    *,
    allowed: float = 0.0,
    severity: AssetCheckSeverity = ERROR,
    more: Mapping[str, Any] | None = None,
) -> CheckResult:
    """Build the result of a check that counts rows: number, share, and whether it passes.

    `predicate` describes the rows; `allowed` is the share of them up to which the check passes.
    """
    limit = f"; up to {allowed:.1%} is usual" if allowed else ""
    share = format_share(rows, of_rows)
    return CheckResult(
        check,
        rows <= allowed * of_rows,
        {
            "rows": rows,
            "of_rows": of_rows,
            "per_cent": round(100 * rows / of_rows, 2) if of_rows else 0.0,
            **(more or {}),
        },
        severity,
        f"{rows:,} of {of_rows:,} rows{f' ({share})' if share else ''} {predicate}{limit}",
    )


def show_examples(
    names: Sequence[str], rows: Sequence[Sequence[object]], key: str = "examples"
) -> dict[str, dg.TableMetadataValue]:
    """Return metadata with a table of the first example rows of a check; empty without rows.

    The table fits the page of the check.
    """
    shown = [
        [shorten_words(shorten(format_value(value), MAX_LENGTH), MAX_WORD_LENGTH) for value in row]
        for row in rows[:EXAMPLES]
    ]
    return {key: build_table(list(map(dg.TableColumn, names)), shown)} if shown else {}


def merge_months(results: Mapping[Month, Sequence[CheckResult]]) -> list[CheckResult]:
    """Merge the results of all month files of a run; the description of a result names months."""
    merged: list[CheckResult] = []
    for same_check in zip(*results.values(), strict=True):
        first_failed = next((result for result in same_check if not result.passed), same_check[-1])
        counts: dict[str, Any] = {
            name: sum(result.metadata[name] for result in same_check)
            for name in ("rows", "of_rows")
            if name in first_failed.metadata
        }
        if counts.get("of_rows"):
            counts["per_cent"] = round(100 * counts["rows"] / counts["of_rows"], 2)
        text = "; ".join(
            f"{month}: {result.description}"
            for month, result in zip(results, same_check, strict=True)
            if len(same_check) == 1 or result.passed == first_failed.passed
        )
        passed = all(result.passed for result in same_check)
        metadata = {**first_failed.metadata, **counts}
        merged.append(replace(first_failed, passed=passed, metadata=metadata, description=text))
    return merged
