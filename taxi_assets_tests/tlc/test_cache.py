"""Downloads unused for a long time are evicted, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from taxi_assets.tlc.cache import evict_unused

KEEP = timedelta(days=90)
FILE_PATTERNS = ["{}", "{}.json", "{}.json.part", "{}.part", "{}.part.json", "part-{}"]
HOLD_LOCK = """
import sys
from pathlib import Path
from taxi_assets.tlc.cache import hold_download_lock
with hold_download_lock(Path(sys.argv[1]), "a month", print):
    print("held", flush=True)
    sys.stdin.read()
"""


def make_download(folder: Path, name: str, days: float) -> Path:
    """Make a month's file with every file beside it, last used that many days ago."""
    path = folder / "green" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for pattern in [*FILE_PATTERNS, "{}.lock"]:
        path.with_name(pattern.format(name)).write_bytes(b"")
    last_used = time.time() - days * 86_400
    os.utime(path.with_name(f"{name}.lock"), (last_used, last_used))
    return path


def list_names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_unused_downloads_are_evicted(tmp_path: Path) -> None:
    old, young = (
        make_download(tmp_path, "old.csv.gz", 91),
        make_download(tmp_path, "young.csv.gz", 89),
    )
    foreign = old.with_name("notes.txt")
    foreign.write_text("of the person")
    os.utime(foreign, (0, 0))
    before = list_names(tmp_path)
    evict_unused(tmp_path, None)
    assert list_names(tmp_path) == before
    evict_unused(tmp_path, KEEP)
    assert before - list_names(tmp_path) == {
        f"green/{pattern.format(old.name)}" for pattern in FILE_PATTERNS
    }
    assert young.exists()


def test_locked_download_is_not_evicted(tmp_path: Path) -> None:
    path = make_download(tmp_path, "month.csv.gz", 0)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        os.utime(path.with_name("month.csv.gz.lock"), (0, 0))
        evict_unused(tmp_path, KEEP)
        assert path.exists()
        holder.communicate()
    evict_unused(tmp_path, KEEP)
    assert not path.exists()


@pytest.mark.parametrize("link", ["downloads", "downloads/green", "downloads/green/old.csv.gz"])
def test_eviction_follows_no_link(tmp_path: Path, link: str) -> None:
    real = make_download(tmp_path / "downloads", "old.csv.gz", 91)
    link_path = tmp_path / link
    elsewhere = tmp_path / "elsewhere"
    link_path.rename(elsewhere)
    link_path.symlink_to(elsewhere)
    content = elsewhere if elsewhere.is_file() else next(elsewhere.rglob(real.name))
    evict_unused(tmp_path / "downloads", KEEP)
    assert content.exists()
