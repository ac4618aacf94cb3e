"""The place of a line, and the reason."""

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
    PackedLines,
    SplitPart,
    split_csv_block,
)
from taxi_assets.tlc.header import match_header
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.tlc.files import EVERY_KEY, FEBRUARY, PICKUP, YELLOW, make_line

GOOD = make_line()
COLUMNS = match_header(YELLOW.header, YELLOW)


def split_lines(
    data: bytes, month: Month = FEBRUARY, requested: AbstractSet[int] = EVERY_KEY
) -> SplitPart[PackedLines]:
    return split_csv_block(Block(2, data, len(data)), COLUMNS, month, requested)


def split_by_key(data: bytes, month: Month = FEBRUARY) -> dict[int, bytes]:
    return {group.key: bytes(group.lines) for group in split_lines(data, month).groups}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r", b""])
@pytest.mark.parametrize(
    ("line", "key"),
    [
        (GOOD, 3),
        (make_line("2021-02-01 00:00:00"), 1),
        (make_line("2021-02-28 23:59:59"), 28),
        (make_line("2021-03-01 00:00:00"), OUTSIDE),
        (make_line("2021-01-31 23:59:59"), OUTSIDE),
        (make_line("0001-01-01 00:00:00"), OUTSIDE),
        (make_line("9999-12-31 23:59:59"), OUTSIDE),
        (make_line("2020-02-29 00:00:00"), OUTSIDE),
        (make_line(f'"{PICKUP}"'), 3),
        (make_line(store_and_fwd_flag='"N"'), 3),
        (make_line(store_and_fwd_flag='"N,Y"'), 3),
        (make_line(VendorID='"1,5"'), 3),
        (make_line(store_and_fwd_flag='"say ""N"""'), 3),
        (make_line(VendorID='""'), 3),
        (make_line(VendorID=f'"{PICKUP}"', store_and_fwd_flag='""""'), 3),
        (make_line(congestion_surcharge='"2.5"'), 3),
        (make_line(store_and_fwd_flag="é"), 3),
        (make_line(VendorID="", passenger_count="", store_and_fwd_flag=""), 3),
        (GOOD + b",", 3),
        (GOOD + b",,,", 3),
        (make_line(store_and_fwd_flag='"N,Y"', congestion_surcharge="") + b",,", 3),
    ],
)
def test_readable_line_goes_to_its_day(line: bytes, key: int, end: bytes) -> None:
    assert split_by_key(line + end) == {key: line + end}


UNREADABLE_LINES = {
    "day that is not": (make_line("2021-02-30 00:00:00"), "'2021-02-30 00:00:00' is not a time"),
    "no leap year": (make_line("2021-02-29 00:00:00"), "is not a time"),
    "no leap century": (make_line("1900-02-29 00:00:00"), "is not a time"),
    "year 0": (make_line("0000-02-03 00:00:00"), "is not a time"),
    "month 0": (make_line("2021-00-03 00:00:00"), "is not a time"),
    "month 13": (make_line("2021-13-03 00:00:00"), "is not a time"),
    "day 0": (make_line("2021-02-00 00:00:00"), "is not a time"),
    "hour 24": (make_line("2021-02-03 24:00:00"), "is not a time"),
    "minute 60": (make_line("2021-02-03 00:60:00"), "is not a time"),
    "second 60": (make_line("2021-02-03 00:00:60"), "is not a time"),
    "day-month-year": (make_line("03/02/2021 04:05:06"), "'03/02/2021 04:05:06' is not a time"),
    "ISO T": (make_line("2021-02-03T04:05:06"), "is not a time"),
    "zone": (make_line("2021-02-03 04:05:06Z"), "is not a time"),
    "fraction": (make_line("2021-02-03 04:05:06.0000001"), "is not a time"),
    "no seconds": (make_line("2021-02-03 04:05"), "is not a time"),
    "date": (make_line("2021-02-03"), "is not a time"),
    "blank before": (make_line(" 2021-02-03 04:05:06"), "is not a time"),
    "slash after minute": (make_line("2021-02-03 04:0/:06"), "is not a time"),
    "empty": (make_line(""), "tpep_pickup_datetime='' is not a time as 2021-01-05 00:31:19"),
    "header again": (",".join(YELLOW.header).encode(), "'tpep_pickup_datetime' is not a time"),
    "one field more": (GOOD + b",1", "19 fields instead of 18"),
    "two fields more": (GOOD + b",1,", "20 fields instead of 18"),
    "an empty one, then another": (GOOD + b",,1", "20 fields instead of 18"),
    "one field less": (GOOD.rpartition(b",")[0], "17 fields instead of 18"),
    "no comma": (b"x", "1 fields instead of 18"),
    "spaces": (b"   ", "1 fields instead of 18"),
    "unclosed quote": (make_line(store_and_fwd_flag='"N'), "broken quotes"),
    "quote in a field": (make_line(store_and_fwd_flag='N"Y'), "broken quotes"),
    "text before a quote": (make_line(store_and_fwd_flag='N"Y"'), "broken quotes"),
    "text after a quote": (make_line(store_and_fwd_flag='"N"Y'), "broken quotes"),
    "two quotes in a field": (make_line(store_and_fwd_flag='N""Y'), "broken quotes"),
    "quote at the end": (GOOD + b'"', "broken quotes"),
    "quote alone": (b'"', "broken quotes"),
    "NUL": (make_line(store_and_fwd_flag="N\0"), "a NUL byte"),
    "NUL in a number": (make_line(passenger_count="1\0"), "a NUL byte"),
    "latin-1": (GOOD.replace(b"N", b"\xe9"), "not UTF-8"),
    "CR inside": (make_line(store_and_fwd_flag="N\rY"), "a carriage return inside the line"),
    "CR before CRLF": (GOOD + b"\r", "a carriage return inside the line"),
    "huge": (make_line(store_and_fwd_flag="N" * MAX_ROW_BYTES), " bytes long"),
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("case", UNREADABLE_LINES)
def test_unreadable_line_is_quarantined_with_its_reason(case: str, end: bytes) -> None:
    line, reason = UNREADABLE_LINES[case]
    if case == "CR before CRLF":
        end = b"\r\n"  # with LF it is a CRLF line
    previous_line, next_line = (
        make_line("2021-02-01 00:00:00") + end,
        make_line("2021-02-02 00:00:00") + end,
    )
    split_block = split_lines(previous_line + line + end + next_line)
    groups = {group.key: bytes(group.lines) for group in split_block.groups}
    assert groups == {1: previous_line, 2: next_line, UNREADABLE: line + end}
    assert [problem.line for problem in split_block.unreadable] == [3]
    assert reason in split_block.unreadable[0].reason


THREE = Service("x", "when", tuple(Column(n, "text", n) for n in ("a", "when", "b")))
WHEN = b"2021-02-03 00:00:00"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*[st.text('x,"\r', max_size=6).map(str.encode)] * 2), min_size=1, max_size=4)
)
def test_all_readers_agree_on_the_lines_of_a_day(sides: list[tuple[bytes, bytes]]) -> None:
    lines = [b"".join((a, b",", WHEN, b",", b)) for a, b in sides]
    data = b"\n".join(lines) + b"\n"
    split_block = split_csv_block(
        Block(1, data, 0), match_header(THREE.header, THREE), FEBRUARY, EVERY_KEY
    )
    day_lines = b"".join(bytes(group.lines) for group in split_block.groups if group.key == 3)
    read = list(csv.reader(io.StringIO(day_lines.decode(), newline=""), strict=True))
    assert all(len(fields) >= 3 and not any(fields[3:]) for fields in read)
    assert [fields[1] for fields in read] == [WHEN.decode()] * day_lines.count(b"\n")
    if day_lines and all(len(fields) == 3 for fields in read):
        options = pa_csv.ReadOptions(column_names=["a", "when", "b"])
        as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(["a", "when", "b"], pa.string()))
        table = pa_csv.read_csv(pa.py_buffer(day_lines), options, convert_options=as_text)
        assert [list(table_row.values()) for table_row in table.to_pylist()] == read
    simple = [a for a, b in sides if not (set(a) | set(b)) & set(b',"\r')]
    assert day_lines.count(b"\n") >= len(simple)


def test_quoted_line_end_makes_two_broken_lines() -> None:
    start, rest = make_line(store_and_fwd_flag='"N\nY"').split(b"\n")
    split_block = split_lines(start + b"\n" + rest + b"\n" + GOOD)
    groups = {group.key: bytes(group.lines) for group in split_block.groups}
    assert groups == {UNREADABLE: start + b"\n" + rest + b"\n", 3: GOOD}
    assert [(problem.line, problem.reason) for problem in split_block.unreadable] == [
        (2, "broken quotes"),
        (3, "broken quotes"),
    ]


@pytest.mark.parametrize("blank", [b"\n", b"\r\n", b"\r"])
def test_blank_lines_are_not_rows(blank: bytes) -> None:
    assert split_by_key(GOOD + b"\n" + blank) == {3: GOOD + b"\n", BLANK: blank}


def test_two_bytes_with_a_return_are_not_a_blank_line() -> None:
    assert split_by_key(GOOD + b"\n\rx") == {3: GOOD + b"\n", UNREADABLE: b"\rx"}


def test_commas_are_counted_by_line() -> None:
    """One line has a field more than the header, the next one a field less."""
    longer, shorter = GOOD + b",1", GOOD.rpartition(b",")[0]
    for lines in ((longer, shorter), (shorter, longer)):
        block = split_lines(b"\n".join((GOOD, *lines, GOOD)) + b"\n")
        assert [line.line for line in block.unreadable] == [3, 4]
        assert {group.key: group.rows for group in block.groups} == {3: 2, UNREADABLE: 2}


def test_lines_of_a_day_keep_their_order() -> None:
    lines = [
        make_line(f"2021-02-{1 + number % 3:02d} 00:00:00", VendorID=str(number))
        for number in range(50)
    ]
    lines_by_key = split_by_key(b"\n".join(lines))
    assert lines_by_key == {
        day: b"\n".join(lines[day - 1 :: 3]) + b"\n" * (day != 2) for day in (1, 2, 3)
    }


def test_lines_of_unrequested_days_are_counted_but_not_copied() -> None:
    lines = [make_line(f"2021-02-{1 + at % 3:02d} 00:00:00") + b"\n" for at in range(6)]
    lines += [
        make_line("2021-02-30 00:00:00") + b"\n",
        make_line("2021-03-01 00:00:00") + b"\n",
        b"\n",
    ]
    every, requested_only = (
        split_lines(b"".join(lines)),
        split_lines(b"".join(lines), requested={2, OUTSIDE}),
    )
    assert [(group.key, bytes(group.lines), group.rows) for group in requested_only.groups] == [
        (2, lines[1] + lines[4], 2),
        (OUTSIDE, lines[7], 1),
    ]
    assert (
        requested_only.rows == every.rows == {1: 2, 2: 2, 3: 2, OUTSIDE: 1, UNREADABLE: 1, BLANK: 1}
    )
    assert requested_only.unreadable == every.unreadable
    assert requested_only.min_fields == every.min_fields
    assert split_lines(b"".join(lines), requested=set()).groups == []


def test_leap_day_is_a_day() -> None:
    line = make_line("2020-02-29 12:00:00")
    assert split_by_key(line, Month(2020, 2)) == {29: line}


def test_each_service_is_split_by_its_pickup_column() -> None:
    green = SERVICES["green"]
    fields = ["1"] * len(green.header)
    fields[green.pickup_index] = "2021-02-07 00:00:00"
    line = ",".join(fields).encode()
    columns = match_header(green.header, green)
    groups = split_csv_block(Block(2, line, 0), columns, FEBRUARY, EVERY_KEY).groups
    assert [group.key for group in groups] == [7]
