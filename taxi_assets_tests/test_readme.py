"""Every block of README and docs, as printed: pasted as a whole, no environment activated.

One copy of the checkout, one quick start: the page's blocks are pasted in the order in which a
newcomer comes to them, then those of the other pages. `printed_blocks.py` names the blocks that
need what a test does not have.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.sample import write_sample_month
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.isolation import PROJECT_FILES
from taxi_assets_tests.printed_blocks import (
    PAGES,
    TESTED_SEPARATELY,
    Block,
    list_pasted_blocks,
    paste,
    read_blocks,
)
from taxi_assets_tests.test_quickstart import copy_checkout

MIRROR = "https://github.com/DataTalksClub/nyc-tlc-data/releases/download/{service}/"
TESTS = REPOSITORY / "taxi_assets_tests"
PASTED_HERE = (
    *("docs/settings.md", "docs/commands.md", "docs/operations.md", "docs/build-on-it.md"),
    *("docs/scaling.md", "docs/how-it-works.md", "deploy/README.md"),
)
"""Ordered so that each page's blocks find the data that they need."""
SAVED_AS = {"docs/build-on-it.md: from pathlib import Path": "revenue.py"}
"""Blocks that the reader of the page saves as a file."""
FAILS = {
    ".venv/bin/taxi-assets external-table yellow": 2,
    ".venv/bin/taxi-assets alert-test": 2,
}
"""Exit codes by last line: the lake of this machine is a folder, and alerts have no target."""
ONLY_STALE = ".venv/bin/taxi-assets backfill green 2021-01 --only stale --dry-run"
BACKFILL = ".venv/bin/taxi-assets backfill yellow 2021-01..2021-02"
ANSWERS = {
    ".venv/bin/taxi-assets status": "yellow   postgres_trips",
    ".venv/bin/taxi-assets plan yellow 2021-01..2021-02": "2021-02 yes",
    BACKFILL: "yellow 2021-01-01 to 2021-02-28: 59 days loaded, 0 left",
    f"{BACKFILL} --only rejected": "0 days in 0 runs",
    ".venv/bin/taxi-assets diff yellow 2021-01": "0 of 31 days differ: 0 added, 0 removed",
    ".venv/bin/taxi-assets diff yellow 2021-01-05 --against store": "0 of 1 day differ: 0 added",
    f"{BACKFILL} --only stale --dry-run": "0 runs would start",
    ".venv/bin/taxi-assets local status": "postgres  running",
    ".venv/bin/taxi-assets external-table yellow": "is a folder of this machine",
    ".venv/bin/taxi-assets alert-test": "set TAXI_ALERT_URLS or TAXI_HEARTBEAT_URL",
    ".venv/bin/taxi-assets export yellow 2021-01-05": "yellow_2021-01-05_2021-01-05.parquet",
}
"""Part of a block's output, by the block's last line."""

EXAMPLES = sorted(
    str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "docs").glob("examples/*/README.md")
)
"""Pages whose blocks have tests of their own."""
ZSH_NAMES = {"argv", "commands", "history", "options", "path", "pipestatus", "status"}
"""Variables of zsh itself, among them a read-only one."""


@dataclass
class Newcomer:
    """A clone in which the README's blocks were pasted, and their outputs, in order."""

    clone: Path
    printed: list[str]


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Newcomer]:
    """Run the quick start, the first queries and a month; the mirror's files are the sample's."""
    with copy_checkout() as clone:
        (clone / ".venv").symlink_to(sys.prefix)
        shutil.copytree(REPOSITORY / "deploy" / "terraform", clone / "deploy" / "terraform")
        for service, month in (("green", 1), ("yellow", 1), ("yellow", 2)):
            path = clone / f"{service}_tripdata_2021-{month:02d}.csv.gz"
            write_sample_month(SERVICES[service], Month(2021, month), path)
        (start,) = blocks("Quick start")
        (look,) = blocks("Look at the data")
        (month_of_mirror,) = blocks("Load real data")
        scripts = [
            # The environment of the tests is the one that the first two commands would make.
            start.text.rsplit("&& ", 1)[1],
            look.text,
            month_of_mirror.text.replace(MIRROR, f"{clone}/"),
            f"printf '%s\\n' {' '.join(list_course_settings())} >>.env; {ONLY_STALE} || true",
        ]
        yield Newcomer(clone, [paste(clone, script) for script in scripts])


def blocks(section: str) -> list[Block]:
    """Return the blocks of a section of the README."""
    return [block for block in read_blocks("README.md") if block.section == section]


def list_course_settings() -> list[str]:
    """Return the settings that the README has for the course."""
    names = re.findall(r"`(TAXI_\w+=\S+)`", (REPOSITORY / "README.md").read_text())
    assert len(names) == 3
    return names


def test_newcomer_gets_the_printed_output(newcomer: Newcomer) -> None:
    started, shown, loaded, stale = newcomer.printed
    (start,) = blocks("Quick start")
    assert started.replace(str(newcomer.clone), "<clone>") == start.printed
    (look,) = blocks("Look at the data")
    assert shown == look.printed
    (month,) = blocks("Load real data")
    assert MIRROR in month.text
    assert "green 2021-01-01 to 2021-01-31: 31 days loaded, 0 left" in loaded
    assert "2021-01-01 to 2021-01-31: cleaned_trips" in stale, "the course drops fewer trips"


@pytest.mark.parametrize("page", PASTED_HERE)
def test_blocks_of_a_page_run_as_printed(page: str, newcomer: Newcomer) -> None:
    for block in list_pasted_blocks(page):
        name = SAVED_AS.get(f"{page}: {block.first_line}")
        if name:
            (newcomer.clone / name).write_text(block.text)
            continue
        code = FAILS.get(block.last_line, 0)
        output = paste(newcomer.clone, block.script, code, COLUMNS="200", EDITOR="true")
        assert ANSWERS.get(block.last_line, "") in output
        if block.printed:
            assert output == block.printed


def test_documented_removal_leaves_nothing(newcomer: Newcomer) -> None:
    """In a shell that still has the exported addresses of the first servers."""
    (removes,) = blocks("Stop, start over, uninstall")
    (start,), (look,) = blocks("Quick start"), blocks("Look at the data")
    first_line, again = look.text.partition("\n")[0], start.text.rsplit("&& ", 1)[1]
    printed = paste(newcomer.clone, f"{first_line}\n{removes.text}{again}{removes.text}")
    assert "on the embedded stack" in printed
    left = {path.name for path in newcomer.clone.iterdir()}
    copied = {"taxi_assets", "deploy", ".venv", *PROJECT_FILES}
    hidden = {".logs_queue", ".nux", ".telemetry", ".storage.lock"}
    written = {
        "revenue.py",
        "__pycache__",
        *(path.name for path in newcomer.clone.glob("revenue-*.txt")),
        *(path.name for path in newcomer.clone.glob("*_tripdata_*")),
    }
    assert left <= copied | hidden | written


@pytest.mark.parametrize("page", [*PAGES, *EXAMPLES])
def test_blocks_mean_the_same_in_zsh(page: str) -> None:
    """The shell of macOS has no comments at its prompt, and names that it assigns itself."""
    for block in read_blocks(page):
        if block.language == "bash":
            assert not re.search(r"(^|\s)#\s", block.text), block.text
            assigned = re.findall(r"^\s*(?:for\s+)?(\w+)(?:=| in )", block.text, re.MULTILINE)
            assert not ZSH_NAMES.intersection(assigned), block.text


def test_every_block_is_pasted_or_listed_as_covered() -> None:
    pasted = {page for page in PAGES if list_pasted_blocks(page)}
    assert pasted == {"README.md", *PASTED_HERE}
    sections = {block.section for block in list_pasted_blocks("README.md")}
    assert sections == {
        *("Quick start", "Look at the data", "Load real data", "Stop, start over, uninstall")
    }
    last_lines = {block.last_line for page in PASTED_HERE for block in list_pasted_blocks(page)}
    assert set(ANSWERS) | set(FAILS) <= last_lines
    for page, covered in TESTED_SEPARATELY.items():
        lines = {block.first_line for block in read_blocks(page)}
        assert set(covered) <= lines, "the table names blocks that are no more"
        for reason in covered.values():
            for file, name in re.findall(r"([\w/]+\.py)::(\w+)", reason):
                assert f"def {name}" in (TESTS / file).read_text(), reason
