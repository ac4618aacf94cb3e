"""A server of the supervisor: its process, port, log, readiness and shutdown."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from taxi_assets.local.postgres_folder import Account
from taxi_assets.local.process import die_with_parent, iterate_ticks
from taxi_assets.local.state_directory import LOCAL_HOST, LocalStackError

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

READY_SECONDS = 110
PORT_TRIES = 3
PORTS = range(20_000, 32_768)


@dataclass(eq=False)
class Server:
    """One server of the supervisor."""

    name: str
    log: Path
    build_command: Callable[[int], Sequence[object]]
    """Return the command that listens on a port."""
    environment: Mapping[str, str]
    is_ready: Callable[[Server], bool]
    register: Callable[[Server], None]
    """Called with each process of the server."""
    stop_signals: tuple[signal.Signals, signal.Signals]
    """For a clean shutdown, and for one at once."""
    account: Account
    port: int = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)

    def spawn(self, remembered_port: int | None) -> None:
        """Spawn the process without waiting, on the remembered port if that is free."""
        self.port = pick_free_port(remembered_port)
        # Empty, and readable by its owner only.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        output = os.open(self.log, flags, 0o600)
        self.process = subprocess.Popen(  # noqa: S603  our own module, or the wheel's own program
            [str(part) for part in self.build_command(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            env=self.environment,
            # The supervisor has one thread.
            preexec_fn=die_with_parent(self.stop_signals[0]),  # noqa: PLW1509
            **self.account.options,
        )
        os.close(output)
        self.register(self)

    def wait_ready(self) -> None:
        """Wait until the server is ready; move it if another program took its port meanwhile.

        Raises:
            LocalStackError: it exited, or was not ready in time.
        """
        tries = 1
        for _ in iterate_ticks(READY_SECONDS):
            if self.is_ready(self):
                return
            if self.process.poll() is None:
                continue
            if tries >= PORT_TRIES or is_port_free(self.port):
                self.check_alive()
            self.spawn(None)
            tries += 1
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
            self.process.send_signal(self.stop_signals[0])

    def finish(self, seconds: float) -> None:
        """Wait for the requested shutdown; kill the server after `seconds`."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(self.stop_signals[1])
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
