"""The lake: a bucket on GCS, or a local folder with the same keys.

Objects are replaced atomically, so a reader never sees half a day. `lake_keys.py` has the keys.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urljoin, urlsplit

import dagster as dg
import pyarrow as pa
import pyarrow.fs as pa_fs

from taxi_assets.defs.resources.fields import override, read_settings_with_fields
from taxi_assets.errors import StoreError, explain_full_disk
from taxi_assets.settings.areas import RunSettings
from taxi_assets.settings.private_folders import make_private_folder
from taxi_assets.settings.stores import LakeSettings, LayoutName

TEMPORARY = "_tmp"
DEFAULT_RETENTION = RunSettings().temp_retention
TEMPORARY_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass
class Lake:
    """An open bucket or folder."""

    filesystem: pa_fs.FileSystem
    root: str
    """The root in the file system: a folder, or the bucket's name."""
    bucket: str
    layout: LayoutName
    before_write: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)
    """Called before an object is created, changed or deleted; an error prevents that."""

    @property
    def local(self) -> bool:
        """Whether the bucket is a folder on this machine."""
        return isinstance(self.filesystem, pa_fs.LocalFileSystem)

    def path(self, key: str) -> str:
        """Return the path or `gs://` URI of the object."""
        return f"{self.root}/{key}" if self.local else self.uri(key)

    def uri(self, key: str) -> str:
        """Return the `gs://` URI of the object for BigQuery."""
        return f"gs://{self.bucket}/{key}"

    def page(self, key: str) -> str:
        """Return the URL of the object in Google's console."""
        return (
            f"https://console.cloud.google.com/storage/browser/_details/{self.bucket}/{quote(key)}"
        )

    def link(self, key: str) -> str:
        """Return the URL of the content of an object on GCS, for a browser."""
        return f"https://storage.cloud.google.com/{self.bucket}/{quote(key)}"

    def put_page(self, key: str, page: bytes) -> int:
        """Replace an HTML page, and return its size in bytes.

        GCS redirects a browser to another host, where relative links lead nowhere
        (cloud.google.com/storage/docs/access-control/cookie-based-authentication).
        """

        def make_absolute(link: re.Match[bytes]) -> bytes:
            return f'href="{urljoin(self.link(key), link[1].decode())}"'.encode()

        if not self.local:
            page = re.sub(rb'href="([^":#]+)"', make_absolute, page)
        return self.put(key, page, "text/html; charset=utf-8")

    def put(
        self, key: str, content: bytes | pa.Buffer, content_type: str = "application/octet-stream"
    ) -> int:
        """Replace an object, and return its size in bytes.

        `content_type` is for a browser that opens the object on GCS.
        """
        if self.local:
            with self._replace_file(key) as file:
                file.write(content)
        else:
            # By default pyarrow would compress an object named .zst again.
            path = f"{self.root}/{key}"
            self.before_write()
            with self.filesystem.open_output_stream(
                path, compression=None, metadata={"Content-Type": content_type}
            ) as stream:
                stream.write(content)
        return len(content)

    def open(self, key: str) -> pa.NativeFile:
        """Open an object for reading; reject a pipe, on which reading would wait forever.

        Raises:
            FileNotFoundError: the object does not exist.
            OSError: it cannot be opened, or is not a file.
        """
        path = f"{self.root}/{key}"
        if self.local and not stat.S_ISREG(Path(path).stat().st_mode):
            raise OSError(errno.EINVAL, "a folder, pipe or device is in its place")
        return self.filesystem.open_input_file(path)

    def get(self, key: str) -> pa.Buffer | None:
        """Return the content of an object; None if it does not exist."""
        try:
            with self.open(key) as stream:
                return stream.read_buffer()
        except FileNotFoundError:
            return None

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes; None if it does not exist."""
        return self.filesystem.get_file_info(f"{self.root}/{key}").size

    def copy(self, source: str, target: str) -> None:
        """Replace `target` by a copy of `source`; on GCS the server copies."""
        if self.local:
            self.put(target, Path(self.root, source).read_bytes())
        else:
            self.before_write()
            self.filesystem.copy_file(f"{self.root}/{source}", f"{self.root}/{target}")

    @contextmanager
    def writer(self, key: str) -> Iterator[IO[bytes] | pa.NativeFile]:
        """Open a stream whose content replaces an object if the block ends without an error.

        It writes to a temporary object, because closing a stream to GCS publishes its content.
        """
        if self.local:
            with self._replace_file(key) as file:
                yield file
            return
        temporary = f"{TEMPORARY}/{uuid.uuid4().hex}"
        try:
            with self.filesystem.open_output_stream(
                f"{self.root}/{temporary}", compression=None
            ) as stream:
                yield stream
            self.copy(temporary, key)
        finally:
            replace(self, before_write=lambda: None).delete(temporary)

    def keys(self, folder: str) -> set[str]:
        """Return the keys of all objects under a folder."""
        return set(self.times(folder))

    def times(self, folder: str) -> dict[str, datetime]:
        """Return the keys of all objects under a folder with their modification times."""
        selector = pa_fs.FileSelector(f"{self.root}/{folder}", allow_not_found=True, recursive=True)
        return {
            info.path.removeprefix(f"{self.root}/"): info.mtime
            for info in self.filesystem.get_file_info(selector)
            if info.is_file
        }

    def delete(self, key: str) -> None:
        """Remove an object if it exists."""
        if self.size(key) is not None:
            self.before_write()
            self.filesystem.delete_file(f"{self.root}/{key}")

    @contextmanager
    def _replace_file(self, key: str) -> Iterator[IO[bytes]]:
        target = Path(self.root, key)
        temporary = Path(self.root, TEMPORARY, uuid.uuid4().hex)
        try:
            with explain_full_disk(Path(self.root)):
                temporary.parent.mkdir(parents=True, exist_ok=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                self.before_write()
                temporary.replace(target)
        except OSError as error:
            raise StoreError(
                f"cannot write {target}: {error.strerror}; remove the file or folder in its place, "
                "or give this user access, then run again"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


class LakeResource(dg.ConfigurableResource[Lake]):
    """Opens the lake of its fields or the environment (GCS_BUCKET, TAXI_LAKE)."""

    bucket: str | None = override("GCS_BUCKET", "Bucket of the lake; also in place of TAXI_LAKE")
    address: str | None = override("TAXI_LAKE", "Folder or gs://bucket of the lake")
    layout: LayoutName | None = override(
        "TAXI_LAKE_LAYOUT",
        "Layout of the days' objects: hive (<service>/tpep_pickup_date=2021-01-05/trips.parquet) "
        "or date (<service>/2021/01/05/daily-trips.parquet)",
    )

    @cached_property
    def lake(self) -> Lake:
        """The bucket, opened at first use."""
        settings = read_settings_with_fields(self, destination="bucket")
        return open_lake(settings.lake, settings.runs.temp_retention)


def open_lake(settings: LakeSettings, retention: timedelta = DEFAULT_RETENTION) -> Lake:
    """Open a lake; of a folder, remove leftovers of killed writers that are older than `retention`.

    A missing folder is created. On GCS, `STORAGE_EMULATOR_HOST` (Google's variable) selects an
    emulator, which needs no credentials.
    """
    if settings.path is not None:
        make_private_folder(settings.path)
        _sweep_temporary(settings.path / TEMPORARY, retention)
        root = str(settings.path)
        return Lake(pa_fs.LocalFileSystem(), root, settings.bucket, settings.lake_layout)
    # The default is 15 minutes. Google's client abandons a silent server after 120 s more; pyarrow
    # has no parameter for that limit (TransferStallTimeoutOption).
    retries = timedelta(seconds=settings.retry_seconds)
    options: dict[str, Any] = {"retry_time_limit": retries}
    if settings.emulator:
        url = urlsplit(settings.emulator)
        options |= {"anonymous": True, "scheme": url.scheme, "endpoint_override": url.netloc}
    filesystem = pa_fs.GcsFileSystem(**options)
    return Lake(filesystem, settings.bucket, settings.bucket, settings.lake_layout)


def _sweep_temporary(folder: Path, retention: timedelta) -> None:
    """Remove our temporary files that are older than `retention`; never follow a link."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for file in folder.iterdir():
        # Another run may be sweeping too.
        with suppress(FileNotFoundError):
            status = file.lstat()
            ours = TEMPORARY_NAME.fullmatch(file.name) and stat.S_ISREG(status.st_mode)
            if ours and time.time() - status.st_mtime > retention.total_seconds():
                file.unlink()
