"""Observe a run from outside, and kill it at a chosen event.

The events are the messages that pass a relay (each query, part of a COPY, request and response),
the lake's temporary files, and writes of Dagster's event log. A run is killed before an event, so
that the server never receives the message, or right after it, so that the server continues without
its client.
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
class KillPoint:
    """The event at which a run is killed."""

    event: str
    number: int
    """Number among the events of this name, from 1."""
    after: bool
    """Whether the run is killed after the event, not before it."""

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.event}"


@dataclass
class EventMonitor:
    """Counts the events of a run, and kills it at a kill point."""

    counts: Counter[str] = field(default_factory=Counter[str])
    kill_point: KillPoint | None = None
    process: int | None = None
    has_killed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def restart(self, process: int | None, kill_point: KillPoint | None) -> None:
        """Restart the count, and kill the process at the kill point, if any."""
        with self.lock:
            self.counts.clear()
            self.kill_point, self.process, self.has_killed = kill_point, process, False

    def release(self) -> None:
        """Kill no process from now on: this one has ended, and its id may be used again."""
        with self.lock:
            self.process = None

    def begin(self, event: str) -> int:
        """Count an event before it happens; return its number, or 0 if it must not happen."""
        with self.lock:
            self.counts[event] += 1
            number = self.counts[event]
            killed = self._kill(event, number, after=False)
            return 0 if killed else number

    def finish(self, event: str, number: int) -> None:
        """Record that an event has happened."""
        with self.lock:
            self._kill(event, number, after=True)

    def _kill(self, event: str, number: int, *, after: bool) -> bool:
        is_due = self.kill_point == KillPoint(event, number, after)
        if self.has_killed or self.process is None or not is_due:
            return False
        # Set first: a test that waits for the process reads it as soon as the process is dead.
        self.has_killed = True
        try:
            os.kill(self.process, signal.SIGKILL)
        except ProcessLookupError:
            self.has_killed = False
        return self.has_killed


@dataclass
class Dialogue:
    """Names the messages of one connection."""

    name: Callable[[bytes, str], str]
    """Returns the name of a client's message, given the name of the previous one."""
    last: str = ""

    def name_request(self, part: bytes) -> str:
        self.last = self.name(part, self.last)
        return self.last

    def name_response(self, _part: bytes) -> str:
        return f"answer to {self.last}"


PHASES = (
    *("download", "lake object written", "lake object put", "event log"),
    *("postgres COPY", "postgres COMMIT", "postgres DELETE", "postgres ATTACH", "postgres"),
    *("bigquery load job", "bigquery transaction", "bigquery"),
)
"""An event belongs to the first phase that its name contains."""


def find_phase(event: str) -> str:
    """Return the phase of a run to which an event belongs."""
    return next(phase for phase in PHASES if phase in event)


STATEMENTS = ("COPY", "DELETE", "ATTACH PARTITION", "VACUUM", "COMMIT", "CREATE TABLE", "advisory")


def name_postgres_message(part: bytes, before: str) -> str:
    """Return the name of a statement, or of a further part of a COPY."""
    for statement in STATEMENTS:
        if statement.encode() in part[:4096]:
            return f"postgres {statement}"
    in_copy = before in ("postgres COPY", "postgres COPY rows")
    return "postgres COPY rows" if in_copy else "postgres query"


def name_bigquery_request(part: bytes, before: str) -> str:
    """Return the name of a request by its body, or by method and collection."""
    line = re.match(rb"(GET|POST|PUT|PATCH|DELETE) \S*?(jobs|queries|tables|datasets)", part)
    if b"BEGIN TRANSACTION" in part:
        return "bigquery transaction"
    if b'"load"' in part:
        return "bigquery load job"
    return f"bigquery {line[1].decode()} {line[2].decode()}" if line else before


def name_source_request(_part: bytes, _before: str) -> str:
    """Return the name of the only kind of request."""
    return "download"


NAMES = {
    "postgres": name_postgres_message,
    "bigquery": name_bigquery_request,
    "source": name_source_request,
}


@dataclass
class Relay:
    """Forwards bytes to a server, and reports them as events."""

    monitor: EventMonitor
    name: Callable[[bytes, str], str]
    upstream: tuple[str, int]

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):  # the listener was shut down
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(self.upstream)
                except OSError:
                    client.close()
                    continue
                talk = Dialogue(self.name)
                for ends in (
                    (client, server, talk.name_request),
                    (server, client, talk.name_response),
                ):
                    threading.Thread(target=self.forward, args=ends, daemon=True).start()

    def forward(
        self, source: socket.socket, target: socket.socket, name: Callable[[bytes], str]
    ) -> None:
        with suppress(OSError):  # one of the two has ended
            while part := source.recv(PART):
                event = name(part)
                number = self.monitor.begin(event)
                if not number:
                    break
                target.sendall(part)
                self.monitor.finish(event, number)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(monitor: EventMonitor, what: str, host: str, port: int) -> Iterator[int]:
    """Run a relay to a server, and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Relay(monitor, NAMES[what], (host, port))
        with _thread(lambda: server.serve(listener), lambda: listener.shutdown(socket.SHUT_RDWR)):
            yield int(listener.getsockname()[1])


@contextmanager
def http_relay(monitor: EventMonitor, what: str, address: str) -> Iterator[str]:
    """Run a relay to an HTTP server, and yield its address."""
    parts = urlsplit(address)
    with relay(monitor, what, str(parts.hostname), int(parts.port or 80)) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def watch_files(monitor: EventMonitor, temporary: Path, event_log: Path) -> Iterator[None]:
    """Report changes of the lake's temporary files and of Dagster's event log, every 2 ms."""
    stop = threading.Event()

    def poll() -> None:
        files, written = _list_names(temporary), _get_modification_time(event_log)
        while not stop.wait(WATCH_SECONDS):
            files, before = _list_names(temporary), files
            written, earlier = _get_modification_time(event_log), written
            events = ["lake object written"] * len(files - before)
            events += ["lake object put"] * len(before - files)
            events += ["event log"] * (written != earlier)
            for event in events:
                monitor.finish(event, monitor.begin(event))

    with _thread(poll, stop.set):
        yield


def _list_names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))  # noqa: PTH208 - the fastest way
    except FileNotFoundError:
        return set()


def _get_modification_time(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def _thread(target: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    """Run a thread until the block ends; `end` stops it."""
    thread = threading.Thread(target=target)
    thread.start()
    try:
        yield
    finally:
        end()
        thread.join()


@contextmanager
def run_relays(
    monitor: EventMonitor, stack: dict[str, str], source: str
) -> Iterator[dict[str, str]]:
    """Run relays to Postgres, BigQuery and the source; yield settings of a run that uses them."""
    with ExitStack() as relays:
        port = relays.enter_context(
            relay(monitor, "postgres", stack["POSTGRES_HOST"], int(stack["POSTGRES_PORT"]))
        )
        endpoint = http_relay(monitor, "bigquery", stack["BIGQUERY_ENDPOINT"])
        yield stack | {
            "POSTGRES_PORT": str(port),
            "BIGQUERY_ENDPOINT": relays.enter_context(endpoint),
            "TAXI_SOURCE": relays.enter_context(http_relay(monitor, "source", source)),
        }
