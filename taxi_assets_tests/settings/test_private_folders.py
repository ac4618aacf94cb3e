"""Our folders are private, and no file is writable by everybody."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from taxi_assets.settings.private_folders import make_private_folder


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    previous = os.umask(request.param)
    yield request.param
    os.umask(previous)


def read_mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("umask", "written"),
    [(0o000, 0o600), (0o020, 0o600), (0o002, 0o664), (0o022, 0o644), (0o077, 0o600)],
    indirect=["umask"],
)
def test_only_a_world_writable_umask_is_replaced(umask: int, written: int, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "lake"
    make_private_folder(folder)
    assert (read_mode(folder), read_mode(folder.parent)) == (0o700, 0o711)
    (folder / "object").touch()
    assert read_mode(folder / "object") == written


def test_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    make_private_folder(tmp_path)
    assert read_mode(tmp_path) == 0o750


def test_file_in_place_of_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "lake").touch()
    with pytest.raises(FileExistsError):
        make_private_folder(tmp_path / "lake")
