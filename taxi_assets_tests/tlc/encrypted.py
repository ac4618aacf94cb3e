"""Parquet files with encrypted columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.parquet import encryption


class _PlainKeys(encryption.KmsClient):
    """Returns each key as it is; nobody decrypts these files."""

    def wrap_key(self, key_bytes: bytes, *_: str) -> bytes:
        return key_bytes

    def unwrap_key(self, wrapped_key: bytes, *_: str) -> bytes:
        return wrapped_key


def write_encrypted(path: Path, table: pa.Table, column: str, *, plain_footer: bool) -> Path:
    """Write a table with one encrypted column, and with or without an encrypted footer."""
    keys = encryption.EncryptionConfiguration(
        footer_key="footer", column_keys={"column": [column]}, plaintext_footer=plain_footer
    )
    factory = encryption.CryptoFactory(lambda _: _PlainKeys())
    properties = factory.file_encryption_properties(encryption.KmsConnectionConfig(), keys)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    return path
