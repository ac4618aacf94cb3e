"""What this package makes is its user's own: folders of mode 0700, and no file for everybody.

`make_private_folder` creates the state directory, the lake's folder, the downloads, and what the
quick start makes of `DAGSTER_HOME`. A person's own folder keeps its mode.
Folders on the way there that do not exist either are 0711: the account that runs root's embedded
Postgres passes through `TAXI_HOME`, and reads nothing in it.
"""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = 0o077
PASSABLE = 0o711
WRITABLE_BY_ALL = 0o002


def restrict_umask() -> None:
    """Replace an umask that lets everybody write (000 in many containers and services) by 077.

    Any other is somebody's choice, and stays.
    """
    found = os.umask(PRIVATE)
    if found & WRITABLE_BY_ALL:
        os.umask(found)


def make_private_folder(folder: Path, mode: int = 0o700) -> None:
    """Make a folder of this mode, whatever the umask, and those above it; one that exists stays.

    From here on nothing of this process, or of those it starts, is writable by everybody.
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
