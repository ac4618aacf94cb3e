"""No bit of a stored object changes unnoticed, and other tools read the objects as they are."""

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
from taxi_assets.tlc.raw_month import CODEC
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import convert_to_table
from taxi_assets.trips.profile import profile_partition
from taxi_assets_tests.trips.test_profile import make_frame

YELLOW = SERVICES["yellow"]
FACTS_OF_DAY = {"service": "yellow", "asset": "cleaned_trips", "partition": "2021-01-05", "rows": 3}
HEADER = b"tpep_pickup_datetime,passenger_count,total_amount\n"
ROUNDS = 3
"""Different flips of every byte."""


def cleaned() -> bytes:
    """A cleaned object with dictionaries, nulls, statistics and a profile in its facts."""
    table = convert_to_table(make_frame(60), YELLOW)
    facts = FACTS_OF_DAY | {
        "profile": profile_partition(table, YELLOW).to_metadata(),
        "total_amount": 12.5,
    }
    return encode_trips(table, facts).to_pybytes()


def raw_rows() -> bytes:
    """A raw Parquet object of two row groups, without statistics."""
    rows = [{"id": n, "flag": "NY"[n % 2], "at": datetime(2021, 1, 5, n % 24)} for n in range(300)]  # noqa: DTZ001
    table = pa.Table.from_pylist(rows)
    out = io.BytesIO()
    with SealedParquetWriter(out, table.schema, write_statistics=False) as writer:
        writer.write_table(table, 200)
        writer.seal(FACTS_OF_DAY)
    return out.getvalue()


def lines(frames: int = 20, rows: int = 10) -> tuple[bytes, bytes]:
    """A raw object of lines in several frames, and what it unpacks to."""
    start = datetime(2021, 1, 5)  # noqa: DTZ001
    parts = [HEADER] + [
        b"".join(
            f"{start + timedelta(seconds=one * rows + row)},{row % 5},{row / 7:.2f}\n".encode()
            for row in range(rows)
        )
        for one in range(frames)
    ]
    packed = b"".join(CODEC.compress(part, asbytes=True) for part in parts)
    return write_sealed_zstd(FACTS_OF_DAY, packed), b"".join(parts)


def raw_lines() -> bytes:
    return lines()[0]


def read_parquet(content: bytes) -> tuple[Any, ...]:
    parquet, facts = open_parquet(pa.py_buffer(content))
    return parquet.read(use_threads=False), facts


def read_zstd(content: bytes) -> tuple[Any, ...]:
    facts, packed = open_sealed_zstd(pa.py_buffer(content))
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        return stream.read(), facts


OBJECTS = [
    pytest.param(cleaned, read_parquet, id="cleaned"),
    pytest.param(raw_rows, read_parquet, id="raw-parquet"),
    pytest.param(raw_lines, read_zstd, id="raw-lines"),
]
Make = Callable[[], bytes]
Read = Callable[[bytes], tuple[Any, ...]]


@pytest.mark.parametrize(("make", "read"), OBJECTS)
def test_a_flipped_bit_in_any_byte_is_noticed(make: Make, read: Read) -> None:
    content = make()
    assert read(content)[-1].items() >= FACTS_OF_DAY.items()
    chance = random.Random(0)  # noqa: S311 - reproducible
    for place in range(len(content)):
        for bit in chance.sample(range(8), ROUNDS):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            with pytest.raises(DamagedError):
                read(bytes(damaged))


@pytest.mark.parametrize(("make", "read"), OBJECTS)
def test_an_object_that_is_cut_anywhere_or_goes_on_is_noticed(make: Make, read: Read) -> None:
    content = make()
    for end in range(len(content)):
        with pytest.raises(DamagedError):
            read(content[:end])
    for more in (b"\0", b"PAR1", content, CODEC.compress(b"1,2,3\n", asbytes=True)):
        with pytest.raises(DamagedError):
            read(content + more)


@pytest.mark.parametrize(("make", "read"), OBJECTS)
def test_blocks_that_were_swapped_zeroed_or_lost_are_noticed(make: Make, read: Read) -> None:
    content = make()
    chance = random.Random(1)  # noqa: S311 - reproducible
    for _ in range(500):
        size = chance.choice((1, 2, 16, 64, 512))
        one, other = sorted(chance.sample(range(len(content) - size), 2))
        block, end = content[one : one + size], other + size
        for damaged in (
            content[:one] + bytes(size) + content[one + size :],
            content[:one] + content[one + size :],
            content[:one] + block + content[one:],
            content[:other] + block + content[end:],
        ):
            if damaged != content:
                with pytest.raises((DamagedError, OSError, pa.ArrowException)):
                    read(damaged)


@pytest.mark.parametrize("make", [cleaned, raw_rows])
def test_a_footer_is_verified_without_the_rest(make: Make) -> None:
    content = make()
    length = int.from_bytes(content[-8:-4], "little") + 8
    found, facts = open_sealed_footer(pa.BufferReader(content))
    assert found.num_rows == pq.read_metadata(io.BytesIO(content)).num_rows
    assert facts.items() >= FACTS_OF_DAY.items()
    for place in range(len(content) - length, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        # A footer that claims to be shorter than it is may have lost its seal; it does not parse.
        with pytest.raises((DamagedError, OSError)):
            open_sealed_footer(pa.BufferReader(bytes(damaged)))


@pytest.mark.parametrize(("make", "read"), OBJECTS)
def test_an_object_is_verified_block_by_block(make: Make, read: Read) -> None:
    del read
    content = make()
    verify_sealed_stream(pa.BufferReader(content))
    chance = random.Random(2)  # noqa: S311 - reproducible
    for place in chance.sample(range(4, len(content)), 500):
        damaged = bytearray(content)
        damaged[place] ^= 1 << chance.randrange(8)
        with pytest.raises(DamagedError):
            verify_sealed_stream(pa.BufferReader(bytes(damaged)))


def test_pages_have_checksums_that_other_readers_verify(tmp_path: Path) -> None:
    path = tmp_path / "trips.parquet"
    content = bytearray(cleaned())
    chunk = pq.read_metadata(io.BytesIO(content)).row_group(0).column(0)
    end = chunk.dictionary_page_offset or chunk.data_page_offset
    content[end + chunk.total_compressed_size - 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        pq.read_table(path, page_checksum_verification=True)


def test_objects_from_before_there_were_seals_are_read() -> None:
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
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"id,fare\n1,2.5\n", "is truncated or not Parquet"),
        (b"PAR1 no more PAR1", "is truncated or not Parquet"),
        (b"PAR1", "is truncated or not Parquet"),
    ],
)
def test_what_is_no_parquet_is_named(content: bytes, said: str) -> None:
    with pytest.raises(DamagedError, match=said):
        open_parquet(pa.py_buffer(content))
    with pytest.raises(DamagedError, match=said):
        open_sealed_footer(pa.BufferReader(content))


def test_objects_of_other_tools_are_named() -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), out)
    with pytest.raises(DamagedError, match="was not written by taxi_assets"):
        open_parquet(pa.py_buffer(out.getvalue()))
    for content in (zstandard.compress(HEADER), b"id,fare\n1,2\n"):
        with pytest.raises(DamagedError, match="was not written by taxi_assets"):
            open_sealed_zstd(pa.py_buffer(content))


def test_no_text_of_a_file_passes_for_a_seal() -> None:
    """A column's name, a value and a fact that look like a seal."""
    fake = '"seal": "00000000 00000000"'
    assert SEAL.search(fake.encode())
    table = pa.table({fake: [fake], "n": [1]})
    content = encode_trips(table, {"url": fake, "zone": fake}).to_pybytes()
    assert read_parquet(content) == (table, {"url": fake, "zone": fake})
    sealed = write_sealed_zstd(
        {"url": fake, "zone": fake}, CODEC.compress(fake.encode(), asbytes=True)
    )
    assert read_zstd(sealed) == (fake.encode(), {"url": fake, "zone": fake})


def test_a_file_that_was_not_sealed_is_not_complete() -> None:
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
    content, unpacked = lines(frames, rows)
    assert content.count(b"\x28\xb5\x2f\xfd") >= frames + 1
    path = tmp_path / "trips.csv.zst"
    path.write_bytes(content)
    expected = pd.read_csv(io.BytesIO(unpacked))
    assert len(expected) == frames * rows
    pd.testing.assert_frame_equal(pd.read_csv(path), expected)
    found = duckdb.sql(f"SELECT count(*), sum(total_amount) FROM '{path}'").fetchone()
    assert found is not None
    assert found[0] == len(expected)
    assert found[1] == pytest.approx(expected["total_amount"].sum())
    with pa_fs.LocalFileSystem().open_input_stream(str(path), compression="detect") as stream:
        assert pc.read_csv(stream).num_rows == len(expected)
    with zstandard.open(path, "rb") as file:
        assert file.read() == unpacked


@pytest.mark.skipif(shutil.which("zstd") is None, reason="Debian's package zstd is not installed")
@pytest.mark.parametrize("frames", [1, 5000])
def test_the_zstd_command_unpacks_a_raw_object(frames: int, tmp_path: Path) -> None:
    content, unpacked = lines(frames, 2)
    path = tmp_path / "trips.csv.zst"
    path.write_bytes(content)
    for command in (["-dc", str(path)], ["-dc"]):
        done = subprocess.run(["zstd", *command], input=content, capture_output=True, check=True)
        assert done.stdout == unpacked
    subprocess.run(["zstd", "-qt", str(path)], check=True)


@pytest.mark.parametrize("make", [cleaned, raw_rows])
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
