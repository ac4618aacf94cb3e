"""Imports between the package's folders and root files point one way."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import taxi_assets

PACKAGE = Path(taxi_assets.__file__).parent
LAYERS = (
    {"redaction", "date_ranges"},
    {"errors"},
    {"lazy_partitions", "settings"},
    {"partitions", "tlc"},
    {"trips", "local"},
    {"report", "dagster_internals"},
    {"defs"},
    {"definitions"},
    {"cli"},
    {"__main__"},
    {"quickstart"},
)
"""A room imports from layers above it in this list, never from its own or from one below."""
LAYER = {room: at for at, rooms in enumerate(LAYERS) for room in rooms}
MAX_ROOT_FILES = 8


def list_modules() -> dict[str, Path]:
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


def list_imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Return the package's modules that a file imports, at its top or inside a function."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            imported.update(name if name in known else node.module for name in names)
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
    return {name for name in imported if name.startswith("taxi_assets.")}


def list_dependencies() -> dict[tuple[str, str], list[str]]:
    """Return the dependencies between rooms, with their lines."""
    known = list_modules()
    lines_by_rooms: dict[tuple[str, str], list[str]] = {}
    for name, path in known.items():
        room = name.split(".")[1] if "." in name else ""
        for other in list_imports(path, known):
            target = other.split(".")[1]
            if room and target != room:
                lines_by_rooms.setdefault((room, target), []).append(f"{name} -> {other}")
    return lines_by_rooms


def test_every_room_has_a_layer():
    rooms = {name.split(".")[1] for name in list_modules() if "." in name}
    assert rooms == set(LAYER)


def test_imports_point_one_way():
    upwards = [
        line
        for (room, target), lines in list_dependencies().items()
        if LAYER[target] >= LAYER[room]
        for line in lines
    ]
    assert upwards == []


def test_no_import_cycle_within_a_room():
    known = list_modules()
    graph = {name: list_imports(path, known) & set(known) for name, path in known.items()}
    visited: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in visited:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            visited.add(name)

    for name in graph:
        visit(name, ())


COMPUTE = {
    "taxi_assets.defs.checks.cleaned",
    "taxi_assets.defs.checks.raw",
    "taxi_assets.defs.checks.stored",
    "taxi_assets.defs.daily_assets",
    "taxi_assets.report.day_picture.draw_day_picture",
    "taxi_assets.trips.clean.clean_partition",
    "taxi_assets.trips.clean.parse_partition",
    "taxi_assets.trips.profile.profile_partition",
    "taxi_assets.trips.row_diff.diff_content",
    "taxi_assets.trips.row_diff.diff_rows",
    "taxi_assets.trips.rules",
}
"""What assets do with rows: parse, apply rules, check, profile, draw."""


def test_io_managers_store_and_compute_nothing():
    known = list_modules()
    computed = {
        f"{path.name} imports {name}"
        for path in (PACKAGE / "defs" / "io_managers").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        if name in COMPUTE
    }
    assert computed == set()
    for name in COMPUTE - known.keys():  # a renamed module must be renamed here, too
        module, _, function = name.rpartition(".")
        assert hasattr(importlib.import_module(module), function), name


def test_root_has_few_files():
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_ROOT_FILES


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "benchmarks").glob("[!_]*.py")), ids=str)
def test_benchmarks_import_existing_modules(path: Path):
    assert importlib.import_module(f"benchmarks.{path.stem}")


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=str)
def test_every_package_describes_its_contents(path: Path):
    assert ast.get_docstring(ast.parse(path.read_text())), path
