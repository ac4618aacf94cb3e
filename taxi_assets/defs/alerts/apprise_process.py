"""A process that sends one alert by Apprise: an order on standard input, reasons on its output.

Run as a file by `targets`, so it imports nothing of this package. Its output is a JSON list with an
entry per URL: null if the target took the alert, else why not.
"""

import json
import logging
import os
import sys
from typing import Any

import apprise


def deliver(order: dict[str, Any]) -> list[str | None]:
    """Send the alert to all URLs at once, each retried, until the time is over."""
    asset = apprise.AppriseAsset(
        app_id="taxi_assets",
        http_redirects=False,  # whoever answers does not choose where an alert goes
        default_service_retry=order["retries"],
        default_service_wait=order["retry_seconds"],
    )
    targets = apprise.Apprise(asset=asset)
    taken = [bool(targets.add(url)) for url in order["urls"]]
    for target in targets:
        target.request_rate_per_sec = 0  # or a mail would be retried only after 5.5 s
    results = iter(list[Any]())  # of those that Apprise knows
    if any(taken):
        sent = targets.notify(
            title=order["title"],
            body=order["body"],
            notify_type=apprise.NotifyType.FAILURE,
            body_format=apprise.NotifyFormat.TEXT,
            timeout=order["seconds"],
            log_level=logging.WARNING,
        )
        results = iter(list[Any](sent.results))
    return [
        _reason(next(results), order["seconds"]) if ok else "the URL is not one that Apprise knows"
        for ok in taken
    ]


def _reason(result: Any, seconds: float) -> str | None:
    if result:
        return None
    if result.status.name == "TIMEOUT":
        return f"no answer within {seconds:g} s"
    messages = [entry.message for entry in result.logs()]
    return messages[-1] if messages else "it did not take the alert"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(deliver(json.load(sys.stdin))))
    sys.stdout.flush()
    os._exit(0)  # a thread that waits for a silent server does not delay the end
