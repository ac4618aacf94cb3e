"""Sending an alert: Slack, any webhook, e-mail, all at once and in bounded time.

No error's own text is handed on: requests and smtplib quote URLs and answers, and the URL of a
webhook is a secret.
"""

from __future__ import annotations

import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from functools import partial
from threading import Thread, Timer
from typing import Any

from taxi_assets.defs.alerts.message import Alert
from taxi_assets.settings.alerts import AlertSettings, EmailSettings

LONGEST = 8.0
"""Seconds for all targets of a run. A tick tells of at most five runs and is cut off by Dagster
after 60 s; what it told would then be told again."""
PATIENCE = 3.0
"""Seconds that one try waits for a server."""
PAUSES = (0.5, 1.0, 2.0)
"""Seconds before the second, third and fourth try."""
BUSY = (408, 425, 429)
"""HTTP statuses below 500 that may pass."""
SMTP_PERMANENT = 500


class NotSentError(Exception):
    """A target did not take the message; says why without naming its address."""

    def __init__(self, reason: str, *, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing
        """Whether trying again may help."""


def send(alert: Alert, settings: AlertSettings) -> dict[str, str]:
    """Tell every target; returns why by the name of each that could not be told."""
    jobs: dict[str, Callable[[], None]] = {}
    if settings.slack:
        jobs["Slack"] = partial(_post, settings.slack, slack_message(alert))
    if settings.webhook:
        jobs["webhook"] = partial(_post, settings.webhook, alert.payload)
    if settings.email:
        jobs["e-mail"] = partial(_mail, settings.email, email_message(alert, settings.email))
    deadline = time.monotonic() + LONGEST
    # What is not heard of by then: one that hangs keeps neither the others nor the tick waiting.
    unsent = dict.fromkeys(jobs, f"no answer within {LONGEST:g} s")
    threads = [
        Thread(target=_try, args=(name, job, deadline, unsent), daemon=True)
        for name, job in jobs.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0, deadline - time.monotonic()))
    return dict(unsent)


def _try(name: str, job: Callable[[], None], deadline: float, unsent: dict[str, str]) -> None:
    for pause in (*PAUSES, None):
        try:
            job()
        except NotSentError as error:
            unsent[name] = str(error)
            if not error.passing or pause is None or time.monotonic() + pause > deadline:
                return
            time.sleep(pause)
        except Exception as error:  # noqa: BLE001 - an alert never breaks anything else
            unsent[name] = type(error).__name__
            return
        else:
            unsent.pop(name)
            return


def slack_message(alert: Alert) -> dict[str, str]:
    """The body that Slack's incoming webhooks take."""
    title, *lines = map(_escaped, [alert.title, *alert.lines])
    return {"text": "\n".join([f"*{title}*", *lines, f"<{alert.link}|Open the run>"])}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def email_message(alert: Alert, settings: EmailSettings) -> EmailMessage:
    """The e-mail; one run's has one Message-ID, so that a second copy is seen as such."""
    message = EmailMessage()
    message["Subject"] = alert.title
    message["From"] = settings.sender
    message["To"] = ", ".join(settings.to)
    message["Message-ID"] = f"<{alert.run_id}@taxi_assets>"
    message.set_content("\n\n".join([alert.title, *alert.lines, alert.link]) + "\n")
    return message


def _post(url: str, body: dict[str, Any]) -> None:
    import requests  # noqa: PLC0415 - heavy at import

    from taxi_assets.tlc.http_session import LimitedSession  # noqa: PLC0415

    try:
        # Streamed and closed: the answer's status is all that is read.
        with (
            LimitedSession(PATIENCE, LONGEST) as session,
            session.post(
                url, json=body, timeout=PATIENCE, allow_redirects=False, stream=True
            ) as answer,
        ):
            status = answer.status_code
    except requests.Timeout:
        raise NotSentError(f"no answer within {PATIENCE:g} s", passing=True) from None
    except requests.exceptions.SSLError:
        raise NotSentError("its certificate is not trusted", passing=False) from None
    except requests.ConnectionError:
        raise NotSentError("no connection", passing=True) from None
    if not requests.codes.ok <= status < requests.codes.multiple_choices:
        passing = status >= requests.codes.internal_server_error or status in BUSY
        raise NotSentError(f"HTTP {status}", passing=passing)


def _mail(settings: EmailSettings, message: EmailMessage) -> None:
    try:
        with _connection(settings) as smtp:
            if settings.user:
                smtp.login(settings.user, settings.password)
            refused = smtp.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        codes = sorted({code for code, _ in error.recipients.values()})
        passing = all(code < SMTP_PERMANENT for code in codes)
        raise NotSentError(f"recipients refused, SMTP {codes[0]}", passing=passing) from None
    except smtplib.SMTPResponseException as error:
        # Greylisting and overload are 4xx.
        passing = error.smtp_code < SMTP_PERMANENT
        raise NotSentError(f"SMTP {error.smtp_code}", passing=passing) from None
    except smtplib.SMTPNotSupportedError:
        raise NotSentError("the server offers no STARTTLS or no login", passing=False) from None
    except ssl.SSLError:
        raise NotSentError("no trusted TLS connection", passing=False) from None
    except TimeoutError:
        raise NotSentError(f"no answer within {PATIENCE:g} s", passing=True) from None
    except (OSError, smtplib.SMTPException):
        raise NotSentError("no connection", passing=True) from None
    if refused:
        raise NotSentError(
            f"{len(refused)} of {len(settings.to)} recipients refused", passing=False
        )


class _Limited:
    """Mixed into smtplib's clients, which bound each silence of a server and not its answers."""

    sock: socket.socket | None
    _timer: Timer | None = None

    def connect(self, *arguments: Any, **options: Any) -> Any:
        """Connect, and end the connection when all targets have to be told."""
        self._timer = Timer(LONGEST, self._cut)
        self._timer.daemon = True
        self._timer.start()
        return super().connect(*arguments, **options)  # type: ignore[misc]

    def close(self) -> None:
        """Close, and leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
        super().close()  # type: ignore[misc]

    def _cut(self) -> None:
        if self.sock is not None:
            with suppress(OSError):
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


class _LimitedSMTP(_Limited, smtplib.SMTP):
    pass


class _LimitedSMTPOverTLS(_Limited, smtplib.SMTP_SSL):
    pass


@contextmanager
def _connection(settings: EmailSettings) -> Iterator[smtplib.SMTP]:
    tls = ssl.create_default_context()
    if settings.security == "tls":
        with _LimitedSMTPOverTLS(
            settings.host, settings.port, timeout=PATIENCE, context=tls
        ) as connection:
            yield connection
        return
    with _LimitedSMTP(settings.host, settings.port, timeout=PATIENCE) as connection:
        if settings.security == "starttls":
            connection.starttls(context=tls)
        yield connection
