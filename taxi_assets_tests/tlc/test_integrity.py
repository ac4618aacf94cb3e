"""The kind of a file by its content, whatever its name, in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError
from taxi_assets.tlc.integrity import check_complete, check_file_start
from taxi_assets.tlc.remote_version import SourceLocation
from taxi_assets.tlc.schema import SchemaVersion
from taxi_assets.tlc.services import FHV, FHVHV
from taxi_assets_tests.tlc.encrypted import write_encrypted
from taxi_assets_tests.tlc.files import (
    FEBRUARY,
    HEADER,
    YELLOW,
    collect_lines,
    make_line,
    open_raw_month,
)

CSV = HEADER + make_line() + b"\n"


def make_zip(content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("m.csv", content)
    return sink.getvalue()


def make_parquet(_: bytes) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({name: ["1"] for name in YELLOW.header}), sink)
    return sink.getvalue()


def make_zstd(content: bytes) -> bytes:
    return pa.compress(content, "zstd", asbytes=True)


def encode_as(encoding: str) -> Callable[[bytes], bytes]:
    return lambda content: content.decode().encode(encoding)


def always_return(content: bytes) -> Callable[[bytes], bytes]:
    return lambda _: content


KINDS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "UTF-16 with mark": (
        encode_as("utf-16"),
        "UTF-16 text, not UTF-8; convert it: iconv -f UTF-16 ",
    ),
    "UTF-16 BE with mark": (
        always_return(b"\xfe\xff" + CSV.decode().encode("utf-16-be")),
        "UTF-16 text",
    ),
    "UTF-16 LE": (encode_as("utf-16-le"), "UTF-16LE text"),
    "UTF-16 BE": (encode_as("utf-16-be"), "UTF-16BE text"),
    "UTF-32 with mark": (encode_as("utf-32"), "UTF-32 text"),
    "UTF-32 LE": (encode_as("utf-32-le"), "UTF-32LE text"),
    "UTF-32 BE": (encode_as("utf-32-be"), "UTF-32BE text"),
    "zip": (make_zip, "a zip archive or an Excel workbook"),
    "bzip2": (bz2.compress, "bzip2"),
    "xz": (lzma.compress, "xz"),
    "zstd": (make_zstd, "zstd"),
    "Parquet": (make_parquet, "Parquet"),
    "old Excel": (
        always_return(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 500),
        "an old Excel workbook",
    ),
    "HTML": (always_return(b"\n <!DOCTYPE html><html>"), "an HTML or XML page"),
    "XML": (
        always_return(b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code>"),
        "an HTML or XML page",
    ),
    "S3's error": (
        always_return(b"<Error><Code>AccessDenied</Code></Error>"),
        "an HTML or XML page",
    ),
    "JSON": (always_return(b'{"error": {"code": 404}}'), "JSON, not trips"),
    "JSON list": (always_return(b'\xef\xbb\xbf[{"VendorID": 1}]'), "JSON, not trips"),
    "blank": (always_return(b"\n \r\n"), "empty"),
}


def separate_by(separator: bytes) -> bytes:
    return CSV.replace(b",", separator)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (
            separate_by(b";"),
            "has its fields separated by semicolons, not commas; convert it to CSV",
        ),
        (separate_by(b"\t"), "has its fields separated by tabs, not commas"),
        (separate_by(b"|"), "has its fields separated by vertical bars, not commas"),
        (b"\r\n" + CSV, "has a blank first line; delete the lines above"),
        (b"Forbidden; key=abc\n", "a text whose first line names no column of yellow trips"),
    ],
)
def test_unknown_first_line_is_identified(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(content)
    assert kind in describe_file(path, ".csv")
    assert "abc" not in describe_file(path, ".csv")


def describe_file(path: Path, suffix: str) -> str:
    with pytest.raises(SourceError) as rejected:
        check_complete(path, suffix, SourceLocation("yellow 2021-02", str(path)), YELLOW, FEBRUARY)
    message = str(rejected.value)
    assert "\n" not in message
    assert message.startswith(f"yellow 2021-02: {path}: ")
    return message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_file_of_another_kind_is_identified(tmp_path: Path, kind: str, suffix: str) -> None:
    make, name = KINDS[kind]
    path = tmp_path / f"m{suffix}"
    path.write_bytes(make(CSV))
    if (kind, suffix) == ("Parquet", ".parquet"):
        check_complete(path, suffix, SourceLocation("yellow 2021-02", str(path)), YELLOW, FEBRUARY)
    else:
        assert f": {name}" in describe_file(path, suffix)
    path.write_bytes(gzip.compress(make(CSV)))
    assert f": inside the gzip {name}" in describe_file(path, suffix)


def test_gzip_inside_gzip_is_named_with_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "m.csv.gz"
    path.write_bytes(gzip.compress(gzip.compress(CSV)))
    assert "inside the gzip gzip" in describe_file(path, ".csv.gz")
    assert describe_file(path, ".csv.gz").endswith("not CSV; unpack it once: gunzip")


@pytest.mark.parametrize(
    ("plain_footer", "problem"),
    [
        (False, "encrypted Parquet (starts with b'PARE"),
        (True, "damaged Parquet (Cannot decrypt ColumnMetadata"),
    ],
)
def test_encrypted_parquet_is_rejected(tmp_path: Path, problem: str, *, plain_footer: bool) -> None:
    rows = pa.table({name: ["1"] for name in YELLOW.header})
    path = tmp_path / "m.parquet"
    write_encrypted(path, rows, "total_amount", plain_footer=plain_footer)
    assert problem in describe_file(path, ".parquet")
    with pytest.raises(SourceError, match="is damaged"):
        collect_lines(open_raw_month(path))


def test_column_name_that_is_not_utf_8_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({name: ["1"] for name in YELLOW.header}), path)
    path.write_bytes(path.read_bytes().replace(b"total_amount", b"total_amoun\xff"))
    assert "damaged Parquet (a column's name is not UTF-8" in describe_file(path, ".parquet")


@pytest.mark.parametrize("content", [CSV, b"\xef\xbb\xbf" + CSV])
def test_utf_8_csv_is_accepted(tmp_path: Path, content: bytes) -> None:
    origin = SourceLocation("yellow 2021-02", "m")
    for suffix, stored in ((".csv", content), (".csv.gz", gzip.compress(content))):
        path = tmp_path / f"m{suffix}"
        path.write_bytes(stored)
        check_file_start(path, suffix, origin, YELLOW, FEBRUARY)
        check_complete(path, suffix, origin, YELLOW, FEBRUARY)


@pytest.mark.parametrize("version", FHVHV.schema_versions, ids=lambda version: version.months)
def test_a_file_of_a_service_that_has_all_columns_of_another_is_rejected(
    tmp_path: Path, version: SchemaVersion
) -> None:
    """A month of fhvhv has the pickup time of fhv, whose columns are optional."""
    csv, table = tmp_path / "m.csv", tmp_path / "m.parquet"
    csv.write_text(",".join(version.header) + "\n")
    pq.write_table(pa.table({name: ["1"] for name in version.header}), table)
    month = Month(*map(int, version.months.removeprefix("since ")[:7].split("-")))
    for path in (csv, table):
        location = SourceLocation("fhv", str(path))
        with pytest.raises(
            SourceError, match=r"has the columns of fhvhv trips .*hvfhs_license_num"
        ):
            check_complete(path, path.suffix, location, FHV, month)
        check_complete(path, path.suffix, location, FHVHV, month)


def test_a_first_line_of_one_huge_name_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes(HEADER.rstrip() + b',"' + b"x" * 140_000 + b'"\n' + make_line() + b",1\n")
    with pytest.raises(SourceError, match=r"wrong header .its first line cannot be read: field la"):
        collect_lines(open_raw_month(path))
