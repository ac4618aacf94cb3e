"""Parquet files of some KB that unpack to GBs, by every encoding and structure that can."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.tlc.parquet_limits import (
    TooLargeError,
    estimate_unpacked_bytes,
    reject_parquet_bomb,
)

LIMIT = 16 << 20
MAX = 1 << 30
LONG = "x" * 5_000
ROWS = 20_000


def make_repeated(text: str, rows: int = ROWS) -> pa.Array:
    """Return one value many times, dictionary-encoded."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))


def make_nested(rows: int = ROWS) -> pa.Array:
    return pa.StructArray.from_arrays([pa.array([LONG] * rows)], ["text"])


def make_long_list() -> pa.Array:
    """Return one row of four million values."""
    return pa.array([pa.array([1.0] * 4_000_000)], pa.list_(pa.float64()))


BOMBS: dict[str, tuple[pa.Table, dict[str, Any]]] = {
    "dictionary": (
        pa.table({"id": [1] * ROWS, "text": make_repeated(LONG)}),
        {"store_schema": False},
    ),
    "dictionary type": (pa.table({"text": make_repeated(LONG)}), {}),
    "binary": (
        pa.table({"text": make_repeated(LONG).dictionary_decode().cast(pa.binary())}),
        {"use_dictionary": True},
    ),
    "late in the file": (
        pa.table({"text": pa.concat_arrays([make_repeated("y", 30_000), make_repeated(LONG)])}),
        {"store_schema": False},
    ),
    "name with a dot": (pa.table({"a.text": make_repeated(LONG)}), {"store_schema": False}),
    "delta": (
        pa.table({"text": [f"{LONG}{at}" for at in range(ROWS)]}),
        {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}},
    ),
    "structure": (pa.table({"s": make_nested()}), {}),
    "list": (pa.table({"l": make_long_list()}), {}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_rejected_before_it_is_unpacked(name: str, tmp_path: Path) -> None:
    table, options = BOMBS[name]
    path = tmp_path / "bomb.parquet"
    pq.write_table(table, path, compression="zstd", **options)
    assert path.stat().st_size < 400_000
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TooLargeError, match=r"unpack to .* bytes, over 16,777,216"):
        reject_parquet_bomb(str(path), LIMIT, MAX)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before
    assert grown < 4 * LIMIT >> 10


def test_file_of_ordinary_texts_passes_quickly(tmp_path: Path) -> None:
    rows, chance = 400_000, random.Random(1)  # noqa: S311 - no secret
    path = tmp_path / "month.parquet"
    pq.write_table(
        pa.table(
            {
                "flag": chance.choices(["Y", "N", None], k=rows),
                "base": chance.choices([f"B{n:05}" for n in range(900)], k=rows),
                "kind": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(),
                "note": [f"{n:032}" for n in range(rows)],
                "none": pa.nulls(rows),
                "total": [1.5] * rows,
            }
        ),
        path,
    )
    started = time.process_time()
    reject_parquet_bomb(str(path), 512 << 20, MAX)
    assert time.process_time() - started < 3
    with path.open("rb") as file:
        reject_parquet_bomb(file, 512 << 20, MAX)
    reject_parquet_bomb(pa.BufferReader(path.read_bytes()), 512 << 20, MAX)


def test_declared_size_counts_run_lengths(tmp_path: Path) -> None:
    path = tmp_path / "month.parquet"
    pq.write_table(pa.table({"total": pa.array([1.5] * 1_000_000), "id": [1] * 1_000_000}), path)
    assert path.stat().st_size < 20_000
    assert estimate_unpacked_bytes(pq.read_metadata(path)) >= 16_000_000
    with pytest.raises(TooLargeError, match=r"it unpacks to 16,\d{3},\d{3} bytes, over 15,000,000"):
        reject_parquet_bomb(str(path), LIMIT, 15_000_000)


def test_empty_file_passes(tmp_path: Path) -> None:
    path = tmp_path / "month.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    reject_parquet_bomb(str(path), LIMIT, MAX)
    assert estimate_unpacked_bytes(pq.read_metadata(path)) >= 0
