"""Send an alert to every target in parallel, within a time limit.

Apprise supports the services (Slack, e-mail, Teams, webhooks, ...). It runs in a separate process,
which is killed at the time limit: otherwise a server that sends a byte now and then would block a
thread of the daemon forever. No message contains an address, which is often a secret.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from taxi_assets.errors import format_one_line
from taxi_assets.redaction import HIDDEN
from taxi_assets.settings.alerts import AlertSettings

SENDER = Path(__file__).with_name("apprise_process.py")
MAX_SECONDS = 8.0
"""Limit for all targets of an alert. Dagster ends a tick after 60 s, and would then repeat what it
has sent."""
START_SECONDS = 10.0
"""Limit for the start of the process on a busy machine."""
RETRIES = 3
RETRY_SECONDS = 1.0
MAX_REASON = 200
"""Characters."""
HTTP_STATUS = re.compile(r"\berror=(\d{3})\b")


@dataclass(frozen=True)
class Notice:
    """One message about the instance.

    `key` identifies the event, so that it is sent once.
    """

    key: str
    title: str
    """The message in one line."""
    lines: tuple[str, ...]
    """The text after the title, without the link."""
    link: str
    """URL of the page with details."""


def send_alert(notice: Notice, settings: AlertSettings) -> dict[str, str]:
    """Send an alert to every target; return a reason for each target that did not accept it."""
    urls = [url.get_secret_value() for url in settings.alert_urls]
    order = {
        "urls": urls,
        "title": notice.title,
        "body": "\n\n".join([*notice.lines, notice.link]),
        "seconds": MAX_SECONDS,
        "retries": RETRIES,
        "retry_seconds": RETRY_SECONDS,
    }
    # -P: modules of this folder must not shadow the standard library.
    command = [sys.executable, "-P", str(SENDER)]
    try:
        process = subprocess.run(  # noqa: S603 - standard input has the addresses
            command,
            input=json.dumps(order),
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS + START_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        reasons: list[str | None] = [f"no answer within {MAX_SECONDS:g} s"] * len(urls)
    else:
        reasons = json.loads(process.stdout) if process.returncode == 0 else []
        reasons = reasons or ["the sending process failed"] * len(urls)
    results = zip(settings.target_names, urls, reasons, strict=True)
    return {name: _remove_url(reason, url) for name, url, reason in results if reason is not None}


def _remove_url(reason: str, url: str) -> str:
    """Return a reason of Apprise without any part of the URL."""
    if status := HTTP_STATUS.search(reason):
        return f"HTTP {status[1]}"
    for part in sorted(re.split(r"[^\w.~%+-]+", f"{url} {unquote(url)}"), key=len, reverse=True):
        if len(part) > 2:  # noqa: PLR2004 - shorter ones are words of the message
            reason = reason.replace(part, HIDDEN)
    return format_one_line(reason)[:MAX_REASON]
