"""Sealed objects: Parquet and zstd files with metadata and checksums of all their bytes.

This module seals objects and verifies seals. The meaning of the metadata, and the location of
objects, belong to the callers.

Parquet's page checksums cover the pages, but neither their headers nor the footer; those of zstd
cover a frame, but do not reveal a missing one. So the part of an object with its metadata (the
envelope: the footer of a Parquet file, or a skippable frame before the zstd frames) contains two
CRC-32: one of the body, which is everything else, and one of the envelope itself, with zeros in its
place. A reader of the footer verifies the footer, and a reader of the rows verifies everything.
Other tools see an ordinary Parquet or zstd file.

An object without a seal is older than seals, or was written by another tool; an object that has
lost its seal still declares that it had one.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from typing import IO, Any, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq
from isal import isal_zlib

from taxi_assets.settings.areas import MAX_DAY_BYTES
from taxi_assets.tlc.parquet_limits import TooLargeError, reject_parquet_bomb

METADATA_KEY = b"taxi_assets"
"""Key of the metadata in a Parquet object."""
SEAL = re.compile(rb'"seal": "([0-9a-f]{8}) ([0-9a-f]{8})"')
"""CRC-32 of body and envelope. Quotes in JSON texts are escaped, so no value matches it."""
BLANK = b"0" * 8
SEALED = {"sealed_by": "taxi_assets 2"}
"""Declares that there is a seal, so that its loss is detected; objects of version 1 had none."""

MAGIC = b"PAR1"
TAIL = struct.Struct("<I4s")
"""Length of a Parquet footer, and the magic."""
HEAD = struct.Struct("<II")
"""Magic and length of a zstd skippable frame, which decoders skip (RFC 8878, 3.1.2)."""
SKIPPABLE = 0x184D2A50
BLOCK = 1 << 20
"""Number of bytes in memory at once while an object is verified."""


class DamagedError(ValueError):
    """An object differs from what was written; the message completes "<path> ..."."""


class SealedParquetWriter:
    """Writes a Parquet file to a stream; only `seal` completes it."""

    def __init__(self, out: IO[bytes] | pa.NativeFile, schema: pa.Schema, **options: Any) -> None:
        self._sink = _Sink(out)
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            schema,
            compression="zstd",
            compression_level=1,
            write_page_checksum=True,
            **options,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Discard the rest of the file if it was not sealed."""
        self._sink.rest = bytearray()
        self._writer.close()

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Append rows, as at least one row group."""
        self._writer.write_table(table, row_group_size)

    def seal(self, metadata: Mapping[str, Any]) -> None:
        """Write the footer with the metadata and the seal."""
        self._writer.add_key_value_metadata({METADATA_KEY.decode(): _encode_metadata(metadata)})
        self._sink.rest = bytearray()
        self._writer.close()
        rest = bytes(self._sink.rest)
        start = _find_footer_start(rest)
        body = isal_zlib.crc32(rest[:start], self._sink.crc)
        self._sink.out.write(rest[:start] + _compute_seal(rest[start:], body))


class _Sink:
    """The stream behind a Parquet writer: computes a checksum and buffers the footer."""

    closed = False

    def __init__(self, out: IO[bytes] | pa.NativeFile) -> None:
        self.out = out
        self.crc = 0
        self.rest: bytearray | None = None

    def write(self, data: Any) -> None:
        """Write bytes to the stream, or buffer them while the file is being closed."""
        if self.rest is not None:
            self.rest += data
            return
        self.crc = isal_zlib.crc32(data, self.crc)
        self.out.write(data)

    def flush(self) -> None:
        """Do nothing: the caller flushes the underlying stream."""

    def close(self) -> None:
        """Do nothing: the caller closes the underlying stream."""


def write_sealed_zstd(metadata: Mapping[str, Any], packed: bytes) -> bytes:
    """Put metadata and a seal before zstd frames."""
    text = _encode_metadata(metadata).encode()
    head = HEAD.pack(SKIPPABLE, len(text)) + text
    return _compute_seal(head, isal_zlib.crc32(packed)) + packed


def open_parquet(content: pa.Buffer) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Verify all of a Parquet object; return it with its metadata.

    Raises:
        DamagedError: the object is damaged.
        pa.ArrowException, OSError: it cannot be parsed; never for a sealed object.
    """
    first = content[: len(MAGIC)].to_pybytes()
    if first != MAGIC:
        raise DamagedError(_build_not_parquet_error(content.size, first))
    if not verify_sealed_stream(pa.BufferReader(content)):
        try:
            limit = MAX_DAY_BYTES
            reject_parquet_bomb(pa.BufferReader(content), limit, limit)
        except TooLargeError as error:
            raise DamagedError(f"is not a day of trips: {error}") from None
    parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    return parquet, _read_metadata(parquet.metadata)


def open_sealed_footer(stream: pa.NativeFile) -> tuple[pq.FileMetaData, dict[str, Any]]:
    """Verify the footer of a Parquet object; return it with its metadata, without the body.

    Raises:
        DamagedError: the footer is damaged.
        pa.ArrowException, OSError: it cannot be parsed; never for a sealed object.
    """
    footer = _read_footer(stream)
    _verify_envelope(footer)
    parsed = pq.read_metadata(pa.BufferReader(footer))
    return parsed, _read_metadata(parsed)


def open_sealed_zstd(content: pa.Buffer) -> tuple[dict[str, Any], pa.Buffer]:
    """Verify all of a zstd object; return its metadata and its frames.

    Raises:
        DamagedError: the object is damaged, or has no metadata.
    """
    head = _measure_head(content[: HEAD.size].to_pybytes(), content.size)
    verify_sealed_stream(pa.BufferReader(content))
    return _parse_metadata(content[HEAD.size : head].to_pybytes()), content[head:]


def verify_sealed_stream(stream: pa.NativeFile) -> bool:
    """Verify an object block by block, and return whether it has a seal.

    Raises:
        DamagedError: the object is damaged.
    """
    size = stream.size()
    first = stream.read_at(HEAD.size, 0)
    last = stream.read_at(len(MAGIC), max(size - len(MAGIC), 0))
    if len(first) == HEAD.size and HEAD.unpack(first)[0] == SKIPPABLE:
        start, end = _measure_head(first, size), size
        envelope = stream.read_at(start, 0)
    elif MAGIC in {first[: len(MAGIC)], last}:
        envelope = _read_footer(stream)
        start, end = 0, size - len(envelope)
    else:
        return False
    expected, actual = _verify_envelope(envelope), 0
    if expected is None:
        return False
    stream.seek(start)
    for offset in range(start, end, BLOCK):
        actual = isal_zlib.crc32(stream.read_buffer(min(BLOCK, end - offset)), actual)
    if actual != expected:
        raise DamagedError(
            f"is damaged: the checksum of its content is {actual:08x} and must be {expected:08x}"
        )
    return True


def _encode_metadata(metadata: Mapping[str, Any]) -> str:
    seal = {"seal": f"{BLANK.decode()} {BLANK.decode()}"}
    return json.dumps({**metadata, **SEALED, **seal}, sort_keys=True)


def _compute_seal(envelope: bytes, body: int) -> bytes:
    """Fill in both checksums. The metadata is the last JSON of an envelope."""
    *_, seal = SEAL.finditer(envelope)
    filled = envelope[: seal.start(1)] + b"%08x" % body + envelope[seal.end(1) :]
    checksum = b"%08x" % isal_zlib.crc32(filled)
    return filled[: seal.start(2)] + checksum + filled[seal.end(2) :]


def _verify_envelope(envelope: bytes) -> int | None:
    """Return the checksum that the body must have; None without a seal."""
    seals = list(SEAL.finditer(envelope))
    if not seals:
        if json.dumps(SEALED)[1:-1].encode() in envelope:
            raise DamagedError("is damaged: its seal is missing")
        return None
    seal = seals[-1]
    blank = envelope[: seal.start(2)] + BLANK + envelope[seal.end(2) :]
    actual, expected = isal_zlib.crc32(blank), int(seal[2], 16)
    if actual != expected:
        raise DamagedError(
            f"is damaged: the checksum of its metadata is {actual:08x} and must be {expected:08x}"
        )
    return int(seal[1], 16)


def _read_footer(stream: pa.NativeFile) -> bytes:
    """Read the footer of a Parquet object, usually by one read of its end."""
    size = stream.size()
    end = stream.read_at(min(size, BLOCK // 16), size - min(size, BLOCK // 16))
    length = size - _find_footer_start(end, size)
    return bytes(end[-length:] if length <= len(end) else stream.read_at(length, size - length))


def _find_footer_start(end: bytes | pa.Buffer, size: int | None = None) -> int:
    """Return the offset of the footer in an object of this size and end."""
    size = len(end) if size is None else size
    if len(end) < TAIL.size:
        raise DamagedError(_build_not_parquet_error(size, bytes(end)))
    length, magic = TAIL.unpack(bytes(end[-TAIL.size :]))
    start = size - TAIL.size - length
    if magic != MAGIC or start < 0:
        raise DamagedError(_build_not_parquet_error(size, magic))
    return start


def _build_not_parquet_error(size: int, actual: bytes) -> str:
    if not size:
        return "is empty: 0 bytes"
    return f"is truncated or not Parquet: {size} bytes, with {actual!r} where {MAGIC!r} must be"


def _measure_head(first: bytes, size: int) -> int:
    """Return the size in bytes of the skippable frame before the zstd frames."""
    if not size:
        raise DamagedError("is empty: 0 bytes")
    magic, length = HEAD.unpack(first) if len(first) == HEAD.size else (0, 0)
    if magic != SKIPPABLE:
        raise DamagedError(f"was not written by taxi_assets: it begins with {first!r}")
    if HEAD.size + length > size:
        raise DamagedError(f"is truncated: {size} bytes of at least {HEAD.size + length}")
    return HEAD.size + int(length)


def _read_metadata(footer: pq.FileMetaData) -> dict[str, Any]:
    text = (footer.metadata or {}).get(METADATA_KEY)
    if text is None:
        raise DamagedError("was not written by taxi_assets: its footer lacks our metadata")
    return _parse_metadata(text)


def _parse_metadata(text: bytes) -> dict[str, Any]:
    """Parse the metadata and remove the seal from it."""
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"is damaged: its metadata is not JSON ({error})") from error
    if not isinstance(metadata, dict):
        raise DamagedError("was not written by taxi_assets: its metadata is not a JSON object")
    fields = cast("dict[str, Any]", metadata)
    return {name: value for name, value in fields.items() if name not in {*SEALED, "seal"}}
