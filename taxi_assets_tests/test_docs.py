"""Pages keep up with the code: tests, files and settings that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taxi_assets_tests.conftest import REPOSITORY

TESTS = REPOSITORY / "taxi_assets_tests"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAMED = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def test_every_promise_names_a_test_that_is_there() -> None:
    promises = (REPOSITORY / "docs" / "guarantees.md").read_text()
    named = [(file, name) for file, name in NAMED.findall(promises) if "test_" in file]
    assert len(named) > 20
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (TESTS / file).is_file() or f"def {name}" not in (TESTS / file).read_text()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


def test_every_setting_is_documented() -> None:
    read = set()
    for file in (REPOSITORY / "taxi_assets").rglob("*.py"):
        read |= set(re.findall(r'"((?:TAXI|POSTGRES|BIGQUERY|GCS|GCP)_[A-Z_]+)"', file.read_text()))
    listed = (REPOSITORY / ".env.example").read_text()
    assert sorted(name for name in read if name not in listed) == []
