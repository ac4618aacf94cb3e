"""The questions of docs/operations.md; `test_readme.py` runs its commands as printed."""

from __future__ import annotations

import re

from taxi_assets.cli.app import app
from taxi_assets_tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "operations.md").read_text()
PREFIX = ".venv/bin/taxi-assets "
QUESTIONS = {
    title: [
        line.removeprefix(PREFIX)
        for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
        if line.startswith(PREFIX)
    ]
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    if title.endswith("?")
}
COMMANDS = [
    "status",
    "plan",
    "backfill",
    "backfill --only rejected",
    "diff",
    "diff --against store",
    "backfill --only stale --dry-run",
    "local status",
    "external-table",
    "alert-test",
]


def strip_values(command: str) -> str:
    """Return the command without service and days."""
    return re.sub(r" (yellow|20\d\d-\S+)", "", command)


def test_questions_and_commands_match() -> None:
    commands = [strip_values(line) for lines in QUESTIONS.values() for line in lines]
    assert commands == COMMANDS
    assert [len(lines) for lines in QUESTIONS.values()] == [1] * len(COMMANDS)
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert {command.split()[0] for command in commands} == names - {
        "quickstart",
        "query",
        "inspect",
        "export",
    }
    for title in QUESTIONS:
        anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        assert f"[{title}](#{anchor})" in PAGE
