"""Whom to tell of failed runs, read from the environment.

Apart from `Settings`: a run must not fail over a wrong address, and a run that failed over a
wrong setting is told of all the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parseaddr
from typing import Literal, cast

from taxi_assets.errors import SettingsError
from taxi_assets.redaction import shown
from taxi_assets.settings import LARGEST_PORT
from taxi_assets.settings.addresses import MAIL_HOST, UI_URL, WEB_URL, matches_url
from taxi_assets.settings.environment import environment
from taxi_assets.settings.variables import Variables

Security = Literal["starttls", "tls", "none"]
Occasion = Literal["failure", "failure_and_warnings"]

TARGETS = ("TAXI_ALERT_SLACK_WEBHOOK", "TAXI_ALERT_WEBHOOK", "TAXI_ALERT_EMAIL_TO")
SMTP_PORTS: dict[Security, int] = {"starttls": 587, "tls": 465, "none": 25}


@dataclass(frozen=True)
class EmailSettings:
    """Who gets e-mail, and the SMTP server that takes it."""

    to: tuple[str, ...]
    sender: str
    host: str
    port: int
    security: Security
    user: str = ""
    """Empty: the server wants no login."""
    password: str = field(default="", repr=False)


@dataclass(frozen=True)
class AlertSettings:
    """The targets that are set, when they are told, and where the UI is."""

    slack: str | None = field(repr=False)
    """URL of a Slack webhook; whoever knows it may write there."""
    webhook: str | None = field(repr=False)
    email: EmailSettings | None
    on: Occasion
    ui_url: str

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, for messages."""
        named = {"Slack": self.slack, "webhook": self.webhook, "e-mail": self.email}
        return tuple(name for name, target in named.items() if target)

    @property
    def on_warnings(self) -> bool:
        """Whether a failed check of severity WARN is told."""
        return self.on == "failure_and_warnings"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> AlertSettings:
        """Read the environment.

        Raises:
            SettingsError: naming every variable that is missing or wrong, without its value.
        """
        variables = Variables(environment() if env is None else env)
        settings = cls(
            slack=_url(variables, "TAXI_ALERT_SLACK_WEBHOOK"),
            webhook=_url(variables, "TAXI_ALERT_WEBHOOK"),
            email=_email(variables),
            on=cast(
                "Occasion",
                variables.choice("TAXI_ALERT_ON", ("failure", "failure_and_warnings"), "failure"),
            ),
            ui_url=(_url(variables, "TAXI_UI_URL", UI_URL) or "http://127.0.0.1:3000").rstrip("/"),
        )
        if variables.wrong:
            raise SettingsError(
                "alerts: "
                + "; ".join(variables.wrong)
                + ". Set them in the environment or in .env "
                "(see .env.example)."
            )
        return settings


def any_target(env: Mapping[str, str] | None = None) -> bool:
    """Whether a target is set, right or wrong."""
    return any((environment() if env is None else env).get(name) for name in TARGETS)


def _url(variables: Variables, name: str, pattern: re.Pattern[str] = WEB_URL) -> str | None:
    url = variables.env.get(name) or None
    if url is not None and not matches_url(pattern, url):
        # Not shown: the URL of a webhook is a secret.
        without = " without user, password and query" if pattern is UI_URL else ""
        variables.wrong.append(f"{name} is no http:// or https:// URL{without}")
    return url


def _email(variables: Variables) -> EmailSettings | None:
    env = variables.env
    given = [name for name in env if name.startswith("TAXI_ALERT_SMTP_") and env[name]]
    if not env.get("TAXI_ALERT_EMAIL_TO"):
        if given:
            variables.wrong.append(f"{given[0]} is set, TAXI_ALERT_EMAIL_TO is missing")
        return None
    to = tuple(address.strip() for address in env["TAXI_ALERT_EMAIL_TO"].split(","))
    sender = variables.text("TAXI_ALERT_EMAIL_FROM", "taxi_assets@localhost")
    for name, addresses in {"TAXI_ALERT_EMAIL_TO": to, "TAXI_ALERT_EMAIL_FROM": [sender]}.items():
        variables.wrong.extend(
            f"{name}: {shown(address)} is no address"
            for address in addresses
            if not _address(address)
        )
    security = cast(
        "Security", variables.choice("TAXI_ALERT_SMTP_SECURITY", tuple(SMTP_PORTS), "starttls")
    )
    user, password = (env.get(f"TAXI_ALERT_SMTP_{name}", "") for name in ("USER", "PASSWORD"))
    if bool(user) != bool(password):
        variables.wrong.append("TAXI_ALERT_SMTP_USER and TAXI_ALERT_SMTP_PASSWORD go together")
    return EmailSettings(
        to=to,
        sender=sender,
        host=variables.secretive("TAXI_ALERT_SMTP_HOST", MAIL_HOST, "the name of a mail server"),
        port=variables.number("TAXI_ALERT_SMTP_PORT", SMTP_PORTS.get(security, 25), LARGEST_PORT),
        security=security,
        user=user,
        password=password,
    )


def _address(text: str) -> bool:
    name, address = parseaddr(text)
    local, _, domain = address.rpartition("@")
    return not name and address == text and bool(local and domain) and text.isprintable()
