"""Check that a file is a complete month file before its rows are read."""

from __future__ import annotations

import codecs
import gzip
import os
import zlib
from pathlib import Path
from typing import IO

import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError, format_one_line
from taxi_assets.tlc.column import normalize_name
from taxi_assets.tlc.header import (
    MAX_HEADER_BYTES,
    Header,
    HeaderError,
    match_header,
    parse_header_line,
)
from taxi_assets.tlc.parquet_limits import open_checked
from taxi_assets.tlc.remote_version import SourceLocation
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
MIN_PARQUET_BYTES = 12
"""Size of the two magic numbers and the footer's length, in bytes."""
OPEN = "open it to see why"
OTHER_TEXTS = {
    b"version https://git-lfs.github.com/spec/v1": (
        "a Git LFS pointer, not the file",
        "run git lfs pull there",
    ),
    b"<": ("an HTML or XML page, not trips", OPEN),
    b"{": ("JSON, not trips", OPEN),
    b"[": ("JSON, not trips", OPEN),
}
"""The problem with a text, and its fix, by its first bytes."""
NEITHER = "neither gzip nor Parquet"
KINDS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"PK\x05\x06": "an empty zip archive",
    PARQUET: "Parquet",
    b"PARE": "encrypted Parquet",
    GZIP: "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"ORC": "ORC",
    b"Obj\x01": "Avro",
    b"ARROW1": "Arrow IPC",
    b"SQLite format 3": "an SQLite database",
    b"%PDF": "a PDF",
}
"""The kind of a file, by its first bytes."""
ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""By byte order mark; that of UTF-32 begins with that of UTF-16 and comes first."""
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Field separators other than commas."""
MAX_UNPACKED_BYTES = 64 << 30
"""Largest unpacked month, which stops gzip bombs; the largest published CSV has 2.9 GB."""
LETTERS = 16
"""Number of characters by which the encoding of a header is detected."""
CHUNK = 1 << 20
DOWNLOAD_AGAIN = "download it again from its publisher"


def check_file_start(
    path: Path, suffix: str, location: SourceLocation, service: Service, month: Month
) -> None:
    """Reject a file whose first bytes, unpacked if it is gzip, are not those of a month file.

    A CSV must begin with a header of the service: some servers send error texts with status 200.
    """
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES)
    starts, kind = head[:8], _detect_kind(head) or NEITHER
    packed = kind == "gzip"
    if packed:
        try:
            with gzip.open(path) as file:
                head = file.read(MAX_HEADER_BYTES)
        except (EOFError, OSError, zlib.error) as error:
            raise _build_damage_error(error, location) from None
    if kind in ("gzip", NEITHER):
        _check_text(head, "inside the gzip " if packed else "", location)
    if kind != {".csv.gz": "gzip", ".parquet": "Parquet"}.get(suffix, NEITHER):
        raise location.build_error(
            f"{kind} (starts with {starts!r}), though its name says {suffix}",
            "unpack or convert it"
            if kind not in ("gzip", "Parquet", NEITHER)
            else "correct its extension, or download it again",
        )
    if suffix != ".parquet":
        _check_header(head, location, service, month)


def _detect_kind(head: bytes) -> str | None:
    """Return the kind of a file by its first bytes; None for text and unknown kinds."""
    return next((kind for magic, kind in KINDS.items() if head.startswith(magic)), None)


def _check_text(head: bytes, inside: str, location: SourceLocation) -> None:
    """Reject text, also the text inside a gzip, that is not CSV in UTF-8."""
    if inside and (kind := _detect_kind(head)):
        remedy = "unpack it once: gunzip" if kind == "gzip" else DOWNLOAD_AGAIN
        raise location.build_error(f"{inside}{kind} ({head[:8]!r}), not CSV", remedy)
    if encoding := _detect_encoding(head):
        remedy = f"convert it: iconv -f {encoding} -t UTF-8"
        raise location.build_error(f"{inside}{encoding} text, not UTF-8", remedy)
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if not text:
        raise location.build_error(f"{inside}empty", DOWNLOAD_AGAIN)
    for start, (problem, remedy) in OTHER_TEXTS.items():
        if text.startswith(start):
            raise location.build_error(f"{inside}{problem}", remedy)


def _detect_encoding(head: bytes) -> str | None:
    """Return the encoding of text that is not UTF-8, by its byte order mark or its NUL bytes."""
    for mark, encoding in ENCODINGS.items():
        if head.startswith(mark):
            return encoding
    # A header is ASCII: of each character, one byte is not NUL.
    for encoding, width in (("UTF-32", 4), ("UTF-16", 2)):
        characters = head[: LETTERS * width]
        is_long = len(characters) == LETTERS * width
        for place in (0, width - 1):
            letters = characters[place::width]
            if is_long and letters.count(0) == 0 and characters.count(0) == LETTERS * (width - 1):
                return f"{encoding}{'LE' if place == 0 else 'BE'}"
    return None


def check_complete(
    path: Path, suffix: str, location: SourceLocation, service: Service, month: Month
) -> None:
    """Check the start of a file, then all of a gzip (CRC and length) or Parquet's footer."""
    check_file_start(path, suffix, location, service, month)
    if suffix == ".csv.gz":
        _unpack_gzip(path, location, MAX_UNPACKED_BYTES, None)
    if suffix == ".parquet":
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, len(PARQUET)), os.SEEK_END)
            if size < MIN_PARQUET_BYTES or file.read() != PARQUET:
                raise location.build_error(f"Parquet truncated at {size} bytes", DOWNLOAD_AGAIN)
        _check_columns(path, location, service, month)


def is_content_encoded(path: Path, suffix: str) -> bool:
    """Return whether a gzip Content-Encoding was applied to the file.

    Many servers declare the published compression of a `.csv.gz` as its Content-Encoding.
    """
    with path.open("rb") as file:
        if file.read(len(GZIP)) != GZIP:
            return False
    if suffix != ".csv.gz":
        return True
    try:
        with gzip.open(path) as file:
            return file.read(len(GZIP)) == GZIP
    except (EOFError, OSError, zlib.error):
        return False


def decode_content(path: Path, target: Path, max_bytes: int, location: SourceLocation) -> None:
    """Write the unpacked content of a gzip to `target`."""
    with target.open("wb") as file:
        _unpack_gzip(path, location, max_bytes, file)


def _unpack_gzip(
    path: Path, location: SourceLocation, max_bytes: int, target: IO[bytes] | None
) -> None:
    size = 0
    try:
        with gzip.open(path) as file:
            while chunk := file.read(CHUNK):
                size += len(chunk)
                if size > max_bytes:
                    raise location.build_error(
                        f"unpacks to over {max_bytes:,} bytes",
                        f"no month is that large; {DOWNLOAD_AGAIN}",
                    )
                if target is not None:
                    target.write(chunk)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _build_damage_error(error, location) from None


def _check_header(head: bytes, location: SourceLocation, service: Service, month: Month) -> None:
    line = head.partition(b"\n")[0]
    try:
        _reject_other_service(parse_header_line(line, service, month), location)
    except HeaderError as error:
        raise location.build_error(*_describe_first_line(line, error, service)) from None


def _describe_first_line(line: bytes, error: HeaderError, service: Service) -> tuple[str, str]:
    """Return the problem with a line that is not a header of the service, and its fix."""
    text = line.decode("utf-8-sig", "replace")
    if not text.strip():
        return "has a blank first line", "delete the lines above the header"
    if b"\0" in line or _has_known_column(text, ",", service):
        return error.describe(service)
    for separator, separators in SEPARATORS.items():
        if _has_known_column(text, separator, service):
            return f"has its fields separated by {separators}, not commas", "convert it to CSV"
    # The line is not shown: an error text may repeat the URL with its signature.
    return f"is a text whose first line names no column of {service.name} trips", OPEN


def _has_known_column(line: str, separator: str, service: Service) -> bool:
    """Return whether a line split by a separator names a column of the service."""
    return not {normalize_name(name.strip(' "')) for name in line.split(separator)}.isdisjoint(
        service.by_name
    )


def _check_columns(path: Path, location: SourceLocation, service: Service, month: Month) -> None:
    try:
        with open_checked(path, buffer_size=CHUNK) as parquet:
            names = tuple(parquet.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        raise location.build_error(
            f"damaged Parquet ({format_one_line(error)[:200]})", DOWNLOAD_AGAIN
        ) from None
    try:
        _reject_other_service(match_header(names, service, by_name=True, month=month), location)
    except HeaderError as error:
        raise location.build_error(*error.describe(service)) from None


def _reject_other_service(header: Header, location: SourceLocation) -> None:
    """Reject a file with unknown columns if all of its columns are those of another service."""
    for other in SERVICES.values() if header.unknown else ():
        columns = set(map(other.find_column, header.names))
        if not Header(other, header.names, header.schema_version).unknown and any(
            columns.issuperset(map(other.find_column, version.header))
            for version in other.all_schema_versions
        ):
            raise location.build_error(
                f"has the columns of {other.name} trips ({', '.join(header.unknown[:5])}), not of "
                f"{header.service.name} trips",
                "check TAXI_SOURCE: {service} stands for the name of the service",
            )


def _build_damage_error(error: Exception, location: SourceLocation) -> SourceError:
    problem = "truncated gzip" if isinstance(error, EOFError) else f"damaged gzip ({error})"
    return location.build_error(problem, DOWNLOAD_AGAIN)
