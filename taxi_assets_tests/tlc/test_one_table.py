"""Only one table of the code names services and their columns."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import taxi_assets
from taxi_assets.tlc import services
from taxi_assets.tlc.services import SERVICES

PACKAGE = Path(taxi_assets.__file__).parent
TABLE = Path(services.__file__)
CODE = sorted(
    path
    for ending in ("py", "html", "sql")
    for path in PACKAGE.rglob(f"*.{ending}")
    if path != TABLE
)
NAMES = {
    spelled
    for service in SERVICES.values()
    for column in service.columns
    for name in (column.published, column.name, *column.aliases, *sum(column.points, ()))
    for spelled in (name.strip(), name.strip().lower())
}
ZONE_TABLES = {"locationID", "LocationID", "locationid"}
"""TLC's tables of zones have a column of this name, too."""
DISTINCT = {name for name in NAMES if "_" in name or name.lower().endswith("id")} - ZONE_TABLES
"""Names that are not English words, so that code with one of them names the column."""


def list_strings(path: Path) -> set[str]:
    """Return the string constants of a Python file, without docstrings."""
    constants = set()
    for node in ast.walk(ast.parse(path.read_text())):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for child in () if is_text else ast.iter_child_nodes(node):
            if isinstance(child, ast.Constant) and isinstance(child.value, str):
                constants.add(child.value.strip())
    return constants


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_table_names_services_and_columns(path: Path) -> None:
    words = set(re.findall(r"[A-Za-z]\w*", path.read_text()))
    assert not words & (DISTINCT | set(SERVICES))
    if path.suffix == ".py":
        assert not list_strings(path) & (NAMES - ZONE_TABLES | set(SERVICES))


def test_names_are_found_in_the_table() -> None:
    """Show that the test above can fail."""
    text = TABLE.read_text()
    assert set(re.findall(r"[A-Za-z]\w*", text)) >= {*SERVICES, "passenger_count", "SR_Flag"}
    assert list_strings(TABLE) >= {"yellow", "fhvhv", "extra", "tips", "trip_miles"}
    assert {"passenger_count", "pulocationid", "base_passenger_fare", "sr_flag"} <= DISTINCT
