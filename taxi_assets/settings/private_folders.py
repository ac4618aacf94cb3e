"""Folders that only their user can read, and a umask that lets nobody else write.

`make_private_folder` creates the state directory, the lake's folder, the downloads and the quick
start's `DAGSTER_HOME` with mode 0700. A folder that already exists keeps its mode. Missing parent
folders get mode 0711: the account that runs root's embedded Postgres must pass through `TAXI_HOME`
without reading it.
"""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o077
PASSABLE = 0o711
WRITABLE_BY_ALL = 0o002


def restrict_umask() -> None:
    """Replace a umask that lets everybody write (000 in many containers and services) by 077.

    Any other umask is the user's choice and stays.
    """
    umask = os.umask(PRIVATE)
    if umask & WRITABLE_BY_ALL:
        os.umask(umask)


def make_private_folder(folder: Path, mode: int = 0o700) -> None:
    """Make a folder of this mode, whatever the umask, and its missing parents.

    An existing folder is left as it is. From here on neither this process nor its children create
    files that everybody can write.
    """
    restrict_umask()
    if folder.is_dir():
        return
    if not folder.parent.is_dir():
        make_private_folder(folder.parent, PASSABLE)
    try:
        folder.mkdir(mode=mode)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        folder.chmod(mode)
