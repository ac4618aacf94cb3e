"""Signs of how far a run is, seen from outside: what passes a relay, what appears in a folder.

A run that speaks to its servers through relays shows each query, each part of a COPY, each request
and each answer. Whoever wants to kill it at a point aims at a sign: before it passes (the server
never hears of it) or right after (the server goes on without the client).
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PART = 1 << 16
WATCH_SECONDS = 0.002


@dataclass(frozen=True)
class Aim:
    """The point at which a run is to die."""

    sign: str
    number: int
    """Which of the signs of this name, from 1."""
    after: bool
    """Once it has passed, not before."""

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.sign}"


@dataclass
class Signs:
    """Counts what a run shows, and kills it where it is told to."""

    seen: Counter[str] = field(default_factory=Counter[str])
    aim: Aim | None = None
    victim: int | None = None
    hit: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, victim: int | None, aim: Aim | None) -> None:
        """Begin to count again; with an aim, for a process that is to die there."""
        with self.lock:
            self.seen.clear()
            self.aim, self.victim, self.hit = aim, victim, False

    def comes(self, sign: str) -> int:
        """Note a sign before it passes; its number, 0 when it must not pass any more."""
        with self.lock:
            self.seen[sign] += 1
            number = self.seen[sign]
            killed = self._kill(sign, number, after=False)
            return 0 if killed else number

    def passed(self, sign: str, number: int) -> None:
        """Note that it has passed."""
        with self.lock:
            self._kill(sign, number, after=True)

    def _kill(self, sign: str, number: int, *, after: bool) -> bool:
        if self.hit or self.victim is None or self.aim != Aim(sign, number, after):
            return False
        self.hit = True  # first: whoever waits for the process may ask as soon as it is dead
        os.kill(self.victim, signal.SIGKILL)
        return True


@dataclass
class Dialogue:
    """Names what passes over one connection."""

    name: Callable[[bytes, str], str]
    """Of what a client sends, given the name of what it sent before."""
    last: str = ""

    def asked(self, part: bytes) -> str:
        self.last = self.name(part, self.last)
        return self.last

    def answered(self, _part: bytes) -> str:
        return f"answer to {self.last}"


PHASES = (
    *("download", "lake object written", "lake object put", "event log"),
    *("postgres COPY", "postgres COMMIT", "postgres DELETE", "postgres ATTACH", "postgres"),
    *("bigquery load job", "bigquery transaction", "bigquery"),
)
"""A sign is of the first of these that its name has in it."""


def phase_of(sign: str) -> str:
    """What the run is about when it shows the sign."""
    return next(phase for phase in PHASES if phase in sign)


STATEMENTS = ("COPY", "DELETE", "ATTACH PARTITION", "VACUUM", "COMMIT", "CREATE TABLE", "advisory")


def postgres_names(part: bytes, before: str) -> str:
    """The statement on its way, or another part of a COPY."""
    for statement in STATEMENTS:
        if statement.encode() in part[:4096]:
            return f"postgres {statement}"
    in_copy = before in ("postgres COPY", "postgres COPY rows")
    return "postgres COPY rows" if in_copy else "postgres query"


def bigquery_names(part: bytes, before: str) -> str:
    """The request by method and collection, or its body by what it asks for."""
    line = re.match(rb"(GET|POST|PUT|PATCH|DELETE) \S*?(jobs|queries|tables|datasets)", part)
    if b"BEGIN TRANSACTION" in part:
        return "bigquery transaction"
    if b'"load"' in part:
        return "bigquery load job"
    return f"bigquery {line[1].decode()} {line[2].decode()}" if line else before


def source_names(_part: bytes, _before: str) -> str:
    """There is but one request."""
    return "download"


NAMES = {"postgres": postgres_names, "bigquery": bigquery_names, "source": source_names}


@dataclass
class Relay:
    """Passes bytes on to a server and shows them as signs."""

    signs: Signs
    name: Callable[[bytes, str], str]
    upstream: tuple[str, int]

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self.upstream)
                talk = Dialogue(self.name)
                for ends in ((client, server, talk.asked), (server, client, talk.answered)):
                    threading.Thread(target=self.pass_on, args=ends, daemon=True).start()

    def pass_on(
        self, source: socket.socket, target: socket.socket, name: Callable[[bytes], str]
    ) -> None:
        with suppress(OSError):  # one of them is dead
            while part := source.recv(PART):
                sign = name(part)
                number = self.signs.comes(sign)
                if not number:
                    break
                target.sendall(part)
                self.signs.passed(sign, number)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(signs: Signs, what: str, host: str, port: int) -> Iterator[int]:
    """A relay to a server; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        passing = Relay(signs, NAMES[what], (host, port))
        with _thread(lambda: passing.serve(listener), lambda: listener.shutdown(socket.SHUT_RDWR)):
            yield int(listener.getsockname()[1])


@contextmanager
def http_relay(signs: Signs, what: str, address: str) -> Iterator[str]:
    """A relay to an HTTP server; its address."""
    parts = urlsplit(address)
    with relay(signs, what, str(parts.hostname), int(parts.port or 80)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def watched(signs: Signs, temporary: Path, event_log: Path) -> Iterator[None]:
    """Show what the lake's temporary files and Dagster's event log do, looking every 2 ms."""
    stop = threading.Event()

    def look() -> None:
        files, written = _names(temporary), _modified(event_log)
        while not stop.wait(WATCH_SECONDS):
            files, before = _names(temporary), files
            written, earlier = _modified(event_log), written
            new_signs = ["lake object written"] * len(files - before)
            new_signs += ["lake object put"] * len(before - files)
            new_signs += ["event log"] * (written != earlier)
            for sign in new_signs:
                signs.passed(sign, signs.comes(sign))

    with _thread(look, stop.set):
        yield


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - the quickest look
    except FileNotFoundError:
        return set()


def _modified(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def _thread(target: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """A thread for as long as the block lasts; `end` makes it end."""
    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join()


@contextmanager
def relays(signs: Signs, stack: dict[str, str], source: str) -> Iterator[dict[str, str]]:
    """Relays to Postgres, BigQuery and the source; the settings that lead a run to them."""
    with ExitStack() as open_ones:
        port = open_ones.enter_context(
            relay(signs, "postgres", stack["POSTGRES_HOST"], int(stack["POSTGRES_PORT"]))
        )
        endpoint = http_relay(signs, "bigquery", stack["BIGQUERY_ENDPOINT"])
        yield stack | {
            "POSTGRES_PORT": str(port),
            "BIGQUERY_ENDPOINT": open_ones.enter_context(endpoint),
            "TAXI_SOURCE": open_ones.enter_context(http_relay(signs, "source", source)),
        }
