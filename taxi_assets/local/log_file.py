"""Run a command and log its output: `python -m taxi_assets.local.log_file <file> <command>`.

Docker removes a container's log together with the container. docker-compose starts each service
with this module, so that the output from before `down`, or before an upgrade, is still on the
volume. The output goes to the container's own log too.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO

MAX_BYTES = 10 << 20
"""Size at which the file is renamed to `<file>.1`, as for Docker's log in docker-compose.yml."""
FILES = 3
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
DRAIN_SECONDS = 5
"""Longest wait for output after the command has ended: another process may hold its pipe."""


def run_with_log(file: Path, command: list[str]) -> int:
    """Run a command, forward signals to it, and return its exit code.

    If a signal killed the command, the code is 128 plus the signal's number, as in a shell.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    # Signals are blocked until there is a process to forward them to.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    child = subprocess.Popen(  # noqa: S603 - the command of docker-compose.yml
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_unblock_signals,  # noqa: PLW1509 - this process has no other thread yet
    )
    for number in SIGNALS:
        signal.signal(number, lambda received, _: child.send_signal(received))
    _unblock_signals()
    assert child.stdout is not None  # noqa: S101 - it is a pipe
    copy = threading.Thread(target=_copy_output, args=(child.stdout, file), daemon=True)
    copy.start()
    code = child.wait()
    copy.join(DRAIN_SECONDS)
    return code if code >= 0 else 128 - code


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _copy_output(output: IO[bytes], file: Path) -> None:
    handler = RotatingFileHandler(
        file, maxBytes=MAX_BYTES, backupCount=FILES - 1, encoding="utf-8", errors="replace"
    )
    handler.terminator = ""
    for line in output:
        # A full disk must not block the service: `logging` reports it on stderr and continues.
        handler.handle(logging.makeLogRecord({"msg": line.decode(errors="replace")}))
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.stdout.flush()
    # Not sys.exit, which would wait for the thread that reads the output.
    os._exit(run_with_log(Path(sys.argv[1]), sys.argv[2:]))
