"""The source of TLC's zone polygons: a path, or a URL that is downloaded once (TAXI_ZONES)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path, PurePosixPath
from stat import S_ISDIR
from urllib.parse import unquote, urlsplit

from taxi_assets.errors import SourceError
from taxi_assets.redaction import redact_value
from taxi_assets.settings.areas import LimitSettings
from taxi_assets.tlc.cache import hold_download_lock
from taxi_assets.tlc.download import download_file
from taxi_assets.tlc.partial_file import Partial
from taxi_assets.tlc.remote_version import SourceLocation
from taxi_assets.tlc.zone_polygons import ZonePolygons, read_zone_polygons

LABEL = "TAXI_ZONES"
MAX_BYTES = 64 << 20
"""Limit of the download; TLC's zip has 1 MB, New York's GeoJSON 4."""


def load_zone_polygons(
    address: str, downloads: Path, limits: LimitSettings, progress: Callable[[str], None]
) -> ZonePolygons:
    """Return the polygons of a path or an http(s) URL; a process reads the same file once.

    A downloaded file stays in `downloads` and is not requested again: the zones have not changed
    since 2016. Remove it to fetch it again.

    Raises:
        SourceError: the file does not exist, cannot be read, or has no zones.
        SourceUnavailableError: the server did not deliver it.
    """
    is_url = urlsplit(address).scheme.lower() in ("http", "https")
    path = _fetch(address, downloads, limits, progress) if is_url else Path(address).expanduser()
    try:
        stat = path.stat()
    except OSError as error:
        raise SourceError(f"{LABEL}: {path} cannot be read ({error.strerror})") from None
    if S_ISDIR(stat.st_mode):
        raise SourceError(f"{LABEL}: {path} is a folder: name the .shp, .zip or GeoJSON file in it")
    return _read_once(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=2)
def _read_once(path: Path, mtime_ns: int, size: int) -> ZonePolygons:
    """Read a file; the cache compares its mtime and size too."""
    del mtime_ns, size
    return read_zone_polygons(path)


def _fetch(
    url: str, downloads: Path, limits: LimitSettings, progress: Callable[[str], None]
) -> Path:
    name = PurePosixPath(unquote(urlsplit(url).path)).name or "zones.zip"
    path = downloads / "zones" / hashlib.sha256(url.encode()).hexdigest()[:8] / name
    location = SourceLocation(LABEL, redact_value(url), url)
    smaller = limits.model_copy(
        update={"max_download_bytes": min(limits.max_download_bytes, MAX_BYTES)}
    )
    with hold_download_lock(path, LABEL, progress, limits.download_timeout_seconds):
        if not path.exists():
            part = Partial(path.with_name(f"part-{name}"))
            download_file(location, part, progress, lambda: None, smaller)
            try:
                read_zone_polygons(part.path)
            except SourceError:
                part.discard()  # The next attempt must not resume an invalid file.
                raise
            part.path.replace(path)
            part.discard()
    return path
