"""Private names of Dagster are few and listed, exist in the installed one, and may disappear."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions import data_version
from dagster._core.instance.methods.event_methods import EventMethods
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.storage import tags as dagster_tags

import taxi_assets
from taxi_assets.dagster_internals import private_names, tags
from taxi_assets.dagster_internals.private_names import PrivateName
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.dagster_internals.instances import dagster_home
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month

PACKAGE = Path(taxi_assets.__file__).parent
INTERNALS = PACKAGE / "dagster_internals"
PAGE = (REPOSITORY / "docs" / "dagster-internals.md").read_text()
NAMES = [name for name in vars(private_names).values() if isinstance(name, PrivateName)]
MAX_NAMES = 10
GREEN = SERVICES["green"]
DAY = "2021-02-01"

OF_OTHERS = {
    "_exit": "os",
    "_replace": "named tuples",
    "_http": "google.cloud.bigquery",
    "_properties": "google.cloud.bigquery",
    "_Ctx": "bqemulator",
    "_Caller": "bqemulator",
    "_resolve_uri": "bqemulator",
}
"""Attributes with an underscore that are not Dagster's, and whose they are."""
DOCUMENTED = {
    "dagster/asset_partition_range_end",
    "dagster/asset_partition_range_start",
    "dagster/column_lineage",
    "dagster/column_schema",
    "dagster/partition",
    "dagster/partition_row_count",
    "dagster/row_count",
    "dagster/storage_kind",
    "dagster/table_name",
    "dagster/uri",
}
"""Keys that Dagster's documentation names."""


def list_sources(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def is_private(module: str) -> bool:
    first, *rest = module.split(".")
    if not first.startswith("dagster"):
        return False
    return first == "dagster_shared" or any(part.startswith("_") for part in rest)


def list_private_imports(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {
                f"{node.module}.{alias.name}" for alias in node.names if is_private(node.module)
            }
            names |= {
                f"{node.module}.{alias.name}"
                for alias in node.names
                if node.module.startswith("dagster") and alias.name.startswith("_")
            }
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if is_private(alias.name)}
    return names


def list_private_attributes(tree: ast.AST) -> set[str]:
    """Return attributes with one underscore of anything but `self` and `cls`."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match(r"_[^_]", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }


@pytest.mark.parametrize("path", list_sources(PACKAGE), ids=lambda path: str(path.name))
def test_private_name_is_used_in_its_folder_only_and_listed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert list_private_imports(tree) == set(), "look it up by private_names"
    listed = (
        {name.attribute.rpartition(".")[2] for name in NAMES}
        if INTERNALS in path.parents
        else set()
    )
    assert list_private_attributes(tree) - set(OF_OTHERS) <= listed


@pytest.mark.parametrize("path", list_sources(PACKAGE), ids=lambda path: str(path.name))
def test_tags_of_dagster_are_defined_once(path: Path) -> None:
    if path == INTERNALS / "tags.py":
        return
    tag_names = set(re.findall(r"[\"'](\.?dagster/[a-z_/]+)", path.read_text()))
    assert tag_names <= DOCUMENTED


def test_private_names_are_few() -> None:
    assert len({(name.module, name.attribute) for name in NAMES}) == len(NAMES) <= MAX_NAMES


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.attribute)
def test_page_lists_each_name_with_its_canary(name: PrivateName) -> None:
    (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name.attribute}` |"))
    assert name.module in row
    assert re.search(r"`[\w/]+\.py::test_\w+`", row), "no canary test"
    assert "#" in row or "no upstream issue" in row


@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if name is not private_names.ASSET_KEY],
    ids=lambda name: name.attribute,
)
def test_installed_dagster_has_the_name(name: PrivateName) -> None:
    """Fail with the Dagster that dropped it. An output's asset key is an attribute of objects."""
    assert name.find() is not None


def test_output_has_its_asset_key() -> None:
    assert private_names.ASSET_KEY.is_on(dg.build_output_context())


def test_tags_equal_the_installed_dagsters(monkeypatch: pytest.MonkeyPatch) -> None:
    key = dg.AssetKey(["green", "raw_trips"])
    assert tags.CODE_VERSION == data_version.CODE_VERSION_TAG
    assert tags.DATA_VERSION == data_version.DATA_VERSION_TAG
    assert tags.DATA_VERSION_IS_OURS == data_version.DATA_VERSION_IS_USER_PROVIDED_TAG
    name = key.to_user_string()
    assert f"{tags.INPUT_DATA_VERSION}/{name}" == data_version.get_input_data_version_tag(key)
    assert f"{tags.INPUT_EVENT_POINTER}/{name}" == data_version.get_input_event_pointer_tag(key)
    assert tags.NO_EVENT == data_version.NULL_EVENT_POINTER
    assert tags.BACKFILL == dagster_tags.BACKFILL_ID_TAG
    assert tags.SCHEDULE_NAME == dagster_tags.SCHEDULE_NAME_TAG
    assert tags.SENSOR_NAME == dagster_tags.SENSOR_NAME_TAG
    assert tags.PARENT_RUN == dagster_tags.PARENT_RUN_ID_TAG
    assert tags.MAX_RETRIES == dagster_tags.MAX_RETRIES_TAG
    assert tags.WILL_RETRY == dagster_tags.WILL_RETRY_TAG
    assert tags.RETRY_ON_FAILURE == dagster_tags.RETRY_ON_ASSET_OR_OP_FAILURE_TAG
    assert tags.HIDDEN == dagster_tags.HIDDEN_TAG_PREFIX
    assert tags.CODE_SERVER_ADDRESS == dagster_tags.GRPC_INFO_TAG
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "it")
    origin_tags = tags.build_job_origin("here", "it", "job")
    assert dg.deserialize_value(origin_tags) == RemoteJobOrigin(repository, "job")
    monkeypatch.setenv(tags.EVENT_BATCH_SIZE, "7")
    assert EventMethods._get_event_batch_size(None) == 7  # type: ignore[arg-type]


RUN_WITHOUT = """
import sys
from taxi_assets.dagster_internals import private_names

# Dagster itself leans on most of them, so they go for this package alone.
private_names.PrivateName.find = lambda self: self.warn()
private_names.PrivateName.is_on = lambda self, owner: self.warn() or False

import dagster as dg
from taxi_assets.definitions import build_defs

job = build_defs().resolve_job_def("green_daily")
with dg.DagsterInstance.get() as instance:
    result = job.execute_in_process(partition_key=sys.argv[1], instance=instance)
    assert result.success
"""


def test_day_lands_with_warnings_without_any_private_name(
    home: Path, empty_stores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-02", [make_trip_line(DAY)])
    )
    with dagster_home(tmp_path, "sqlite", ours=True) as folder:
        monkeypatch.setenv("DAGSTER_HOME", str(folder))
        completed = subprocess.run(
            [sys.executable, "-c", RUN_WITHOUT, DAY],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
    assert completed.returncode == 0, completed.stderr[-3000:]
    for name in ("SqliteEventLogStorage", "DagsterSqliteStorage", "OutputContext._asset_key"):
        assert re.search(rf"RuntimeWarning: this Dagster has no .*{name}: ", completed.stderr), name
    totals = stores.store_totals(GREEN)
    assert [*map(len, totals.values())] == [1, 1, 1]
