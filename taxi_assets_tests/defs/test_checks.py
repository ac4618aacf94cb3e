"""Checks as functions of counts: their results and numbers of rows."""

from __future__ import annotations

import dataclasses

from taxi_assets.dagster_internals.partition_records import CheckResult
from taxi_assets.date_ranges import Month
from taxi_assets.defs.checks.results import build_count_result, merge_months, show_examples
from taxi_assets.defs.checks.specs import WARN


def test_two_months_of_a_run_merge_into_one_result_per_check() -> None:
    def outside(rows: int) -> CheckResult:
        return build_count_result(
            "rows_outside_month", rows, 1000, "are outside", severity=WARN, allowed=0.005
        )

    merged = merge_months({Month(2021, 1): [outside(2)], Month(2021, 2): [outside(9)]})
    (result,) = merged
    assert (result.passed, result.metadata["rows"], result.metadata["of_rows"]) == (False, 11, 2000)
    assert result.description.startswith("2021-02: 9 of 1,000 rows (0.9%) are outside")
    (alone,) = merge_months({Month(2021, 1): [outside(2)]})
    assert alone == dataclasses.replace(
        outside(2), description=f"2021-01: {outside(2).description}"
    )


def test_long_values_of_examples_are_shortened() -> None:
    table = show_examples(("where", "value"), [("line 3", f"ten {'x' * 400}")])["examples"]
    assert [record.data for record in table.records] == [
        {"where": "line 3", "value": f"ten {'x' * 39}…"}
    ]
