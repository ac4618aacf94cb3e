"""Where a month's file comes from, and how it is kept once under `TAXI_HOME`.

A template names it: `sample`, a local path, or an HTTP(S) URL. What is downloaded or made up is
kept in `<home>/downloads` and never fetched again; delete it there to get a republished month.
Local files are read in place. What is no month file is refused here, before anybody reads rows.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import SplitResult, unquote, urlsplit

from taxi_assets.errors import SourceError
from taxi_assets.services import Service
from taxi_assets.settings import SAMPLE
from taxi_assets.trips.download import (
    Origin,
    Partial,
    Progress,
    Transfer,
    download,
    public_url,
    sha256_of,
)
from taxi_assets.trips.sample import LABEL, write_month
from taxi_assets.windows import Month

__all__ = ["MonthFile", "fetch", "public_url"]

SUFFIXES = (".csv.gz", ".csv", ".parquet")
GZIP = b"\x1f\x8b"
PARQUET = b"PAR1"
PARQUET_LEAST = 12
"""Bytes of the two magic numbers and the footer's length."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
MARKUP = (b"<!doctype", b"<html", b"<?xml")
NEITHER = "neither gzip nor Parquet"
HEAD = 1 << 10
CHUNK = 1 << 20
NAMES_SHOWN = 4


@dataclass(frozen=True)
class MonthFile:
    """A month's file on this machine, whole and checked (a local one: as far as its ends tell)."""

    service: Service
    month: Month
    path: Path
    url: str
    """URL or absolute path it came from, without credentials."""
    size: int
    """Bytes."""
    sha256: str
    """Of the file's bytes, hexadecimal."""
    etag: str | None
    last_modified: str | None
    """As the server said it; of a file on this machine its mtime, ISO, UTC."""
    synthetic: bool


def fetch(
    template: str, service: Service, month: Month, home: Path, progress: Callable[[str], None]
) -> MonthFile:
    """Bring the file of `month` to this machine, if it is not here yet.

    Safe in several processes and threads at once: one brings the file, the others wait for it.

    Args:
        template: `sample`, or a path, `file://` or `http(s)://` URL with `{service}`, `{year}`
            and `{month}` (two digits).
        service: whose trips.
        month: which.
        home: `TAXI_HOME`; what is kept goes to `downloads` in it.
        progress: gets lines to show a person: how far a download is, why it waits.

    Raises:
        SourceError: the file is not there, not whole, or not a month file. Terminal.
        SourceUnavailableError: the server did not deliver in several attempts. Later may help.

    """
    job = _Job(service, month, home.absolute() / "downloads", progress)
    if template == SAMPLE:
        return job.sample()
    address = job.render(template)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", address)
    match scheme[1].lower() if scheme else "file":
        case "http" | "https":
            return job.http(template, address)
        case "file":
            return job.local(_path_of(address, job.label))
        case other:
            raise Origin(job.label, public_url(address)).refusal(
                f"{other}:// is not supported", "set TAXI_SOURCE to an https:// URL or a path"
            )


@dataclass(frozen=True)
class _Job:
    """One call of `fetch`."""

    service: Service
    month: Month
    downloads: Path
    progress: Progress

    @property
    def label(self) -> str:
        return f"{self.service.name} {self.month}"

    def render(self, template: str) -> str:
        year, month = str(self.month).split("-")
        for name, value in (("service", self.service.name), ("year", year), ("month", month)):
            template = template.replace(f"{{{name}}}", value)
        return template

    def sample(self) -> MonthFile:
        name = f"{self.service.name}_tripdata_{self.month}.csv.gz"
        path = self.downloads / "sample" / name
        with _locked(path, self.label, self.progress):
            kept = self.kept(path, synthetic=True)
            if kept:
                return kept
            part = path.with_name(f"part-{name}")
            write_month(self.service, self.month, part)
            made = self.file_at(part, f"{LABEL} {self.label}", sha256_of(part).hexdigest())
            return _keep(part, replace(made, path=path, synthetic=True))

    def local(self, path: Path) -> MonthFile:
        origin = Origin(self.label, str(path))
        suffix = _suffix(path.name, origin)
        try:
            if not path.is_file():
                raise origin.refusal(*_absence(path))
            _check_start(path, suffix, origin)
            if suffix == ".parquet":
                _check_whole(path, suffix, origin)
            memory = self.downloads / "local" / f"{path.name}-{_short_hash(str(path))}"
            with _locked(memory, self.label, self.progress):
                sha256 = _remembered_sha256(path, memory, origin)
            return self.file_at(path, str(path), sha256)
        except PermissionError as error:
            found = f"{error.strerror} ({error.filename})"
            raise origin.refusal(found, "give this user access") from None

    def http(self, template: str, url: str) -> MonthFile:
        origin = Origin(self.label, public_url(url), url)
        try:
            parts = urlsplit(template)
        except ValueError as error:
            raise origin.refusal(f"not a URL ({error})", "check TAXI_SOURCE") from None
        folder = self.downloads / self.service.name / _folder_of(parts)
        path = folder / self.name_of(PurePosixPath(parts.path).name, origin)
        with _locked(path, self.label, self.progress):
            kept = self.kept(path)
            if kept:
                return kept
            part = Partial(path.with_name(f"{path.name}.part"))
            came = self.obtain(origin, part, _suffix(path.name, origin))
            version = came.version
            stamps = (came.size, came.sha256, version.etag, version.last_modified)
            whole = MonthFile(
                self.service, self.month, path, origin.public, *stamps, synthetic=False
            )
            _keep(part.path, whole)
            part.discard()
            return whole

    def name_of(self, pattern: str, origin: Origin) -> str:
        """File name that no other month of the template has."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(self.render(pattern)))
        _suffix(name, origin)
        own = "{year}" in pattern and "{month}" in pattern
        return name if own else f"{self.month}_{name}"

    def obtain(self, origin: Origin, part: Partial, suffix: str) -> Transfer:
        """Download and check; what fails the check is not gone on from."""

        def refuse_early() -> None:
            with _discarding(part):
                _check_start(part.path, suffix, origin)

        def attempt() -> Transfer:
            transfer = download(origin, part, self.progress, refuse_early)
            with _discarding(part):
                _check_whole(part.path, suffix, origin)
            return transfer

        mended = part.kept()[0] > 0
        try:
            return attempt()
        except SourceError as error:
            if not mended or part.path.exists():
                raise
            self.progress(f"{error}; its first part was of an earlier run: again from the start")
        return attempt()

    def file_at(self, path: Path, url: str, sha256: str) -> MonthFile:
        """File whose origin is this machine, not a server."""
        stat = path.stat()
        modified = datetime.fromtimestamp(int(stat.st_mtime), UTC).isoformat()
        stamps = (stat.st_size, sha256, None, modified)
        return MonthFile(self.service, self.month, path, url, *stamps, synthetic=False)

    def kept(self, path: Path, *, synthetic: bool = False) -> MonthFile | None:
        """File that an earlier run kept, if it is there in the size noted."""
        try:
            note = _read_note(path)
            if path.stat().st_size == note["size"]:
                return MonthFile(self.service, self.month, path, synthetic=synthetic, **note)
        except (OSError, KeyError, TypeError):
            pass
        return None


def _path_of(address: str, label: str) -> Path:
    """Absolute path of a path or `file://` URL."""
    if address[:7].lower() != "file://":
        return Path(address).expanduser().absolute()
    host, slash, path = address[7:].partition("/")
    if host not in ("", "localhost"):
        raise Origin(label, public_url(address)).refusal(
            f"names the host {host}", "write file:///path for a file of this machine"
        )
    return Path(unquote(slash + path))


def _folder_of(template: SplitResult) -> str:
    """Folder of a template's downloads: a new password moves nothing, any other change does."""
    place = template._replace(netloc=template.netloc.rpartition("@")[2])
    return _short_hash(place.geturl())


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _suffix(name: str, origin: Origin) -> str:
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return suffix
    raise origin.refusal(
        f"the file name {name!r} is of no known type",
        f"set TAXI_SOURCE to a path or URL that ends in {', '.join(SUFFIXES)}",
    )


def _absence(path: Path) -> tuple[str, str]:
    """Tell what is found where no file is, and the remedy."""
    if path.exists():
        return "is not a file", "set TAXI_SOURCE to a template of files"
    if not path.parent.is_dir():
        return "no such file, nor such a folder", "check TAXI_SOURCE"
    remedy = "put the month there or check TAXI_SOURCE"
    names = sorted(entry.name for entry in path.parent.iterdir())
    if not names:
        return "no such file; the folder is empty", remedy
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return f"no such file; the folder holds {', '.join(names[:NAMES_SHOWN])}{more}", remedy


@contextmanager
def _locked(path: Path, label: str, progress: Progress) -> Generator[None]:
    """Hold the lock file beside `path`; it dies with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress(f"{label}: another run is bringing {path.name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_note(path: Path) -> dict[str, Any]:
    """Read what is noted of `path`; empty where nothing readable is."""
    try:
        note: object = json.loads(_note_of(path).read_text())
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", note) if isinstance(note, dict) else {}


def _write_note(path: Path, note: Mapping[str, object]) -> None:
    part = path.with_name(f"{path.name}.json.part")
    part.write_text(json.dumps(note, indent=1))
    part.replace(_note_of(path))


def _keep(part: Path, file: MonthFile) -> MonthFile:
    """Give the finished `part` its name. The note comes first: a named file always has one."""
    names = ("url", "size", "sha256", "etag", "last_modified")
    _write_note(file.path, {name: getattr(file, name) for name in names})
    _sync(part)
    part.replace(file.path)
    _sync(file.path.parent)
    return file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remembered_sha256(path: Path, memory: Path, origin: Origin) -> str:
    """SHA-256 of a local file, computed once for a path, size and mtime (500 MB take a second)."""

    def state() -> dict[str, object]:
        stat = path.stat()
        return {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}

    before = state()
    note = _read_note(memory)
    if {**note, **before} == note:
        return str(note["sha256"])
    sha256 = sha256_of(path).hexdigest()
    if state() != before:
        raise origin.refusal("changed while it was read", "run again when it is written")
    _write_note(memory, {**before, "sha256": sha256})
    return sha256


@contextmanager
def _discarding(part: Partial) -> Generator[None]:
    try:
        yield
    except SourceError:
        part.discard()
        raise


def _check_start(path: Path, suffix: str, origin: Origin) -> None:
    """Refuse what its first bytes, in gzip the first that come out, show to be no month file."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    starts, found = head[:8], NEITHER
    if head.startswith(PARQUET):
        found = "Parquet"
    elif head.startswith(GZIP):
        found = "gzip"
        try:
            with gzip.open(path) as file:
                head = file.read(HEAD)
        except (EOFError, OSError, zlib.error) as error:
            raise _damaged(error, origin) from None
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    inside = "inside the gzip " if found == "gzip" else ""
    if not text:
        raise origin.refusal(f"{inside}empty", "get it again from where it is published")
    if text.startswith(LFS_POINTER):
        raise origin.refusal(f"{inside}a Git LFS pointer, not the file", "run git lfs pull there")
    if text.startswith(MARKUP):
        raise origin.refusal(f"{inside}an HTML or XML page, not trips", "open it to see why")
    if found != {".csv.gz": "gzip", ".parquet": "Parquet"}.get(suffix, NEITHER):
        raise origin.refusal(
            f"{found} (starts with {starts!r}), though its name says {suffix}",
            "name it by what it is, or get it again",
        )


def _check_whole(path: Path, suffix: str, origin: Origin) -> None:
    """`_check_start`, and the end: all of a gzip's members with CRC and length, Parquet's magic."""
    _check_start(path, suffix, origin)
    if suffix == ".csv.gz":
        try:
            with gzip.open(path) as file:
                while file.read(CHUNK):
                    pass
        except (EOFError, OSError, zlib.error) as error:
            raise _damaged(error, origin) from None
    if suffix == ".parquet":
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(-min(size, len(PARQUET)), os.SEEK_END)
            if size < PARQUET_LEAST or file.read() != PARQUET:
                raise origin.refusal(f"Parquet cut short at {size} bytes", "get it again")


def _damaged(error: Exception, origin: Origin) -> SourceError:
    found = "gzip cut short" if isinstance(error, EOFError) else f"damaged gzip ({error})"
    return origin.refusal(found, "get it again from where it is published")
