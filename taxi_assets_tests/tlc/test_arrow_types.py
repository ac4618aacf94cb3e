"""Raw keeps a column of any type, and its values reach the stores or are named."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from taxi_assets.defs.io_managers.sealed_objects import open_parquet
from taxi_assets.defs.month_split import Spool, open_spool
from taxi_assets.errors import SourceError
from taxi_assets.tlc import parquet_batches as parquet_module
from taxi_assets.tlc.arrow_types import (
    MAX_TEXT_BYTES,
    convert_to_plain,
    find_storable_text,
    format_value,
)
from taxi_assets.tlc.services import YELLOW
from taxi_assets.tlc.values import accepts_type
from taxi_assets.trips.clean import clean_partition, parse_partition
from taxi_assets.trips.content_hash import ContentHash
from taxi_assets_tests.tlc.arrow_columns import COLUMNS, draw_column
from taxi_assets_tests.tlc.files import open_raw_month
from taxi_assets_tests.tlc.test_parquet_batches import START, compute_hash, make_trips

ROWS = 6
PICKUPS: list[datetime | None] = [START + timedelta(days=at % 2) for at in range(ROWS)]
each_type = pytest.mark.parametrize("name", sorted(COLUMNS))


def read_contents(path: Path) -> tuple[dict[int, Spool], dict[int, pa.Table]]:
    """Return the spools and the raw objects of a month, by day."""
    month = open_raw_month(path)
    spools: dict[int, Spool] = {}
    for part in month.read_days(lambda _: None):
        spools.setdefault(part.key, open_spool(month)).add(part)
    stored = {key: pa.py_buffer(spool.build_content({})) for key, spool in spools.items()}
    return spools, {key: open_parquet(content)[0].read() for key, content in stored.items()}


def is_same(column: pa.ChunkedArray, other_column: pa.ChunkedArray) -> bool:
    """Compare types and bits; `equals` takes NaN as different from NaN."""
    return column.type == other_column.type and compute_hash(
        pa.table({"x": column})
    ) == compute_hash(pa.table({"x": other_column}))


@each_type
@settings(max_examples=6, deadline=None)
@given(data=st.data(), batch=st.integers(1, 4))
def test_column_of_any_type_is_stored_as_published(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject, batch: int
) -> None:
    column = data.draw(draw_column(ROWS, name))
    path = tmp_path_factory.getbasetemp() / "kept.parquet"
    pq.write_table(make_trips(PICKUPS).append_column("x", column), path)
    published = pq.ParquetFile(path).read()["x"]
    with patch.object(parquet_module, "ROWS", batch):
        spools, tables = read_contents(path)
    assert sorted(tables) == [1, 2]
    for key, rows in tables.items():
        expected = pa.chunked_array(
            [published.slice(index, 1).chunk(0) for index in range(key - 1, 6, 2)]
        )
        assert is_same(rows["x"], expected)
        first = spools[key].build_preview().records[0].data
        assert (first["column"], first["row 1"]) == ("VendorID", "1")
        assert len(clean_partition(rows, YELLOW, ()).frame) == 3


@settings(max_examples=80, deadline=None)
@given(
    column=draw_column(ROWS),
    name=st.sampled_from(
        ["VendorID", "total_amount", "tpep_dropoff_datetime", "store_and_fwd_flag"]
    ),
)
@example(pa.array([2**63 - 1] * ROWS).view(pa.timestamp("us")), "tpep_dropoff_datetime")
@example(pa.array([b"N\0", b"\xff", b"Y", b"N", None, b""]), "store_and_fwd_flag")
@example(pa.array([True] * ROWS), "VendorID")
@example(pa.array([None] * ROWS, pa.bool_()), "VendorID")
@example(pa.array([None] * ROWS, pa.bool_()), "tpep_dropoff_datetime")
def test_typed_column_of_any_type_is_read_or_quarantined(
    tmp_path_factory: pytest.TempPathFactory, column: pa.Array, name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "typed.parquet"
    table = make_trips(PICKUPS)
    index = table.schema.get_field_index(name)
    pq.write_table(table.set_column(index, name, column), path)
    column_schema = YELLOW.by_name[name.lower()]
    stored_type = pq.ParquetFile(path).schema_arrow.field(name).type
    is_accepted = accepts_type(
        column_schema,
        stored_type,
        labels=bool(column_schema.labels) and column_schema.kind == "text",
    )
    if not is_accepted and column.null_count < len(column):
        with pytest.raises(SourceError, match=f"has {name} as .* which cannot be read as"):
            read_contents(path)
        return
    _, days = read_contents(path)
    for key, rows in days.items():
        parsed = parse_partition(rows, YELLOW)
        assert parsed.table.num_rows + len(parsed.unreadable) == 3
        assert {problem.column for problem in parsed.unreadable} <= {name}
        assert all(problem.row in (1, 2, 3) and str(problem) for problem in parsed.unreadable)
        values = parsed.table[column_schema.name]
        assert values.type == column_schema.arrow
        if column_schema.kind == "time":
            values.to_pylist()  # raises if Python has no such date
            assert (
                str(clean_partition(rows, YELLOW).frame[column_schema.name].dtype)
                == "datetime64[us]"
            )
        if column_schema.kind == "amount":
            assert pc.all(pc.is_finite(values)).as_py() is not False
        if column_schema.kind == "text":
            assert set(values.to_pylist()) <= {"Y", "N", None}
        assert key in (1, 2)


@each_type
def test_hash_ignores_batches_and_distinguishes_values(name: str) -> None:
    values, make = COLUMNS[name]
    del values
    column = make([None] * 3)
    table = pa.table({"x": pa.concat_arrays([column, column])})
    batches = [batch for at in range(6) for batch in table.slice(at, 1).to_batches()]
    assert compute_hash(pa.Table.from_batches(batches, table.schema)) == compute_hash(table)


@settings(max_examples=60, deadline=None)
@given(column=draw_column(5), at=st.integers(0, 4))
def test_hash_of_slices_equals_hash_of_all(column: pa.Array, at: int) -> None:
    hash_of_all, hash_of_parts = ContentHash(), ContentHash()
    batch = pa.RecordBatch.from_arrays([column], ["x"])
    hash_of_all.update(batch)
    for part in (batch.slice(0, at), batch.slice(at)):
        hash_of_parts.update(part)
    assert hash_of_all.hexdigest(batch.schema) == hash_of_parts.hexdigest(batch.schema)
    for value in column:
        assert "\n" not in format_value(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (pa.array([2**63 - 1]).view(pa.timestamp("us"))[0], "294247-01-10 04:00:54.775807"),
        (pa.array([-(2**63) + 1]).view(pa.timestamp("us"))[0], "-290308-12-21 19:59:05.224193"),
        (pa.array([-(2**63)]).view(pa.timestamp("us"))[0], "-9223372036854775808"),
        (pa.array([2**31 - 1], pa.int32()).view(pa.date32())[0], "5881580-07-11"),
        (pa.array([b"a\xff"]).cast(pa.string(), safe=False)[0], r"a\xff"),
        (pa.array([[2**62]], pa.list_(pa.timestamp("us")))[0], "4611686018427387904"),
        (pa.scalar(None, pa.int64()), "None"),
    ],
)
def test_value_without_python_type_is_described(value: pa.Scalar, text: str) -> None:
    assert text in format_value(value)


@pytest.mark.parametrize("bad", [b"a\0b", b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary()])
def test_text_that_no_store_can_hold_is_unreadable(bad: bytes, kind: pa.DataType) -> None:
    texts = pa.array([b"good", bad, None, "é".encode(), b"x" * (MAX_TEXT_BYTES + 1)])
    storable = find_storable_text(convert_to_plain(texts.cast(kind, safe=False)))
    assert storable.to_pylist() == ["good", None, None, "é", None]


PLAIN_DAY = {
    "VendorID": [1, 2, None],
    "total_amount": [12.5, -3.0, None],
    "tpep_dropoff_datetime": [START, None, START + timedelta(hours=1)],
    "store_and_fwd_flag": ["N", "Y", None],
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[("VendorID", kind) for kind in (pa.int8(), pa.uint64(), pa.float16(), pa.float64())],
        *[("VendorID", kind) for kind in (pa.decimal32(5, 2), pa.decimal64(9, 0), pa.string())],
        *[("total_amount", kind) for kind in (pa.decimal32(7, 2), pa.decimal64(9, 3))],
        *[("total_amount", kind) for kind in (pa.decimal256(50, 2), pa.float16(), pa.float32())],
        *[("tpep_dropoff_datetime", pa.timestamp(unit)) for unit in ("ms", "us", "ns")],
        ("tpep_dropoff_datetime", pa.string_view()),
        *[("store_and_fwd_flag", kind) for kind in (pa.large_string(), pa.string_view())],
        *[("store_and_fwd_flag", kind) for kind in (pa.binary(), pa.large_binary())],
        ("store_and_fwd_flag", pa.dictionary(pa.int32(), pa.string())),
    ],
)
def test_column_of_another_type_lands_in_the_plain_type(
    tmp_path: Path, name: str, kind: pa.DataType
) -> None:
    plain_column = pa.array(PLAIN_DAY[name], YELLOW.by_name[name.lower()].arrow)
    tables = []
    for column in (plain_column, _convert_to_type(plain_column, kind)):
        table = make_trips([START] * 3)
        index = table.schema.get_field_index(name)
        pq.write_table(table.set_column(index, name, column), tmp_path / "m.parquet")
        _, days = read_contents(tmp_path / "m.parquet")
        parsed = parse_partition(days[1], YELLOW)
        assert parsed.unreadable == []
        tables.append(parsed.table)
    assert tables[0].equals(tables[1])


def _convert_to_type(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return column.dictionary_encode()
    if pa.types.is_timestamp(column.type) and not pa.types.is_timestamp(kind):
        texts = [
            None if time is None else f"{time:%Y-%m-%d %H:%M:%S}" for time in column.to_pylist()
        ]
        return pa.array(texts, kind)
    if pa.types.is_decimal(kind):
        return column.cast(pa.decimal128(30, kind.scale)).cast(kind)
    return column.cast(kind)


@pytest.mark.parametrize(
    ("flags", "expected", "unknown"),
    [
        (pa.array([True, False, None]), ["Y", "N", None], {}),
        (pa.array([1, 0, None]), ["Y", "N", None], {}),
        (pa.array([1.0, 0.0, float("nan")]), ["Y", "N", None], {}),
        (pa.array(["True", "false", "None"]), ["Y", "N", None], {}),
        (pa.array(["1", "0", "y"]), ["Y", "N", "Y"], {}),
        (pa.array(["1.0", "0.0", "0."]), ["Y", "N", "N"], {}),
        (pa.array([1.5, 0.0, 1e300]), [None, "N", None], {"1.5": 1, "1e+300": 1}),
        (pa.array([1, 0, 2]).cast(pa.decimal128(21, 2)), ["Y", "N", None], {"2.00": 1}),
        (pa.array(["what", "*", "N"]), [None, None, "N"], {"what": 1, "*": 1}),
        (pa.array([2, 0, 1]), [None, "N", "Y"], {"2": 1}),
    ],
)
def test_flag_becomes_y_or_n_in_every_year(
    flags: pa.Array, expected: list[str | None], unknown: dict[str, int]
) -> None:
    parsed = parse_partition(make_trips([START] * 3, store_and_fwd_flag=flags), YELLOW)
    assert parsed.table["store_and_fwd_flag"].to_pylist() == expected
    assert parsed.unknown_labels == {
        f"store_and_fwd_flag={label}": n for label, n in unknown.items()
    }
    assert parsed.unreadable == []
