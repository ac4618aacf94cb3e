"""Valid bytes of a month file, and the files that are rejected as a whole."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from taxi_assets.errors import SourceError
from taxi_assets.tlc import csv_blocks as lines_module
from taxi_assets.tlc.csv_blocks import open_csv_month
from taxi_assets_tests.tlc.files import HEADER, YELLOW, make_line, make_month_file

BODY = b"".join(make_line(VendorID=str(at)) + b"\n" for at in range(500))
CONTENT = HEADER + BODY
NAMES = list(YELLOW.header)


def read_blocks(path: Path) -> tuple[bytes, bytes]:
    """Return the header and all blocks."""
    csv = open_csv_month(make_month_file(path))
    return csv.line, b"".join(block.data for block in csv.blocks)


def build_header(*names: str) -> bytes:
    return ",".join(names).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.csv", CONTENT),
        ("m.csv.gz", gzip.compress(CONTENT, mtime=0)),
        ("M.CSV.GZ", gzip.compress(CONTENT, mtime=0)),
        (
            "two-members.csv.gz",
            gzip.compress(CONTENT[:1234], mtime=0) + gzip.compress(CONTENT[1234:], mtime=0),
        ),
        ("padded.csv.gz", gzip.compress(CONTENT, mtime=0) + b"\0" * 512),
    ],
)
@pytest.mark.parametrize("block", [100, 1 << 20])
def test_file_is_read_completely(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes, block: int
) -> None:
    monkeypatch.setattr(lines_module, "BLOCK", block)
    (tmp_path / name).write_bytes(content)
    assert read_blocks(tmp_path / name) == (HEADER, BODY)


def test_blocks_hold_whole_numbered_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "BLOCK", 250)
    path = tmp_path / "m.csv"
    path.write_bytes(CONTENT + b"last")
    blocks = list(open_csv_month(make_month_file(path)).blocks)
    assert len(blocks) > 100
    line = 2
    for block in blocks:
        assert block.first_line == line
        assert block.data.endswith(b"\n") or block is blocks[-1]
        line += block.data.count(b"\n")
    assert blocks[-1].read_bytes == path.stat().st_size


@pytest.mark.parametrize(
    "header",
    [
        HEADER,
        HEADER.rstrip(),
        HEADER.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + HEADER,
        ",".join(f'"{name}"' for name in NAMES).encode() + b"\n",
        HEADER.replace(b",", b", "),
    ],
)
def test_header_alone_is_a_month_without_rows(tmp_path: Path, header: bytes) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(header)
    assert read_blocks(path) == (header, b"")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty: fetch it again"),
        (b"\n", "missing VendorID, tpep_pickup_datetime"),
        (BODY, "missing VendorID"),
        (build_header(*NAMES[:4], *NAMES[5:]), "missing trip_distance)"),
        (build_header(*NAMES[:-2], NAMES[-1]), "missing total_amount)"),
        (build_header(*NAMES[:-1], "surge"), "missing congestion_surcharge; unknown 'surge')"),
        (build_header(*NAMES, "vendor_id"), "twice VendorID)"),
        (build_header(*NAMES, "Airport_fee", "airport_fee"), "twice airport_fee)"),
        (build_header("", *NAMES), "no name in column 1, as pandas writes an index"),
        (build_header("Unnamed: 0", *NAMES), "unknown 'Unnamed: 0'"),
        (build_header(*NAMES, NAMES[3]), "twice passenger_count)"),
        (build_header(*NAMES[1:], NAMES[0]), "order: column 1 is tpep_pickup_datetime instead of"),
        (HEADER.replace(b",", b";"), "unknown 'VendorID;tpep_pickup_datetime;"),
        (CONTENT.replace(b"\n", b"\r"), "its lines end in CR alone, not LF or CRLF"),
        (CONTENT.decode().encode("utf-16"), "unknown"),
        (HEADER.replace(b"VendorID", b"Vendor\xe9"), "unknown 'Vendor\ufffd'"),
    ],
)
def test_file_with_another_header_is_rejected_with_the_difference(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=re.escape(expected)) as raised:
        read_blocks(path)
    assert str(raised.value).startswith(f"yellow 2021-02: {path} ")


def truncate(data: bytes) -> bytes:
    return data[:-50]


def corrupt_crc(data: bytes) -> bytes:
    return data[:-8] + b"\0\0\0\0" + data[-4:]


def corrupt_length(data: bytes) -> bytes:
    return data[:-4] + b"\1\0\0\0"


def flip_bit(data: bytes) -> bytes:
    return data[:500] + bytes(255 - byte for byte in data[500:520]) + data[520:]


def append_garbage(data: bytes) -> bytes:
    return data + b"garbage"


@pytest.mark.parametrize(
    "damage", [truncate, corrupt_crc, corrupt_length, flip_bit, append_garbage]
)
@pytest.mark.parametrize("block", [100, 1 << 20])
def test_damaged_gzip_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes], block: int
) -> None:
    monkeypatch.setattr(lines_module, "BLOCK", block)
    path = tmp_path / "m.csv.gz"
    path.write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(SourceError, match=r"truncated or damaged .*: fetch it again"):
        read_blocks(path)


def test_gzip_bomb_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MAX_SPLIT_BYTES", 1 << 20)
    monkeypatch.setattr(lines_module, "BLOCK", 1 << 16)
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress(HEADER + b"\n" * (4 << 20)))
    with pytest.raises(SourceError, match="unpacks to over 1,048,576 bytes"):
        read_blocks(path)


def test_endless_line_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 1 << 20)
    monkeypatch.setattr(lines_module, "BLOCK", 1 << 18)
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress(CONTENT + b"\0" * (4 << 20)))
    with pytest.raises(SourceError, match="a line of over 1 MiB: it is not a CSV of trips"):
        read_blocks(path)
