"""Conservation: every line of a month file is in exactly one place, byte for byte."""

from __future__ import annotations

import gzip
import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from itertools import product
from pathlib import Path
from unittest.mock import patch

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.defs.checks.raw import check_raw_month
from taxi_assets.errors import SourceError
from taxi_assets.lazy_partitions import prefetch
from taxi_assets.tlc import csv_blocks as lines_module
from taxi_assets.tlc import raw_month as month_module
from taxi_assets.tlc.csv_split import BLANK, OUTSIDE, UNREADABLE
from taxi_assets.tlc.raw_month import MIN_HOPELESS_ROWS
from taxi_assets_tests.tlc.files import (
    HEADER,
    PICKUP,
    YELLOW,
    collect_lines,
    make_line,
    open_raw_month,
)
from taxi_assets_tests.tlc.test_csv_split import UNREADABLE_LINES

Line = tuple[bytes, int]
BOM = b"\xef\xbb\xbf"

clock = st.times().map(lambda time: time.strftime("%H:%M:%S"))
flag = st.sampled_from(["", "N", "Y", '"N"', '"N,Y"', '"a ""b"""', "é", '""'])


@st.composite
def draw_good_line(draw: st.DrawFn) -> Line:
    day = draw(st.integers(1, 28))
    quote = draw(st.sampled_from(["", '"']))
    pickup = f"{quote}2021-02-{day:02d} {draw(clock)}{quote}"
    vendor = draw(st.sampled_from(["", "1", '"1,5"', f'"{PICKUP}"']))
    return make_line(pickup, VendorID=vendor, store_and_fwd_flag=draw(flag)), day


@st.composite
def draw_outside_line(draw: st.DrawFn) -> Line:
    days = st.dates().filter(lambda day: (day.year, day.month) != (2021, 2))
    return make_line(f"{draw(days)} {draw(clock)}", store_and_fwd_flag=draw(flag)), OUTSIDE


# A huge line has its own test below, and a CR before CRLF depends on the line's end.
unreadable = st.sampled_from(
    [(line, UNREADABLE) for line, why in UNREADABLE_LINES.values() if len(line) < 1000]
)
blank = st.just((b"", BLANK))
ends = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def draw_month_lines(draw: st.DrawFn) -> list[Line]:
    """Draw lines with their terminators, and their places."""
    several = st.lists(
        st.tuples(draw_good_line() | draw_outside_line() | unreadable | blank, ends), max_size=30
    )
    drawn = draw(several)
    lines = [(line + (b"\r\n" if line.endswith(b"\r") else end), key) for (line, key), end in drawn]
    # An unreadable last line may have been cut: see below.
    if lines and lines[-1][1] not in (UNREADABLE, BLANK) and draw(st.booleans()):
        last_line, key = lines.pop()
        lines.append((last_line.rstrip(b"\r\n"), key))
    return lines


@settings(max_examples=120, deadline=None)
@given(
    lines=draw_month_lines(),
    block=st.integers(1, 500),
    header=st.sampled_from([HEADER, HEADER.replace(b"\n", b"\r\n"), BOM + HEADER]),
    packed=st.booleans(),
)
def test_every_line_is_in_one_place_in_file_order(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[Line],
    block: int,
    header: bytes,
    packed: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / ("conserved.csv" + ".gz" * packed)
    content = header + b"".join(line for line, _ in lines)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    expected: defaultdict[int, list[bytes]] = defaultdict(list)
    for line, key in lines:
        expected[key].append(line)

    month = open_raw_month(path)
    with patch.object(lines_module, "BLOCK", block):
        if set(expected) <= {OUTSIDE, UNREADABLE, BLANK}:
            with pytest.raises(SourceError, match="has its pickup in 2021-02"):
                collect_lines(month)
            return
        lines_by_key = collect_lines(month)

    assert month.line == header
    assert lines_by_key == {key: b"".join(lines_of_key) for key, lines_of_key in expected.items()}
    assert month.rows == {key: len(lines_of_key) for key, lines_of_key in expected.items()}
    days = sum(month.rows[day.day] for day in month.days)
    assert month.file_rows == days + month.rows[OUTSIDE] + month.rows[UNREADABLE]
    assert month.file_rows + month.rows[BLANK] == len(lines)
    numbers = [number for number, (_, key) in enumerate(lines, 2) if key == UNREADABLE]
    assert [problem.line for problem in month.unreadable] == numbers
    assert all(problem.reason for problem in month.unreadable)


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(HEADER + b"".join(line + b"\n" for line in lines))
    return path


def test_only_requested_days_are_read_and_all_are_counted(tmp_path: Path) -> None:
    lines = [make_line(f"2021-02-{day:02d} 00:00:00") for day in range(1, 29)]
    path = write(tmp_path / "m.csv", *lines, make_line("2021-03-01 00:00:00"))
    month = open_raw_month(path, days=[date(2021, 2, 5)])
    assert set(collect_lines(month)) == {5, OUTSIDE}
    assert month.file_rows == 29
    assert month.rows[28] == 1


def test_second_pass_starts_its_counts_again(tmp_path: Path) -> None:
    month = open_raw_month(write(tmp_path / "m.csv", make_line(), b"x"))
    assert collect_lines(month) == collect_lines(month)
    assert (month.file_rows, len(month.unreadable)) == (2, 1)


def test_last_line_without_terminator_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + b"\n" + make_line() + b"\n" + make_line(extra="7"))
    parts = [
        (part.key, bytes(part.lines)) for part in open_raw_month(path).read_days(lambda _: None)
    ]
    assert parts == [(3, make_line() + b"\n"), (BLANK, b"\n"), (3, make_line(extra="7"))]


def test_line_of_10_mb_stays_whole(tmp_path: Path) -> None:
    huge = make_line(store_and_fwd_flag="N" * (10 << 20))
    month = open_raw_month(write(tmp_path / "m.csv", make_line(), huge, make_line()))
    assert collect_lines(month) == {3: (make_line() + b"\n") * 2, UNREADABLE: huge + b"\n"}
    assert month.unreadable[0].line == 3


@pytest.mark.parametrize(("ratio", "bad"), [(0.0, 0), (0.01, 2), (0.5, 100), (1.0, 199)])
def test_unreadable_lines_up_to_the_ratio_are_quarantined(
    tmp_path: Path, ratio: float, bad: int
) -> None:
    lines = [b"bad"] * bad + [make_line()] * (200 - bad)
    month = open_raw_month(write(tmp_path / "m.csv", *lines), max_invalid_ratio=ratio)
    assert collect_lines(month).get(UNREADABLE, b"") == b"bad\n" * bad


@pytest.mark.parametrize(("ratio", "bad"), [(0.0, 1), (0.01, 3), (0.5, 101), (0.99, 200)])
def test_month_above_the_ratio_is_rejected(tmp_path: Path, ratio: float, bad: int) -> None:
    lines = [make_line()] * (200 - bad) + [b"bad"] * bad
    month = open_raw_month(write(tmp_path / "m.csv", *lines), max_invalid_ratio=ratio)
    expected = (
        f"yellow 2021-02: {bad} of 200 rows read of {tmp_path}/m.csv cannot be used, first line "
        f"{202 - bad}: 1 fields instead of 18. "
    )
    with pytest.raises(SourceError, match=re.escape(expected)):
        collect_lines(month)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            make_line("03/02/2021 04:05:06"),
            "tpep_pickup_datetime='03/02/2021 04:05:06' is not a time",
        ),
        (b"0," + make_line(), "19 fields instead of 18"),
        (make_line().replace(b",", b";"), "1 fields instead of 18"),
        (
            make_line("2021-03-01 00:00:00"),
            "has its pickup in 2021-02 .1,000 in other months.* another",
        ),
    ],
)
def test_file_of_uniformly_wrong_rows_is_rejected(
    tmp_path: Path, line: bytes, expected: str
) -> None:
    month = open_raw_month(
        write(tmp_path / "m.csv", *[line] * MIN_HOPELESS_ROWS), max_invalid_ratio=0.01
    )
    with pytest.raises(SourceError, match=expected):
        collect_lines(month)


def test_hopeless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", *[b"x"] * 20 * MIN_HOPELESS_ROWS)
    month = open_raw_month(path, max_invalid_ratio=0.5)
    with (
        patch.object(lines_module, "BLOCK", MIN_HOPELESS_ROWS),
        pytest.raises(SourceError, match="cannot be used"),
    ):
        collect_lines(month)
    assert MIN_HOPELESS_ROWS <= month.file_rows < 2 * MIN_HOPELESS_ROWS


def test_rows_of_another_month_are_quarantined(tmp_path: Path) -> None:
    strays = [make_line("2021-03-01 00:00:00")] * MIN_HOPELESS_ROWS
    assert set(collect_lines(open_raw_month(write(tmp_path / "m.csv", *strays, make_line())))) == {
        3,
        OUTSIDE,
    }


@pytest.mark.parametrize(("seconds", "some"), [(0, True), (60, False)])
def test_progress_is_reported_every_two_seconds_and_at_the_end(
    tmp_path: Path, seconds: float, some: bool
) -> None:
    """Each line is an event with a commit of its own; tenths of a second's pass were ten."""
    messages: list[str] = []
    month = open_raw_month(write(tmp_path / "m.csv", *[make_line()] * 100))
    with (
        patch.object(lines_module, "BLOCK", 300),
        patch.object(month_module, "PROGRESS_SECONDS", seconds),
    ):
        list(month.read_days(messages.append))
    assert len(messages) > 10 if some else len(messages) == 1
    assert messages[-1] == "yellow 2021-02: 100 rows, 0.0 of 0.0 MiB (100 %)"


def test_abandoned_pass_ends_its_threads(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", *[make_line()] * 1000)
    threads_before = threading.active_count()
    with patch.object(lines_module, "BLOCK", 300):
        parts = open_raw_month(path).read_days(lambda _: None)
        next(parts)
        parts.close()
    assert threading.active_count() == threads_before


def test_error_in_the_prefetching_thread_reaches_the_reader() -> None:
    def fail_midway() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    items = prefetch(fail_midway())
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)


EMPTY_BODIES = {
    "header only": b"",
    "blank lines": b"\n\r\n\n",
    "one row of another month": make_line("2021-03-01 00:00:00") + b"\n",
    "many rows of another month": (make_line("2020-02-03 00:00:00") + b"\n")
    * 3
    * MIN_HOPELESS_ROWS,
    "unreadable rows": b"x\n" * 3,
    "unreadable rows and others": b"x\n" + make_line("2021-01-31 23:59:59") + b"\r\n",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("days", [None, [date(2021, 2, 3)]])
@pytest.mark.parametrize("case", EMPTY_BODIES)
def test_file_without_a_row_of_its_month_is_rejected(
    tmp_path: Path, case: str, days: list[date] | None, packed: bool
) -> None:
    content = HEADER + EMPTY_BODIES[case]
    path = tmp_path / ("m.csv.gz" if packed else "m.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(SourceError, match="has its pickup in 2021-02") as rejected:
        collect_lines(open_raw_month(path, days=days))
    assert str(rejected.value).startswith("yellow 2021-02: none of the ")
    assert f" rows of {path} " in str(rejected.value)


LAST_LINE = make_line("2021-02-03 04:05:06", congestion_surcharge="2.5", store_and_fwd_flag="N")
CUTS = {
    "after a field": (LAST_LINE.rpartition(b",")[0], "17 fields instead of 18"),
    "after two fields": (b",".join(LAST_LINE.split(b",")[:2]), "2 fields instead of 18"),
    "inside the pickup": (LAST_LINE[:12], "2 fields instead of 18"),
    "one byte": (LAST_LINE[:1], "1 fields instead of 18"),
    "inside quotes": (make_line(congestion_surcharge='"2.5"')[:-1], "broken quotes"),
    "inside quotes, fields missing": (LAST_LINE[: LAST_LINE.index(b"N")] + b'"N', "broken quotes"),
    "inside a character": (make_line(congestion_surcharge="é")[:-1], "not UTF-8"),
    "inside the last value": (make_line(congestion_surcharge="-"), "congestion_surcharge='-'"),
    "zeros of a torn write": (b"\0" * 40, "a NUL byte"),
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", CUTS)
def test_file_cut_inside_a_line_is_rejected(
    tmp_path: Path, case: str, packed: bool, end: bytes
) -> None:
    cut_line, reason = CUTS[case]
    content = HEADER + (make_line() + end) * 300 + cut_line
    path = tmp_path / ("m.csv.gz" if packed else "m.csv")
    path.write_bytes(gzip.compress(content) if packed else content)
    for block in (100, 1 << 20):
        with (
            patch.object(lines_module, "BLOCK", block),
            pytest.raises(SourceError, match="is truncated inside") as rejected,
        ):
            collect_lines(open_raw_month(path))
        assert f"which has no line end ({reason})" in str(rejected.value)
    path = tmp_path / "ended.csv"
    path.write_bytes(HEADER + make_line() + end + cut_line + end)
    assert collect_lines(open_raw_month(path))


def test_cut_among_empty_fields_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    for last_line, is_cut in (
        (make_line(), True),
        (make_line() + b",", True),
        (make_line() + b",,", False),
    ):
        path.write_bytes(HEADER + (make_line() + b",,\n") * 3 + last_line)
        if is_cut:
            with pytest.raises(SourceError, match="fields, where every other row has 20"):
                collect_lines(open_raw_month(path))
        else:
            assert set(collect_lines(open_raw_month(path))) == {3}
    path.write_bytes(HEADER + make_line() + b",,\n" + make_line() + b"\n" + make_line())
    assert set(collect_lines(open_raw_month(path))) == {3}


@pytest.mark.parametrize(
    "last", [make_line(), make_line() + b"\r", make_line(extra="what"), b"0," + make_line()]
)
def test_complete_last_line_needs_no_terminator(tmp_path: Path, last: bytes) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + make_line() + b"\r\n" + last)
    month = open_raw_month(path)
    collect_lines(month)
    assert month.file_rows == 2


@pytest.mark.parametrize("value", ["a\rb", "N" * 200_000, '"' + "N" * 200_000 + '"'])
def test_a_last_line_that_is_unreadable_and_has_no_end_is_quarantined(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + (make_line() + b"\n") * 2 + make_line(store_and_fwd_flag=value))
    month = open_raw_month(path)
    assert set(collect_lines(month)) == {3, UNREADABLE}
    assert [problem.line for problem in month.unreadable] == [4]


def test_days_without_rows_are_named_once_the_month_is_over(tmp_path: Path) -> None:
    pickups = [f"2021-02-{day:02d} 00:00:00" for day in (1, 2, 5, 6, 28)]
    path = write(tmp_path / "m.csv", *map(make_line, pickups))
    table = pa.table({name: ["1"] * 5 for name in YELLOW.header})
    table = table.drop_columns(["tpep_pickup_datetime"])
    table = table.append_column("tpep_pickup_datetime", pa.array(pickups))
    rows = tmp_path / "m.parquet"
    pq.write_table(table, rows, row_group_size=2)
    for these, days in product((path, rows), (None, [date(2021, 2, 3)], [date(2021, 2, 5)])):
        month = open_raw_month(these, days=days)
        list(month.read_days(lambda _: None))
        for today, passed in ((date(2021, 2, 28), True), (date(2021, 3, 1), False)):
            (result,) = (
                candidate
                for candidate in check_raw_month(month, today)
                if candidate.check == "every_day_has_rows"
            )
            assert result.passed is passed
            assert result.severity == dg.AssetCheckSeverity.WARN
            missing = "" if passed else "2021-02-03 to 2021-02-04, 2021-02-07 to 2021-02-27"
            assert result.metadata == {"days": 0 if passed else 23, "without_rows": missing}


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (make_line(), "2021-02-03"),
        (make_line("2021-03-01 00:00:00"), "other months"),
        (b"1,2", "unreadable rows"),
        (b"", "blank lines"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_place_that_exceeds_memory_rejects_the_file(
    tmp_path: Path, line: bytes, place: str, suffix: str
) -> None:
    content = HEADER + make_line() + b"\n" + (line + b"\n") * 20_000
    path = tmp_path / f"m{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    month = open_raw_month(path)
    month.max_day_bytes = 10_000
    with pytest.raises(SourceError, match=f"over 10,000 bytes of rows for {place}") as error:
        collect_lines(month)
    assert "TAXI_MAX_DAY_BYTES" in str(error.value)


def test_reasons_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(month_module, "MAX_REASONS", 100)
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + make_line() + b"\n" + b"1,2\n" * 101)
    with pytest.raises(SourceError, match=r"over 100 rows of .* cannot be used, first 3: 2 fields"):
        collect_lines(open_raw_month(path))
