"""Values of every type and schema version get the canonical type, or are named."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from taxi_assets.errors import PartitionRejectedError
from taxi_assets.tlc.services import GREEN, YELLOW
from taxi_assets.trips.clean import clean_partition, parse_partition
from taxi_assets.trips.parsed import Parsed
from taxi_assets_tests.tlc.test_parquet_batches import START, make_trips

NOON = datetime(2021, 2, 3, 12)  # noqa: DTZ001


def parse_column(name: str, values: pa.Array) -> Parsed:
    return parse_partition(make_trips([START] * len(values), **{name: values}), YELLOW)


def make_decimals(*values: str) -> pa.Array:
    return pa.array([Decimal(value) for value in values], pa.decimal128(20, 2))


def test_decimal_zero_is_read_beside_an_invalid_id() -> None:
    """Arrow writes it as 0E-18."""
    values = pa.array([Decimal(0), Decimal("1.5"), None], pa.decimal128(38, 18))
    parsed_column = parse_column("VendorID", values)
    assert parsed_column.table["vendorid"].to_pylist() == [0, None]
    assert [problem.row for problem in parsed_column.unreadable] == [2]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        *[
            ("VendorID", pa.array([1, None, 3], kind), [1, None, 3])
            for kind in (pa.int8(), pa.int32(), pa.int64(), pa.uint64(), pa.float32())
        ],
        ("VendorID", pa.array([1.0, None, float("nan"), -0.0, 2.0**53]), [1, None, None, 0, 2**53]),
        ("VendorID", make_decimals("1.00", "7"), [1, 7]),
        ("VendorID", pa.array(["1", "02", "", None, "3.0"]), [1, 2, None, None, 3]),
        ("VendorID", pa.nulls(2), [None, None]),
        ("VendorID", pa.array(["1", "2"]).dictionary_encode(), [1, 2]),
        ("extra", pa.array([0.5, None, float("nan")]), [0.5, None, None]),
        ("extra", pa.array([0.5], pa.float32()), [0.5]),
        ("extra", pa.array([1, 2**53]), [1.0, 2.0**53]),
        ("extra", make_decimals("12.35"), [12.35]),
        ("extra", pa.array([".50", "8"]), [0.5, 8.0]),
        ("extra", pa.nulls(1), [None]),
        *[
            ("tpep_dropoff_datetime", pa.array([NOON, None], pa.timestamp(unit)), [NOON, None])
            for unit in ("s", "ms", "us", "ns")
        ],
        ("tpep_dropoff_datetime", pa.array(["2021-02-03 12:00:00"]), [NOON]),
        ("store_and_fwd_flag", pa.array(["N", "", None], pa.large_string()), ["N", None, None]),
        ("store_and_fwd_flag", pa.nulls(1), [None]),
    ],
)
def test_value_gets_its_canonical_type(name: str, values: pa.Array, expected: list[Any]) -> None:
    parsed_column = parse_column(name, values)
    assert parsed_column.unreadable == []
    assert parsed_column.table.schema == YELLOW.arrow_schema
    assert parsed_column.table[name.lower()].to_pylist() == expected


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("VendorID", pa.array([1.0, 1.5]), "row 2: VendorID='1.5'"),
        ("VendorID", pa.array([1.0, 1e300]), "row 2: VendorID='1e+300'"),
        ("VendorID", pa.array([1.0, 2.0**63]), "row 2: VendorID='9.223372036854776e+18'"),
        ("VendorID", pa.array([1.0, float("inf")]), "row 2: VendorID='inf'"),
        ("VendorID", pa.array([1, 2**63], pa.uint64()), "row 2: VendorID='9223372036854775808'"),
        ("VendorID", make_decimals("1", "1.50"), "row 2: VendorID='1.50'"),
        ("VendorID", pa.array(["1", "CMT"]), "row 2: VendorID='CMT'"),
        ("extra", pa.array([1.0, float("inf")]), "row 2: extra='inf'"),
        ("extra", pa.array([1.0, -1.7e308]), "row 2: extra='-1.7e+308'"),
        ("extra", pa.array([1, 2**53 + 1]), "row 2: extra='9007199254740993'"),
        ("extra", pa.array(["1", "$2"]), "row 2: extra='$2'"),
        (
            "tpep_dropoff_datetime",
            pa.array([0, 1001], pa.timestamp("ns")),
            "row 2: tpep_dropoff_datetime='1970-01-01 00:00:00.000001001'",
        ),
        (
            "tpep_dropoff_datetime",
            pa.array(["2021-02-03 12:00:00", "2021-02-30 12:00:00"]),
            "row 2: tpep_dropoff_datetime='2021-02-30 12:00:00'",
        ),
    ],
)
def test_value_that_does_not_fit_is_named_and_never_cast(
    name: str, values: pa.Array, expected: str
) -> None:
    parsed_column = parse_column(name, values)
    assert list(map(str, parsed_column.unreadable)) == [expected]
    assert parsed_column.table.num_rows == 1


LABELS = [
    ("CMT", 1, "Credit", 1),
    ("VTS", 2, "CASH", 2),
    (" vts ", 2, "Cas", 2),
    ("CMT", 1, "No Charge", 3),
    ("VTS", 2, "Dispute", 4),
    ("VTS", 2, "UNK", 5),
    ("2", 2, "1", 1),
    ("", None, "", None),
    ("DDS", None, "Barter", None),
]


def make_table(schema_version: int, **columns: list[Any]) -> pa.Table:
    names = YELLOW.schema_versions[schema_version].header
    rows = len(next(iter(columns.values())))
    values = dict.fromkeys(names, ["1"] * rows) | columns
    times = [name for name in names if "datetime" in name.lower()]
    return pa.table(values | dict.fromkeys(times, ["2009-01-04 02:52:00"] * rows))


@pytest.mark.parametrize("spoiled", [False, True], ids=["at once", "by value"])
@pytest.mark.parametrize(("schema_version", "vendor"), [(0, "vendor_name"), (1, "vendor_id")])
def test_labels_are_decoded_and_unknown_labels_counted(
    schema_version: int, vendor: str, spoiled: bool
) -> None:
    payment = next(
        name
        for name in YELLOW.schema_versions[schema_version].header
        if name.lower() == "payment_type"
    )
    stored = next(
        name for name in YELLOW.schema_versions[schema_version].header if name.startswith("store")
    )
    table = make_table(
        schema_version,
        **{vendor: [label for label, *_ in LABELS], payment: [label for _, _, label, _ in LABELS]},
        **{stored: ["0", "1", "N", "Y", "", "*", "0", "0", "0"]},
    )
    rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    if spoiled:
        rows.append(tuple("$" if name.lower() == "mta_tax" else "" for name in table.schema.names))
    lines = "\r\n".join(",".join(row) for row in rows)
    csv = pa.py_buffer((", ".join(table.schema.names) + "\n" + lines + "\r\n").encode())
    numbers = table.set_column(
        table.schema.get_field_index(stored),
        stored,
        pa.array([0.0, 1.0, None, None, None, None, 0.0, 0.0, 0.0]),
    )
    for content in (csv, table, numbers):
        parsed = parse_partition(content, YELLOW)
        read = parsed.table.to_pydict()
        assert len(parsed.unreadable) == (spoiled and content is csv)
        assert read["vendorid"] == [code for _, code, *_ in LABELS]
        assert read["payment_type"] == [code for *_, code in LABELS]
        odd = {} if content is numbers else {"store_and_fwd_flag=*": 1}
        assert parsed.unknown_labels == {"vendorid=DDS": 1, "payment_type=Barter": 1} | odd
        flags = ["N", "Y", "N", "Y", None, None, "N", "N", "N"]
        if content is numbers:
            flags[2:6] = [None] * 4
        assert read["store_and_fwd_flag"] == flags
    assert (
        clean_partition(csv, YELLOW).unknown_labels == parse_partition(csv, YELLOW).unknown_labels
    )


def test_label_in_a_column_of_codes_is_unreadable() -> None:
    names = ",".join(YELLOW.header)
    row = ["1"] * 18
    row[1] = row[2] = "2021-02-03 04:05:06"
    row[9] = "CSH"
    parsed = parse_partition(pa.py_buffer(f"{names}\n{','.join(row)}\n".encode()), YELLOW)
    assert list(map(str, parsed.unreadable)) == ["line 2: payment_type='CSH'"]


@pytest.mark.parametrize("end", ["", ",", ",,"])
def test_rows_longer_than_the_header_by_empty_fields_are_read(end: str) -> None:
    names = YELLOW.schema_versions[3].header
    good = ["1"] * len(names)
    good[1] = good[2] = "2021-02-03 04:05:06"
    quoted = [*good]
    quoted[6] = '"N,Y"'
    header = ",".join(names)
    lines = [",".join(good) + end, ",".join(quoted) + ",,", ",".join(good) + end]
    for these in (lines, lines[:1], lines[1:], lines[1:2]):
        for terminator in ("\n", "\r\n"):
            content = pa.py_buffer((header + "\n" + terminator.join(these) + terminator).encode())
            parsed = parse_partition(content, YELLOW)
            assert parsed.unreadable == []
            assert parsed.table["total_amount"].to_pylist() == [1.0] * len(these)
            assert parsed.table["congestion_surcharge"].null_count == len(these)


def test_unknown_columns_stay_in_raw_and_missing_columns_are_null() -> None:
    names = (*GREEN.schema_versions[0].header, "robot")
    row = ["1"] * len(names)
    row[1] = row[2] = "2014-02-03 04:05:06"
    row[-1] = "free text, x".replace(",", "")
    parsed = parse_partition(pa.py_buffer(f"{','.join(names)}\n{','.join(row)}\n".encode()), GREEN)
    (read,) = parsed.table.to_pylist()
    assert {name for name, value in read.items() if value is None} == {
        "pulocationid",
        "dolocationid",
        "improvement_surcharge",
        "congestion_surcharge",
        "cbd_congestion_fee",
    }


def test_slice_of_other_columns_rejects_its_day() -> None:
    for content in (pa.table({"a": [1]}), pa.py_buffer(b"a,b\n1,2\n")):
        with pytest.raises(PartitionRejectedError, match="materialize yellow/raw_trips again"):
            parse_partition(content, YELLOW)
