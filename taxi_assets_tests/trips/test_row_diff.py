"""The rows of a day that were added, removed and changed."""

from __future__ import annotations

import pytest

from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import parse_partition
from taxi_assets.trips.row_diff import RowDiff, diff_rows, sum_diffs
from taxi_assets_tests.tlc.files import make_line, make_slice

YELLOW = SERVICES["yellow"]
TIMES = [f"2021-02-03 0{hour}:00:00" for hour in range(8)]


def diff_lines(old_lines: list[bytes], new_lines: list[bytes]) -> RowDiff:
    old, new = (
        parse_partition(make_slice(*lines), YELLOW).table for lines in (old_lines, new_lines)
    )
    return diff_rows(old, new, YELLOW)


def test_diff_ignores_order_and_counts_duplicates() -> None:
    first_row, second_row = make_line(TIMES[0]), make_line(TIMES[1])
    assert diff_lines(
        [first_row, second_row, first_row], [second_row, first_row, first_row]
    ).is_empty
    doubled = diff_lines([first_row], [first_row, first_row])
    assert (doubled.added, doubled.removed, doubled.changed) == (1, 0, 0)


def test_diff_counts_columns_with_examples_and_money() -> None:
    unchanged = make_line(TIMES[0], total_amount="7")
    old_lines = [
        unchanged,
        make_line(TIMES[1], total_amount="10"),
        make_line(TIMES[2], total_amount="3"),
    ]
    new_lines = [
        unchanged,
        make_line(TIMES[1], total_amount="12.5", fare_amount="9"),
        make_line(TIMES[3], total_amount="4"),
    ]
    row_diff = diff_lines(old_lines, new_lines)
    assert (row_diff.rows_before, row_diff.rows_after) == (3, 3)
    assert (row_diff.added, row_diff.removed, row_diff.changed) == (1, 1, 1)
    assert row_diff.columns == {"fare_amount": 1, "total_amount": 1}
    assert row_diff.revenue_change == pytest.approx(3.5)
    assert row_diff.examples["changed"] == [
        {
            "pickup": TIMES[1],
            "changes": {"fare_amount": ("1.0", "9.0"), "total_amount": ("10.0", "12.5")},
        }
    ]
    assert row_diff.examples["added"][0]["tpep_pickup_datetime"] == TIMES[3]
    assert row_diff.examples["removed"][0]["total_amount"] == "3.0"
    assert str(row_diff) == (
        "1 added, 1 removed, 1 changed (fare_amount in 1, total_amount in 1); revenue +3.50"
    )


def test_rows_of_one_time_are_paired_with_the_closest() -> None:
    old_lines = [
        make_line(TIMES[0], VendorID="1", tip_amount="1"),
        make_line(TIMES[0], VendorID="2", tip_amount="2"),
    ]
    new_lines = [
        make_line(TIMES[0], VendorID="2", tip_amount="3"),
        make_line(TIMES[0], VendorID="1", tip_amount="4"),
    ]
    row_diff = diff_lines(old_lines, new_lines)
    assert (row_diff.added, row_diff.removed, row_diff.changed) == (0, 0, 2)
    assert row_diff.columns == {"tip_amount": 2}


def test_rows_that_share_only_the_time_are_not_paired() -> None:
    other_values = dict.fromkeys(YELLOW.header[3:], "2") | {"store_and_fwd_flag": "Y"}
    row_diff = diff_lines([make_line(TIMES[0])], [make_line(TIMES[0], **other_values)])
    assert (row_diff.added, row_diff.removed, row_diff.changed) == (1, 1, 0)


def test_null_equals_null() -> None:
    assert diff_lines(
        [make_line(TIMES[0], tip_amount="")], [make_line(TIMES[0], tip_amount="")]
    ).is_empty
    unchanged = make_line(TIMES[1], VendorID="6", store_and_fwd_flag="Y")
    row_diff = diff_lines(
        [unchanged, make_line(TIMES[0], VendorID="")],
        [make_line(TIMES[0], VendorID="2"), unchanged],
    )
    assert (row_diff.added, row_diff.removed, row_diff.changed) == (0, 0, 1)
    assert row_diff.examples["changed"][0]["changes"] == {"vendorid": ("null", "2")}


def test_diffs_of_days_add_up() -> None:
    day = diff_lines(
        [make_line(TIMES[0], total_amount="1")], [make_line(TIMES[0], total_amount="2")]
    )
    total = sum_diffs([day, day, diff_lines([], [make_line(TIMES[1])])])
    assert (total.added, total.changed, total.columns) == (1, 2, {"total_amount": 2})
    assert total.revenue_change == pytest.approx(3)
