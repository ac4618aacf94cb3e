"""Downloads that nobody asked for in a long time go, and nothing else does."""

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
LEFT = ["{}", "{}.json", "{}.json.part", "{}.part", "{}.part.json", "part-{}"]
HOLD = """
import sys
from pathlib import Path
from taxi_assets.tlc.cache import hold_download_lock
with hold_download_lock(Path(sys.argv[1]), "a month", print):
    print("held", flush=True)
    sys.stdin.read()
"""


def month(folder: Path, name: str, days: float) -> Path:
    """A month's file and all that may lie beside it, asked for that many days ago."""
    path = folder / "green" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    for pattern in [*LEFT, "{}.lock"]:
        path.with_name(pattern.format(name)).write_bytes(b"")
    asked = time.time() - days * 86_400
    os.utime(path.with_name(f"{name}.lock"), (asked, asked))
    return path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_only_what_was_not_asked_for_goes(tmp_path: Path) -> None:
    old, young = month(tmp_path, "old.csv.gz", 91), month(tmp_path, "young.csv.gz", 89)
    foreign = old.with_name("notes.txt")
    foreign.write_text("of the person")
    os.utime(foreign, (0, 0))
    before = names(tmp_path)
    evict_unused(tmp_path, None)
    assert names(tmp_path) == before
    evict_unused(tmp_path, KEEP)
    assert before - names(tmp_path) == {f"green/{one.format(old.name)}" for one in LEFT}
    assert young.exists()


def test_what_another_process_holds_stays(tmp_path: Path) -> None:
    path = month(tmp_path, "month.csv.gz", 0)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
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
def test_nothing_that_a_link_leads_to_goes(tmp_path: Path, link: str) -> None:
    real = month(tmp_path / "downloads", "old.csv.gz", 91)
    place = tmp_path / link
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    content = elsewhere if elsewhere.is_file() else next(elsewhere.rglob(real.name))
    evict_unused(tmp_path / "downloads", KEEP)
    assert content.exists()
