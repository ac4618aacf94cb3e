"""No bit of a stored object changes unnoticed, and other tools read the objects directly."""

from __future__ import annotations

import io
import random
import shutil
import subprocess
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq
import pytest
import zstandard

from taxi_assets.defs.io_managers.partition_data import encode_trips
from taxi_assets.defs.io_managers.sealed_objects import (
    METADATA_KEY,
    SEAL,
    DamagedError,
    SealedParquetWriter,
    open_parquet,
    open_sealed_footer,
    open_sealed_zstd,
    verify_sealed_stream,
    write_sealed_zstd,
)
from taxi_assets.tlc.csv_split import CODEC
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import convert_to_table
from taxi_assets.trips.profile import profile_partition
from taxi_assets_tests.trips.test_profile import make_frame

YELLOW = SERVICES["yellow"]
DAY_METADATA = {"service": "yellow", "asset": "cleaned_trips", "partition": "2021-01-05", "rows": 3}
HEADER = b"tpep_pickup_datetime,passenger_count,total_amount\n"
ROUNDS = 3
"""Different flips of every byte."""


def make_cleaned_object() -> bytes:
    """Return a cleaned object with dictionaries, nulls, statistics and a profile."""
    table = convert_to_table(make_frame(60), YELLOW)
    metadata = DAY_METADATA | {
        "profile": profile_partition(table, YELLOW).to_metadata(),
        "total_amount": 12.5,
    }
    return encode_trips(table, metadata).to_pybytes()


def make_raw_rows_object() -> bytes:
    """Return a raw Parquet object of two row groups, without statistics."""
    rows = [{"id": n, "flag": "NY"[n % 2], "at": datetime(2021, 1, 5, n % 24)} for n in range(300)]  # noqa: DTZ001
    table = pa.Table.from_pylist(rows)
    out = io.BytesIO()
    with SealedParquetWriter(out, table.schema, write_statistics=False) as writer:
        writer.write_table(table, 200)
        writer.seal(DAY_METADATA)
    return out.getvalue()


def make_frames(frames: int = 20, rows: int = 10) -> tuple[bytes, bytes]:
    """Return a raw object of lines in several frames, and its unpacked content."""
    start = datetime(2021, 1, 5)  # noqa: DTZ001
    parts = [HEADER] + [
        b"".join(
            f"{start + timedelta(seconds=number * rows + row)},{row % 5},{row / 7:.2f}\n".encode()
            for row in range(rows)
        )
        for number in range(frames)
    ]
    packed = b"".join(CODEC.compress(part, asbytes=True) for part in parts)
    return write_sealed_zstd(DAY_METADATA, packed), b"".join(parts)


def make_raw_lines_object() -> bytes:
    return make_frames()[0]


def read_parquet(content: bytes) -> tuple[Any, ...]:
    parquet, stored_metadata = open_parquet(pa.py_buffer(content))
    return parquet.read(use_threads=False), stored_metadata


def read_zstd(content: bytes) -> tuple[Any, ...]:
    stored_metadata, packed = open_sealed_zstd(pa.py_buffer(content))
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        return stream.read(), stored_metadata


OBJECTS = [
    pytest.param(make_cleaned_object, read_parquet, id="cleaned"),
    pytest.param(make_raw_rows_object, read_parquet, id="raw-parquet"),
    pytest.param(make_raw_lines_object, read_zstd, id="raw-lines"),
]
Make = Callable[[], bytes]
Read = Callable[[bytes], tuple[Any, ...]]


@pytest.mark.parametrize(("make", "read"), OBJECTS)
def test_flipped_bit_in_any_byte_is_noticed(make: Make, read: Read) -> None:
    content = make()
    assert read(content)[-1].items() >= DAY_METADATA.items()
    chance = random.Random(0)  # noqa: S311 - reproducible
    for position in range(len(content)):
        for bit in chance.sample(range(8), ROUNDS):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            with pytest.raises(DamagedError):
                read(bytes(damaged))


@pytest.mark.parametrize(("make", "read"), OBJECTS)
def test_truncated_or_extended_object_is_noticed(make: Make, read: Read) -> None:
    content = make()
    for end in range(len(content)):
        with pytest.raises(DamagedError):
            read(content[:end])
    for appended in (b"\0", b"PAR1", content, CODEC.compress(b"1,2,3\n", asbytes=True)):
        with pytest.raises(DamagedError):
            read(content + appended)


@pytest.mark.parametrize(("make", "read"), OBJECTS)
def test_swapped_zeroed_or_lost_blocks_are_noticed(make: Make, read: Read) -> None:
    content = make()
    chance = random.Random(1)  # noqa: S311 - reproducible
    for _ in range(500):
        size = chance.choice((1, 2, 16, 64, 512))
        first_start, second_start = sorted(chance.sample(range(len(content) - size), 2))
        block, end = content[first_start : first_start + size], second_start + size
        for damaged in (
            content[:first_start] + bytes(size) + content[first_start + size :],
            content[:first_start] + content[first_start + size :],
            content[:first_start] + block + content[first_start:],
            content[:second_start] + block + content[end:],
        ):
            if damaged != content:
                with pytest.raises((DamagedError, OSError, pa.ArrowException)):
                    read(damaged)


@pytest.mark.parametrize("make", [make_cleaned_object, make_raw_rows_object])
def test_footer_is_verified_without_the_pages(make: Make) -> None:
    content = make()
    length = int.from_bytes(content[-8:-4], "little") + 8
    metadata, stored_metadata = open_sealed_footer(pa.BufferReader(content))
    assert metadata.num_rows == pq.read_metadata(io.BytesIO(content)).num_rows
    assert stored_metadata.items() >= DAY_METADATA.items()
    for position in range(len(content) - length, len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << position % 8
        # A footer with too short a length may lose its seal; it does not parse.
        with pytest.raises((DamagedError, OSError)):
            open_sealed_footer(pa.BufferReader(bytes(damaged)))


@pytest.mark.parametrize(("make", "read"), OBJECTS)
def test_object_is_verified_block_by_block(make: Make, read: Read) -> None:
    del read
    content = make()
    verify_sealed_stream(pa.BufferReader(content))
    chance = random.Random(2)  # noqa: S311 - reproducible
    for position in chance.sample(range(4, len(content)), 500):
        damaged = bytearray(content)
        damaged[position] ^= 1 << chance.randrange(8)
        with pytest.raises(DamagedError):
            verify_sealed_stream(pa.BufferReader(bytes(damaged)))


def test_pages_have_checksums_that_other_readers_verify(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"
    content = bytearray(make_cleaned_object())
    chunk = pq.read_metadata(io.BytesIO(content)).row_group(0).column(0)
    end = chunk.dictionary_page_offset or chunk.data_page_offset
    content[end + chunk.total_compressed_size - 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.read_table(path, page_checksum_verification=True)


def test_unsealed_objects_of_older_versions_are_read() -> None:
    table = pa.table({"a": [1, 2, 3]})
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({METADATA_KEY.decode(): '{"rows": 3, "url": "u"}'})
    assert read_parquet(out.getvalue()) == (table, {"rows": 3, "url": "u"})
    assert open_sealed_footer(pa.BufferReader(out.getvalue()))[1] == {"rows": 3, "url": "u"}
    verify_sealed_stream(pa.BufferReader(out.getvalue()))
    text = b'{"rows": 3}'
    head = (0x184D2A50).to_bytes(4, "little") + len(text).to_bytes(4, "little") + text
    old = head + CODEC.compress(HEADER, asbytes=True)
    assert read_zstd(old) == (HEADER, {"rows": 3})
    verify_sealed_stream(pa.BufferReader(old))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"id,fare\n1,2.5\n", "is truncated or not Parquet"),
        (b"PAR1 no more PAR1", "is truncated or not Parquet"),
        (b"PAR1", "is truncated or not Parquet"),
    ],
)
def test_content_that_is_not_parquet_is_named(content: bytes, expected: str) -> None:
    with pytest.raises(DamagedError, match=expected):
        open_parquet(pa.py_buffer(content))
    with pytest.raises(DamagedError, match=expected):
        open_sealed_footer(pa.BufferReader(content))


def test_objects_of_other_tools_are_named() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), out)
    with pytest.raises(DamagedError, match="was not written by taxi_assets"):
        open_parquet(pa.py_buffer(out.getvalue()))
    for content in (zstandard.compress(HEADER), b"id,fare\n1,2\n"):
        with pytest.raises(DamagedError, match="was not written by taxi_assets"):
            open_sealed_zstd(pa.py_buffer(content))


def test_text_of_a_file_is_not_taken_for_a_seal() -> None:
    """A column's name, a value and metadata look like a seal."""
    fake = '"seal": "00000000 00000000"'
    assert SEAL.search(fake.encode())
    table = pa.table({fake: [fake], "n": [1]})
    content = encode_trips(table, {"url": fake, "zone": fake}).to_pybytes()
    assert read_parquet(content) == (table, {"url": fake, "zone": fake})
    sealed = write_sealed_zstd(
        {"url": fake, "zone": fake}, CODEC.compress(fake.encode(), asbytes=True)
    )
    assert read_zstd(sealed) == (fake.encode(), {"url": fake, "zone": fake})


def test_unsealed_file_is_incomplete() -> None:
    out = io.BytesIO()
    table = pa.table({"a": [1]})
    with SealedParquetWriter(out, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(DamagedError, match="is truncated"):
        open_parquet(pa.py_buffer(out.getvalue()))


@pytest.mark.parametrize(("frames", "rows"), [(1, 3), (40, 500), (5000, 2)])
def test_every_reader_reads_all_frames_of_a_raw_object(
    frames: int, rows: int, tmp_path: Path
) -> None:
    content, unpacked = make_frames(frames, rows)
    assert content.count(b"\x28\xb5\x2f\xfd") >= frames + 1
    path = tmp_path / "trips.csv.zst"
    path.write_bytes(content)
    expected = pd.read_csv(io.BytesIO(unpacked))
    assert len(expected) == frames * rows
    pd.testing.assert_frame_equal(pd.read_csv(path), expected)
    row = duckdb.sql(f"SELECT count(*), sum(total_amount) FROM '{path}'").fetchone()
    assert row is not None
    assert row[0] == len(expected)
    assert row[1] == pytest.approx(expected["total_amount"].sum())
    with pa_fs.LocalFileSystem().open_input_stream(str(path), compression="detect") as stream:
        assert pc.read_csv(stream).num_rows == len(expected)
    with zstandard.open(path, "rb") as file:
        assert file.read() == unpacked


@pytest.mark.skipif(shutil.which("zstd") is None, reason="Debian's package zstd is not installed")
@pytest.mark.parametrize("frames", [1, 5000])
def test_zstd_command_unpacks_a_raw_object(frames: int, tmp_path: Path) -> None:
    content, unpacked = make_frames(frames, 2)
    path = tmp_path / "trips.csv.zst"
    path.write_bytes(content)
    for command in (["-dc", str(path)], ["-dc"]):
        completed = subprocess.run(
            ["zstd", *command], input=content, capture_output=True, check=True
        )
        assert completed.stdout == unpacked
    subprocess.run(["zstd", "-qt", str(path)], check=True)


@pytest.mark.parametrize("make", [make_cleaned_object, make_raw_rows_object])
def test_other_readers_read_a_sealed_parquet_object(make: Make, tmp_path: Path) -> None:
    content = make()
    path = tmp_path / f"tpep_pickup_date={date(2021, 1, 5)}" / "trips.parquet"
    path.parent.mkdir()
    path.write_bytes(content)
    expected = read_parquet(content)[0]
    assert pq.ParquetFile(path).read() == expected
    frame = pd.read_parquet(path)
    pd.testing.assert_frame_equal(frame[expected.column_names], expected.to_pandas())
    assert duckdb.sql(f"FROM '{path}'").arrow().read_all().num_rows == expected.num_rows
