"""A process that sends one alert with Apprise.

`targets` runs it as a file, so it imports nothing of this package. Standard input is a JSON object
with the message. The output is a JSON list with an entry per URL: null if the target accepted the
alert, else the reason.
"""

import json
import logging
import os
import sys
from typing import Any

import apprise


def deliver(order: dict[str, Any]) -> list[str | None]:
    """Send the alert to all URLs in parallel, with retries, within the time limit."""
    asset = apprise.AppriseAsset(
        app_id="taxi_assets",
        http_redirects=False,  # A server must not choose another target.
        default_service_retry=order["retries"],
        default_service_wait=order["retry_seconds"],
    )
    targets = apprise.Apprise(asset=asset)
    is_valid = [bool(targets.add(url)) for url in order["urls"]]
    for target in targets:
        target.request_rate_per_sec = 0  # Otherwise a mail is retried only after 5.5 s.
    results = iter(list[Any]())
    if any(is_valid):
        notification = targets.notify(
            title=order["title"],
            body=order["body"],
            notify_type=apprise.NotifyType.FAILURE,
            body_format=apprise.NotifyFormat.TEXT,
            timeout=order["seconds"],
            log_level=logging.WARNING,
        )
        results = iter(list[Any](notification.results))
    return [
        _find_reason(next(results), order["seconds"])
        if valid
        else "Apprise does not support this URL"
        for valid in is_valid
    ]


def _find_reason(result: Any, seconds: float) -> str | None:
    if result:
        return None
    if result.status.name == "TIMEOUT":
        return f"no answer within {seconds:g} s"
    messages = [entry.message for entry in result.logs()]
    return messages[-1] if messages else "it did not accept the alert"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(deliver(json.load(sys.stdin))))
    sys.stdout.flush()
    os._exit(0)  # Do not wait for a thread that waits for a silent server.
