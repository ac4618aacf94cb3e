"""Where a month's file comes from, and how it is kept once under `TAXI_HOME`.

A template names it: `sample`, a local path, or an HTTP(S) URL. What is downloaded or made up is
kept in `<home>/downloads`. Each use asks the server once (HEAD) whether it has another version by
now, and then fetches that; a server that does not answer leaves the kept file in use. Local files
are read in place. What is no month file is refused here, before anybody reads rows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, unquote, urlsplit

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError
from taxi_assets.redaction import redact_value
from taxi_assets.settings.addresses import find_source_problem
from taxi_assets.settings.areas import SAMPLE, LimitSettings
from taxi_assets.settings.private_folders import make_private_folder
from taxi_assets.tlc.cache import (
    MonthFile,
    commit_sidecar,
    commit_to_cache,
    get_cached_sha256,
    hold_download_lock,
    read_sidecar,
)
from taxi_assets.tlc.download import (
    MIB,
    Partial,
    Progress,
    RemoteVersion,
    SourceLocation,
    SourceUnavailableError,
    Transfer,
    download_file,
    start_sha256,
)
from taxi_assets.tlc.integrity import (
    check_complete,
    check_file_start,
    decode_content,
    is_content_encoded,
)
from taxi_assets.tlc.probe import get_modification_time, send_head_request, stat_local_file
from taxi_assets.tlc.sample import LABEL, write_sample_month
from taxi_assets.tlc.schema import Service

__all__ = ["MonthFile", "describe_location", "fetch_month_file", "probe_month_file"]

SUFFIXES = (".csv.gz", ".csv", ".parquet")
NAMES_SHOWN = 4
DEFAULT_LIMITS = LimitSettings()


def fetch_month_file(  # noqa: PLR0913 - one call from one place
    template: str,
    service: Service,
    month: Month,
    home: Path,
    progress: Callable[[str], None],
    *,
    must_confirm: bool = False,
    limits: LimitSettings = DEFAULT_LIMITS,
) -> MonthFile:
    """Bring the file of `month` to this machine, if it is not here yet or was restated since.

    Safe in several processes and threads at once: one brings the file, the others wait for it.

    Args:
        template: `sample`, or a path, `file://` or `http(s)://` URL with `{service}`, `{year}`
            and `{month}` (two digits).
        service: whose trips.
        month: which.
        home: `TAXI_HOME`; what is kept goes to `downloads` in it.
        progress: gets lines to show a person: how far a download is, why it waits.
        must_confirm: whether a kept file is of no use when the server does not confirm it.
        limits: how large a month file may be, and how long bringing it may take.

    Raises:
        SourceError: the file is not there, not whole, or not a month file. Terminal.
        SourceUnavailableError: the server did not deliver in several attempts. Later may help.

    """
    downloads = home.absolute() / "downloads"
    make_private_folder(downloads)
    job = _Job(service, month, downloads, progress, must_confirm, limits)
    if template == SAMPLE:
        return job.sample()
    address = job.render(template)
    if _is_http_url(address):
        return job.http(template, address)
    return job.local(_resolve_path(address))


def probe_month_file(
    template: str,
    service: Service,
    month: Month,
    *,
    before: RemoteVersion | None = None,
    home: Path | None = None,
) -> RemoteVersion | None:
    """Return what the source has of `month` by one HEAD or stat; None if unpublished.

    Of the sample, which has every month and never changes, nothing is said.

    Args:
        template: as for `fetch`.
        service: whose trips.
        month: which.
        before: what an earlier look found; an ETag that changes with each answer is left out.
        home: `TAXI_HOME`. With it a local file's SHA-256, remembered there, is its ETag: a copy
            may keep size and time.

    Raises:
        SourceError: the source refuses, or the template is wrong. Terminal.
        SourceUnavailableError: the server does not answer now.
    """
    if template == SAMPLE:
        return RemoteVersion()
    job = _Job(service, month, (home or Path()).absolute() / "downloads", lambda _: None)
    address = job.render(template)
    if _is_http_url(address):
        return send_head_request(SourceLocation(job.label, redact_value(address), address), before)
    path = _resolve_path(address)
    try:
        version = stat_local_file(path)
        if version is None or home is None or not path.is_file():
            return version
        return replace(
            version,
            etag=_build_local_etag(job.hash_local_file(path, SourceLocation(job.label, str(path)))),
        )
    except PermissionError as error:
        raise SourceLocation(job.label, str(path)).build_error(
            f"{error.strerror}", "give this user access"
        ) from None


def describe_location(template: str, service: Service, month: Month) -> str:
    """Return the path of a month's file, or its URL without credentials."""
    job = _Job(service, month, Path(), lambda _: None)
    address = job.render(template)
    is_http = _is_http_url(address)
    return redact_value(address) if is_http else str(_resolve_path(address))


def _is_http_url(address: str) -> bool:
    """Return whether a month's address is an HTTP URL."""
    return re.match(r"https?://", address, re.IGNORECASE) is not None


@dataclass(frozen=True)
class _Job:
    """One call of `fetch`."""

    service: Service
    month: Month
    downloads: Path
    progress: Progress
    must_confirm: bool = False
    limits: LimitSettings = DEFAULT_LIMITS

    @property
    def label(self) -> str:
        return f"{self.service.name} {self.month}"

    def render(self, template: str) -> str:
        """Return the address of the month's file.

        Raises:
            SourceError: the template is malformed. Its parts are not shown.
        """
        if complaint := find_source_problem(template):
            raise SourceError(f"{self.label}: TAXI_SOURCE {complaint}; correct it")
        return self.fill_template(template)

    def fill_template(self, template: str) -> str:
        year, month = str(self.month).split("-")
        for name, value in (("service", self.service.name), ("year", year), ("month", month)):
            template = template.replace(f"{{{name}}}", value)
        return template

    def sample(self) -> MonthFile:
        name = f"{self.service.name}_tripdata_{self.month}.csv.gz"
        path = self.downloads / "sample" / name
        with hold_download_lock(path, self.label, self.progress):
            kept = self.kept(path, synthetic=True)
            if kept:
                return kept
            part = path.with_name(f"part-{name}")
            write_sample_month(self.service, self.month, part)
            made = self.file_at(part, f"{LABEL} {self.label}", start_sha256(part).hexdigest())
            return commit_to_cache(part, replace(made, path=path, synthetic=True))

    def local(self, path: Path) -> MonthFile:
        location = SourceLocation(self.label, str(path))
        suffix = _find_suffix(path.name, location)
        try:
            if not path.is_file():
                raise location.build_error(*_describe_absence(path))
            check_file_start(path, suffix, location, self.service, self.month)
            if suffix == ".parquet":
                check_complete(path, suffix, location, self.service, self.month)
            sha256 = self.hash_local_file(path, location)
            return replace(self.file_at(path, str(path), sha256), etag=_build_local_etag(sha256))
        except PermissionError as error:
            found = f"{error.strerror} ({error.filename})"
            raise location.build_error(found, "give this user access") from None

    def hash_local_file(self, path: Path, location: SourceLocation) -> str:
        memory = self.downloads / "local" / f"{path.name}-{_hash_shortly(str(path))}"
        with hold_download_lock(memory, self.label, self.progress):
            return get_cached_sha256(path, memory, location)

    def http(self, template: str, url: str) -> MonthFile:
        location = SourceLocation(self.label, redact_value(url), url)
        parts = urlsplit(template)
        folder = self.downloads / self.service.name / _choose_folder(parts)
        path = folder / self.build_file_name(PurePosixPath(parts.path).name, location)
        with hold_download_lock(
            path, self.label, self.progress, self.limits.download_timeout_seconds
        ):
            part = Partial(path.with_name(f"{path.name}.part"))
            kept = self.kept(path)
            if kept is None:
                self.discard_unconfirmed(part, location)
                return self.bring(location, part, path)
            differs = self.differs(kept, location)
            if differs is False:
                return kept
            try:
                return self.bring(location, part, path, kept)
            except (SourceError, SourceUnavailableError) as error:
                if differs or self.must_confirm:
                    raise
                self.progress(f"{error}; the file kept here is used as it is")
                return kept

    def bring(
        self, location: SourceLocation, part: Partial, path: Path, kept: MonthFile | None = None
    ) -> MonthFile:
        """Download, and commit to the cache what differs from the file kept there."""
        came = self.obtain(location, part, _find_suffix(path.name, location))
        version = came.version
        stamps = (came.size, came.sha256, version.etag, version.last_modified)
        if kept and kept.sha256 == came.sha256:
            part.discard()
            self.progress(f"{self.label}: {location.public} is the same file as before")
            same = replace(kept, etag=version.etag, last_modified=version.last_modified)
            return commit_sidecar(same)
        written = part.path.stat().st_mtime_ns
        whole = MonthFile(self.service, self.month, path, location.public, *stamps, False, written)
        commit_to_cache(part.path, whole)
        part.discard()
        return whole

    def discard_unconfirmed(self, part: Partial, location: SourceLocation) -> None:
        """Discard a download that a killed run had finished, unless the server still has it."""
        if not part.is_complete():
            return
        _, version = part.kept()
        try:
            now = send_head_request(location, version)
        except (SourceError, SourceUnavailableError):
            if self.must_confirm:
                raise
            return
        if now is None or now.differs_from(version) is not False:
            part.discard()

    def differs(self, kept: MonthFile, location: SourceLocation) -> bool | None:
        """Return whether the server has another version than the cached one; None if unknown."""
        before = RemoteVersion(kept.etag, kept.last_modified, kept.size)
        try:
            now = send_head_request(location, before)
            if now is None:
                raise location.build_error("the server has it no more", "check TAXI_SOURCE")
        except (SourceError, SourceUnavailableError) as error:
            if self.must_confirm:
                raise
            self.progress(f"{error}; the file kept here is used as it is")
            return False
        differs = now.differs_from(before)
        if differs:
            when = f", {now.last_modified}" if now.last_modified else ""
            self.progress(
                f"{self.label}: {location.public} was restated{when}: it is fetched again"
            )
        elif differs is None:
            self.progress(
                f"{self.label}: {location.public} comes without an ETag or time that could confirm "
                f"the file kept here: it is downloaded again ({kept.size / MIB:.1f} MiB) and "
                "compared"
            )
        return differs

    def build_file_name(self, pattern: str, location: SourceLocation) -> str:
        """Return a file name that no other month of the template has."""
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(self.fill_template(pattern)))
        _find_suffix(name, location)
        own = "{year}" in pattern and "{month}" in pattern
        return name if own else f"{self.month}_{name}"

    def obtain(self, location: SourceLocation, part: Partial, suffix: str) -> Transfer:
        """Download and check; what fails the check is not gone on from."""

        def refuse_early() -> None:
            with _discard_on_error(part):
                check_file_start(part.path, suffix, location, self.service, self.month)

        def attempt() -> Transfer:
            transfer = download_file(location, part, self.progress, refuse_early, self.limits)
            with _discard_on_error(part):
                if transfer.encoding == "gzip" and is_content_encoded(part.path, suffix):
                    transfer = self.decoded(location, part, transfer)
                check_complete(part.path, suffix, location, self.service, self.month)
            return transfer

        is_resumed = part.kept()[0] > 0
        try:
            return attempt()
        except SourceError as error:
            if not is_resumed or part.path.exists():
                raise
            self.progress(f"{error}; its first part was of an earlier run: again from the start")
        return attempt()

    def decoded(self, location: SourceLocation, part: Partial, came: Transfer) -> Transfer:
        """Undo the Content-Encoding that a server applied though identity was asked for."""
        plain = part.path.with_name(f"part-{part.path.name.removesuffix('.part')}")
        try:
            decode_content(part.path, plain, self.limits.max_download_bytes, location)
            part.discard()  # its note describes the encoded bytes
            plain.replace(part.path)
        finally:
            plain.unlink(missing_ok=True)
        size, sha256 = part.path.stat().st_size, start_sha256(part.path).hexdigest()
        return replace(came, size=size, sha256=sha256)

    def file_at(self, path: Path, url: str, sha256: str) -> MonthFile:
        """Return a month file that is local and not downloaded."""
        stat = path.stat()
        stamps = (stat.st_size, sha256, None, get_modification_time(stat.st_mtime))
        return MonthFile(
            self.service, self.month, path, url, *stamps, False, mtime_ns=stat.st_mtime_ns
        )

    def kept(self, path: Path, *, synthetic: bool = False) -> MonthFile | None:
        """Return the cached file of an earlier run, if it has the recorded size."""
        try:
            note, stat = read_sidecar(path), path.stat()
            if stat.st_size == note["size"]:
                kept = MonthFile(self.service, self.month, path, synthetic=synthetic, **note)
                return replace(kept, mtime_ns=stat.st_mtime_ns)
        except (OSError, KeyError, TypeError):
            pass
        return None


def _resolve_path(address: str) -> Path:
    """Return the absolute path of a path or `file://` URL."""
    if address[:7].lower() != "file://":
        return Path(address).expanduser().absolute()
    _, slash, path = address[7:].partition("/")
    return Path(unquote(slash + path))


def _choose_folder(template: SplitResult) -> str:
    """Return the folder of a template's downloads, which does not depend on the password."""
    place = template._replace(netloc=template.netloc.rpartition("@")[2])
    return _hash_shortly(place.geturl())


def _build_local_etag(sha256: str) -> str:
    """Return a short ETag of a local file; a sensor's cursor holds those of all months."""
    return sha256[:32]


def _hash_shortly(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def _find_suffix(name: str, location: SourceLocation) -> str:
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return suffix
    raise location.build_error(
        f"the file name {name!r} is of no known type",
        f"set TAXI_SOURCE to a path or URL that ends in {', '.join(SUFFIXES)}",
    )


def _describe_absence(path: Path) -> tuple[str, str]:
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
def _discard_on_error(part: Partial) -> Generator[None]:
    try:
        yield
    except SourceError:
        part.discard()
        raise
