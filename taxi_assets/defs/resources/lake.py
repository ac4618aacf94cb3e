"""The lake: a bucket on GCS, or a folder on this machine, with the same keys.

An object is put whole or not at all, so a rewrite replaces it atomically and a reader never sees
half a day.
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
from datetime import date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit

import dagster as dg
import pyarrow as pa
import pyarrow.fs as pa_fs
from pydantic import Field

from taxi_assets.date_ranges import Month
from taxi_assets.defs.resources.fields import settings_of
from taxi_assets.errors import StoreError, explain_full_disk
from taxi_assets.settings.areas import RunSettings
from taxi_assets.settings.private_folders import make_private_folder
from taxi_assets.settings.stores import LakeSettings, Layout
from taxi_assets.tlc.schema import Service

TEMPORARY = "_tmp"
DEFAULT_RETENTION = RunSettings().temp_retention
TEMPORARY_NAME = re.compile(r"[0-9a-f]{32}")

LINES, ROWS = "csv.zst", "parquet"
"""Endings of raw slices: lines of a CSV month, rows of a Parquet month."""


def build_raw_key(service: Service, day: date, kind: str = LINES) -> str:
    """Return the key of a day's raw partition."""
    return f"_raw/{service.name}/{day:%Y/%m/%d}/trips.{kind}"


def build_outside_key(service: Service, month: Month, kind: str = LINES) -> str:
    """Return the key of a month's rows whose pickup lies in another month."""
    return f"_raw/{service.name}/{month.year:04d}/{month.month:02d}/outside_month.{kind}"


def build_unreadable_key(service: Service, month: Month, kind: str = LINES) -> str:
    """Return the key of a month's invalid rows; their reasons are in `.reasons.csv` beside it."""
    return f"_raw/{service.name}/{month.year:04d}/{month.month:02d}/unreadable.{kind}"


def build_cleaned_key(service: Service, day: date) -> str:
    """Return the key of a day's cleaned partition."""
    return f"_cleaned/{service.name}/{day:%Y/%m/%d}/trips.parquet"


def build_trips_key(service: Service, day: date, layout: Layout) -> str:
    """Return the key of a day's trips in the lake."""
    if layout == "date":
        return f"{service.name}/{day:%Y/%m/%d}/daily-trips.parquet"
    return f"{service.name}/{service.day_column}={day}/trips.parquet"


REPORT_INDEX = "_reports/index.html"
"""Key of the page of all reports."""


def build_report_key(service: Service, month: Month, kind: str) -> str:
    """Return the key of a month's report: `html` is the page, `png` the picture."""
    return f"_reports/{service.name}/{month}.{kind}"


@dataclass
class Lake:
    """An open bucket."""

    filesystem: pa_fs.FileSystem
    root: str
    """The bucket in terms of the file system: a folder, or the bucket's name."""
    bucket: str
    layout: Layout
    before_write: Callable[[], None] = field(default=lambda: None, compare=False, repr=False)
    """Called before an object appears, changes or goes; what it raises leaves all as it was."""

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

    def put(
        self, key: str, content: bytes | pa.Buffer, content_type: str = "application/octet-stream"
    ) -> int:
        """Replace an object; returns its size in bytes.

        `content_type` is what GCS tells a browser that opens the object.
        """
        size = len(content)
        if self.local:
            self._write_local(key, content)
        else:
            # By default pyarrow would compress what is named .zst once more.
            path = f"{self.root}/{key}"
            self.before_write()
            with self.filesystem.open_output_stream(
                path, compression=None, metadata={"Content-Type": content_type}
            ) as stream:
                stream.write(content)
        return size

    def open(self, key: str) -> pa.NativeFile:
        """Open an object for reading; a pipe in its place would be waited for without end.

        Raises:
            FileNotFoundError: there is no such object.
            OSError: it cannot be opened, or is no file.
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
        """Replace `target` by a copy of `source`; on GCS it never leaves the server."""
        if not self.local:
            self.before_write()
            self.filesystem.copy_file(f"{self.root}/{source}", f"{self.root}/{target}")
            return
        self._write_local(target, Path(self.root, source).read_bytes())

    @contextmanager
    def writer(self, key: str) -> Iterator[pa.NativeFile]:
        """Open a stream whose content replaces an object if the block ends without an error.

        It goes to a temporary object: closing a stream to GCS publishes what was written so far.
        """
        temporary = f"{TEMPORARY}/{uuid.uuid4().hex}"
        here, target = Path(self.root, temporary), Path(self.root, key)
        try:
            with explain_full_disk(Path(self.root)):
                if self.local:
                    here.parent.mkdir(parents=True, exist_ok=True)
                    target.parent.mkdir(parents=True, exist_ok=True)
                with self.filesystem.open_output_stream(
                    f"{self.root}/{temporary}", compression=None
                ) as stream:
                    yield stream
                if not self.local:
                    self.copy(temporary, key)
                    return
                with here.open("rb") as file:
                    os.fsync(file.fileno())
                self.before_write()
                here.replace(target)
        finally:
            replace(self, before_write=lambda: None).delete(temporary)

    def keys(self, folder: str) -> set[str]:
        """List the keys of all objects under a folder."""
        selector = pa_fs.FileSelector(f"{self.root}/{folder}", allow_not_found=True, recursive=True)
        return {
            info.path.removeprefix(f"{self.root}/")
            for info in self.filesystem.get_file_info(selector)
            if info.is_file
        }

    def times(self, folder: str) -> dict[str, datetime]:
        """List the keys of all objects under a folder with their modification times."""
        selector = pa_fs.FileSelector(f"{self.root}/{folder}", allow_not_found=True, recursive=True)
        return {
            info.path.removeprefix(f"{self.root}/"): info.mtime
            for info in self.filesystem.get_file_info(selector)
            if info.is_file
        }

    def delete(self, key: str) -> None:
        """Remove an object if it is there."""
        if self.size(key) is not None:
            self.before_write()
            self.filesystem.delete_file(f"{self.root}/{key}")

    def _write_local(self, key: str, content: bytes | pa.Buffer) -> None:
        target = Path(self.root, key)
        temporary = Path(self.root, TEMPORARY, uuid.uuid4().hex)
        try:
            with explain_full_disk(Path(self.root)):
                temporary.parent.mkdir(parents=True, exist_ok=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                self.before_write()
                temporary.replace(target)
        except OSError as error:
            raise StoreError(
                f"cannot write {target}: {error.strerror}; remove what is in its place or let "
                "this user write there, then run again"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


class LayoutName(StrEnum):
    """The layouts, to choose from."""

    hive = "hive"
    date = "date"


VARIABLES = {"bucket": "GCS_BUCKET", "address": "TAXI_LAKE", "layout": "TAXI_LAKE_LAYOUT"}


class LakeResource(dg.ConfigurableResource[Lake]):
    """Opens the bucket that its fields or the environment name (GCS_BUCKET, TAXI_LAKE)."""

    bucket: str | None = Field(
        default=None, description="Bucket of the lake, in place of GCS_BUCKET and TAXI_LAKE."
    )
    address: str | None = Field(
        default=None, description="Folder or gs://bucket that is the lake, in place of TAXI_LAKE."
    )

    layout: LayoutName | None = Field(
        default=None,
        description="Layout of the days' objects, in place of TAXI_LAKE_LAYOUT for this run: "
        "hive (<service>/tpep_pickup_date=2021-01-05/trips.parquet) or date "
        "(<service>/2021/01/05/daily-trips.parquet).",
    )

    @cached_property
    def lake(self) -> Lake:
        """The bucket, opened at first use."""
        settings = settings_of(self, VARIABLES, destination="bucket")
        return open_lake(settings.lake, settings.runs.temp_retention)


def open_lake(settings: LakeSettings, keep: timedelta = DEFAULT_RETENTION) -> Lake:
    """Open a bucket; of a folder, what killed writers left longer than `keep` ago is removed.

    A folder is made where it lacks. On GCS `STORAGE_EMULATOR_HOST` (Google's own variable) leads
    to an emulator, without credentials.
    """
    if settings.path is not None:
        make_private_folder(settings.path)
        _sweep_temporary(settings.path / TEMPORARY, keep)
        root = str(settings.path)
        return Lake(pa_fs.LocalFileSystem(), root, settings.bucket, settings.lake_layout)
    # By default it goes on for 15 minutes. A silent server is given up after 120 s more: that limit
    # of Google's client (TransferStallTimeoutOption) is out of pyarrow's reach.
    retries = timedelta(seconds=settings.retry_seconds)
    if settings.emulator:
        address = urlsplit(settings.emulator)
        filesystem = pa_fs.GcsFileSystem(
            anonymous=True,
            scheme=address.scheme,
            endpoint_override=address.netloc,
            retry_time_limit=retries,
        )
    else:
        filesystem = pa_fs.GcsFileSystem(retry_time_limit=retries)
    return Lake(filesystem, settings.bucket, settings.bucket, settings.lake_layout)


def _sweep_temporary(folder: Path, keep: timedelta) -> None:
    """Remove our own temporary files that are older, and nothing that a link leads to."""
    if folder.is_symlink() or not folder.is_dir():
        return
    for file in folder.iterdir():
        # Another run may be sweeping too.
        with suppress(FileNotFoundError):
            found = file.lstat()
            ours = TEMPORARY_NAME.fullmatch(file.name) and stat.S_ISREG(found.st_mode)
            if ours and time.time() - found.st_mtime > keep.total_seconds():
                file.unlink()
