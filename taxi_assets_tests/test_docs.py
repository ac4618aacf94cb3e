"""Pages keep up with the code: tests, files and settings that they name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from taxi_assets.settings import AREAS, OTHER_VARIABLES
from taxi_assets.settings.__main__ import (
    EXAMPLE,
    PAGE,
    render_example,
    render_page,
    replace_generated_text,
)
from taxi_assets_tests.conftest import REPOSITORY

TESTS = REPOSITORY / "taxi_assets_tests"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
CITED = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


def test_every_promise_names_an_existing_test() -> None:
    promises = (REPOSITORY / "docs" / "guarantees.md").read_text()
    cited_tests = [(file, name) for file, name in CITED.findall(promises) if "test_" in file]
    assert len(cited_tests) > 20
    missing = [
        f"{file}::{name}"
        for file, name in cited_tests
        if not (TESTS / file).is_file() or f"def {name}" not in (TESTS / file).read_text()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_have_a_target(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("file", [PAGE, EXAMPLE])
def test_settings_pages_are_generated_from_the_models(file: str) -> None:
    text = (REPOSITORY / file).read_text()
    render = {PAGE: render_page, EXAMPLE: render_example}[file]
    assert replace_generated_text(text, render()) == text, (
        "run: python -m taxi_assets.settings write"
    )
    variables = {name for area in AREAS.values() for name in area.list_variables()}
    assert {name for name in variables if name not in text} == set()


def test_only_existing_settings_are_named() -> None:
    """In pages, messages, compose files and Terraform."""
    known = {name for area in AREAS.values() for name in area.list_variables()}.union(
        OTHER_VARIABLES
    )
    folders = ("taxi_assets", "docs", "deploy", "benchmarks")
    files = [*PAGES, REPOSITORY / "docker-compose.yml"]
    files += [path for folder in folders for path in (REPOSITORY / folder).rglob("*")]
    kinds = {".py", ".md", ".yml", ".yaml", ".tf", ".hcl", ".sh"}
    wrong = {
        f"{path.relative_to(REPOSITORY)}: {name}"
        for path in files
        if path.suffix in kinds
        for name in re.findall(r"\bTAXI_[A-Z_]*[A-Z]\b(?!_)", path.read_text())
        if name not in known
    }
    assert wrong == set()
