"""What lies in `<home>/local`: locks, the keeper's record, what the next start remembers."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from taxi_assets.errors import TerminalError
from taxi_assets.local.process import Identity
from taxi_assets.settings.private_folders import PASSABLE, make_private_folder

if TYPE_CHECKING:
    from collections.abc import Generator

LOCAL_HOST = "127.0.0.1"
DBNAME = "ny_taxi"
USER = "taxi"
READER = "taxi_reader"


class LocalStackError(TerminalError):
    """The embedded stack can't start or stop; the message names the log and the remedy."""


@dataclass(frozen=True)
class Stack:
    """Where the running servers are."""

    postgres_host: str
    postgres_port: int
    postgres_dbname: str
    postgres_user: str
    postgres_password: str = field(repr=False)
    postgres_reader: str
    """The role that can only read."""
    postgres_reader_password: str = field(repr=False)
    bigquery_endpoint: str
    """`http://127.0.0.1:<port>`."""
    bigquery_token: str = field(repr=False)
    """What every request to it must carry, as a bearer token."""
    lake_root: Path
    """The folder that holds the buckets: `gs://<bucket>/…` is `<lake_root>/<bucket>/…`."""


@dataclass(frozen=True)
class Folder:
    """The folder that a state file was written in; moved it keeps its inode, a copy has another."""

    path: str = ""
    device: int = 0
    inode: int = 0

    @classmethod
    def of(cls, path: Path) -> Folder:
        """Return the identity of a folder that is there."""
        found = path.stat()
        return cls(str(path), found.st_dev, found.st_ino)

    def is_same(self, path: Path) -> bool:
        """Tell whether this very folder is at `path` now."""
        try:
            found = path.stat()
        except OSError:
            return False
        return (self.device, self.inode) == (found.st_dev, found.st_ino)

    def is_in_place(self) -> bool:
        """Tell whether it is still where it was."""
        return bool(self.path) and self.is_same(Path(self.path))


@dataclass(frozen=True)
class Record:
    """What the keeper tells the others, in `stack.json`."""

    keeper: int
    """Process id; meaningful only while `keeper.lock` is held."""
    ready: bool = False
    error: str = ""
    servers: dict[str, Identity] = field(default_factory=dict[str, Identity])
    ports: dict[str, int] = field(default_factory=dict[str, int])
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    """BigQuery's."""
    reader_password: str = field(default="", repr=False)
    postgres_folder: str = ""
    notice: str = ""
    """What a person should know of this start."""
    folder: Folder = Folder()
    """Where it was written; `Home` sets it."""


@dataclass(frozen=True)
class Config:
    """What one start leaves for the next, in `config.json`."""

    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    reader_password: str = field(default="", repr=False)
    ports: dict[str, int] = field(default_factory=dict[str, int])
    postgres_folder: str = ""
    folder: Folder = Folder()
    """Where it was written; `Home` sets it."""


_State = TypeVar("_State", Record, Config)


class Home:
    """The folder `TAXI_HOME`, as the embedded stack sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.local = self.path / "local"
        self.lake = self.path / "lake"
        self.bigquery = self.path / "bigquery"
        self.lease = self.local / "lease.lock"
        self.start = self.local / "start.lock"
        self.keeper = self.local / "keeper.lock"
        self.pin = self.local / "up"
        self.keeper_log = self.local / "keeper.log"
        self.postgres_log = self.local / "postgres.log"
        self.bigquery_log = self.local / "bigquery.log"
        self._record = self.local / "stack.json"
        self._config = self.local / "config.json"

    def make(self) -> None:
        """Make the folders; `local` holds the password."""
        make_private_folder(self.path, PASSABLE)
        for folder in (self.local, self.lake, self.bigquery):
            make_private_folder(folder)

    def is_supervisor_alive(self) -> bool:
        """Tell whether a keeper runs: it holds its lock, and the kernel frees a dead one's."""
        try:
            handle = os.open(self.keeper, os.O_RDWR | os.O_CLOEXEC)
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

    def record(self) -> Record | None:
        """Read the keeper's record; it may be a dead keeper's.

        A copied folder has its original's record, whose processes are not ours to stop: None.
        """
        found = _read_json(self._record)
        if found is None or not self.owns(found["folder"]):
            return None
        servers: dict[str, dict[str, Any]] = found.pop("servers")
        return Record(**found, servers={name: Identity(**it) for name, it in servers.items()})

    def write_record(self, record: Record) -> None:
        """Replace the keeper's record in one step."""
        _write_json(self._record, dataclasses.asdict(self._own_folder(record)))

    def config(self) -> Config:
        """Read what the last start left, empty at the first.

        In a copied folder without ports, which are its original's.
        """
        found = _read_json(self._config)
        if found is None:
            return Config()
        config = Config(**found)
        return config if self.owns(config.folder) else dataclasses.replace(config, ports={})

    def write_config(self, config: Config) -> None:
        """Replace what the next start will find."""
        _write_json(self._config, dataclasses.asdict(self._own_folder(config)))

    def owns(self, folder: Folder) -> bool:
        """Tell whether a state file was written in this folder, wherever it was then."""
        return folder.is_same(self.local)

    def _own_folder(self, state: _State) -> _State:
        return dataclasses.replace(state, folder=Folder.of(self.local))

    def stack(self, record: Record) -> Stack:
        """Say where the servers of a ready record are."""
        return Stack(
            postgres_host=LOCAL_HOST,
            postgres_port=record.ports["postgres"],
            postgres_dbname=DBNAME,
            postgres_user=USER,
            postgres_password=record.password,
            postgres_reader=READER,
            postgres_reader_password=record.reader_password,
            bigquery_endpoint=f"http://{LOCAL_HOST}:{record.ports['bigquery']}",
            bigquery_token=record.token,
            lake_root=self.lake,
        )


def open_lock_file(path: Path) -> int:
    """Open a lock file, made when missing; children don't inherit the descriptor over an exec."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def lock_exclusively(handle: int, seconds: float) -> bool:
    """Lock for us alone; False when somebody else still holds it after `seconds`."""
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
    """Hold a lock file exclusively, waiting as long as it takes."""
    handle = open_lock_file(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found | {"folder": Folder(**found.get("folder", {}))}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        json.dump(content, file)
    unfinished.replace(path)
