"""Read a CSV month as blocks of complete lines, byte for byte."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from queue import Queue
from threading import Event, Thread
from typing import IO, TypeVar, cast

import numpy as np
from isal import igzip, isal_zlib

from taxi_assets.errors import SourceError
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.header import Header, HeaderError, parse_header_line
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

T = TypeVar("T")


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

    file: MonthFile
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
        raise SourceError(f"{_name_file(file)} is empty: fetch it again")
    line, data = _split_header(first.data)
    header = check_csv_header(line, file)
    rest = Block(2, data, first.read_bytes)

    def all_blocks() -> Iterator[Block]:
        if rest.data:
            yield rest
        yield from _renumber_blocks(blocks, rest)

    return CsvMonth(file, line, header, prefetch(all_blocks))


def check_csv_header(line: bytes, file: MonthFile) -> Header:
    """Return the header of a CSV header line.

    Raises:
        SourceError: naming the columns that are missing, unknown or in another place.
    """
    try:
        return parse_header_line(line, file.service, file.month)
    except HeaderError as error:
        raise build_header_error(error, file) from None


def build_header_error(error: HeaderError, file: MonthFile) -> SourceError:
    """Build the error for a file without the service's columns."""
    return SourceError(
        f"{_name_file(file)} has a wrong header ({error}): "
        f"expected {','.join(file.service.header)}, or the names of another year. "
        f"Is this a {file.service.name} month as published?"
    )


def prefetch(iterate: Callable[[], Iterator[T]], ahead: int = 2) -> Generator[T]:
    """Run an iterator in a thread, at most `ahead` items ahead of its consumer."""
    queue: Queue[tuple[T | None, BaseException | None]] = Queue(ahead)
    stop = Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            for item in iterate():
                queue.put((item, None))
                if stop.is_set():
                    return
        except BaseException as raised:  # noqa: BLE001 - passed to the consumer, which raises it
            error = raised
        queue.put((None, error or StopIteration()))

    thread = Thread(target=work, name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            item, error = queue.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield cast("T", item)
    finally:
        stop.set()
        while thread.is_alive():
            while not queue.empty():
                queue.get_nowait()
            thread.join(0.01)


def _name_file(file: MonthFile) -> str:
    return f"{file.service.name} {file.month}: {file.url}"


def _split_header(data: bytes) -> tuple[bytes, bytes]:
    end = data.find(b"\n") + 1 or len(data)
    return data[:end], data[end:]


def _renumber_blocks(blocks: Iterator[Block], previous: Block) -> Iterator[Block]:
    line = previous.first_line + _count_line_ends(previous.data)
    for block in blocks:
        yield Block(line, block.data, block.read_bytes)
        line += _count_line_ends(block.data)


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
                raise SourceError(
                    f"{_name_file(file)} unpacks to over {MAX_SPLIT_BYTES:,} bytes: "
                    f"no month is that large; {DOWNLOAD_AGAIN}"
                )
            end = chunk.rfind(b"\n") + 1
            if not end:
                carry += chunk
                if len(carry) > MAX_LINE_BYTES:
                    raise SourceError(
                        f"{_name_file(file)} has a line of over {MAX_LINE_BYTES >> 20} MiB: "
                        "it is not a CSV of trips, or its lines end in CR alone"
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
        raise SourceError(
            f"{_name_file(file)} is truncated or damaged ({error}): fetch it again "
            f"(delete {file.path} if it was downloaded)"
        ) from error
