"""A partial download on disk, with a sidecar that names its version.

It outlives a killed process. The sidecar has the ETag, Last-Modified and size that the server
declared, so that the next attempt requests only the rest, and only of the same version (RFC 9110,
Range with If-Range).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from taxi_assets.tlc.remote_version import RemoteVersion


def build_sidecar_path(path: Path) -> Path:
    """Return the path of the JSON beside a file."""
    return path.with_name(f"{path.name}.json")


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the metadata in the sidecar of `path`; empty if there is no valid sidecar."""
    try:
        metadata: object = json.loads(build_sidecar_path(path).read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", metadata) if isinstance(metadata, dict) else {}


@dataclass(frozen=True)
class Partial:
    """An unfinished file and the sidecar of its version."""

    path: Path

    @property
    def sidecar(self) -> Path:
        """JSON of the `RemoteVersion` and the Content-Encoding."""
        return build_sidecar_path(self.path)

    def begin(self, version: RemoteVersion, encoding: str | None = None) -> None:
        """Start an empty file; the sidecar never describes bytes of another version."""
        self.discard()
        self.path.touch()
        self.sidecar.write_text(json.dumps({**asdict(version), "encoding": encoding}))

    def discard(self) -> None:
        """Remove the file, so that nothing is resumed."""
        self.sidecar.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)

    def read_state(self) -> tuple[int, RemoteVersion]:
        """Return the number of bytes to resume from, 0 if there are none, and their version."""
        fields = read_sidecar(self.path)
        fields.pop("encoding", None)
        try:
            size, version = self.path.stat().st_size, RemoteVersion(**fields)
        except (OSError, TypeError):
            return 0, RemoteVersion()
        return (size, version) if version.validator else (0, RemoteVersion())

    @property
    def encoding(self) -> str | None:
        """Content-Encoding of the bytes; None if the sidecar names none."""
        return read_sidecar(self.path).get("encoding")

    def is_complete(self) -> bool:
        """Return whether all bytes are there: a process may have been killed before the rename."""
        size, version = self.read_state()
        return size > 0 and size == version.total
