"""A server process of the keeper: its port, its log, its start and its end."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.local.home import LOCAL_HOST, LocalStackError
from taxi_assets.local.process import iterate_ticks

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from pathlib import Path

READY_SECONDS = 110
PORT_TRIES = 3
PORTS = range(20_000, 32_768)


@dataclass
class Server:
    """One running server; made by `spawn` and owned by the keeper."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    is_ready: Callable[[Server], bool]
    respawn: Callable[[], Server]
    """Spawns it again on another port, when this one was taken between the look and the bind."""
    stop_signal: signal.Signals
    kill_signal: signal.Signals
    tries: int = 1

    def wait_ready(self) -> None:
        """Wait until it serves.

        Raises:
            LocalStackError: it ended, or took too long.
        """
        for _ in iterate_ticks(READY_SECONDS):
            if self.is_ready(self):
                return
            if self.process.poll() is None:
                continue
            if self.tries >= PORT_TRIES or is_port_free(self.port):
                self.check_alive()
            other = self.respawn()
            self.port, self.process, self.tries = other.port, other.process, self.tries + 1
        raise LocalStackError(f"{self.name} is not ready after {READY_SECONDS} s, see {self.log}")

    def check_alive(self) -> None:
        """Raise LocalStackError when it has ended, with the last line of its log."""
        code = self.process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["(empty log)"]
            raise LocalStackError(
                f"{self.name} ended with code {code}, see {self.log}: {lines[-1][:300]}"
            )

    def bound_log(self, limit: int) -> None:
        """Empty a log that has grown past `limit` bytes (it is opened for appending)."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > limit:
                os.truncate(self.log, 0)

    def send_stop_signal(self) -> None:
        """Ask for a clean end, without waiting."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)

    def finish(self, seconds: float) -> None:
        """Wait for the end that was asked for; after `seconds`, end it all the same."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(self.kill_signal)
            self.process.wait()


def is_port_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        # As the servers do: connections in TIME_WAIT from the last run must not move the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCAL_HOST, port))
        except OSError:
            return False
        return True


def pick_free_port(remembered: int | None) -> int:
    """Return the remembered port while it is free, else a new one.

    A new one lies below those that systems give to outgoing connections (Linux from 32768 on,
    others from 49152): one of these would be taken by the next restart now and then.
    """
    if remembered and is_port_free(remembered):
        return remembered
    while not is_port_free(port := random.choice(PORTS)):  # noqa: S311 - no secret
        pass
    return port


def open_server_log(path: Path) -> int:
    """Open a log for a server, emptied, for its owner's eyes."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
