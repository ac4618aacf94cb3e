"""Sealed objects: Parquet and zstd files that carry facts and checksums of all their bytes.

Defined here: how an object is sealed when it is written, and how the seal is verified. What the
facts mean, and where objects lie, belongs to the callers.

Parquet's page checksums cover the pages, and neither their headers nor the footer; zstd's cover
one frame, and no missing frame. So the part of an object that holds its facts (the envelope: the
footer of a Parquet file, a skippable frame in front of zstd frames) has two CRC-32 in it: one of
the body, which is everything else, and one of the envelope itself, with zeros in its place. A
reader of the footer alone verifies the footer, a reader of the rows everything. Other tools see an
ordinary Parquet or zstd file.

An object without a seal was written before there were seals, or by another tool; one that has lost
its seal still says that it had one.
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

FACTS = b"taxi_assets"
"""Key under which a Parquet object carries its facts."""
SEAL = re.compile(rb'"seal": "([0-9a-f]{8}) ([0-9a-f]{8})"')
"""CRC-32 of body and envelope. A quote inside a JSON text is escaped, so no value looks like it."""
BLANK = b"0" * 8
SEALED = {"sealed_by": "taxi_assets 2"}
"""Says that there is a seal, so that it cannot vanish; objects of version 1 had none."""

MAGIC = b"PAR1"
TAIL = struct.Struct("<I4s")
"""Length of a Parquet footer, and the magic."""
HEAD = struct.Struct("<II")
"""Magic and length of a zstd skippable frame, which every decoder passes over (RFC 8878, 3.1.2)."""
SKIPPABLE = 0x184D2A50
BLOCK = 1 << 20
"""Bytes of an object in memory at once, where it is only verified."""


class DamagedError(ValueError):
    """An object is not what was written; the message completes "<path> ..."."""


class SealedParquetWriter:
    """Writes a Parquet file to a stream; `seal` completes it, and nothing else does."""

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
        """Write nothing more where the block ended before the file was sealed."""
        self._sink.rest = bytearray()
        self._writer.close()

    def write_table(self, table: pa.Table, row_group_size: int | None = None) -> None:
        """Append rows, as at least one row group."""
        self._writer.write_table(table, row_group_size)

    def seal(self, facts: Mapping[str, Any]) -> None:
        """Write the footer, with the facts and the seal in it."""
        self._writer.add_key_value_metadata({FACTS.decode(): _encode_facts(facts)})
        self._sink.rest = bytearray()
        self._writer.close()
        rest = bytes(self._sink.rest)
        start = _footer_start(rest)
        body = isal_zlib.crc32(rest[:start], self._sink.crc)
        self._sink.out.write(rest[:start] + _compute_seal(rest[start:], body))


class _Sink:
    """The stream behind a Parquet writer: sums up what passes, and keeps the last of it back."""

    closed = False

    def __init__(self, out: IO[bytes] | pa.NativeFile) -> None:
        self.out = out
        self.crc = 0
        self.rest: bytearray | None = None

    def write(self, data: Any) -> None:
        """Pass bytes on, or keep them once the file is being closed."""
        if self.rest is not None:
            self.rest += data
            return
        self.crc = isal_zlib.crc32(data, self.crc)
        self.out.write(data)

    def flush(self) -> None:
        """Do nothing: the caller flushes the underlying stream."""

    def close(self) -> None:
        """Do nothing: the caller closes the underlying stream."""


def write_sealed_zstd(facts: Mapping[str, Any], packed: bytes) -> bytes:
    """Put facts and a seal in front of zstd frames."""
    text = _encode_facts(facts).encode()
    head = HEAD.pack(SKIPPABLE, len(text)) + text
    return _compute_seal(head, isal_zlib.crc32(packed)) + packed


def open_parquet(content: pa.Buffer) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Verify a whole Parquet object; return it and its facts.

    Raises:
        DamagedError: it is not what was written.
        pa.ArrowException, OSError: it cannot be parsed; never of a sealed one.
    """
    if content.size < len(MAGIC) or content[: len(MAGIC)].to_pybytes() != MAGIC:
        raise DamagedError(_build_not_parquet_error(content.size, content[:4].to_pybytes()))
    footer = content[_footer_start(content) :].to_pybytes()
    body = _verify_envelope(footer)
    if body is not None:
        _verify_body(isal_zlib.crc32(content[: content.size - len(footer)]), body)
    else:
        try:
            limit = MAX_DAY_BYTES
            reject_parquet_bomb(pa.BufferReader(content), limit, limit)
        except TooLargeError as error:
            raise DamagedError(f"is no day of trips: {error}") from None
    parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    return parquet, _read_facts(parquet.metadata)


def open_sealed_footer(stream: pa.NativeFile) -> tuple[pq.FileMetaData, dict[str, Any]]:
    """Verify the footer of a Parquet object; return it and the facts, without reading the body.

    Raises:
        DamagedError: it is not what was written.
        pa.ArrowException, OSError: it cannot be parsed; never of a sealed one.
    """
    footer = _read_footer(stream)
    _verify_envelope(footer)
    found = pq.read_metadata(pa.BufferReader(footer))
    return found, _read_facts(found)


def open_sealed_zstd(content: pa.Buffer) -> tuple[dict[str, Any], pa.Buffer]:
    """Verify a whole zstd object; return its facts and its frames.

    Raises:
        DamagedError: it is not what was written, or has no facts.
    """
    head = _measure_head(content[: HEAD.size].to_pybytes(), content.size)
    envelope, packed = content[:head].to_pybytes(), content[head:]
    body = _verify_envelope(envelope)
    if body is not None:
        _verify_body(isal_zlib.crc32(packed), body)
    return _parse_facts(envelope[HEAD.size :]), packed


def verify_sealed_stream(stream: pa.NativeFile) -> None:
    """Verify an object block by block where it is sealed; anything else passes.

    Raises:
        DamagedError: it is not what was written.
    """
    size = stream.size()
    first = stream.read_at(HEAD.size, 0)
    last = stream.read_at(len(MAGIC), max(size - len(MAGIC), 0))
    if MAGIC in {first[: len(MAGIC)], last}:
        envelope = _read_footer(stream)
        start, end = 0, size - len(envelope)
    elif len(first) == HEAD.size and HEAD.unpack(first)[0] == SKIPPABLE:
        start, end = _measure_head(first, size), size
        envelope = stream.read_at(start, 0)
    else:
        return
    body = _verify_envelope(envelope)
    if body is None:
        return
    crc = 0
    for offset in range(start, end, BLOCK):
        crc = isal_zlib.crc32(stream.read_at(min(BLOCK, end - offset), offset), crc)
    _verify_body(crc, body)


def _encode_facts(facts: Mapping[str, Any]) -> str:
    seal = {"seal": f"{BLANK.decode()} {BLANK.decode()}"}
    return json.dumps({**facts, **SEALED, **seal}, sort_keys=True)


def _compute_seal(envelope: bytes, body: int) -> bytes:
    """Fill in both checksums. The facts are the last JSON of an envelope."""
    *_, seal = SEAL.finditer(envelope)
    filled = envelope[: seal.start(1)] + b"%08x" % body + envelope[seal.end(1) :]
    own = b"%08x" % isal_zlib.crc32(filled)
    return filled[: seal.start(2)] + own + filled[seal.end(2) :]


def _verify_envelope(envelope: bytes) -> int | None:
    """Return the checksum that the body must have; None where there is no seal."""
    seals = list(SEAL.finditer(envelope))
    if not seals:
        if json.dumps(SEALED)[1:-1].encode() in envelope:
            raise DamagedError("is damaged: its seal is gone")
        return None
    seal = seals[-1]
    blank = envelope[: seal.start(2)] + BLANK + envelope[seal.end(2) :]
    found, expected = isal_zlib.crc32(blank), int(seal[2], 16)
    if found != expected:
        raise DamagedError(
            f"is damaged: the checksum of its metadata is {found:08x} and must be {expected:08x}"
        )
    return int(seal[1], 16)


def _verify_body(found: int, expected: int) -> None:
    if found != expected:
        raise DamagedError(
            f"is damaged: the checksum of its content is {found:08x} and must be {expected:08x}"
        )


def _read_footer(stream: pa.NativeFile) -> bytes:
    """Read the footer of a Parquet object, usually by one read of its end."""
    size = stream.size()
    end = stream.read_at(min(size, BLOCK // 16), size - min(size, BLOCK // 16))
    length = size - _footer_start(end, size)
    return bytes(end[-length:] if length <= len(end) else stream.read_at(length, size - length))


def _footer_start(end: bytes | pa.Buffer, size: int | None = None) -> int:
    """Return the offset of the footer in an object of this size and end."""
    size = len(end) if size is None else size
    if len(end) < TAIL.size:
        raise DamagedError(_build_not_parquet_error(size, bytes(end)))
    length, magic = TAIL.unpack(bytes(end[-TAIL.size :]))
    start = size - TAIL.size - length
    if magic != MAGIC or start < 0:
        raise DamagedError(_build_not_parquet_error(size, magic))
    return start


def _build_not_parquet_error(size: int, found: bytes) -> str:
    if not size:
        return "is empty: 0 bytes"
    return f"is cut off or no Parquet: {size} bytes, with {found!r} where {MAGIC!r} must be"


def _measure_head(first: bytes, size: int) -> int:
    """Return the size in bytes of the skippable frame in front of the zstd frames."""
    if not size:
        raise DamagedError("is empty: 0 bytes")
    magic, length = HEAD.unpack(first) if len(first) == HEAD.size else (0, 0)
    if magic != SKIPPABLE:
        raise DamagedError(f"was not written by taxi_assets: it begins with {first!r}")
    if HEAD.size + length > size:
        raise DamagedError(f"is cut off: {size} bytes of at least {HEAD.size + length}")
    return HEAD.size + int(length)


def _read_facts(footer: pq.FileMetaData) -> dict[str, Any]:
    text = (footer.metadata or {}).get(FACTS)
    if text is None:
        raise DamagedError("was not written by taxi_assets: its footer has no facts of ours")
    return _parse_facts(text)


def _parse_facts(text: bytes) -> dict[str, Any]:
    """Parse the metadata and remove the seal from it."""
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise DamagedError(f"is damaged: its facts are no JSON ({error})") from error
    if not isinstance(facts, dict):
        raise DamagedError("was not written by taxi_assets: its facts are no JSON object")
    found = cast("dict[str, Any]", facts)
    return {name: value for name, value in found.items() if name not in {*SEALED, "seal"}}
