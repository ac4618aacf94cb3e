"""Whether bytes are a month file, and all of one, before anybody reads rows."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from taxi_assets.errors import SourceError
from taxi_assets.trips.download import Origin

GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
PARQUET_LEAST = 12
"""Bytes of the two magic numbers and the footer's length."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
MARKUP = (b"<!doctype", b"<html", b"<?xml")
NEITHER = "neither gzip nor Parquet"
HEAD = 1 << 10
CHUNK = 1 << 20


def check_start(path: Path, suffix: str, origin: Origin) -> None:
    """Refuse what its first bytes, in gzip the first that come out, show to be no month file."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    starts, found = head[:8], NEITHER
    if head.startswith(PARQUET):
        found = "Parquet"
    elif head.startswith(GZIP):
        found = "gzip"
        try:
            with gzip.open(path) as file:
                head = file.read(HEAD)
        except (EOFError, OSError, zlib.error) as error:
            raise _damaged(error, origin) from None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    inside = "inside the gzip " if found == "gzip" else ""
    if not text:
        raise origin.refusal(f"{inside}empty", "get it again from where it is published")
    if text.startswith(LFS_POINTER):
        raise origin.refusal(f"{inside}a Git LFS pointer, not the file", "run git lfs pull there")
    if text.startswith(MARKUP):
        raise origin.refusal(f"{inside}an HTML or XML page, not trips", "open it to see why")
    if found != {".csv.gz": "gzip", ".parquet": "Parquet"}.get(suffix, NEITHER):
        raise origin.refusal(
            f"{found} (starts with {starts!r}), though its name says {suffix}",
            "name it by what it is, or get it again",
        )


def check_whole(path: Path, suffix: str, origin: Origin) -> None:
    """`check_start`, and the end: all of a gzip's members with CRC and length, Parquet's magic."""
    check_start(path, suffix, origin)
    if suffix == ".csv.gz":
        try:
            with gzip.open(path) as file:
                while file.read(CHUNK):
                    pass
        except (EOFError, OSError, zlib.error) as error:
            raise _damaged(error, origin) from None
    if suffix == ".parquet":
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, len(PARQUET)), os.SEEK_END)
            if size < PARQUET_LEAST or file.read() != PARQUET:
                raise origin.refusal(f"Parquet cut short at {size} bytes", "get it again")


def _damaged(error: Exception, origin: Origin) -> SourceError:
    found = "gzip cut short" if isinstance(error, EOFError) else f"damaged gzip ({error})"
    return origin.refusal(found, "get it again from where it is published")
