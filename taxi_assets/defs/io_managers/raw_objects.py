"""Read the content of a raw object in the lake: a day's CSV lines, or rows of a Parquet month."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from taxi_assets.defs.io_managers.sealed_objects import DamagedError, open_parquet, open_sealed_zstd
from taxi_assets.defs.resources.lake_keys import ROWS
from taxi_assets.settings import Settings
from taxi_assets.tlc.header import MAX_HEADER_BYTES

BLOCK = 16 << 20
"""Number of bytes that are unpacked at a time; most days are one block."""


def open_raw(stored: pa.Buffer, kind: str) -> tuple[pa.Buffer | pa.Table, dict[str, Any]]:
    """Verify and unpack a day's lines or rows; return them with their metadata."""
    if kind == ROWS:
        parquet, metadata = open_parquet(stored)
        return parquet.read(use_threads=False), metadata
    metadata, packed = open_sealed_zstd(stored)
    return unpack_lines(packed), metadata


def unpack_lines(packed: pa.Buffer) -> pa.Buffer:
    """Unpack a day's lines, with a limit: a few KB of a foreign object may unpack to GBs."""
    max_bytes = Settings.from_env().limits.max_day_bytes
    blocks, size = list[pa.Buffer](), 0
    with pa.CompressedInputStream(pa.BufferReader(packed), "zstd") as stream:
        while (block := stream.read_buffer(BLOCK)).size:
            blocks.append(block)
            size += block.size
            if size > max_bytes + MAX_HEADER_BYTES:
                raise DamagedError(f"unpacks to over {max_bytes:,} bytes (TAXI_MAX_DAY_BYTES)")
    return blocks[0] if len(blocks) == 1 else pa.py_buffer(b"".join(blocks))
