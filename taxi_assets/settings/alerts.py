"""The settings of alerts.

They are separate from the settings of runs: an invalid alert URL must not fail a run, and a run
that failed because of an invalid setting must still be reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from taxi_assets.settings.addresses import UI_URL, WEB_URL
from taxi_assets.settings.base import NEVER_QUOTED, SettingsArea, require_integer, require_url
from taxi_assets.settings.environment import read_environment

ALERT_URLS = "TAXI_ALERT_URLS"
HEARTBEAT_URL = "TAXI_HEARTBEAT_URL"
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
# A URL may contain a comma: only one before the next scheme separates.
SEPARATOR = re.compile(r"[\s,]+(?=[A-Za-z][A-Za-z0-9+.-]*://)")


def _split_urls(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(url for url in map(str.strip, SEPARATOR.split(value)) if url)


def _check_urls(urls: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for number, url in enumerate(urls, start=1):
        if not URL.fullmatch(url.get_secret_value()):
            raise ValueError(f"has no URL (scheme://...) in place {number} of {len(urls)}")
    return urls


WEB = require_url(WEB_URL, "an http:// or https:// URL")
WITHOUT_SLASH = AfterValidator(lambda url: url.rstrip("/"))
PUBLIC_WEB = require_url(UI_URL, "an http:// or https:// URL without user, password and query")


class AlertSettings(SettingsArea):
    """Alerts."""

    alert_urls: Annotated[
        tuple[SecretStr, ...], BeforeValidator(_split_urls), AfterValidator(_check_urls)
    ] = Field(
        default=(),
        examples=["slack://A/B/C,mailtos://user:password@example.com?to=ops@example.com"],
    )
    """Where alerts go: [Apprise URLs](https://github.com/caronc/apprise/wiki), separated by commas
    or blanks, for Slack (`slack://`), Teams (`workflows://`), e-mail (`mailtos://`), webhooks
    (`jsons://`) and many more. The sensors run once at least one is set."""
    alert_on: Literal["failure", "failure_and_warnings"] = "failure"
    """`failure_and_warnings` reports failed checks of severity WARN too."""
    ui_url: Annotated[str, PUBLIC_WEB, WITHOUT_SLASH, NEVER_QUOTED] = "http://127.0.0.1:3000"
    """URL of the Dagster UI, for the links in alerts and in the index of reports."""
    heartbeat_url: Annotated[SecretStr | None, WEB] = Field(
        default=None, examples=["https://hc-ping.com/..."]
    )
    """URL of a dead man's switch that is requested while the daemon works."""
    run_time_limit_hours: Annotated[int, require_integer(8760)] = 12
    """Hours after which a run that has not ended is reported."""

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets for messages: numbered schemes, because a URL is often a secret."""
        schemes = (url.get_secret_value().partition("://")[0] for url in self.alert_urls)
        return tuple(f"{scheme} ({number})" for number, scheme in enumerate(schemes, start=1))

    @property
    def on_warnings(self) -> bool:
        """Whether a failed check of severity WARN is reported."""
        return self.alert_on == "failure_and_warnings"


def has_heartbeat(env: Mapping[str, str] | None = None) -> bool:
    """Return whether a dead man's switch is set, valid or not."""
    return bool((read_environment() if env is None else env).get(HEARTBEAT_URL))


def has_alert_target(env: Mapping[str, str] | None = None) -> bool:
    """Return whether a target is set, valid or not."""
    return bool((read_environment() if env is None else env).get(ALERT_URLS))
