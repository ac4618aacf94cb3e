"""A server process of the supervisor: its port, log, readiness and shutdown."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from taxi_assets.local.process import iterate_ticks
from taxi_assets.local.state_directory import LOCAL_HOST, LocalStackError

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from pathlib import Path

READY_SECONDS = 110
PORT_TRIES = 3
PORTS = range(20_000, 32_768)


@dataclass
class Server:
    """One running server, owned by the supervisor."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    is_ready: Callable[[Server], bool]
    respawn: Callable[[], Server]
    """Spawns the server on another port if a process took this one after the check."""
    stop_signal: signal.Signals
    kill_signal: signal.Signals
    tries: int = 1

    def wait_ready(self) -> None:
        """Wait until the server is ready.

        Raises:
            LocalStackError: it exited, or was not ready in time.
        """
        for _ in iterate_ticks(READY_SECONDS):
            if self.is_ready(self):
                return
            if self.process.poll() is None:
                continue
            if self.tries >= PORT_TRIES or is_port_free(self.port):
                self.check_alive()
            server = self.respawn()
            self.port, self.process, self.tries = server.port, server.process, self.tries + 1
        raise LocalStackError(f"{self.name} is not ready after {READY_SECONDS} s, see {self.log}")

    def check_alive(self) -> None:
        """Raise LocalStackError with the last line of the log if the server has exited."""
        code = self.process.poll()
        if code is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["(empty log)"]
            raise LocalStackError(
                f"{self.name} ended with code {code}, see {self.log}: {lines[-1][:300]}"
            )

    def bound_log(self, limit: int) -> None:
        """Truncate a log that has grown past `limit` bytes."""
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > limit:
                os.truncate(self.log, 0)

    def send_stop_signal(self) -> None:
        """Request a clean shutdown without waiting for it."""
        if self.process.poll() is None:
            self.process.send_signal(self.stop_signal)

    def finish(self, seconds: float) -> None:
        """Wait for the requested shutdown; kill the server after `seconds`."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(self.kill_signal)
            self.process.wait()


def is_port_free(port: int) -> bool:
    """Return whether a server can listen on this loopback port."""
    with socket.socket() as probe:
        # Like the servers, so that connections in TIME_WAIT do not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOCAL_HOST, port))
        except OSError:
            return False
        return True


def pick_free_port(remembered: int | None) -> int:
    """Return the remembered port if it is free, else a new one.

    New ports lie below the ephemeral range (from 32768 on Linux, from 49152 elsewhere), which
    outgoing connections would occasionally take before a restart.
    """
    if remembered and is_port_free(remembered):
        return remembered
    while not is_port_free(port := random.choice(PORTS)):  # noqa: S311 - no secret
        pass
    return port


def open_server_log(path: Path) -> int:
    """Open an empty server log that only its owner can read."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
