"""How values are read, and the cleaning rule."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taxi_assets.defs.checks.cleaned import check_cleaned_day
from taxi_assets.defs.io_managers.partition_data import encode_trips
from taxi_assets.tlc.column import Kind
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import (
    clean_partition,
    convert_to_frame,
    convert_to_table,
    count_rows_outside_day,
    parse_partition,
)
from taxi_assets.trips.content_hash import hash_table
from taxi_assets.trips.rules import apply_rules
from taxi_assets_tests.tlc.files import HEADER, PICKUP, YELLOW, make_line, make_slice

COLUMN_OF_KIND: dict[Kind, str] = {
    "id": "passenger_count",
    "amount": "total_amount",
    "time": "tpep_dropoff_datetime",
    "text": "store_and_fwd_flag",
}
# A column without labels takes any text.
UNLABELLED = dataclasses.replace(
    YELLOW, columns=tuple(dataclasses.replace(column, labels=()) for column in YELLOW.columns)
)
NO_NEIGHBOURS: tuple[bytes, ...] = ()
# A row whose values are only readable one by one, and so are those of its block.
ODD_NEIGHBOURS = (make_line(VendorID="what"),)


def read_value(kind: Kind, text: str, *neighbours: bytes) -> Any:
    """Return `text` as a column of the kind reads it, or in a list if it is unreadable."""
    name = COLUMN_OF_KIND[kind]
    parsed = parse_partition(make_slice(make_line(**{name: text}), *neighbours), UNLABELLED)
    problems = [bad for bad in parsed.unreadable if bad.row == 2]
    if problems:
        assert problems[0].column == name
        return [problems[0].value]
    return parsed.table[name][0].as_py()


READABLE: list[tuple[Kind, str, Any]] = [
    ("id", "", None),
    ("id", "1", 1),
    ("id", "007", 7),
    ("id", "-1", -1),
    ("id", "1.0", 1),
    ("id", "1.", 1),
    ("id", '"1"', 1),
    ("id", '""', None),
    ("id", "9223372036854775807", 2**63 - 1),
    ("id", "-9223372036854775808", -(2**63)),
    ("id", "0" * 60 + "5", 5),
    ("amount", "", None),
    ("amount", ".50", 0.5),
    ("amount", "8", 8.0),
    ("amount", "8.", 8.0),
    ("amount", "-52.80", -52.8),
    ("amount", "+1.5", 1.5),
    ("amount", "1e3", 1000.0),
    ("amount", "-1e18", -1e18),
    ("time", "", None),
    ("time", "2021-02-03 23:59:59", datetime(2021, 2, 3, 23, 59, 59)),  # noqa: DTZ001
    ("time", "2020-02-29 00:00:00", datetime(2020, 2, 29)),  # noqa: DTZ001
    ("time", "0001-01-01 00:00:00", datetime(1, 1, 1)),  # noqa: DTZ001
    ("time", "9999-12-31 23:59:59", datetime(9999, 12, 31, 23, 59, 59)),  # noqa: DTZ001
    ("text", "", None),
    ("text", "N", "N"),
    ("text", " N", " N"),
    *[
        (kind, text, None)
        for kind in ("id", "amount", "time", "text")
        for text in (
            "NULL",
            "null",
            r"\N",
            r"\n",
            "NaN",
            "nan",
            "None",
            "N/A",
            "#N/A",
            "<NA>",
            "NaT",
        )
    ],
    ("id", '"NULL"', None),
    ("text", '"N/A"', None),
    ("text", "NULLABLE", "NULLABLE"),
    ("text", "Taxi x", "Taxi x"),
    ("text", '"N,Y"', "N,Y"),
    ("text", '"a ""b"""', 'a "b"'),
    ("text", "é", "é"),
]
UNREADABLE: list[tuple[Kind, str]] = [
    *[("id", text) for text in (" 1", "1 ", "\t1", "+1", "0x10", "0X1", "1e3", "1.5", "1_0", "-")],
    *[("id", text) for text in ("N", "inf", "one", "9223372036854775808", "1" * 50, "--1")],
    *[("id", text) for text in ("-9223372036854775809", "true", "1.0.0", "٣")],
    *[
        ("amount", text)
        for text in (" 1.5", "1.5 ", "\t1", " nan", "infinity", "inf", "-Infinity", ".")
    ],
    *[
        ("amount", text)
        for text in ("1e400", "9" * 400, "1.7e308", "-1.1e18", "0x10", "1.2.3", "$8", "1e", "5-")
    ],
    *[("time", text) for text in ("2021-02-03", "2021-02-03 04:05", "2021-02-03T04:05:06")],
    *[("time", text) for text in ("2021-02-03 04:05:06.", "2021-02-03 04:05:06.0000001")],
    *[("time", text) for text in ("2021-02-03 04:05:06Z", "2021-02-03 04:05:06-05:00")],
    *[("time", text) for text in ("2021-02-03 04:05-05", "03/02/2021 04:05:06", "1612324800")],
    *[("time", text) for text in ("2021-02-30 00:00:00", "2021-02-29 00:00:00")],
    *[("time", text) for text in ("1900-02-29 00:00:00", "2021-04-31 00:00:00")],
    *[
        ("time", text)
        for text in ("0000-01-01 00:00:00", "2021-2-3 4:05:06", "2021-13-01 00:00:00")
    ],
    *[("time", text) for text in ("2021-02-03 24:00:00", "2021-02-03 23:59:60", "now")],
    *[
        ("time", text)
        for text in (" 2021-02-03 04:05:06", "2021-02-03 04:05:06 ", "2021-02-03  4:05:06")
    ],
]


@pytest.mark.parametrize("neighbours", [NO_NEIGHBOURS, ODD_NEIGHBOURS], ids=["alone", "beside odd"])
@pytest.mark.parametrize(("kind", "text", "value"), READABLE)
def test_readable_value_gets_its_type(
    kind: Kind, text: str, value: Any, neighbours: tuple[bytes, ...]
) -> None:
    assert read_value(kind, text, *neighbours) == value


@pytest.mark.parametrize("neighbours", [NO_NEIGHBOURS, ODD_NEIGHBOURS], ids=["alone", "beside odd"])
@pytest.mark.parametrize(("kind", "text"), UNREADABLE)
def test_unreadable_value_quarantines_its_line(
    kind: Kind, text: str, neighbours: tuple[bytes, ...]
) -> None:
    assert read_value(kind, text, *neighbours) == [text]


@pytest.mark.parametrize("neighbours", [NO_NEIGHBOURS, ODD_NEIGHBOURS], ids=["alone", "beside odd"])
def test_decimal_comma_is_unreadable(neighbours: tuple[bytes, ...]) -> None:
    for kind in ("id", "amount"):
        assert read_value(kind, '"1,5"', *neighbours) == ["1,5"]


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(list(COLUMN_OF_KIND)),
    text=st.text("0159.-+:eExXnaifNT \t", max_size=22)
    | st.from_regex(
        r"[012]\d{3}-[01]\d-[0-3]\d[ T][0-2]\d:[0-6]\d(:[0-6]\d(\.0)?)?", fullmatch=True
    )
    | st.from_regex(r"-?0{0,30}[0-9]{1,21}(\.0)?", fullmatch=True),
)
@example("time", "2021-02-29 00:00:00")
def test_value_does_not_depend_on_its_neighbours(kind: Kind, text: str) -> None:
    assert read_value(kind, text) == read_value(kind, text, *ODD_NEIGHBOURS)


passengers = st.sampled_from(
    ["", "0", "1", "6", "1.0", "0.0", "-1", " 1", "nan", "x", "0x1", "1e0"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(passengers, st.sampled_from(["1.5", "", "oops"])), max_size=12))
def test_each_raw_row_is_cleaned_or_dropped_for_one_reason(values: list[tuple[str, str]]) -> None:
    lines = [make_line(passenger_count=count, tip_amount=tip) for count, tip in values]
    cleaned = clean_partition(make_slice(*lines), YELLOW)

    readable = [count for count, tip in values if tip != "oops"]
    expected = {
        "null_passengers": readable.count("") + readable.count("nan"),
        "zero_passengers": sum(readable.count(text) for text in ("0", "0.0", "-1")),
    }
    cleaned_rows = sum(readable.count(text) for text in ("1", "6", "1.0"))
    expected["unreadable"] = len(values) - cleaned_rows - sum(expected.values())
    assert cleaned.dropped == expected
    assert len(cleaned.frame) == cleaned_rows
    assert cleaned.raw_rows == len(values) == len(cleaned.frame) + sum(cleaned.dropped.values())
    assert len(cleaned.unreadable) == expected["unreadable"]
    assert all(values[bad.row - 2] != ("1", "1.5") for bad in cleaned.unreadable)
    assert (cleaned.frame["passenger_count"] > 0).all()

    cleaned_again, dropped = apply_rules(convert_to_table(cleaned.frame, YELLOW), YELLOW)
    assert dropped == {"zero_passengers": 0, "null_passengers": 0}
    pd.testing.assert_frame_equal(convert_to_frame(cleaned_again), cleaned.frame)


def test_first_bad_value_is_named_with_its_line() -> None:
    parsed = parse_partition(
        make_slice(
            make_line(), make_line(VendorID="A", extra="B"), make_line(), make_line(extra="C" * 99)
        ),
        YELLOW,
    )
    assert list(map(str, parsed.unreadable)) == [
        "line 3: VendorID='A'",
        f"line 5: extra='{'C' * 39}…'",
    ]
    assert parsed.table.num_rows == 2


@pytest.mark.parametrize("header", [HEADER, HEADER.rstrip(), b"\xef\xbb\xbf" + HEADER])
def test_empty_day_is_an_empty_frame_of_the_schema(header: bytes) -> None:
    cleaned = clean_partition(pa.py_buffer(header), YELLOW)
    assert (len(cleaned.frame), cleaned.raw_rows, cleaned.unreadable) == (0, 0, [])
    assert cleaned.frame.dtypes.astype(str).to_dict() == YELLOW.pandas_types
    assert cleaned.dropped == {"zero_passengers": 0, "null_passengers": 0, "unreadable": 0}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("neighbours", [NO_NEIGHBOURS, ODD_NEIGHBOURS], ids=["alone", "beside odd"])
def test_frame_has_schema_types_names_and_values(neighbours: tuple[bytes, ...], end: bytes) -> None:
    lines = [*neighbours, make_line(VendorID="", store_and_fwd_flag="")]
    frame = clean_partition(pa.py_buffer(HEADER + b"\r\n".join(lines) + end), YELLOW).frame
    assert frame.dtypes.astype(str).to_dict() == YELLOW.pandas_types
    first_row = frame.iloc[0]
    assert first_row["vendorid"] is pd.NA
    assert first_row["store_and_fwd_flag"] is pd.NA
    assert first_row["tpep_pickup_datetime"] == pd.Timestamp(PICKUP)
    assert first_row["trip_distance"] == 0.5
    table = convert_to_table(frame, YELLOW)
    assert table.schema.remove_metadata() == YELLOW.arrow_schema
    pd.testing.assert_frame_equal(convert_to_frame(table), frame)


@pytest.mark.parametrize("rows", [0, 1, 20_000], ids=["no row", "one row", "several blocks"])
def test_table_is_the_one_that_its_frame_makes(rows: int) -> None:
    """The stored bytes, and so the data version, do not depend on the way through pandas."""
    lines = [make_line(VendorID="", congestion_surcharge="", store_and_fwd_flag="")]
    cleaned = clean_partition(make_slice(*(lines * rows)), YELLOW)
    of_frame = convert_to_table(cleaned.frame, YELLOW)
    assert cleaned.table.equals(of_frame, check_metadata=True)
    assert hash_table(cleaned.table) == hash_table(of_frame)
    assert encode_trips(cleaned.table, {}).equals(encode_trips(of_frame, {}))


def test_slice_of_several_blocks_is_read_in_order() -> None:
    lines = [make_line(VendorID=str(number)) for number in range(20_000)]
    for parsed in (
        parse_partition(make_slice(*lines), YELLOW),
        parse_partition(make_slice(*lines, *ODD_NEIGHBOURS), YELLOW),
    ):
        assert parsed.table["vendorid"].to_pylist() == list(range(20_000))


def test_rows_outside_the_day_are_counted() -> None:
    pickups = ["2021-02-02 23:59:59", "2021-02-03 00:00:00", "2021-02-03 23:59:59"]
    cleaned = clean_partition(
        make_slice(*map(make_line, [*pickups, "2021-02-04 00:00:00"])), YELLOW
    )
    assert count_rows_outside_day(cleaned.table, date(2021, 2, 3), YELLOW) == 2


def test_service_without_passengers_keeps_every_row() -> None:
    columns = tuple(dataclasses.replace(column, roles=()) for column in YELLOW.columns)
    service = dataclasses.replace(YELLOW, columns=columns)
    cleaned = clean_partition(
        make_slice(make_line(passenger_count="0"), make_line(passenger_count="")), service
    )
    assert len(cleaned.frame) == 2
    assert cleaned.dropped == {"unreadable": 0}


@pytest.mark.parametrize(
    ("rows", "column", "severity"),
    [
        (1, None, "ERROR"),
        (1, pa.nulls(1), "WARN"),
        (999, pa.nulls(999, pa.float64()), "WARN"),
        (1000, pa.nulls(1000), "ERROR"),
        (1000, pa.array([0] * 1000), "ERROR"),
        (1000, pa.array([0] * 999 + [1]), "passed"),
        (0, pa.nulls(0), "WARN"),
    ],
)
def test_day_emptied_by_a_broken_column_is_rejected(
    rows: int, column: pa.Array | None, severity: str
) -> None:
    names = set(YELLOW.header) - {"passenger_count"}
    table = pa.table({name: pa.nulls(rows) for name in names})
    if column is not None:
        table = table.append_column("passenger_count", column)
    cleaned = clean_partition(table, YELLOW)
    results = {
        result.check: result
        for result in check_cleaned_day(date(2021, 2, 3), cleaned, rows, YELLOW)
    }
    not_empty = results["not_empty"]
    assert (not_empty.severity.value if not not_empty.passed else "passed") == severity
    if severity == "ERROR":
        assert (
            not_empty.metadata["dropped_null_passengers"]
            or not_empty.metadata["dropped_zero_passengers"]
        )
        assert "remove the rule from TAXI_DROP" in str(not_empty.metadata["why"])
        lacks = "passenger_count (rule null_passengers) is not in the month file"
        assert (lacks in str(not_empty.metadata["why"])) is (column is None)


def test_green_is_read_by_its_own_columns() -> None:
    green = SERVICES["green"]
    times = {"lpep_pickup_datetime": PICKUP, "lpep_dropoff_datetime": PICKUP, "ehail_fee": ""}
    trip = {**dict.fromkeys(green.header, "2"), **times}
    lines = ",".join(green.header) + "\r\n" + ",".join(trip.values()) + "\r\n"
    frame = clean_partition(pa.py_buffer(lines.encode()), green).frame
    assert list(frame.columns) == [*(name.lower() for name in green.header), "cbd_congestion_fee"]
    assert frame["trip_type"].tolist() == [2]
    assert frame["ehail_fee"].isna().all()
