"""The source of month files: `sample`, a local path, or an HTTP(S) URL.

Downloaded and synthetic files are cached in `<home>/downloads`; local files are read in place. A
file that is not a month file is rejected here, before its rows are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from taxi_assets.date_ranges import Month
from taxi_assets.redaction import redact_value
from taxi_assets.settings.areas import SAMPLE, LimitSettings
from taxi_assets.settings.private_folders import make_private_folder
from taxi_assets.tlc.cache import (
    MonthFile,
    commit_to_cache,
    describe_local_file,
    find_cached_file,
    get_cached_sha256,
    hold_download_lock,
)
from taxi_assets.tlc.download import Progress, hash_file
from taxi_assets.tlc.integrity import check_complete, check_file_start
from taxi_assets.tlc.month_address import (
    describe_missing_file,
    find_suffix,
    hash_shortly,
    is_http_url,
    render_address,
    resolve_path,
)
from taxi_assets.tlc.probe import send_head_request, stat_local_file
from taxi_assets.tlc.remote_month import RemoteMonth
from taxi_assets.tlc.remote_version import RemoteVersion, SourceLocation
from taxi_assets.tlc.sample import LABEL, write_sample_month
from taxi_assets.tlc.schema import Service

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
    """Return the file of a month; download it if it is not cached or was restated.

    Safe in several processes and threads at once: one fetches the file, the others wait for it.

    Args:
        template: `sample`, or a path, `file://` or `http(s)://` URL with `{service}`, `{year}`
            and `{month}` (two digits).
        service: the service of the trips.
        month: the month.
        home: `TAXI_HOME`; the cache is `downloads` in it.
        progress: receives log lines: the progress of a download, or the reason of a wait.
        must_confirm: whether to fail if the server does not confirm a cached file.
        limits: maximum size of a month file, and the time limit of its download.

    Raises:
        SourceError: the file is missing, incomplete, or not a month file. Terminal.
        SourceUnavailableError: the server did not deliver in several attempts. Transient.

    """
    downloads = home.absolute() / "downloads"
    make_private_folder(downloads)
    if template == SAMPLE:
        return _write_sample(service, month, downloads, progress)
    address = render_address(template, service, month)
    if is_http_url(address):
        return RemoteMonth(
            service, month, template, address, downloads, progress, must_confirm, limits
        ).fetch()
    return _open_local_file(service, month, resolve_path(address), downloads, progress)


def probe_month_file(
    template: str,
    service: Service,
    month: Month,
    *,
    before: RemoteVersion | None = None,
    home: Path | None = None,
) -> RemoteVersion | None:
    """Return the version of a month at the source by one HEAD or stat; None if unpublished.

    The sample has every month and never changes; its version is empty.

    Args:
        template: as for `fetch_month_file`.
        service: the service of the trips.
        month: the month.
        before: the version of an earlier probe; an ETag that changes with each response is left
            out.
        home: `TAXI_HOME`. If it is given, a local file's SHA-256, which is cached there, is its
            ETag: a copy may have the same size and time.

    Raises:
        SourceError: the source rejects the request, or the template is invalid. Terminal.
        SourceUnavailableError: the server does not answer. Transient.
    """
    if template == SAMPLE:
        return RemoteVersion()
    label = f"{service.name} {month}"
    address = render_address(template, service, month)
    if is_http_url(address):
        return send_head_request(SourceLocation(label, redact_value(address), address), before)
    path = resolve_path(address)
    location = SourceLocation(label, str(path))
    try:
        version = stat_local_file(path)
        if version is None or home is None or not path.is_file():
            return version
        sha256 = _hash_local_file(path, location, home.absolute() / "downloads", lambda _: None)
        return replace(version, etag=_build_local_etag(sha256))
    except PermissionError as error:
        raise location.build_error(f"{error.strerror}", "give this user access") from None


def _write_sample(service: Service, month: Month, downloads: Path, progress: Progress) -> MonthFile:
    """Return the synthetic file of a month; write it if it is not cached."""
    name, label = f"{service.name}_tripdata_{month}.csv.gz", f"{service.name} {month}"
    path = downloads / "sample" / name
    with hold_download_lock(path, label, progress):
        cached = find_cached_file(service, month, path, synthetic=True)
        if cached:
            return cached
        part = path.with_name(f"part-{name}")
        write_sample_month(service, month, part)
        sha256 = hash_file(part)
        file = describe_local_file(service, month, part, f"{LABEL} {label}", sha256)
        return commit_to_cache(part, replace(file, path=path, synthetic=True))


def _open_local_file(
    service: Service, month: Month, path: Path, downloads: Path, progress: Progress
) -> MonthFile:
    """Check a local file, and return its metadata."""
    location = SourceLocation(f"{service.name} {month}", str(path))
    suffix = find_suffix(path.name, location)
    try:
        if not path.is_file():
            raise location.build_error(*describe_missing_file(path))
        check = check_complete if suffix == ".parquet" else check_file_start
        check(path, suffix, location, service, month)
        sha256 = _hash_local_file(path, location, downloads, progress)
        file = describe_local_file(service, month, path, str(path), sha256)
        return replace(file, etag=_build_local_etag(sha256))
    except PermissionError as error:
        problem = f"{error.strerror} ({error.filename})"
        raise location.build_error(problem, "give this user access") from None


def _hash_local_file(
    path: Path, location: SourceLocation, downloads: Path, progress: Progress
) -> str:
    memory = downloads / "local" / f"{path.name}-{hash_shortly(str(path))}"
    with hold_download_lock(memory, location.label, progress):
        return get_cached_sha256(path, memory, location)


def _build_local_etag(sha256: str) -> str:
    """Return a short ETag of a local file, because a sensor's cursor has those of all months."""
    return sha256[:32]
