"""The address of a month's file: a template with placeholders becomes a path or a URL.

Only names and addresses belong here. Nothing here opens a file or a connection, except to list the
folder of a missing file for its error message.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError
from taxi_assets.redaction import redact_value
from taxi_assets.settings.addresses import find_source_problem
from taxi_assets.tlc.remote_version import SourceLocation
from taxi_assets.tlc.schema import Service

SUFFIXES = (".csv.gz", ".csv", ".parquet")
MAX_NAMES_SHOWN = 4


def render_address(template: str, service: Service, month: Month) -> str:
    """Return the address of a month's file.

    Raises:
        SourceError: the template is malformed; the message shows no part of it.
    """
    if problem := find_source_problem(template):
        raise SourceError(f"{service.name} {month}: TAXI_SOURCE {problem}; correct it")
    return fill_template(template, service, month)


def fill_template(template: str, service: Service, month: Month) -> str:
    """Replace the placeholders of a template."""
    year, month_number = str(month).split("-")
    values = {"service": service.name, "year": year, "month": month_number}
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", value)
    return template


def describe_location(template: str, service: Service, month: Month) -> str:
    """Return the path of a month's file, or its URL without credentials."""
    address = render_address(template, service, month)
    return redact_value(address) if is_http_url(address) else str(resolve_path(address))


def is_http_url(address: str) -> bool:
    """Return whether an address is an HTTP(S) URL."""
    return re.match(r"https?://", address, re.IGNORECASE) is not None


def resolve_path(address: str) -> Path:
    """Return the absolute path of a path or `file://` URL."""
    if address[:7].lower() != "file://":
        return Path(address).expanduser().absolute()
    _, slash, path = address[7:].partition("/")
    return Path(unquote(slash + path))


def build_file_name(pattern: str, service: Service, month: Month, location: SourceLocation) -> str:
    """Return a file name that no other month of the template has."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", unquote(fill_template(pattern, service, month)))
    find_suffix(name, location)
    is_unique = "{year}" in pattern and "{month}" in pattern
    return name if is_unique else f"{month}_{name}"


def choose_folder(template: SplitResult) -> str:
    """Return the folder of a template's downloads, which does not depend on the password."""
    place = template._replace(netloc=template.netloc.rpartition("@")[2])
    return hash_shortly(place.geturl())


def hash_shortly(text: str) -> str:
    """Return the first 12 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def find_suffix(name: str, location: SourceLocation) -> str:
    """Return the supported suffix of a file name.

    Raises:
        SourceError: it has none.
    """
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return suffix
    raise location.build_error(
        f"the file name {name!r} has no known type",
        f"set TAXI_SOURCE to a path or URL that ends in {', '.join(SUFFIXES)}",
    )


def describe_missing_file(path: Path) -> tuple[str, str]:
    """Return the problem with a path that is not a file, and its fix."""
    if path.exists():
        return "is not a file", "set TAXI_SOURCE to a template of files"
    if not path.parent.is_dir():
        return "neither the file nor its folder exists", "check TAXI_SOURCE"
    remedy = "put the month there or check TAXI_SOURCE"
    names = sorted(entry.name for entry in path.parent.iterdir())
    if not names:
        return "no such file; the folder is empty", remedy
    more = len(names) - MAX_NAMES_SHOWN
    rest = f" and {more} more" if more > 0 else ""
    return f"no such file; the folder has {', '.join(names[:MAX_NAMES_SHOWN])}{rest}", remedy
