"""Alerts on their way: real receivers that take, fail, refuse or hang."""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from taxi_assets.defs.alerts import targets
from taxi_assets.defs.alerts.message import Alert
from taxi_assets.defs.alerts.targets import send
from taxi_assets.settings.alerts import AlertSettings, EmailSettings
from taxi_assets_tests.defs.automation.receivers import (
    PASSWORD,
    USER,
    Inbox,
    dripping,
    free_port,
    http_receiver,
    smtp_server,
)

ALERT = Alert(
    run_id="0a1b",
    job="green_daily",
    failed=True,
    assets=("green/raw_trips",),
    days="2021-01-05",
    cause="R&D <broke> it",
    checks=("WARN green/cleaned_trips.negative_totals (2021-01-05)",),
    link="http://127.0.0.1:3000/runs/0a1b",
)
TITLE = "green_daily failed: green/raw_trips 2021-01-05"
NOBODY = AlertSettings(None, None, None, "failure", "http://127.0.0.1:3000")


def email(port: int, **more: object) -> AlertSettings:
    settings = EmailSettings(("ops@example.com",), "taxi@example.com", "localhost", port, "none")
    return replace(NOBODY, email=replace(settings, **more))


@pytest.fixture
def server_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of a server whose certificate this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "PAUSES", (0.01, 0.01, 0.01))


def test_a_webhook_gets_the_alert_as_json() -> None:
    with http_receiver(204) as receiver:
        assert send(ALERT, replace(NOBODY, webhook=receiver.url)) == {}
    (body,) = receiver.bodies
    assert body["title"] == TITLE
    assert body["cause"] == ALERT.cause
    assert (body["run_id"], body["days"], body["link"]) == ("0a1b", "2021-01-05", ALERT.link)
    assert body["assets"] == ["green/raw_trips"]
    assert body["failed"] is True


def test_slack_gets_text_that_it_does_not_take_for_markup() -> None:
    with http_receiver() as receiver:
        assert send(ALERT, replace(NOBODY, slack=receiver.url)) == {}
    assert receiver.bodies == [
        {
            "text": f"*{TITLE}*\nR&amp;D &lt;broke&gt; it\nFailed checks: {ALERT.checks[0]}\n"
            f"<{ALERT.link}|Open the run>"
        }
    ]


def test_a_receiver_that_fails_twice_is_tried_again() -> None:
    with http_receiver(500, 503) as receiver:
        began = time.monotonic()
        assert send(ALERT, replace(NOBODY, webhook=receiver.url)) == {}
    assert len(receiver.bodies) == 3
    assert time.monotonic() - began > sum(targets.PAUSES[:2])


@pytest.mark.parametrize(
    ("status", "posts"), [(404, 1), (403, 1), (302, 1), (307, 1), (429, 4), (500, 4)]
)
def test_what_a_receiver_refuses_is_said(status: int, posts: int, short_pauses: None) -> None:
    with http_receiver(*[status] * 4) as receiver:
        assert send(ALERT, replace(NOBODY, webhook=receiver.url)) == {"webhook": f"HTTP {status}"}
    assert len(receiver.bodies) == posts


def test_targets_that_hang_or_refuse_keep_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "LONGEST", 2.0)
    monkeypatch.setattr(targets, "PATIENCE", 0.5)
    inbox = Inbox()
    refused = f"http://127.0.0.1:{free_port()}/planted-secret"
    with http_receiver(None, None, None, None) as hanging, smtp_server(inbox) as port:
        settings = replace(email(port), slack=hanging.url, webhook=refused)
        began = time.monotonic()
        unsent = send(ALERT, settings)
        took = time.monotonic() - began
    assert took < 3
    assert unsent == {"Slack": "no answer within 0.5 s", "webhook": "no connection"}
    assert len(inbox.messages) == 1


def test_e_mail_without_tls_and_login() -> None:
    inbox = Inbox()
    with smtp_server(inbox) as port:
        assert send(ALERT, email(port)) == {}
    (message,) = inbox.messages
    assert message["Subject"] == TITLE
    assert (message["From"], message["To"]) == ("taxi@example.com", "ops@example.com")
    assert message["Message-ID"] == "<0a1b@taxi_assets>"
    text = message.get_content()
    for part in (ALERT.cause, ALERT.checks[0], ALERT.link):
        assert part in text


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_e_mail_over_tls_with_login(security: str, server_tls: ssl.SSLContext) -> None:
    inbox = Inbox()
    how = {"tls": server_tls} if security == "tls" else {"tls_context": server_tls}
    if security == "tls":
        # aiosmtpd counts only STARTTLS as TLS.
        how["auth_require_tls"] = False
    with smtp_server(inbox, auth_required=True, **how) as port:
        login = {"security": security, "user": USER, "password": PASSWORD}
        assert send(ALERT, email(port, **login)) == {}
        wrong = send(ALERT, email(port, **{**login, "password": "planted-other"}))
    assert wrong == {"e-mail": "SMTP 535"}
    assert len(inbox.messages) == 1


def test_a_certificate_that_is_not_trusted_is_refused(
    server_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    inbox = Inbox()
    with smtp_server(inbox, tls_context=server_tls) as port:
        unsent = send(ALERT, email(port, security="starttls"))
    assert unsent == {"e-mail": "no trusted TLS connection"}
    assert inbox.messages == []


def test_a_server_without_starttls_gets_neither_password_nor_message() -> None:
    inbox = Inbox()
    with smtp_server(inbox) as port:
        unsent = send(ALERT, email(port, security="starttls", user=USER, password=PASSWORD))
    assert unsent == {"e-mail": "the server offers no STARTTLS or no login"}
    assert inbox.messages == []


@pytest.mark.parametrize(
    ("reply", "arrives", "said"),
    [
        ("451 greylisted", True, {}),
        ("550 no such user", False, {"e-mail": "recipients refused, SMTP 550"}),
    ],
)
def test_only_what_may_pass_is_mailed_again(
    reply: str, arrives: bool, said: dict[str, str], short_pauses: None
) -> None:
    inbox = Inbox(reply)
    with smtp_server(inbox) as port:
        assert send(ALERT, email(port)) == said
    assert len(inbox.messages) == arrives


def test_an_smtp_server_that_is_down_is_said(short_pauses: None) -> None:
    assert send(ALERT, email(free_port())) == {"e-mail": "no connection"}


@pytest.mark.parametrize("target", ["webhook", "smtp"])
def test_a_target_that_answers_a_byte_at_a_time_leaves_no_thread_behind(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte resets the time-out of requests and smtplib: its thread would stay for ever."""
    monkeypatch.setattr(targets, "LONGEST", 0.5)
    monkeypatch.setattr(targets, "PATIENCE", 0.3)
    with dripping() as port:
        hook = f"http://127.0.0.1:{port}/hook"
        settings = replace(NOBODY, webhook=hook) if target == "webhook" else email(port)
        before = set(threading.enumerate())
        began = time.monotonic()
        assert len(send(ALERT, settings)) == 1
        assert time.monotonic() - began < 2
        end = time.monotonic() + 5
        while set(threading.enumerate()) - before and time.monotonic() < end:
            time.sleep(0.05)
        assert set(threading.enumerate()) - before == set()
