"""The state directory `TAXI_HOME`: locks, the record of the running servers, and their settings."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter

from taxi_assets.errors import TerminalError
from taxi_assets.local.process import Identity
from taxi_assets.settings.private_folders import PASSABLE, make_private_folder

LOCAL_HOST = "127.0.0.1"
DBNAME = "ny_taxi"
USER = "taxi"
READER = "taxi_reader"


class LocalStackError(TerminalError):
    """The embedded stack cannot start or stop; the message names the log and the fix."""


@dataclass(frozen=True)
class Stack:
    """Addresses and credentials of the running servers."""

    postgres_host: str
    postgres_port: int
    postgres_dbname: str
    postgres_user: str
    postgres_password: str = field(repr=False)
    postgres_reader: str
    """The read-only role."""
    postgres_reader_password: str = field(repr=False)
    bigquery_endpoint: str
    """`http://127.0.0.1:<port>`."""
    bigquery_token: str = field(repr=False)
    """Bearer token that every request must have."""
    lake_root: Path
    """The folder of the buckets: `gs://<bucket>/…` is `<lake_root>/<bucket>/…`."""


@dataclass(frozen=True)
class Folder:
    """The folder that a state file was written in; a move keeps its inode."""

    path: str = ""
    device: int = 0
    inode: int = 0

    @classmethod
    def of(cls, path: Path) -> Folder:
        """Return the identity of an existing folder."""
        stat = path.stat()
        return cls(str(path), stat.st_dev, stat.st_ino)

    def is_same(self, path: Path) -> bool:
        """Return whether this folder is at `path` now."""
        try:
            stat = path.stat()
        except OSError:
            return False
        return (self.device, self.inode) == (stat.st_dev, stat.st_ino)

    def is_in_place(self) -> bool:
        """Return whether the folder is still at its original path."""
        return bool(self.path) and self.is_same(Path(self.path))


@dataclass(frozen=True)
class Record:
    """State of the running servers, written by the supervisor to `stack.json`."""

    supervisor: int = 0
    """Process id, 0 before it is known; meaningful only while `supervisor.lock` is held."""
    ready: bool = False
    error: str = ""
    servers: dict[str, Identity] = field(default_factory=dict[str, Identity])
    notice: str = ""
    """A message for the user about this start."""
    folder: Folder = Folder()
    """Folder in which it was written, set by `StateDirectory`."""


@dataclass(frozen=True)
class Config:
    """Credentials and ports of the servers, which the next start uses again: `config.json`."""

    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """Token of BigQuery."""
    reader_password: str = field(default="", repr=False)
    ports: dict[str, int] = field(default_factory=dict[str, int])
    postgres_folder: str = ""
    folder: Folder = Folder()
    """Folder in which it was written, set by `StateDirectory`."""


_RECORD, _CONFIG = TypeAdapter(Record), TypeAdapter(Config)


class StateDirectory:
    """Paths and state files of the embedded stack under `TAXI_HOME`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.local = self.path / "local"
        self.lake = self.path / "lake"
        self.bigquery = self.path / "bigquery"
        self.lease = self.local / "lease.lock"
        self.start = self.local / "start.lock"
        self.supervisor = self.local / "supervisor.lock"
        self.keep_alive = self.local / "up"
        self.supervisor_log = self.local / "supervisor.log"
        self.postgres_log = self.local / "postgres.log"
        self.bigquery_log = self.local / "bigquery.log"
        self._record = self.local / "stack.json"
        self._config = self.local / "config.json"

    def make(self) -> None:
        """Create the folders, readable by their owner only: `local` holds the password."""
        make_private_folder(self.path, PASSABLE)
        for folder in (self.local, self.lake, self.bigquery):
            make_private_folder(folder)

    def is_supervisor_alive(self) -> bool:
        """Return whether a supervisor is running: the kernel frees the lock of a dead one."""
        try:
            handle = os.open(self.supervisor, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(handle)

    def has_lease_file(self, handle: int) -> bool:
        """Return whether an open `lease.lock` is still this folder's."""
        try:
            return os.path.samestat(os.fstat(handle), self.lease.stat())
        except FileNotFoundError:
            return False

    def record(self) -> Record:
        """Read the supervisor's record; the supervisor may be dead.

        It is empty before the first start, and in a copied folder, whose file describes the
        original's servers.
        """
        try:
            record = _RECORD.validate_json(self._record.read_bytes())
        except FileNotFoundError:
            return Record()
        return record if self.owns(record.folder) else Record()

    def write_record(self, record: Record) -> None:
        """Replace the supervisor's record atomically."""
        state = replace(record, folder=Folder.of(self.local))
        _replace_file(self._record, _RECORD.dump_json(state))

    def config(self) -> Config:
        """Read the configuration of the last start; empty before the first.

        A copied folder has no ports, because the original uses them.
        """
        try:
            config = _CONFIG.validate_json(self._config.read_bytes())
        except FileNotFoundError:
            return Config()
        return config if self.owns(config.folder) else replace(config, ports={})

    def write_config(self, config: Config) -> None:
        """Replace the configuration that the next start reads."""
        state = replace(config, folder=Folder.of(self.local))
        _replace_file(self._config, _CONFIG.dump_json(state))

    def owns(self, folder: Folder) -> bool:
        """Return whether a state file was written in this folder, even before a move."""
        return folder.is_same(self.local)

    def stack(self) -> Stack:
        """Return addresses and credentials of servers that are ready."""
        config = self.config()
        return Stack(
            postgres_host=LOCAL_HOST,
            postgres_port=config.ports["postgres"],
            postgres_dbname=DBNAME,
            postgres_user=USER,
            postgres_password=config.password,
            postgres_reader=READER,
            postgres_reader_password=config.reader_password,
            bigquery_endpoint=f"http://{LOCAL_HOST}:{config.ports['bigquery']}",
            bigquery_token=config.token,
            lake_root=self.lake,
        )


def open_lock_file(path: Path) -> int:
    """Open a lock file, creating it if needed; the descriptor closes on exec."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock_exclusively(handle: int, seconds: float) -> bool:
    """Acquire an exclusive lock; return False if it is still held by another after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        else:
            return True


@contextlib.contextmanager
def hold_lock(path: Path) -> Generator[None]:
    """Hold a lock file exclusively; wait without a limit."""
    handle = open_lock_file(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _replace_file(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    unfinished.replace(path)
