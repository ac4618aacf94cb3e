"""The supervisor process, which starts and stops both servers of the embedded stack.

It holds `supervisor.lock` while it runs, so a dead supervisor is never mistaken for a running one.
It exits when `down` sends SIGTERM, when a server dies, when its folder is removed, and when no
process has had a lease for `TAXI_LOCAL_IDLE_TIMEOUT` seconds, unless the keep-alive marker of `up`
exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import os
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxi_assets.errors import TerminalError
from taxi_assets.local import bigquery, postgres
from taxi_assets.local.postgres_folder import remove_outside_folder
from taxi_assets.local.process import Identity, stop_process
from taxi_assets.local.state_directory import (
    Config,
    Folder,
    LocalStackError,
    Record,
    StateDirectory,
    lock_exclusively,
    open_lock_file,
)
from taxi_assets.settings.areas import StackSettings

if TYPE_CHECKING:
    from types import FrameType

    from taxi_assets.local.server import Server

WATCH_SECONDS = 0.25
LOG_BYTES = 5_000_000
STOP_SECONDS = 20.0

log = logging.getLogger("taxi_assets.local.supervisor")


class _StopRequestedError(BaseException):
    """SIGTERM was received."""


class Supervisor:
    """Starts both servers, monitors them and their users, and stops them."""

    def __init__(self, home: StateDirectory) -> None:
        self.home = home
        self.idle_timeout = 0.0
        # With the servers of a killed supervisor.
        self.record = dataclasses.replace(home.record(), supervisor=os.getpid())
        self.config = home.config()
        self.servers: list[Server] = []
        self.lease = open_lock_file(home.lease)
        self.start = open_lock_file(home.start)
        self.folder = Folder.of(home.local)

    def run(self) -> None:
        """Run the stack until it is no longer needed; an error is written to the record."""
        try:
            self._start_servers()
            self._watch_servers()
        except _StopRequestedError:
            log.info("stop requested")
        except TerminalError as error:
            self._report_failure(str(error))
        except Exception as error:
            log.exception("unexpected error")
            self._report_failure(f"{type(error).__name__}: {error}")
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._stop_servers()

    def _start_servers(self) -> None:
        self.idle_timeout = StackSettings.from_env().local_idle_timeout
        self._write_state()
        stop_leftover_servers(self.home)
        self.home.keep_alive.unlink(missing_ok=True)
        notice = _find_notice(self.home, self.config)
        if notice:
            log.warning("%s", notice)
        token = self.config.token or secrets.token_urlsafe(32)
        config = dataclasses.replace(self.config, token=token)
        emulator = bigquery.build_bigquery_server(self.home, token, self._register_server)
        emulator.spawn(config.ports.get(emulator.name))
        database, self.config = postgres.start_postgres(self.home, config, self._register_server)
        database.wait_ready()
        emulator.wait_ready()
        ports = {server.name: server.port for server in (database, emulator)}
        self.home.write_config(dataclasses.replace(self.config, ports=ports))
        self._write_state(ready=True, notice=notice)
        log.info("ready: %s", ports)

    def _register_server(self, server: Server) -> None:
        """Record a spawned server, so that it can be found if this process is killed."""
        if server not in self.servers:
            self.servers.append(server)
        identities = {
            running.name: identity
            for running in self.servers
            if (identity := Identity.of(running.process.pid))
        }
        self._write_state(servers=identities)

    def _write_state(self, **changes: Any) -> None:
        self.record = dataclasses.replace(self.record, **changes)
        self.home.write_record(self.record)

    def _report_failure(self, reason: str) -> None:
        log.error("%s", reason)
        with contextlib.suppress(OSError):
            self._write_state(ready=False, error=reason)

    def _watch_servers(self) -> None:
        """Return when the servers are idle, with `start.lock` held against new users."""
        # Not the time of day: a clock that was set back would keep idle servers up.
        used, touched = time.monotonic(), 0
        while True:
            time.sleep(WATCH_SECONDS)
            for server in self.servers:
                server.check_alive()
                server.bound_log(LOG_BYTES)
            if not self.home.has_lease_file(self.lease):
                log.info("%s was removed", self.home.local)
                return
            before, touched = touched, os.fstat(self.lease).st_mtime_ns
            if touched != before or self.home.keep_alive.exists() or self._has_leases():
                used = time.monotonic()
            elif time.monotonic() - used >= self.idle_timeout and self._stop_accepting():
                log.info("unused for %s s", self.idle_timeout)
                return

    def _has_leases(self) -> bool:
        if not lock_exclusively(self.lease, 0):
            return True
        fcntl.flock(self.lease, fcntl.LOCK_UN)
        return False

    def _stop_accepting(self) -> bool:
        """Acquire `start.lock` and check for leases again: later ones wait for that lock."""
        if not lock_exclusively(self.start, 0):
            return False
        if self._has_leases():
            fcntl.flock(self.start, fcntl.LOCK_UN)
            return False
        return True

    def _stop_servers(self) -> None:
        for server in self.servers:
            server.send_stop_signal()
        for server in self.servers:
            server.finish(STOP_SECONDS)
        if not self.home.has_lease_file(self.lease):
            # Removed rather than moved: the open lock file no longer has a name.
            if os.fstat(self.lease).st_nlink == 0:
                remove_outside_folder(
                    Path(self.config.postgres_folder or self.home.path), self.folder
                )
            return
        self.home.keep_alive.unlink(missing_ok=True)
        self._write_state(ready=False, servers={})
        log.info("stopped")


def _find_notice(home: StateDirectory, config: Config) -> str:
    """Return a notice if the home is a copy, and if its original was running when it was copied."""
    if not config.folder.path or home.owns(config.folder):
        return ""
    notice = f"{home.path} is a copy of {Path(config.folder.path).parent}: it has separate servers"
    if (home.path / "postgres" / "data" / "postmaster.pid").exists():
        notice += (
            "; it was copied while the original was running, so its databases recover as after a "
            "crash: reload the days written in the meantime, or copy a stopped stack"
        )
    return notice


def stop_leftover_servers(home: StateDirectory) -> None:
    """Stop servers whose supervisor was killed: they hold the ports and the database file.

    Raises:
        LocalStackError: a server does not exit.
    """
    for name, identity in home.record().servers.items():
        signals = bigquery.STOP if name == bigquery.NAME else postgres.STOP
        if not stop_process(identity, signals, STOP_SECONDS):
            raise LocalStackError(
                f"process {identity.pid}, a {name} server of an earlier start, does not exit: "
                "kill it"
            )


def _handle_signals() -> None:
    def request_stop(_number: int, _frame: FrameType | None) -> None:
        raise _StopRequestedError

    signal.signal(signal.SIGTERM, request_stop)
    # Ctrl-C and hang-up are meant for the run that started this process, which outlives it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def main(arguments: list[str]) -> int:
    """Run the supervisor of the `TAXI_HOME` in the first argument, as a daemon."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    home = StateDirectory(Path(arguments[0]))
    # Open, and so locked, until this process ends; the fork shares it with the child.
    handle = open_lock_file(home.supervisor)
    # A process that checks for a supervisor holds the lock briefly.
    if not lock_exclusively(handle, 5):
        log.error("another supervisor is running")
        return 1
    # The starting process must not mistake the last supervisor's record for this one's.
    home.write_record(Record(servers=home.record().servers))
    if os.fork():
        return 0
    _handle_signals()
    Supervisor(home).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
