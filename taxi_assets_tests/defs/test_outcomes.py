"""The outcome of each day is returned with an asset's output."""

from __future__ import annotations

from datetime import date

import pytest

from taxi_assets.dagster_internals.partition_records import CheckResult, PartitionRecord
from taxi_assets.defs.checks.cleaned import reject_failed
from taxi_assets.defs.checks.specs import WARN, list_cleaned_checks
from taxi_assets.defs.outcomes import DailyOutput, FailedChecksError, Outcome
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.tlc.services import SERVICES

DAYS = [date(2021, 1, day) for day in (5, 6, 7, 8)]
GOOD = CheckResult("not_empty", passed=True)
POOR = CheckResult("negative_totals", passed=False, severity=WARN)
BAD = CheckResult("values_readable", passed=False, description="3 of 9 rows")


def test_failed_error_check_rejects_with_all_results() -> None:
    service = SERVICES["green"]
    reject_failed([GOOD, POOR], service)
    with pytest.raises(FailedChecksError, match="values_readable failed: 3 of 9 rows") as raised:
        reject_failed([GOOD, BAD, POOR], service)
    assert raised.value.checks[:3] == [GOOD, BAD, POOR]
    # Dagster's UI shows a check without a result as failed.
    assert {result.check for result in raised.value.checks} == set(list_cleaned_checks(service))
    unchecked = raised.value.checks[3:]
    texts = {result.description for result in unchecked if result.passed}
    assert texts == {"not checked: values_readable rejects the day"}


def test_outcomes_are_returned_by_day() -> None:
    failed = FailedChecksError([GOOD, BAD], [BAD])
    outcomes: list[Outcome] = [
        (DAYS[2], PartitionRecord({}, checks=[POOR])),
        (DAYS[0], PartitionRecord({"rows": 1}, checks=[GOOD])),
        (DAYS[1], failed),
        (DAYS[3], PartitionRejectedError("its object is damaged")),
    ]
    output = DailyOutput("partitions")
    passed = output.collect(outcomes)
    assert (output.records, output.rejected) == ({}, {})
    assert next(passed) == outcomes[0]
    assert list(output.records) == [DAYS[2]]
    assert list(passed) == outcomes[1:]
    assert sorted(output.records) == [DAYS[0], DAYS[2]]
    assert output.rejected == {DAYS[1]: failed, DAYS[3]: outcomes[3][1]}
    # In the order of days; a day rejected for another reason was not checked.
    assert list(output.checks.items()) == [
        (DAYS[0], [GOOD]),
        (DAYS[1], [GOOD, BAD]),
        (DAYS[2], [POOR]),
    ]
