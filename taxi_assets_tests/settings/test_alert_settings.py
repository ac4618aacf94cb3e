"""Alert settings: targets, defaults, one error for all invalid values, without a secret."""

from __future__ import annotations

import pytest

from taxi_assets.errors import SettingsError
from taxi_assets.settings.alerts import AlertSettings, has_alert_target

SLACK = "slack://T0/B0/planted-secret"
MAIL = "mailtos://taxi:planted-secret@example.com?to=ops@example.com,taxi@example.com"


def test_no_target_without_urls() -> None:
    settings = AlertSettings.from_env({})
    assert settings == AlertSettings()
    assert settings.alert_urls == settings.target_names == ()
    assert settings.ui_url == "http://127.0.0.1:3000"
    assert not settings.on_warnings
    assert not has_alert_target({"TAXI_ALERT_URLS": "", "TAXI_ALERT_ON": "failure"})


@pytest.mark.parametrize("separator", [",", " ", ", ", "\n"])
def test_urls_are_separated_before_the_next_scheme(separator: str) -> None:
    env = {
        "TAXI_ALERT_URLS": separator.join([SLACK, MAIL, "jsons://host/hook"]),
        "TAXI_ALERT_ON": "failure_and_warnings",
        "TAXI_UI_URL": "https://dagster.example.com/",
        "TAXI_HEARTBEAT_URL": "https://hc-ping.com/planted-secret",
    }
    settings = AlertSettings.from_env(env)
    assert [url.get_secret_value() for url in settings.alert_urls] == [
        SLACK,
        MAIL,
        "jsons://host/hook",
    ]
    assert settings.target_names == ("slack (1)", "mailtos (2)", "jsons (3)")
    assert settings.on_warnings
    assert settings.ui_url == "https://dagster.example.com"
    assert settings.heartbeat_url is not None
    assert "planted-secret" not in repr(settings)
    assert has_alert_target(env)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"TAXI_ALERT_URLS": "planted-secret"}, "TAXI_ALERT_URLS has no URL (scheme://...) in pla"),
        ({"TAXI_ALERT_URLS": f"{SLACK} planted-secret"}, "in place 1 of 1"),
        ({"TAXI_ALERT_URLS": "user:planted-secret@host, json://host"}, "in place 1 of 2"),
        ({"TAXI_UI_URL": "localhost:3000"}, "TAXI_UI_URL is not an http:// or https:// URL with"),
        ({"TAXI_ALERT_ON": "always"}, "TAXI_ALERT_ON='always' should be 'failure' or 'failure_an"),
        ({"TAXI_HEARTBEAT_URL": "host/planted-secret"}, "TAXI_HEARTBEAT_URL is not an http:// or"),
        ({"TAXI_HEARTBEAT_URL": "https://a:planted-secret/"}, "TAXI_HEARTBEAT_URL is not an http"),
    ],
)
def test_invalid_value_is_named_but_not_shown(env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as error:
        AlertSettings.from_env(env)
    assert message in str(error.value)
    assert "planted-secret" not in str(error.value)


def test_all_problems_are_in_one_error() -> None:
    env = dict.fromkeys(("TAXI_ALERT_ON", "TAXI_ALERT_URLS", "TAXI_UI_URL"), "x")
    with pytest.raises(SettingsError, match=r"^profile 'local': ") as error:
        AlertSettings.from_env(env)
    for name in env:
        assert name in str(error.value)
