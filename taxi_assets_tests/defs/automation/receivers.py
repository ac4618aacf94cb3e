"""Receivers of alerts: HTTP and SMTP servers on loopback."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from aiosmtpd import handlers
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from taxi_assets.local.server import pick_free_port

USER, PASSWORD = "taxi", "planted-secret"


def find_free_port() -> int:
    """Return a port that no outgoing connection takes meanwhile."""
    return pick_free_port(None)


@dataclass
class Receiver:
    """An HTTP receiver; answers `statuses` in turn, then 200; None hangs."""

    url: str
    statuses: list[int | None]
    bodies: list[dict[str, Any]] = field(default_factory=list)

    @property
    def apprise(self) -> str:
        """Return the URL in the form of TAXI_ALERT_URLS."""
        return self.url.replace("http://", "json://")


@contextmanager
def http_receiver(*statuses: int | None) -> Iterator[Receiver]:
    receiver = Receiver("", list(statuses))
    over = Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.bodies.append(json.loads(body))
            status = receiver.statuses.pop(0) if receiver.statuses else 200
            if status is None:
                over.wait(30)
                return
            self.send_response(status)
            self.send_header("Location", receiver.url)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook/planted-secret"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Inbox(handlers.Message):
    """Collects messages; answers `replies` to RCPT one after the other, then accepts."""

    def __init__(self, *replies: str) -> None:
        super().__init__()
        self.replies = list(replies)
        self.messages: list[EmailMessage] = []
        self.logins: list[bytes] = []

    def handle_message(self, message: Message) -> None:
        self.messages.append(message_from_bytes(bytes(message), policy=default))

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):  # noqa: ANN001, ARG002, N802
        if self.replies:
            return self.replies.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"


@contextmanager
def smtp_server(inbox: Inbox, tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[int]:
    """Run an SMTP server, with TLS from the start if a context is given; yield its port."""

    def authenticate(server, session, envelope, mechanism, data) -> AuthResult:  # noqa: ANN001
        inbox.logins.append(data.login)
        known = LoginPassword(USER.encode(), PASSWORD.encode())
        return AuthResult(success=data == known, handled=False)

    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=find_free_port(),
        ssl_context=tls,
        authenticator=authenticate,
        **options,
    )
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@contextmanager
def run_dripping_server() -> Iterator[int]:
    """Run a server that answers a byte every 50 ms for ever; yield its port."""
    over = Event()

    def drip(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while not over.wait(0.05):
                connection.sendall(b"2")

    def accept() -> None:
        with suppress(OSError):
            while True:
                threads.append(Thread(target=drip, args=[listener.accept()[0]]))
                threads[-1].start()

    threads: list[Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
    for thread in [accepting, *threads]:
        thread.join()
