"""Delivery of alerts to real receivers that accept, fail, reject or hang."""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import psutil
import pytest
import trustme
from pydantic import SecretStr

from taxi_assets.defs.alerts import targets
from taxi_assets.defs.alerts.targets import Notice, send_alert
from taxi_assets.settings.alerts import AlertSettings
from taxi_assets_tests.defs.automation.receivers import (
    PASSWORD,
    USER,
    Inbox,
    find_free_port,
    http_receiver,
    run_dripping_server,
    smtp_server,
)

ALERT = Notice(
    key="0a1b",
    title="green_daily failed: green/raw_trips 2021-01-05",
    lines=(
        "R&D <broke> it",
        "Failed checks: WARN green/cleaned_trips.negative_totals (2021-01-05)",
    ),
    link="http://127.0.0.1:3000/runs/0a1b",
)
TITLE = ALERT.title
TEXT = "\n\n".join([*ALERT.lines, ALERT.link])


def make_settings(*urls: str) -> AlertSettings:
    return AlertSettings(alert_urls=tuple(map(SecretStr, urls)))


def build_mail_url(port: int, scheme: str = "mailto", more: str = "") -> str:
    login = "nobody" if scheme == "mailto" else f"{USER}:{PASSWORD}"
    people = "from=taxi@example.com&to=ops@example.com"
    return f"{scheme}://{login}@localhost:{port}?{people}&smtp=localhost{more}"


@pytest.fixture
def server_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return the TLS context of a server whose certificate this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(autouse=True)
def shorten_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "RETRY_SECONDS", 0.01)


def test_webhook_receives_the_alert_as_json() -> None:
    with http_receiver(204) as receiver:
        assert send_alert(ALERT, make_settings(receiver.apprise)) == {}
    (body,) = receiver.bodies
    assert (body["title"], body["message"], body["type"]) == (TITLE, TEXT, "failure")


def test_receiver_that_fails_twice_is_retried() -> None:
    with http_receiver(500, 503) as receiver:
        assert send_alert(ALERT, make_settings(receiver.apprise)) == {}
    assert len(receiver.bodies) == 3


@pytest.mark.parametrize("status", [302, 404, 429, 500])
def test_receivers_answer_is_reported_and_redirects_are_not_followed(status: int) -> None:
    with http_receiver(*[status] * 4) as receiver:
        assert send_alert(ALERT, make_settings(receiver.apprise)) == {"json (1)": f"HTTP {status}"}
    assert len(receiver.bodies) == 1 + targets.RETRIES


def test_hanging_or_rejecting_targets_delay_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "MAX_SECONDS", 5.0)
    inbox = Inbox()
    rejected = f"json://127.0.0.1:{find_free_port()}/planted-secret"
    with http_receiver(None, None) as hanging, smtp_server(inbox) as port:
        urls = hanging.apprise, rejected, "nothing://planted-secret", build_mail_url(port)
        unsent = send_alert(ALERT, make_settings(*urls))
    assert list(unsent) == ["json (1)", "json (2)", "nothing (3)"]
    assert unsent["json (1)"] == "no answer within 5 s"
    assert "Connection error" in unsent["json (2)"]
    assert unsent["nothing (3)"] == "Apprise does not support this URL"
    assert "planted-secret" not in str(unsent)
    assert len(inbox.messages) == 1


def test_e_mail_is_sent_without_tls() -> None:
    inbox = Inbox()
    with smtp_server(inbox) as port:
        assert send_alert(ALERT, make_settings(build_mail_url(port))) == {}
    (message,) = inbox.messages
    assert message["Subject"] == TITLE
    assert "taxi@example.com" in message["From"]
    assert message["To"] == "ops@example.com"
    text = message.get_body(("plain",)).get_content()
    for part in (*ALERT.lines, ALERT.link):
        assert part in text


@pytest.mark.parametrize("mode", ["starttls", "ssl"])
def test_e_mail_is_sent_over_tls_with_login(mode: str, server_tls: ssl.SSLContext) -> None:
    inbox = Inbox()
    how = {"tls": server_tls} if mode == "ssl" else {"tls_context": server_tls}
    if mode == "ssl":
        # aiosmtpd counts only STARTTLS as TLS.
        how["auth_require_tls"] = False
    with smtp_server(inbox, auth_required=True, **how) as port:
        url = build_mail_url(port, "mailtos", more=f"&mode={mode}")
        assert send_alert(ALERT, make_settings(url)) == {}
        wrong = send_alert(ALERT, make_settings(url.replace(PASSWORD, "planted-other")))
    assert list(wrong) == ["mailtos (1)"]
    assert "planted" not in str(wrong)
    assert len(inbox.messages) == 1


def test_untrusted_certificate_is_rejected(
    server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    inbox = Inbox()
    with smtp_server(inbox, tls_context=server_tls) as port:
        unsent = send_alert(
            ALERT, make_settings(build_mail_url(port, "mailtos", more="&mode=starttls"))
        )
    assert list(unsent) == ["mailtos (1)"]
    assert inbox.messages == []


def test_server_without_starttls_gets_neither_password_nor_message() -> None:
    inbox = Inbox()
    with smtp_server(inbox, auth_require_tls=False) as port:
        unsent = send_alert(
            ALERT, make_settings(build_mail_url(port, "mailtos", more="&mode=starttls"))
        )
    assert list(unsent) == ["mailtos (1)"]
    assert inbox.logins == inbox.messages == []


def test_deferred_mail_is_delivered_once() -> None:
    inbox = Inbox("451 greylisted")
    with smtp_server(inbox) as port:
        assert send_alert(ALERT, make_settings(build_mail_url(port))) == {}
    assert len(inbox.messages) == 1


@pytest.mark.parametrize("target", ["json", "mailto"])
def test_slow_target_leaves_no_process_behind(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte resets the time-out of requests and smtplib: a thread would never end."""
    monkeypatch.setattr(targets, "MAX_SECONDS", 0.5)
    with run_dripping_server() as port:
        url = f"json://127.0.0.1:{port}/hook" if target == "json" else build_mail_url(port)
        children_before = set(psutil.Process().children(recursive=True))
        started = time.monotonic()
        assert send_alert(ALERT, make_settings(url)) == {f"{target} (1)": "no answer within 0.5 s"}
        assert time.monotonic() - started < targets.START_SECONDS
        assert set(psutil.Process().children(recursive=True)) == children_before


def test_hanging_delivery_process_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "MAX_SECONDS", 0.5)
    monkeypatch.setattr(targets, "START_SECONDS", 0.0)
    with http_receiver(None) as hanging:
        monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # slower
        unsent = send_alert(ALERT, make_settings(hanging.apprise))
    assert unsent == {"json (1)": "no answer within 0.5 s"}


def test_command_line_shows_no_secret() -> None:
    with http_receiver(None) as hanging, pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "MAX_SECONDS", 1.0)
        command_lines: list[str] = []
        original = targets.subprocess.run
        patch.setattr(
            targets.subprocess,
            "run",
            lambda *a, **k: command_lines.extend(a[0]) or original(*a, **k),
        )
        send_alert(ALERT, make_settings(hanging.apprise))
    assert command_lines
    assert "planted-secret" not in " ".join(command_lines)
