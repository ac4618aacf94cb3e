"""`inspect_object` on every kind of object, on damaged ones, and on paths outside the lake."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.defs.io_managers.partition_data import encode_trips
from taxi_assets.defs.io_managers.sealed_objects import write_sealed_zstd
from taxi_assets.defs.jobs import inspect_object
from taxi_assets.defs.jobs.result import MAX_COLUMNS, _number_duplicates
from taxi_assets_tests.defs.jobs.jobs import (
    read_records,
    run_and_read_failure,
    run_and_read_metadata,
)
from taxi_assets_tests.tlc.encrypted import write_encrypted

TEXT = 'name,age,fare\n"Allen, Elisabeth",29,211.3375\n"two\nlines",,151.55\nAstor,47,227.525\n'


def compress_zstd(text: str) -> bytes:
    return bytes(pa.compress(text.encode(), codec="zstd", asbytes=True))


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a lake folder with the same three rows in every kind of object."""
    folder = tmp_path / "lake"
    folder.mkdir()
    monkeypatch.setenv("TAXI_LAKE", str(folder))
    (folder / "titanic.csv").write_text(TEXT)
    (folder / "titanic.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    (folder / "titanic.csv.zst").write_bytes(compress_zstd(TEXT))
    (folder / "facts.csv.zst").write_bytes(write_sealed_zstd({"rows": 3}, compress_zstd(TEXT)))
    pd.read_csv(folder / "titanic.csv").to_parquet(folder / "titanic.parquet")
    (tmp_path / "outside.csv").write_text("password\nplanted-secret\n")
    return folder


@pytest.mark.parametrize(
    "name",
    ["titanic.csv", "titanic.csv.gz", "titanic.csv.zst", "facts.csv.zst", "titanic.parquet"],
)
def test_schema_rows_and_preview_are_shown(name: str, lake: Path) -> None:
    metadata = run_and_read_metadata("inspect_object", object=name, rows=2)
    assert (metadata["rows"], metadata["bytes"]) == (3, (lake / name).stat().st_size)
    assert [row["name"] for row in read_records(metadata["preview"])] == [
        "Allen, Elisabeth",
        "two\nlines",
    ]
    columns = {column.name: column.type for column in metadata["columns"].columns}
    assert list(columns) == ["name", "age", "fare"]
    assert columns["fare"] == "double"
    assert metadata["dagster/uri"] == str(lake / name)


@pytest.mark.parametrize(
    "object_name",
    [
        "{lake}/titanic.csv",
        "./titanic.csv",
        "sub/../titanic.csv",
        "gs://lake/titanic.csv",
        "link.csv",
    ],
)
def test_alternative_object_names_are_accepted(object_name: str, lake: Path) -> None:
    (lake / "link.csv").symlink_to("titanic.csv")
    assert (
        run_and_read_metadata("inspect_object", object=object_name.format(lake=lake))["rows"] == 3
    )


def test_delimiter_can_be_chosen(lake: Path) -> None:
    (lake / "tabs.csv").write_text("a\tb\n1\t2\n")
    metadata = run_and_read_metadata("inspect_object", object="tabs.csv", delimiter="\t")
    assert read_records(metadata["preview"]) == [{"a": 1, "b": 2}]


@pytest.mark.parametrize(
    "object_name",
    [
        "../outside.csv",
        "sub/../../outside.csv",
        "{lake}/../outside.csv",
        "{lake}-other/titanic.csv",
        "/etc/passwd.csv",
        "link.csv",
        "folder/outside.csv",
        "gs://lake/../outside.csv",
        "gs://lake//etc/passwd.csv",
    ],
)
def test_path_outside_the_lake_is_rejected(object_name: str, lake: Path) -> None:
    (lake / "link.csv").symlink_to(lake.parent / "outside.csv")
    (lake / "folder").symlink_to(lake.parent)
    (lake.parent / "lake-other").mkdir()
    (lake.parent / "lake-other" / "titanic.csv").write_text(TEXT)
    message = run_and_read_failure("inspect_object", object=object_name.format(lake=lake))
    assert f"is outside the lake's folder {lake}" in message


@pytest.mark.parametrize(
    ("object_name", "expected"),
    [
        ("none.csv", "there is no {lake}/none.csv"),
        ("none.parquet", "there is no {lake}/none.parquet"),
        ("folder.csv", "{lake}/folder.csv cannot be read"),
        ("titanic.xlsx", "'titanic.xlsx' ends in none of .csv, .csv.gz, .csv.zst, .parquet"),
        ("", "'' ends in none of"),
        ("gs://Bucket/titanic.csv", "is not of the form gs://<bucket>/<key>"),
        ("nul\0.csv", "is not a path"),
    ],
)
def test_missing_object_is_named(object_name: str, expected: str, lake: Path) -> None:
    (lake / "folder.csv").mkdir()
    assert expected.format(lake=lake) in run_and_read_failure("inspect_object", object=object_name)


def write_empty(path: Path) -> None:
    path.write_bytes(b"")


def write_header_only(path: Path) -> None:
    path.write_text("name,age\n")


def write_packed_header_only(path: Path) -> None:
    path.write_bytes(gzip.compress(b"name,age\n"))


def write_no_rows(path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.csv", write_empty),
        ("x.parquet", write_empty),
        ("x.csv", write_header_only),
        ("x.csv.gz", write_packed_header_only),
        ("x.parquet", write_no_rows),
    ],
)
def test_empty_object_fails(name: str, make: Callable[[Path], None], lake: Path) -> None:
    make(lake / name)
    message = run_and_read_failure("inspect_object", object=name)
    assert str(lake / name) in message
    assert "mpty" in message or "0 bytes" in message


def write_ragged(path: Path) -> None:
    path.write_text("a,b\n" + "1,2\n" * 400_000 + "3\n")


def write_other_encoding(path: Path) -> None:
    path.write_bytes("a,b\ncafé,1\n".encode("latin-1") * 2)


def truncate_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(os.urandom(3_000_000).hex("\n", 8).encode())[:-1_000_000])


def truncate_zstd(path: Path) -> None:
    path.write_bytes(compress_zstd(os.urandom(3_000_000).hex("\n", 8))[:-1_000_000])


def write_no_zstd(path: Path) -> None:
    path.write_text(TEXT)


def truncate_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": range(1000)}), path)
    path.write_bytes(path.read_bytes()[:-10])


def damage_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": os.urandom(5000).hex(" ").split()}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:5000] = os.urandom(4996)
    path.write_bytes(content)


def encrypt_parquet(path: Path) -> None:
    write_encrypted(path, pa.table({"a": range(1000)}), "a", plain_footer=True)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.csv", write_ragged),
        ("x.csv.gz", truncate_gzip),
        ("x.csv.zst", truncate_zstd),
        ("x.csv.zst", write_no_zstd),
        ("x.csv.gz", write_no_zstd),
        ("x.parquet", write_no_zstd),
        ("x.parquet", truncate_parquet),
        ("x.parquet", damage_parquet),
        ("x.parquet", encrypt_parquet),
    ],
)
def test_unreadable_object_fails(name: str, make: Callable[[Path], None], lake: Path) -> None:
    make(lake / name)
    message = run_and_read_failure("inspect_object", object=name)
    assert str(lake / name) in message
    assert "cannot be read" in message


@pytest.mark.parametrize("name", ["ours.parquet", "ours.csv.zst"])
def test_flipped_bit_of_a_sealed_object_is_noticed(name: str, lake: Path) -> None:
    """The bit may be in rows that are not shown."""
    if name.endswith(".parquet"):
        content = encode_trips(pa.table({"a": range(50_000)}), {"rows": 50_000}).to_pybytes()
    else:
        content = write_sealed_zstd(
            {"rows": 3}, compress_zstd(TEXT) + compress_zstd("Astor,47,227.525\n" * 5000)
        )
    (lake / name).write_bytes(content)
    run_and_read_metadata("inspect_object", object=name)
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    (lake / name).write_bytes(damaged)
    message = run_and_read_failure("inspect_object", object=name)
    assert f"{lake / name} cannot be read: it is damaged: the checksum of its content is" in message


def test_large_object_is_read_in_blocks(lake: Path) -> None:
    with gzip.open(lake / "large.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"id,text\n")
        for start in range(20):
            file.write(b"".join(b"%d,%s\n" % (start, b"x" * 90) for _ in range(50_000)))
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        metadata = run_and_read_metadata("inspect_object", object="large.csv.gz")
    finally:
        pa.set_memory_pool(before)
    assert metadata["rows"] == 1_000_000
    assert 0 < pool.max_memory() < 30e6


# Objects that are wider or larger than they look


@pytest.mark.parametrize("name", ["wide.csv", "wide.parquet"])
def test_ten_thousand_columns_are_shown(lake: Path, name: str) -> None:
    names = [f"c{number}" for number in range(10_000)]
    (lake / "wide.csv").write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    pq.write_table(pa.table({name: [1] for name in names}), lake / "wide.parquet")
    metadata = run_and_read_metadata("inspect_object", object=name)
    assert [column.name for column in metadata["columns"].columns] == names
    (row,) = read_records(metadata["preview"])
    assert list(row) == [*names[:MAX_COLUMNS], "9,500 more columns"]


def test_schema_time_is_linear_in_columns() -> None:
    """100,000 names took 270 s when each was compared with all before it."""
    columns = [("same", "int64"), ("same (2)", "int64")] * 50_000
    started = time.process_time()
    names = _number_duplicates(name for name, _ in columns)
    assert time.process_time() - started < 5
    assert len(set(names)) == len(columns)
    assert names[:4] == ["same", "same (2)", "same (3)", "same (2) (2)"]


def test_rows_that_exceed_memory_are_not_shown(lake: Path) -> None:
    """Some KB unpack to 300 MB in the first 1,000 rows."""
    text = pa.DictionaryArray.from_arrays(
        pa.array([0] * 1000, pa.int32()), pa.array(["x" * 300_000])
    )
    pq.write_table(
        pa.table({"text": text}), lake / "bomb.parquet", compression="zstd", store_schema=False
    )
    assert (lake / "bomb.parquet").stat().st_size < 200_000
    message = run_and_read_failure("inspect_object", object="bomb.parquet", rows=1000)
    assert "bomb.parquet is too large to show: the first " in message
    assert run_and_read_metadata("inspect_object", object="bomb.parquet", rows=2)["rows"] == 1000


def test_endless_object_is_not_counted_to_the_end(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_object, "MAX_UNPACKED_BYTES", 1 << 20)
    (lake / "bomb.csv.zst").write_bytes(compress_zstd("a,b\n" + "11,22\n" * 1_000_000))
    assert "unpacks to over 1,048,576 bytes" in run_and_read_failure(
        "inspect_object", object="bomb.csv.zst"
    )
