"""Read a CSV month as blocks of complete lines, byte for byte."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import IO, cast

import numpy as np
from isal import igzip, isal_zlib

from taxi_assets.lazy_partitions import prefetch
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.header import FIRST_LINE, Header, HeaderError, parse_header_line
from taxi_assets.tlc.integrity import DOWNLOAD_AGAIN, MAX_UNPACKED_BYTES

BLOCK = 4 << 20
"""Bytes read at a time. 4 MiB: larger blocks cost page faults, smaller ones Python calls."""
MAX_LINE_BYTES = 16 << 20
"""Bytes. TLC's lines have about 100; a longer one means that the file is not a CSV of trips."""
MAX_SPLIT_BYTES = MAX_UNPACKED_BYTES

DAMAGED: tuple[type[Exception], ...] = (
    EOFError,
    gzip.BadGzipFile,
    zlib.error,
    cast("type[Exception]", isal_zlib.error),
)
"""Errors of unpacking a truncated or changed file."""


@dataclass(frozen=True)
class Block:
    """Complete lines as they are in the file, terminators included."""

    first_line: int
    """Number of the block's first line; the header is line 1."""
    data: bytes
    read_bytes: int
    """Bytes of the file up to the end of this block."""


@dataclass(frozen=True)
class CsvMonth:
    """An open CSV month with a valid header."""

    line: bytes
    """The header line as published, terminator included."""
    header: Header
    blocks: Generator[Block]
    """Blocks after the header; close the generator to stop reading early."""


def open_csv_month(file: MonthFile) -> CsvMonth:
    """Open a `.csv` or `.csv.gz` month and check its header.

    Raises:
        SourceError: the header is not the service's. While reading: the file is truncated.
    """
    blocks = _read_blocks(file)
    first = next(blocks, None)
    if first is None:
        raise file.build_error("is empty: fetch it again")
    end = first.data.find(b"\n") + 1 or len(first.data)
    line, data = first.data[:end], first.data[end:]
    try:
        header = parse_header_line(line, file.service, file.month)
    except HeaderError as error:
        raise file.build_error("; ".join(error.describe(file.service))) from None

    def number_blocks() -> Iterator[Block]:
        at = FIRST_LINE
        for block in chain([replace(first, data=data)], blocks):
            if block.data:
                yield replace(block, first_line=at)
                at += _count_line_ends(block.data)

    return CsvMonth(line, header, prefetch(number_blocks()))


def _count_line_ends(data: bytes) -> int:
    """Count line ends in half the time of `bytes.count`, which also blocks all other threads."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == ord("\n")))


def _read_blocks(file: MonthFile) -> Iterator[Block]:
    """Yield blocks of complete lines; the last line may have no terminator."""
    carry = b""
    total = 0
    with file.path.open("rb") as raw:
        packed = file.path.name.lower().endswith(".gz")
        stream = cast("IO[bytes]", igzip.open(raw)) if packed else raw
        while chunk := _read_chunk(stream, file):
            total += len(chunk)
            if total > MAX_SPLIT_BYTES:
                raise file.build_error(
                    f"unpacks to over {MAX_SPLIT_BYTES:,} bytes: no month is that large; "
                    f"{DOWNLOAD_AGAIN}"
                )
            end = chunk.rfind(b"\n") + 1
            if not end:
                carry += chunk
                if len(carry) > MAX_LINE_BYTES:
                    raise file.build_error(
                        f"has a line of over {MAX_LINE_BYTES >> 20} MiB: it is not a CSV of "
                        "trips, or its lines end in CR alone"
                    )
                continue
            yield Block(0, b"".join((carry, memoryview(chunk)[:end])), raw.tell())
            carry = chunk[end:]
    if carry:
        yield Block(0, carry, file.size)


def _read_chunk(stream: IO[bytes], file: MonthFile) -> bytes:
    try:
        return stream.read(BLOCK)
    except DAMAGED as error:
        raise file.build_damage_error(error, "truncated or damaged") from error
