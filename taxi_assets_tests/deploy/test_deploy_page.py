"""The blocks of deploy/README.md, which need a project on Google Cloud, as far as a shell can say.

Each is complete in itself: what it uses it sets, and what it reads from Terraform is there.
"""

from __future__ import annotations

import re
import subprocess

import pytest

from taxi_assets_tests.isolation import REPOSITORY
from taxi_assets_tests.printed_blocks import Block, read_blocks

PAGE = "deploy/README.md"
TERRAFORM = REPOSITORY / "deploy" / "terraform"
OF_A_SHELL = {"EDITOR"}
BLOCKS = [block for block in read_blocks(PAGE) if block.language == "bash"]


def list_declared(kind: str) -> set[str]:
    text = "\n".join(path.read_text() for path in TERRAFORM.glob("*.tf"))
    return set(re.findall(rf'^{kind} "(\w+)"', text, re.MULTILINE))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.first_line[:60])
def test_block_is_self_contained(block: Block) -> None:
    parsed = subprocess.run(
        ["bash", "-n"], input=block.text, capture_output=True, text=True, check=False
    )
    assert not parsed.stderr
    used = set(re.findall(r"\$\{?([A-Z]\w*)", block.text))
    assigned = set(re.findall(r"(?:^|[ ;])([A-Z]\w*)=", block.text, re.MULTILINE))
    assert used - assigned <= OF_A_SHELL
    # A block is pasted: `read` would take its next line for the answer.
    assert not re.search(r"(?m)^ *read ", block.text)
    assert set(re.findall(r"output -raw (\w+)", block.text)) <= list_declared("output")
    assert set(re.findall(r"-var (\w+)=", block.text)) <= list_declared("variable")


def test_blocks_use_names_that_terraform_creates() -> None:
    text = (REPOSITORY / PAGE).read_text()
    configuration = "\n".join(path.read_text() for path in TERRAFORM.glob("*.tf"))
    commands = "\n".join(block.text for block in BLOCKS)
    named = set(re.findall(r"--(?:instance|job|secret) taxi-([\w-]+)", commands + text))
    named |= set(re.findall(r"jobs (?:pause|resume|execute|describe) taxi-([\w-]+)", text))
    assert {"postgres", "wake", "run", "daemon", "taxi-database"} <= named
    created_names = configuration.replace("${each.key}-database", "taxi-database")
    assert [name for name in sorted(named) if f"${{local.name}}-{name}" not in created_names] == []


def test_page_names_every_variable() -> None:
    text = (REPOSITORY / PAGE).read_text()
    unnamed = [name for name in list_declared("variable") if not re.search(rf"\b{name}\b", text)]
    assert set(unnamed) <= {"project_id", "image"}


def test_every_variable_is_tested() -> None:
    """In a plan that succeeds; `invalid_values.tftest.hcl` has the others."""
    files = [path for path in (TERRAFORM / "tests").glob("*.hcl") if "invalid" not in path.name]
    files.append(REPOSITORY / "taxi_assets_tests" / "deploy" / "test_terraform.py")
    tried = "\n".join(path.read_text() for path in files)
    untried = {name for name in list_declared("variable") if not re.search(rf"\b{name} *=", tried)}
    assert untried == set()
