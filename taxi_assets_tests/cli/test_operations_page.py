"""The commands of docs/operations.md, each run as it is printed."""

from __future__ import annotations

import re
import shlex

import dagster as dg
import pytest

from taxi_assets.cli.app import app, main
from taxi_assets_tests.cli.conftest import Months, run
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
ANSWERS = {
    "status": (0, "yellow   postgres_trips  59"),
    "plan": (0, "2021-01 yes      31"),
    "backfill": (0, "yellow 2021-01-01 to 2021-02-28: 59 days loaded, 0 left"),
    "backfill --only rejected": (0, "0 days in 0 runs"),
    "diff": (0, "0 of 31 days differ: 0 added, 0 removed, 0 changed"),
    "diff --against store": (0, "0 of 1 days differ: 0 added, 0 removed, 0 changed"),
    "backfill --only stale --dry-run": (0, "0 runs would start"),
    "local status": (0, "postgres  running"),
    "external-table": (2, "is a folder of this machine"),
}
"""Exit code and words, once two months are loaded."""


def without_values(command: str) -> str:
    """The command without service and days."""
    return re.sub(r" (yellow|20\d\d-\S+)", "", command)


def test_every_question_is_answered_by_one_command_and_every_command_answers_one() -> None:
    commands = [without_values(line) for lines in QUESTIONS.values() for line in lines]
    assert commands == list(ANSWERS)
    assert [len(lines) for lines in QUESTIONS.values()] == [1] * len(ANSWERS) + [0]
    # The one without a command is of something that no command can do.
    assert list(QUESTIONS)[-1] == "Who tells me when the daemon is dead?"
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


def test_each_command_answers_as_printed(
    instance: dg.DagsterInstance,
    months: Months,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for month in ("2021-01", "2021-02"):
        months.write(month)
    lines = [line for group in QUESTIONS.values() for line in group]
    # In a process of its own: its definitions are made with these settings.
    said = run(*shlex.split(next(line for line in lines if line.startswith("backfill "))))
    assert ANSWERS["backfill"][1] in said
    for line in lines:
        code, words = ANSWERS[without_values(line)]
        assert main(shlex.split(line)) == code, line
        printed = capfd.readouterr()
        assert words in printed.out + printed.err, line
