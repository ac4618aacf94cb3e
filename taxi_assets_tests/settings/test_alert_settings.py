"""Settings of the alerts: targets, defaults, one error for all wrong ones, no secret in it."""

from __future__ import annotations

import pytest

from taxi_assets.errors import SettingsError
from taxi_assets.settings.alerts import AlertSettings, EmailSettings, any_target

SLACK = "https://hooks.slack.com/services/T0/B0/planted-secret"
EMAIL = {"TAXI_ALERT_EMAIL_TO": "ops@example.com", "TAXI_ALERT_SMTP_HOST": "mail.example.com"}
LOGIN = {"TAXI_ALERT_SMTP_USER": "taxi", "TAXI_ALERT_SMTP_PASSWORD": "planted-secret"}


def test_nothing_set_is_no_target() -> None:
    settings = AlertSettings.from_env({})
    assert settings == AlertSettings(None, None, None, "failure", "http://127.0.0.1:3000")
    assert settings.targets == ()
    assert not settings.on_warnings
    assert not any_target({"TAXI_ALERT_WEBHOOK": "", "TAXI_ALERT_ON": "failure"})


def test_every_target_and_no_secret_shown() -> None:
    env = {
        **EMAIL,
        **LOGIN,
        "TAXI_ALERT_SLACK_WEBHOOK": SLACK,
        "TAXI_ALERT_WEBHOOK": "http://user:planted-secret@127.0.0.1:8080/hook",
        "TAXI_ALERT_EMAIL_TO": "ops@example.com, taxi@example.com",
        "TAXI_ALERT_EMAIL_FROM": "dagster@example.com",
        "TAXI_ALERT_ON": "failure_and_warnings",
        "TAXI_UI_URL": "https://dagster.example.com/",
    }
    settings = AlertSettings.from_env(env)
    assert settings.slack == SLACK
    assert settings.targets == ("Slack", "webhook", "e-mail")
    assert settings.email == EmailSettings(
        to=("ops@example.com", "taxi@example.com"),
        sender="dagster@example.com",
        host="mail.example.com",
        port=587,
        security="starttls",
        user="taxi",
        password="planted-secret",  # noqa: S106
    )
    assert settings.on_warnings
    assert settings.ui_url == "https://dagster.example.com"
    assert "planted-secret" not in repr(settings)
    assert any_target(env)


@pytest.mark.parametrize(
    ("security", "port"), [("", 587), ("starttls", 587), ("tls", 465), ("none", 25)]
)
def test_the_port_follows_the_security(security: str, port: int) -> None:
    email = AlertSettings.from_env({**EMAIL, "TAXI_ALERT_SMTP_SECURITY": security}).email
    assert email is not None
    assert email.port == port
    given = {**EMAIL, "TAXI_ALERT_SMTP_SECURITY": security, "TAXI_ALERT_SMTP_PORT": "2525"}
    email = AlertSettings.from_env(given).email
    assert email is not None
    assert email.port == 2525


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"TAXI_ALERT_SLACK_WEBHOOK": "hooks.slack.com/planted-secret"}, "SLACK_WEBHOOK is no"),
        ({"TAXI_ALERT_WEBHOOK": "ftp://host/planted-secret"}, "TAXI_ALERT_WEBHOOK is no http"),
        ({"TAXI_ALERT_WEBHOOK": "http://host:planted-secret/"}, "TAXI_ALERT_WEBHOOK is no http"),
        ({"TAXI_UI_URL": "localhost:3000"}, "TAXI_UI_URL is no http:// or https:// URL"),
        ({"TAXI_ALERT_ON": "always"}, "TAXI_ALERT_ON='always' is none of failure, failure_and_w"),
        ({"TAXI_ALERT_EMAIL_TO": "ops@example.com"}, "TAXI_ALERT_SMTP_HOST is missing"),
        ({"TAXI_ALERT_SMTP_HOST": "mail"}, "TAXI_ALERT_SMTP_HOST is set, TAXI_ALERT_EMAIL_TO is"),
        ({**EMAIL, "TAXI_ALERT_EMAIL_TO": "ops"}, "TAXI_ALERT_EMAIL_TO: 'ops' is no address"),
        ({**EMAIL, "TAXI_ALERT_EMAIL_TO": "a@b.c\nBcc: d@e.f"}, "is no address"),
        ({**EMAIL, "TAXI_ALERT_SMTP_SECURITY": "ssl"}, "SECURITY='ssl' is none of starttls, tls"),
        ({**EMAIL, "TAXI_ALERT_SMTP_PORT": "70000"}, "PORT='70000' is not a whole number from 1"),
        ({**EMAIL, "TAXI_ALERT_SMTP_PASSWORD": "planted-secret"}, "go together"),
    ],
)
def test_what_is_wrong_is_named(env: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        AlertSettings.from_env(env)
    assert said in str(error.value)
    assert "planted-secret" not in str(error.value)


def test_everything_wrong_is_one_error() -> None:
    with pytest.raises(SettingsError) as error:
        AlertSettings.from_env(
            {"TAXI_ALERT_ON": "x", "TAXI_ALERT_WEBHOOK": "x", "TAXI_UI_URL": "x"}
        )
    for name in ("TAXI_ALERT_ON", "TAXI_ALERT_WEBHOOK", "TAXI_UI_URL"):
        assert name in str(error.value)
