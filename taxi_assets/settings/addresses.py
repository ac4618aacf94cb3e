"""The accepted forms of addresses in settings: URLs, hosts, paths, the path of a key file.

A message never shows the value. It names the variable and the expected form, because a mistyped
URL may have its password in a place where no parser expects it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from taxi_assets.redaction import CREDENTIALS, HOST, PATH

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
WEB_URL = re.compile(
    rf"(?i:https?)://(?:[^/?#@\s]*@)?(?P<host>{HOST})(?:/[^?#@\s]*)?(?:\?[^#@\s]*)?(?:#[^@\s]*)?"
)
FILE_URL = re.compile(r"(?i:file)://(?:localhost)?/[^@\s]*")
UI_URL = re.compile(rf"(?i:https?)://(?P<host>{HOST})(?:/[^?#@\s]*)?")
ENDPOINT = re.compile(rf"(?i:https?)://(?P<host>{HOST})/?")
EMULATOR = re.compile(rf"(?:(?i:https?)://)?(?P<host>{HOST})/?")
POSTGRES_HOST = re.compile(r"/[^\s@?#='\"]*|[A-Za-z0-9._,-]+|\[?[0-9A-Fa-f:.]+\]?")
POSTGRES_NAME = re.compile(r"[^\s:/?#='\"]{1,63}")
KEY_FILE = re.compile(r"(?:/|~/|\.\.?/)[^\n{}]{1,1000}|[^\s{}:@\"']{1,200}\.json")
DOUBTFUL = re.compile(r"[@?#=:;&\s'\"]")
"""Characters that a relative path may contain only after `./`."""
ESCAPED = "write an @, /, ? or # in user, password or path as %40, %2F, %3F or %23"
ENCLOSED = re.compile(r"[\s'\"].*|.*[\s'\"]|.*[\x00-\x1f].*", re.DOTALL)
UNDECODED = re.compile(r"[\ud800-\udfff]")
"""Bytes of a path that Python could not decode: pyarrow and DuckDB could not open it."""
VARIABLE = re.compile(r"\$[A-Za-z_]")
"""A reference that python-dotenv, like Dagster, takes literally; only `${NAME}` is replaced."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that are this machine."""
OTHER_SCHEMES = ("gs", "s3", "s3a", "az", "abfs", "hdfs", "ftp", "ftps", "sftp")
"""Schemes that a message may name; any other text before :// may be a user's name."""
SUPPORTED = "https://, http://, file:// or a path"


def find_source_problem(template: str) -> str | None:
    """Return the problem with the form of a URL or path of month files, or None."""
    if ENCLOSED.fullmatch(template):
        return "begins or ends with a blank or a quote: remove it"
    scheme = SCHEME.match(template)
    if scheme is None:
        return find_path_problem(template)
    match scheme[1].lower():
        case "http" | "https":
            return None if is_valid_url(WEB_URL, template) else f"is not a valid URL: {ESCAPED}"
        case "file":
            return None if FILE_URL.fullmatch(template) else "is not a local file:///path"
        case other:
            name = f"{other}://" if other in OTHER_SCHEMES else "its scheme"
            return f"cannot be used, {name} is not supported: write {SUPPORTED}"


def find_path_problem(path: str) -> str | None:
    """Return the problem with the form of a local path, or None."""
    if ENCLOSED.fullmatch(path):
        return "begins or ends with a blank or a quote: remove it"
    if UNDECODED.search(path):
        return "has characters that this locale does not have: set PYTHONUTF8=1 or LC_ALL=C.UTF-8"
    if VARIABLE.match(path):
        return "begins with a variable that nothing replaces: in .env, write ${NAME} with braces"
    if SCHEME.match(path):
        return "is a URL where a path is expected"
    doubtful = DOUBTFUL.search(path) if PATH.fullmatch(path) is None else CREDENTIALS.search(path)
    if doubtful:
        return (
            "is neither a URL (https://...) nor a local path: write /, ./ or ~/ before a path, "
            f"and in a URL {ESCAPED}"
        )
    return None


def is_valid_url(pattern: re.Pattern[str], url: str) -> bool:
    """Return whether a URL matches a pattern and has a host and a valid port."""
    match = pattern.fullmatch(url)
    if match is None or not match["host"]:
        return False
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
