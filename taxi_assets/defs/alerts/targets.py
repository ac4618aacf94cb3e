"""Sending an alert to every target, at once and in bounded time.

Apprise knows the services (Slack, e-mail, Teams, webhooks, ...). It runs in a process of its own,
which is killed when its time is over: a server that sends a byte now and then would otherwise hold
a thread of the daemon forever. No message names an address, which is often a secret.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

from taxi_assets.defs.alerts.message import Message
from taxi_assets.errors import format_one_line
from taxi_assets.redaction import HIDDEN
from taxi_assets.settings.alerts import AlertSettings

SENDER = Path(__file__).with_name("apprise_process.py")
MAX_SECONDS = 8.0
"""For all targets of an alert. A tick sends at most five and is cut off by Dagster after 60 s; what
it sent would then be sent again."""
START_SECONDS = 10.0
"""For the process to start, on a busy machine."""
RETRIES = 3
RETRY_SECONDS = 1.0
MAX_REASON = 200
"""Characters."""
HTTP_STATUS = re.compile(r"\berror=(\d{3})\b")


def send_alert(alert: Message, settings: AlertSettings) -> dict[str, str]:
    """Send an alert to every target; return the reason by the name of each that did not take it."""
    urls = [url.get_secret_value() for url in settings.alert_urls]
    order = {
        "urls": urls,
        "title": alert.title,
        "body": "\n\n".join([*alert.lines, alert.link]),
        "seconds": MAX_SECONDS,
        "retries": RETRIES,
        "retry_seconds": RETRY_SECONDS,
    }
    # -P: modules of this folder must not be taken for ones of the standard library.
    command = [sys.executable, "-P", str(SENDER)]
    try:
        done = subprocess.run(  # noqa: S603 - the addresses go by standard input
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
        reasons = json.loads(done.stdout) if done.returncode == 0 else []
        reasons = reasons or ["the sending process failed"] * len(urls)
    found = zip(settings.target_names, urls, reasons, strict=True)
    return {name: _public(reason, url) for name, url, reason in found if reason is not None}


def _public(reason: str, url: str) -> str:
    """Return a reason of Apprise's without any part of the URL."""
    if status := HTTP_STATUS.search(reason):
        return f"HTTP {status[1]}"
    for part in sorted(re.split(r"[^\w.~%+-]+", f"{url} {unquote(url)}"), key=len, reverse=True):
        if len(part) > 2:  # noqa: PLR2004 - shorter ones are words of the message
            reason = reason.replace(part, HIDDEN)
    return format_one_line(reason)[:MAX_REASON]
