"""Conservation: every line of a month file comes out once, in one place, byte for byte."""

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
from taxi_assets.tlc import csv_blocks as lines_module
from taxi_assets.tlc import raw_month as month_module
from taxi_assets.tlc.csv_blocks import prefetch
from taxi_assets.tlc.raw_month import BLANK, MIN_HOPELESS_ROWS, OUTSIDE, UNREADABLE
from taxi_assets_tests.tlc.files import HEADER, PICKUP, YELLOW, passed_over, raw_month, row
from taxi_assets_tests.tlc.test_csv_split import UNREADABLE_LINES

Line = tuple[bytes, int]
BOM = b"\xef\xbb\xbf"

clock = st.times().map(lambda time: time.strftime("%H:%M:%S"))
flag = st.sampled_from(["", "N", "Y", '"N"', '"N,Y"', '"a ""b"""', "é", '""'])


@st.composite
def good(draw: st.DrawFn) -> Line:
    day = draw(st.integers(1, 28))
    quote = draw(st.sampled_from(["", '"']))
    pickup = f"{quote}2021-02-{day:02d} {draw(clock)}{quote}"
    vendor = draw(st.sampled_from(["", "1", '"1,5"', f'"{PICKUP}"']))
    return row(pickup, VendorID=vendor, store_and_fwd_flag=draw(flag)), day


@st.composite
def outside(draw: st.DrawFn) -> Line:
    days = st.dates().filter(lambda day: (day.year, day.month) != (2021, 2))
    return row(f"{draw(days)} {draw(clock)}", store_and_fwd_flag=draw(flag)), OUTSIDE


# A huge line is a case of its own below, and a CR before CRLF depends on the line's end.
unreadable = st.sampled_from(
    [(line, UNREADABLE) for line, why in UNREADABLE_LINES.values() if len(line) < 1000]
)
blank = st.just((b"", BLANK))
ends = st.sampled_from([b"\n", b"\r\n"])


@st.composite
def month_lines(draw: st.DrawFn) -> list[Line]:
    """Lines with their terminators, and where they belong."""
    several = st.lists(st.tuples(good() | outside() | unreadable | blank, ends), max_size=30)
    drawn = draw(several)
    found = [(line + (b"\r\n" if line.endswith(b"\r") else end), key) for (line, key), end in drawn]
    # Of a last line that cannot be read one cannot say whether it was cut: see below.
    if found and found[-1][1] not in (UNREADABLE, BLANK) and draw(st.booleans()):
        last, key = found.pop()
        found.append((last.rstrip(b"\r\n"), key))
    return found


@settings(max_examples=120, deadline=None)
@given(
    lines=month_lines(),
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
    whole = header + b"".join(line for line, _ in lines)
    path.write_bytes(gzip.compress(whole, 1) if packed else whole)
    expected: defaultdict[int, list[bytes]] = defaultdict(list)
    for line, key in lines:
        expected[key].append(line)

    month = raw_month(path)
    with patch.object(lines_module, "BLOCK", block):
        if set(expected) <= {OUTSIDE, UNREADABLE, BLANK}:
            with pytest.raises(SourceError, match="has its pickup in 2021-02"):
                passed_over(month)
            return
        parts = passed_over(month)

    assert month.line == header
    assert parts == {key: b"".join(found) for key, found in expected.items()}
    assert month.rows == {key: len(found) for key, found in expected.items()}
    days = sum(month.count_day_rows(day) for day in month.days)
    assert month.file_rows == days + month.rows[OUTSIDE] + month.rows[UNREADABLE]
    assert month.file_rows + month.rows[BLANK] == len(lines)
    numbers = [at for at, (_, key) in enumerate(lines, 2) if key == UNREADABLE]
    assert [one.line for one in month.unreadable] == numbers
    assert all(one.reason for one in month.unreadable)


def write(path: Path, *lines: bytes) -> Path:
    path.write_bytes(HEADER + b"".join(line + b"\n" for line in lines))
    return path


def test_only_the_wanted_days_are_handed_on_and_all_are_counted(tmp_path: Path) -> None:
    lines = [row(f"2021-02-{day:02d} 00:00:00") for day in range(1, 29)]
    path = write(tmp_path / "m.csv", *lines, row("2021-03-01 00:00:00"))
    month = raw_month(path, days=[date(2021, 2, 5)])
    assert set(passed_over(month)) == {5, OUTSIDE}
    assert month.file_rows == 29
    assert month.count_day_rows(date(2021, 2, 28)) == 1


def test_a_second_pass_counts_afresh(tmp_path: Path) -> None:
    month = raw_month(write(tmp_path / "m.csv", row(), b"x"))
    assert passed_over(month) == passed_over(month)
    assert (month.file_rows, len(month.unreadable)) == (2, 1)


def test_a_last_line_without_end_is_handed_on_last(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + b"\n" + row() + b"\n" + row(extra="7"))
    parts = [(part.key, bytes(part.lines)) for part in raw_month(path).read_days(lambda _: None)]
    assert parts == [(3, row() + b"\n"), (BLANK, b"\n"), (3, row(extra="7"))]


def test_a_line_of_10_mb_is_kept_whole(tmp_path: Path) -> None:
    huge = row(store_and_fwd_flag="N" * (10 << 20))
    month = raw_month(write(tmp_path / "m.csv", row(), huge, row()))
    assert passed_over(month) == {3: (row() + b"\n") * 2, UNREADABLE: huge + b"\n"}
    assert month.unreadable[0].line == 3


@pytest.mark.parametrize(("share", "bad"), [(0.0, 0), (0.01, 2), (0.5, 100), (1.0, 199)])
def test_unreadable_lines_up_to_the_share_are_put_aside(
    tmp_path: Path, share: float, bad: int
) -> None:
    lines = [b"bad"] * bad + [row()] * (200 - bad)
    month = raw_month(write(tmp_path / "m.csv", *lines), max_invalid_ratio=share)
    assert passed_over(month).get(UNREADABLE, b"") == b"bad\n" * bad


@pytest.mark.parametrize(("share", "bad"), [(0.0, 1), (0.01, 3), (0.5, 101), (0.99, 200)])
def test_past_the_share_the_month_is_refused(tmp_path: Path, share: float, bad: int) -> None:
    lines = [row()] * (200 - bad) + [b"bad"] * bad
    month = raw_month(write(tmp_path / "m.csv", *lines), max_invalid_ratio=share)
    said = (
        f"yellow 2021-02: {bad} of 200 rows read of {tmp_path}/m.csv cannot be used, first line "
        f"{202 - bad}: 1 fields instead of 18. "
    )
    with pytest.raises(SourceError, match=re.escape(said)):
        passed_over(month)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (row("03/02/2021 04:05:06"), "tpep_pickup_datetime='03/02/2021 04:05:06' is not a time"),
        (b"0," + row(), "19 fields instead of 18"),
        (row().replace(b",", b";"), "1 fields instead of 18"),
        (row("2021-03-01 00:00:00"), "has its pickup in 2021-02 .1,000 in other months.* another"),
    ],
)
def test_a_file_whose_rows_are_all_wrong_in_one_way_is_refused(
    tmp_path: Path, line: bytes, said: str
) -> None:
    month = raw_month(
        write(tmp_path / "m.csv", *[line] * MIN_HOPELESS_ROWS), max_invalid_ratio=0.01
    )
    with pytest.raises(SourceError, match=said):
        passed_over(month)


def test_a_hopeless_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", *[b"x"] * 20 * MIN_HOPELESS_ROWS)
    month = raw_month(path, max_invalid_ratio=0.5)
    with (
        patch.object(lines_module, "BLOCK", MIN_HOPELESS_ROWS),
        pytest.raises(SourceError, match="cannot be used"),
    ):
        passed_over(month)
    assert MIN_HOPELESS_ROWS <= month.file_rows < 2 * MIN_HOPELESS_ROWS


def test_some_rows_of_another_month_are_put_aside(tmp_path: Path) -> None:
    strays = [row("2021-03-01 00:00:00")] * MIN_HOPELESS_ROWS
    assert set(passed_over(raw_month(write(tmp_path / "m.csv", *strays, row())))) == {3, OUTSIDE}


@pytest.mark.parametrize(("seconds", "some"), [(0, True), (60, False)])
def test_progress_is_told_every_two_seconds_and_at_the_end(
    tmp_path: Path, seconds: float, some: bool
) -> None:
    """Each line is an event with a commit of its own; tenths of a second's pass were ten."""
    told: list[str] = []
    month = raw_month(write(tmp_path / "m.csv", *[row()] * 100))
    with (
        patch.object(lines_module, "BLOCK", 300),
        patch.object(month_module, "PROGRESS_SECONDS", seconds),
    ):
        list(month.read_days(told.append))
    assert len(told) > 10 if some else len(told) == 1
    assert told[-1] == "yellow 2021-02: 100 rows, 0.0 of 0.0 MiB (100 %)"


def test_an_abandoned_pass_ends_its_threads(tmp_path: Path) -> None:
    path = write(tmp_path / "m.csv", *[row()] * 1000)
    before = threading.active_count()
    with patch.object(lines_module, "BLOCK", 300):
        parts = raw_month(path).read_days(lambda _: None)
        next(parts)
        parts.close()
    assert threading.active_count() == before


def test_an_error_in_the_prefetching_thread_reaches_the_reader() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    items = prefetch(broken)
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)


EMPTY_BODIES = {
    "header only": b"",
    "blank lines": b"\n\r\n\n",
    "one row of another month": row("2021-03-01 00:00:00") + b"\n",
    "many rows of another month": (row("2020-02-03 00:00:00") + b"\n") * 3 * MIN_HOPELESS_ROWS,
    "unreadable rows": b"x\n" * 3,
    "unreadable rows and others": b"x\n" + row("2021-01-31 23:59:59") + b"\r\n",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("days", [None, [date(2021, 2, 3)]])
@pytest.mark.parametrize("case", EMPTY_BODIES)
def test_a_file_without_a_row_of_its_month_is_rejected(
    tmp_path: Path, case: str, days: list[date] | None, packed: bool
) -> None:
    whole = HEADER + EMPTY_BODIES[case]
    path = tmp_path / ("m.csv.gz" if packed else "m.csv")
    path.write_bytes(gzip.compress(whole) if packed else whole)
    with pytest.raises(SourceError, match="has its pickup in 2021-02") as rejected:
        passed_over(raw_month(path, days=days))
    assert str(rejected.value).startswith("yellow 2021-02: none of the ")
    assert f" rows of {path} " in str(rejected.value)


LAST = row("2021-02-03 04:05:06", congestion_surcharge="2.5", store_and_fwd_flag="N")
CUTS = {
    "after a field": (LAST.rpartition(b",")[0], "17 fields instead of 18"),
    "after two fields": (b",".join(LAST.split(b",")[:2]), "2 fields instead of 18"),
    "inside the pickup": (LAST[:12], "2 fields instead of 18"),
    "one byte": (LAST[:1], "1 fields instead of 18"),
    "inside quotes": (row(congestion_surcharge='"2.5"')[:-1], "broken quotes"),
    "inside quotes, fields missing": (LAST[: LAST.index(b"N")] + b'"N', "broken quotes"),
    "inside a character": (row(congestion_surcharge="é")[:-1], "not UTF-8"),
    "inside the last value": (row(congestion_surcharge="-"), "congestion_surcharge='-'"),
    "zeros of a torn write": (b"\0" * 40, "a NUL byte"),
}


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", CUTS)
def test_a_file_that_ends_inside_a_line_is_rejected(
    tmp_path: Path, case: str, packed: bool, end: bytes
) -> None:
    last, why = CUTS[case]
    whole = HEADER + (row() + end) * 300 + last
    path = tmp_path / ("m.csv.gz" if packed else "m.csv")
    path.write_bytes(gzip.compress(whole) if packed else whole)
    for block in (100, 1 << 20):
        with (
            patch.object(lines_module, "BLOCK", block),
            pytest.raises(SourceError, match="is truncated inside") as rejected,
        ):
            passed_over(raw_month(path))
        assert f"which has no line end ({why})" in str(rejected.value)
    path = tmp_path / "ended.csv"
    path.write_bytes(HEADER + row() + end + last + end)
    assert passed_over(raw_month(path))


def test_a_cut_among_empty_fields_is_seen_where_all_other_rows_have_more(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    for last, is_cut in ((row(), True), (row() + b",", True), (row() + b",,", False)):
        path.write_bytes(HEADER + (row() + b",,\n") * 3 + last)
        if is_cut:
            with pytest.raises(SourceError, match="fields, where every other row has 20"):
                passed_over(raw_month(path))
        else:
            assert set(passed_over(raw_month(path))) == {3}
    path.write_bytes(HEADER + row() + b",,\n" + row() + b"\n" + row())
    assert set(passed_over(raw_month(path))) == {3}


@pytest.mark.parametrize("last", [row(), row() + b"\r", row(extra="what"), b"0," + row()])
def test_a_whole_last_line_needs_no_end(tmp_path: Path, last: bytes) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + row() + b"\r\n" + last)
    month = raw_month(path)
    passed_over(month)
    assert month.file_rows == 2


@pytest.mark.parametrize("value", ["a\rb", "N" * 200_000, '"' + "N" * 200_000 + '"'])
def test_a_last_line_that_is_unreadable_and_has_no_end_is_quarantined(
    tmp_path: Path, value: str
) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + (row() + b"\n") * 2 + row(store_and_fwd_flag=value))
    month = raw_month(path)
    assert set(passed_over(month)) == {3, UNREADABLE}
    assert [one.line for one in month.unreadable] == [4]


def test_days_without_rows_are_named_once_the_month_is_over(tmp_path: Path) -> None:
    pickups = [f"2021-02-{day:02d} 00:00:00" for day in (1, 2, 5, 6, 28)]
    path = write(tmp_path / "m.csv", *map(row, pickups))
    table = pa.table({name: ["1"] * 5 for name in YELLOW.header})
    table = table.drop_columns(["tpep_pickup_datetime"])
    table = table.append_column("tpep_pickup_datetime", pa.array(pickups))
    rows = tmp_path / "m.parquet"
    pq.write_table(table, rows, row_group_size=2)
    for these, days in product((path, rows), (None, [date(2021, 2, 3)], [date(2021, 2, 5)])):
        month = raw_month(these, days=days)
        list(month.read_days(lambda _: None))
        for today, passed in ((date(2021, 2, 28), True), (date(2021, 3, 1), False)):
            (found,) = (
                one for one in check_raw_month(month, today) if one.check == "every_day_has_rows"
            )
            assert found.passed is passed
            assert found.severity == dg.AssetCheckSeverity.WARN
            missing = "" if passed else "2021-02-03 to 2021-02-04, 2021-02-07 to 2021-02-27"
            assert found.metadata == {"days": 0 if passed else 23, "without_rows": missing}


@pytest.mark.parametrize(
    ("line", "where"),
    [
        (row(), "2021-02-03"),
        (row("2021-03-01 00:00:00"), "other months"),
        (b"1,2", "unreadable rows"),
        (b"", "blank lines"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_more_rows_in_one_place_than_fit_in_memory_reject_the_file(
    tmp_path: Path, line: bytes, where: str, suffix: str
) -> None:
    content = HEADER + row() + b"\n" + (line + b"\n") * 20_000
    path = tmp_path / f"m{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    month = raw_month(path)
    month.max_day_bytes = 10_000
    with pytest.raises(SourceError, match=f"over 10,000 bytes of rows for {where}") as error:
        passed_over(month)
    assert "TAXI_MAX_DAY_BYTES" in str(error.value)


def test_reasons_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(month_module, "MAX_REASONS", 100)
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER + row() + b"\n" + b"1,2\n" * 101)
    with pytest.raises(SourceError, match=r"over 100 rows of .* cannot be used, first 3: 2 fields"):
        passed_over(raw_month(path))
