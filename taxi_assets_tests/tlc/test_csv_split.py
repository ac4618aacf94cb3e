"""Where one line goes, and why."""

from __future__ import annotations

import csv
import io
from collections.abc import Set as AbstractSet

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.csv_blocks import Block
from taxi_assets.tlc.csv_lines import MAX_ROW_BYTES
from taxi_assets.tlc.csv_split import (
    BLANK,
    OUTSIDE,
    UNREADABLE,
    SplitBlock,
    get_day_of_key,
    split_csv_block,
)
from taxi_assets.tlc.header import match_header
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.tlc.files import EVERY_KEY, FEBRUARY, PICKUP, YELLOW, row

GOOD = row()
COLUMNS = match_header(YELLOW.header, YELLOW)


def split(
    data: bytes, month: Month = FEBRUARY, requested: AbstractSet[int] = EVERY_KEY
) -> SplitBlock:
    return split_csv_block(Block(2, data, len(data)), COLUMNS, month, requested)


def keys(data: bytes, month: Month = FEBRUARY) -> dict[int, bytes]:
    return {group.key: bytes(group.lines) for group in split(data, month).groups}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b""])
@pytest.mark.parametrize(
    ("line", "key"),
    [
        (GOOD, 3),
        (row("2021-02-01 00:00:00"), 1),
        (row("2021-02-28 23:59:59"), 28),
        (row("2021-03-01 00:00:00"), OUTSIDE),
        (row("2021-01-31 23:59:59"), OUTSIDE),
        (row("0001-01-01 00:00:00"), OUTSIDE),
        (row("9999-12-31 23:59:59"), OUTSIDE),
        (row("2020-02-29 00:00:00"), OUTSIDE),
        (row(f'"{PICKUP}"'), 3),
        (row(store_and_fwd_flag='"N"'), 3),
        (row(store_and_fwd_flag='"N,Y"'), 3),
        (row(VendorID='"1,5"'), 3),
        (row(store_and_fwd_flag='"say ""N"""'), 3),
        (row(VendorID='""'), 3),
        (row(VendorID=f'"{PICKUP}"', store_and_fwd_flag='""""'), 3),
        (row(congestion_surcharge='"2.5"'), 3),
        (row(store_and_fwd_flag="é"), 3),
        (row(VendorID="", passenger_count="", store_and_fwd_flag=""), 3),
        (GOOD + b",", 3),
        (GOOD + b",,,", 3),
        (row(store_and_fwd_flag='"N,Y"', congestion_surcharge="") + b",,", 3),
    ],
)
def test_a_line_that_can_be_read_goes_to_its_day(line: bytes, key: int, end: bytes) -> None:
    assert keys(line + end) == {key: line + end}


UNREADABLE_LINES = {
    "day that is not": (row("2021-02-30 00:00:00"), "'2021-02-30 00:00:00' is not a time"),
    "no leap year": (row("2021-02-29 00:00:00"), "is not a time"),
    "no leap century": (row("1900-02-29 00:00:00"), "is not a time"),
    "year 0": (row("0000-02-03 00:00:00"), "is not a time"),
    "month 0": (row("2021-00-03 00:00:00"), "is not a time"),
    "month 13": (row("2021-13-03 00:00:00"), "is not a time"),
    "day 0": (row("2021-02-00 00:00:00"), "is not a time"),
    "hour 24": (row("2021-02-03 24:00:00"), "is not a time"),
    "minute 60": (row("2021-02-03 00:60:00"), "is not a time"),
    "second 60": (row("2021-02-03 00:00:60"), "is not a time"),
    "day-month-year": (row("03/02/2021 04:05:06"), "'03/02/2021 04:05:06' is not a time"),
    "ISO T": (row("2021-02-03T04:05:06"), "is not a time"),
    "zone": (row("2021-02-03 04:05:06Z"), "is not a time"),
    "fraction": (row("2021-02-03 04:05:06.0000001"), "is not a time"),
    "no seconds": (row("2021-02-03 04:05"), "is not a time"),
    "date": (row("2021-02-03"), "is not a time"),
    "blank before": (row(" 2021-02-03 04:05:06"), "is not a time"),
    "slash after minute": (row("2021-02-03 04:0/:06"), "is not a time"),
    "empty": (row(""), "tpep_pickup_datetime='' is not a time as 2021-01-05 00:31:19"),
    "header again": (",".join(YELLOW.header).encode(), "'tpep_pickup_datetime' is not a time"),
    "one field more": (GOOD + b",1", "19 fields instead of 18"),
    "two fields more": (GOOD + b",1,", "20 fields instead of 18"),
    "an empty one, then another": (GOOD + b",,1", "20 fields instead of 18"),
    "one field less": (GOOD.rpartition(b",")[0], "17 fields instead of 18"),
    "no comma": (b"x", "1 fields instead of 18"),
    "spaces": (b"   ", "1 fields instead of 18"),
    "unclosed quote": (row(store_and_fwd_flag='"N'), "broken quotes"),
    "quote in a field": (row(store_and_fwd_flag='N"Y'), "broken quotes"),
    "text before a quote": (row(store_and_fwd_flag='N"Y"'), "broken quotes"),
    "text after a quote": (row(store_and_fwd_flag='"N"Y'), "broken quotes"),
    "two quotes in a field": (row(store_and_fwd_flag='N""Y'), "broken quotes"),
    "quote at the end": (GOOD + b'"', "broken quotes"),
    "quote alone": (b'"', "broken quotes"),
    "NUL": (row(store_and_fwd_flag="N\0"), "a NUL byte"),
    "NUL in a number": (row(passenger_count="1\0"), "a NUL byte"),
    "latin-1": (GOOD.replace(b"N", b"\xe9"), "not UTF-8"),
    "CR inside": (row(store_and_fwd_flag="N\rY"), "a carriage return inside the line"),
    "CR before CRLF": (GOOD + b"\r", "a carriage return inside the line"),
    "huge": (row(store_and_fwd_flag="N" * MAX_ROW_BYTES), " bytes long"),
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("case", UNREADABLE_LINES)
def test_a_line_that_cannot_be_read_is_kept_with_its_reason_and_shifts_nothing(
    case: str, end: bytes
) -> None:
    line, reason = UNREADABLE_LINES[case]
    if case == "CR before CRLF":
        end = b"\r\n"  # with LF it is a CRLF line
    before, after = row("2021-02-01 00:00:00") + end, row("2021-02-02 00:00:00") + end
    done = split(before + line + end + after)
    groups = {group.key: bytes(group.lines) for group in done.groups}
    assert groups == {1: before, 2: after, UNREADABLE: line + end}
    assert [one.line for one in done.unreadable] == [3]
    assert reason in done.unreadable[0].reason


THREE = Service("x", "when", tuple(Column(n, "text", n) for n in ("a", "when", "b")))
WHEN = b"2021-02-03 00:00:00"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*[st.text('x,"\r', max_size=6).map(str.encode)] * 2), min_size=1, max_size=4)
)
def test_what_goes_to_a_day_all_readers_read_alike(sides: list[tuple[bytes, bytes]]) -> None:
    lines = [b"".join((a, b",", WHEN, b",", b)) for a, b in sides]
    data = b"\n".join(lines) + b"\n"
    done = split_csv_block(
        Block(1, data, 0), match_header(THREE.header, THREE), FEBRUARY, EVERY_KEY
    )
    kept = b"".join(bytes(group.lines) for group in done.groups if group.key == 3)
    read = list(csv.reader(io.StringIO(kept.decode(), newline=""), strict=True))
    assert all(len(fields) >= 3 and not any(fields[3:]) for fields in read)
    assert [fields[1] for fields in read] == [WHEN.decode()] * kept.count(b"\n")
    if kept and all(len(fields) == 3 for fields in read):
        options = pa_csv.ReadOptions(column_names=["a", "when", "b"])
        as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(["a", "when", "b"], pa.string()))
        table = pa_csv.read_csv(pa.py_buffer(kept), options, convert_options=as_text)
        assert [list(one.values()) for one in table.to_pylist()] == read
    simple = [a for a, b in sides if not (set(a) | set(b)) & set(b',"\r')]
    assert kept.count(b"\n") >= len(simple)


def test_a_quoted_line_end_is_two_broken_lines() -> None:
    start, rest = row(store_and_fwd_flag='"N\nY"').split(b"\n")
    done = split(start + b"\n" + rest + b"\n" + GOOD)
    groups = {group.key: bytes(group.lines) for group in done.groups}
    assert groups == {UNREADABLE: start + b"\n" + rest + b"\n", 3: GOOD}
    assert [(one.line, one.reason) for one in done.unreadable] == [
        (2, "broken quotes"),
        (3, "broken quotes"),
    ]


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b"\r"])
def test_blank_lines_are_no_rows(blank: bytes) -> None:
    assert keys(GOOD + b"\n" + blank) == {3: GOOD + b"\n", BLANK: blank}


def test_two_bytes_that_begin_with_a_return_are_no_blank_line() -> None:
    assert keys(GOOD + b"\n\rx") == {3: GOOD + b"\n", UNREADABLE: b"\rx"}


def test_commas_are_counted_by_line_also_where_their_sum_is_right() -> None:
    """One line has a field more than the header, the next one a field less."""
    longer, shorter = GOOD + b",1", GOOD.rpartition(b",")[0]
    for lines in ((longer, shorter), (shorter, longer)):
        block = split(b"\n".join((GOOD, *lines, GOOD)) + b"\n")
        assert [line.line for line in block.unreadable] == [3, 4]
        assert {group.key: group.rows for group in block.groups} == {3: 2, UNREADABLE: 2}


def test_lines_of_a_day_keep_their_order() -> None:
    lines = [row(f"2021-02-{1 + at % 3:02d} 00:00:00", VendorID=str(at)) for at in range(50)]
    found = keys(b"\n".join(lines))
    assert found == {day: b"\n".join(lines[day - 1 :: 3]) + b"\n" * (day != 2) for day in (1, 2, 3)}


def test_lines_of_days_that_are_not_requested_are_judged_and_counted_and_not_moved() -> None:
    lines = [row(f"2021-02-{1 + at % 3:02d} 00:00:00") + b"\n" for at in range(6)]
    lines += [row("2021-02-30 00:00:00") + b"\n", row("2021-03-01 00:00:00") + b"\n", b"\n"]
    every, one = split(b"".join(lines)), split(b"".join(lines), requested={2, OUTSIDE})
    assert [(group.key, bytes(group.lines), group.rows) for group in one.groups] == [
        (2, lines[1] + lines[4], 2),
        (OUTSIDE, lines[7], 1),
    ]
    assert one.rows == every.rows == {1: 2, 2: 2, 3: 2, OUTSIDE: 1, UNREADABLE: 1, BLANK: 1}
    assert one.unreadable == every.unreadable
    assert one.min_fields == every.min_fields
    assert split(b"".join(lines), requested=set()).groups == []


def test_a_leap_day_is_a_day() -> None:
    line = row("2020-02-29 12:00:00")
    assert keys(line, Month(2020, 2)) == {29: line}
    assert str(get_day_of_key(29, Month(2020, 2))) == "2020-02-29"


def test_each_service_is_split_by_its_own_pickup() -> None:
    green = SERVICES["green"]
    fields = ["1"] * len(green.header)
    fields[green.pickup_index] = "2021-02-07 00:00:00"
    line = ",".join(fields).encode()
    columns = match_header(green.header, green)
    groups = split_csv_block(Block(2, line, 0), columns, FEBRUARY, EVERY_KEY).groups
    assert [group.key for group in groups] == [7]
