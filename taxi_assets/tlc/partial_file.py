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


@dataclass(frozen=True)
class Partial:
    """An unfinished file and the sidecar of its version."""

    path: Path

    @property
    def sidecar(self) -> Path:
        """JSON of the `RemoteVersion` and the Content-Encoding."""
        return self.path.with_name(self.path.name + ".json")

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
        try:
            fields = self._read_sidecar()
            fields.pop("encoding", None)
            version = RemoteVersion(**fields)
            size = self.path.stat().st_size
        except (OSError, ValueError, TypeError):
            return 0, RemoteVersion()
        return (size, version) if version.validator else (0, RemoteVersion())

    @property
    def encoding(self) -> str | None:
        """Content-Encoding of the bytes; None if the sidecar names none."""
        try:
            return cast("str | None", self._read_sidecar().get("encoding"))
        except (OSError, ValueError):
            return None

    def is_complete(self) -> bool:
        """Return whether all bytes are there: a process may have been killed before the rename."""
        size, version = self.read_state()
        return size > 0 and size == version.total

    def _read_sidecar(self) -> dict[str, Any]:
        fields: object = json.loads(self.sidecar.read_text())
        if not isinstance(fields, dict):
            raise ValueError("no sidecar")  # noqa: TRY004 - as for text that is not JSON
        return cast("dict[str, Any]", fields)
