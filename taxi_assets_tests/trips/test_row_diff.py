"""Which rows of a day were added, removed and changed."""

from __future__ import annotations

import pytest

from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.parse import parse_partition
from taxi_assets.trips.row_diff import RowDiff, diff_rows, sum_diffs
from taxi_assets_tests.tlc.files import row, slice_of

YELLOW = SERVICES["yellow"]
AT = [f"2021-02-03 0{hour}:00:00" for hour in range(8)]


def diff(before: list[bytes], after: list[bytes]) -> RowDiff:
    old, new = (parse_partition(slice_of(*lines), YELLOW).table for lines in (before, after))
    return diff_rows(old, new, YELLOW)


def test_rows_are_the_same_in_any_order_and_as_often() -> None:
    one, other = row(AT[0]), row(AT[1])
    assert diff([one, other, one], [other, one, one]).is_empty
    twice = diff([one], [one, one])
    assert (twice.added, twice.removed, twice.changed) == (1, 0, 0)


def test_each_kind_is_counted_by_column_with_examples_and_money() -> None:
    kept = row(AT[0], total_amount="7")
    before = [kept, row(AT[1], total_amount="10"), row(AT[2], total_amount="3")]
    after = [kept, row(AT[1], total_amount="12.5", fare_amount="9"), row(AT[3], total_amount="4")]
    found = diff(before, after)
    assert (found.rows_before, found.rows_after) == (3, 3)
    assert (found.added, found.removed, found.changed) == (1, 1, 1)
    assert found.columns == {"fare_amount": 1, "total_amount": 1}
    assert found.revenue_change == pytest.approx(3.5)
    assert found.examples["changed"] == [
        {
            "pickup": AT[1],
            "changes": {"fare_amount": ("1.0", "9.0"), "total_amount": ("10.0", "12.5")},
        }
    ]
    assert found.examples["added"][0]["tpep_pickup_datetime"] == AT[3]
    assert found.examples["removed"][0]["total_amount"] == "3.0"
    assert str(found) == (
        "1 added, 1 removed, 1 changed (fare_amount in 1, total_amount in 1); revenue +3.50"
    )


def test_rows_of_one_time_are_paired_with_the_closest() -> None:
    before = [row(AT[0], VendorID="1", tip_amount="1"), row(AT[0], VendorID="2", tip_amount="2")]
    after = [row(AT[0], VendorID="2", tip_amount="3"), row(AT[0], VendorID="1", tip_amount="4")]
    found = diff(before, after)
    assert (found.added, found.removed, found.changed) == (0, 0, 2)
    assert found.columns == {"tip_amount": 2}


def test_rows_that_share_no_more_than_the_time_are_two_rows() -> None:
    other = dict.fromkeys(YELLOW.header[3:], "2") | {"store_and_fwd_flag": "Y"}
    found = diff([row(AT[0])], [row(AT[0], **other)])
    assert (found.added, found.removed, found.changed) == (1, 1, 0)


def test_null_is_a_value_and_equals_null() -> None:
    assert diff([row(AT[0], tip_amount="")], [row(AT[0], tip_amount="")]).is_empty
    kept = row(AT[1], VendorID="6", store_and_fwd_flag="Y")
    found = diff([kept, row(AT[0], VendorID="")], [row(AT[0], VendorID="2"), kept])
    assert (found.added, found.removed, found.changed) == (0, 0, 1)
    assert found.examples["changed"][0]["changes"] == {"vendorid": ("null", "2")}


def test_days_add_up() -> None:
    day = diff([row(AT[0], total_amount="1")], [row(AT[0], total_amount="2")])
    total = sum_diffs([day, day, diff([], [row(AT[1])])])
    assert (total.added, total.changed, total.columns) == (1, 2, {"total_amount": 2})
    assert total.revenue_change == pytest.approx(3)
