"""`taxi-assets alert-test`: one message to every target and one heartbeat, as the daemon does."""

from __future__ import annotations

import socket
from collections.abc import Callable

from taxi_assets.defs.alerts.operations_sensor import request_heartbeat
from taxi_assets.defs.alerts.targets import Notice, send_alert
from taxi_assets.errors import SettingsError
from taxi_assets.settings.alerts import ALERT_URLS, HEARTBEAT_URL, AlertSettings


def send_test_alert(write: Callable[[str], object]) -> int:
    """Write a line for each target and the heartbeat; return 1 if one of them was not reached.

    Raises:
        SettingsError: neither a target nor a heartbeat URL is set.
    """
    settings = AlertSettings.from_env()
    if not settings.alert_urls and settings.heartbeat_url is None:
        raise SettingsError(f"there is no target for alerts: set {ALERT_URLS} or {HEARTBEAT_URL}")
    notice = Notice(
        "test",
        "taxi-assets: a test alert",
        (f"Sent by hand on {socket.gethostname()}; nothing is wrong.",),
        settings.ui_url,
    )
    unsent = send_alert(notice, settings) if settings.alert_urls else {}
    for name in settings.target_names:
        write(f"{name}: {unsent.get(name, 'accepted the message')}")
    is_reached = not unsent
    if settings.heartbeat_url is not None:
        answer = request_heartbeat(settings.heartbeat_url.get_secret_value())
        write(f"heartbeat: {answer}")
        is_reached = is_reached and answer.startswith("HTTP 2")
    else:
        write(f"heartbeat: not set ({HEARTBEAT_URL}): nothing raises the alarm for a dead daemon")
    return 0 if is_reached else 1
