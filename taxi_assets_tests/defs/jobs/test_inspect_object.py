"""`inspect_object` on every kind of object, on damaged ones, and on paths that lead outside."""

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
from taxi_assets_tests.defs.jobs.jobs import records, refused, shown

TEXT = 'name,age,fare\n"Allen, Elisabeth",29,211.3375\n"two\nlines",,151.55\nAstor,47,227.525\n'


def zstd(text: str) -> bytes:
    return bytes(pa.compress(text.encode(), codec="zstd", asbytes=True))


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lake folder with the same three rows as every kind of object."""
    folder = tmp_path / "lake"
    folder.mkdir()
    monkeypatch.setenv("TAXI_LAKE", str(folder))
    (folder / "titanic.csv").write_text(TEXT)
    (folder / "titanic.csv.gz").write_bytes(gzip.compress(TEXT.encode()))
    (folder / "titanic.csv.zst").write_bytes(zstd(TEXT))
    (folder / "facts.csv.zst").write_bytes(write_sealed_zstd({"rows": 3}, zstd(TEXT)))
    pd.read_csv(folder / "titanic.csv").to_parquet(folder / "titanic.parquet")
    (tmp_path / "outside.csv").write_text("password\nplanted-secret\n")
    return folder


@pytest.mark.parametrize(
    "name",
    ["titanic.csv", "titanic.csv.gz", "titanic.csv.zst", "facts.csv.zst", "titanic.parquet"],
)
def test_schema_rows_and_preview(name: str, lake: Path) -> None:
    found = shown("inspect_object", object=name, rows=2)
    assert (found["rows"], found["bytes"]) == (3, (lake / name).stat().st_size)
    assert [row["name"] for row in records(found["preview"])] == ["Allen, Elisabeth", "two\nlines"]
    columns = {column.name: column.type for column in found["columns"].columns}
    assert list(columns) == ["name", "age", "fare"]
    assert columns["fare"] == "double"
    assert found["dagster/uri"] == str(lake / name)


@pytest.mark.parametrize(
    "named",
    [
        "{lake}/titanic.csv",
        "./titanic.csv",
        "sub/../titanic.csv",
        "gs://lake/titanic.csv",
        "link.csv",
    ],
)
def test_other_names_of_an_object(named: str, lake: Path) -> None:
    (lake / "link.csv").symlink_to("titanic.csv")
    assert shown("inspect_object", object=named.format(lake=lake))["rows"] == 3


def test_another_delimiter(lake: Path) -> None:
    (lake / "tabs.csv").write_text("a\tb\n1\t2\n")
    found = shown("inspect_object", object="tabs.csv", delimiter="\t")
    assert records(found["preview"]) == [{"a": 1, "b": 2}]


@pytest.mark.parametrize(
    "named",
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
def test_no_path_leaves_the_lake(named: str, lake: Path) -> None:
    (lake / "link.csv").symlink_to(lake.parent / "outside.csv")
    (lake / "folder").symlink_to(lake.parent)
    (lake.parent / "lake-other").mkdir()
    (lake.parent / "lake-other" / "titanic.csv").write_text(TEXT)
    said = refused("inspect_object", object=named.format(lake=lake))
    assert f"is outside the lake's folder {lake}" in said


@pytest.mark.parametrize(
    ("named", "said"),
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
def test_what_is_no_object(named: str, said: str, lake: Path) -> None:
    (lake / "folder.csv").mkdir()
    assert said.format(lake=lake) in refused("inspect_object", object=named)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def header_only(path: Path) -> None:
    path.write_text("name,age\n")


def header_only_packed(path: Path) -> None:
    path.write_bytes(gzip.compress(b"name,age\n"))


def no_rows(path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.csv", empty),
        ("x.parquet", empty),
        ("x.csv", header_only),
        ("x.csv.gz", header_only_packed),
        ("x.parquet", no_rows),
    ],
)
def test_an_empty_object_fails(name: str, make: Callable[[Path], None], lake: Path) -> None:
    make(lake / name)
    said = refused("inspect_object", object=name)
    assert str(lake / name) in said
    assert "mpty" in said or "0 bytes" in said


def ragged(path: Path) -> None:
    path.write_text("a,b\n" + "1,2\n" * 400_000 + "3\n")


def other_encoding(path: Path) -> None:
    path.write_bytes("a,b\ncafé,1\n".encode("latin-1") * 2)


def cut_gzip(path: Path) -> None:
    path.write_bytes(gzip.compress(os.urandom(3_000_000).hex("\n", 8).encode())[:-1_000_000])


def cut_zstd(path: Path) -> None:
    path.write_bytes(zstd(os.urandom(3_000_000).hex("\n", 8))[:-1_000_000])


def no_zstd(path: Path) -> None:
    path.write_text(TEXT)


def cut_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": range(1000)}), path)
    path.write_bytes(path.read_bytes()[:-10])


def damaged_parquet(path: Path) -> None:
    pq.write_table(pa.table({"a": os.urandom(5000).hex(" ").split()}), path, use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:5000] = os.urandom(4996)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("x.csv", ragged),
        ("x.csv.gz", cut_gzip),
        ("x.csv.zst", cut_zstd),
        ("x.csv.zst", no_zstd),
        ("x.csv.gz", no_zstd),
        ("x.parquet", no_zstd),
        ("x.parquet", cut_parquet),
        ("x.parquet", damaged_parquet),
    ],
)
def test_what_cannot_be_read_fails(name: str, make: Callable[[Path], None], lake: Path) -> None:
    make(lake / name)
    said = refused("inspect_object", object=name)
    assert str(lake / name) in said
    assert "cannot be read" in said


@pytest.mark.parametrize("name", ["ours.parquet", "ours.csv.zst"])
def test_a_changed_bit_of_an_object_of_ours_is_noticed(name: str, lake: Path) -> None:
    """Also in rows that are not shown."""
    if name.endswith(".parquet"):
        content = encode_trips(pa.table({"a": range(50_000)}), {"rows": 50_000}).to_pybytes()
    else:
        content = write_sealed_zstd({"rows": 3}, zstd(TEXT) + zstd("Astor,47,227.525\n" * 5000))
    (lake / name).write_bytes(content)
    shown("inspect_object", object=name)
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    (lake / name).write_bytes(damaged)
    said = refused("inspect_object", object=name)
    assert f"{lake / name} cannot be read: it is damaged: the checksum of its content is" in said


def test_a_large_object_is_read_in_blocks(lake: Path) -> None:
    with gzip.open(lake / "large.csv.gz", "wb", compresslevel=1) as file:
        file.write(b"id,text\n")
        for start in range(20):
            file.write(b"".join(b"%d,%s\n" % (start, b"x" * 90) for _ in range(50_000)))
    pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        found = shown("inspect_object", object="large.csv.gz")
    finally:
        pa.set_memory_pool(before)
    assert found["rows"] == 1_000_000
    assert 0 < pool.max_memory() < 30e6


# Objects that are wider or larger than they look


@pytest.mark.parametrize("name", ["wide.csv", "wide.parquet"])
def test_ten_thousand_columns(lake: Path, name: str) -> None:
    names = [f"c{at}" for at in range(10_000)]
    (lake / "wide.csv").write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    pq.write_table(pa.table({name: [1] for name in names}), lake / "wide.parquet")
    found = shown("inspect_object", object=name)
    assert [column.name for column in found["columns"].columns] == names
    (row,) = records(found["preview"])
    assert list(row) == [*names[:MAX_COLUMNS], "9,500 more columns"]


def test_a_table_takes_time_by_its_columns_and_not_by_their_square() -> None:
    """100,000 names took 270 s, each compared with all before it."""
    columns = [("same", "int64"), ("same (2)", "int64")] * 50_000
    began = time.process_time()
    names = _number_duplicates(name for name, _ in columns)
    assert time.process_time() - began < 5
    assert len(set(names)) == len(columns)
    assert names[:4] == ["same", "same (2)", "same (3)", "same (2) (2)"]


def test_rows_that_unpack_to_more_than_fit_in_memory_are_not_shown(lake: Path) -> None:
    """Some KB that stand for 300 MB in its first 1,000 rows."""
    text = pa.DictionaryArray.from_arrays(
        pa.array([0] * 1000, pa.int32()), pa.array(["x" * 300_000])
    )
    pq.write_table(
        pa.table({"text": text}), lake / "bomb.parquet", compression="zstd", store_schema=False
    )
    assert (lake / "bomb.parquet").stat().st_size < 200_000
    said = refused("inspect_object", object="bomb.parquet", rows=1000)
    assert "bomb.parquet is too large to show: the first " in said
    assert shown("inspect_object", object="bomb.parquet", rows=2)["rows"] == 1000


def test_what_unpacks_without_end_is_not_counted_to_the_end(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_object, "MAX_UNPACKED_BYTES", 1 << 20)
    (lake / "bomb.csv.zst").write_bytes(zstd("a,b\n" + "11,22\n" * 1_000_000))
    assert "unpacks to over 1,048,576 bytes" in refused("inspect_object", object="bomb.csv.zst")
