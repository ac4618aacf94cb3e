"""SQLite holds pictures and tables of materializations once, and every page shows them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.test_utils import create_run_for_test

from taxi_assets.dagster_internals.event_batches import batch_transaction
from taxi_assets.dagster_internals.stored_once import ELSEWHERE, MAX_VALUE, PAGE_BYTES
from taxi_assets_tests.dagster_internals.instances import dagster_home

KEY = dg.AssetKey(["green", "cleaned_trips"])
PICTURE = "![a day](data:image/png;base64," + "A" * 10 * MAX_VALUE + ")"


@pytest.fixture
def folder(home: Path, tmp_path: Path) -> Iterator[Path]:
    with dagster_home(tmp_path, "sqlite", ours=True) as dagster_folder:
        yield dagster_folder


@pytest.fixture
def instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(folder)) as opened:
        yield opened


@pytest.fixture
def run_id(instance: dg.DagsterInstance) -> str:
    return create_run_for_test(instance, job_name="none").run_id


def materialize(instance: dg.DagsterInstance, run_id: str, day: str | None, rows: int = 7) -> None:
    metadata = {"rows": rows, "picture": dg.MetadataValue.md(f"{day}{rows}{PICTURE}")}
    materialization = dg.AssetMaterialization(KEY, partition=day, metadata=metadata)
    event = DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION.value,
        "none",
        event_specific_data=StepMaterializationData(materialization, []),
    )
    instance.report_dagster_event(event, run_id)


def list_shown(
    instance: dg.DagsterInstance, run_id: str
) -> list[tuple[str | None, object, object]]:
    """Return day, rows and picture of the materializations on a run's page."""
    shown_values = []
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION):
        materialization = entry.asset_materialization
        assert materialization is not None
        shown_values.append(
            (
                materialization.partition,
                materialization.metadata["rows"].value,
                materialization.metadata["picture"].value,
            )
        )
    return shown_values


def find_tables_holding(folder: Path, text: str) -> list[str]:
    """Return the tables of all files that hold a text, once for each row."""
    table_names = []
    for path in folder.rglob("*.db"):
        with closing(sqlite3.connect(path)) as file:
            tables = file.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                rows = file.execute(f"SELECT * FROM {table}").fetchall()
                table_names += [f"{path.stem}.{table}" for row in rows if text in str(row)]
    return table_names


def test_picture_is_stored_in_one_row_and_shown_on_every_page(
    instance: dg.DagsterInstance, run_id: str, folder: Path
) -> None:
    heard: SimpleQueue[dg.EventLogEntry] = SimpleQueue()
    instance.watch_event_logs(run_id, None, lambda event, _: heard.put(event))
    with batch_transaction():
        materialize(instance, run_id, "2021-01-05")
        materialize(instance, run_id, "2021-01-06")
    materialize(instance, run_id, "2021-01-05", rows=8)
    materialize(instance, run_id, None)
    expected = [
        (day, rows, f"{day}{rows}{PICTURE}")
        for day, rows in (("2021-01-05", 7), ("2021-01-06", 7), ("2021-01-05", 8), (None, 7))
    ]
    assert list_shown(instance, run_id) == expected
    latest = instance.get_latest_materialization_event(KEY)
    assert latest is not None
    assert latest.asset_materialization is not None
    assert latest.asset_materialization.metadata["picture"].value == expected[-1][2]
    live = [heard.get(timeout=30) for _ in expected]
    assert [entry.asset_materialization.metadata["picture"].value for entry in live] == [  # type: ignore[union-attr]
        picture for *_, picture in expected
    ]
    for *_, picture in expected:
        rows = find_tables_holding(folder, str(picture))
        assert len(rows) == (1 if str(picture).startswith("2021") else 2)
        assert set(rows) <= {"index.event_logs", "index.asset_keys"}


def test_check_result_is_in_its_run_and_in_the_table_of_results(
    instance: dg.DagsterInstance, run_id: str, folder: Path
) -> None:
    result = dg.AssetCheckEvaluation(
        asset_key=KEY, check_name="not_empty", passed=True, description="of 7 rows", partition="d"
    )
    kind = DagsterEventType.ASSET_CHECK_EVALUATION
    for _ in range(2):
        event = DagsterEvent(kind.value, "none", event_specific_data=result)
        instance.report_dagster_event(event, run_id)
    assert Counter(find_tables_holding(folder, "of 7 rows")) == {
        "index.asset_check_executions": 1,
        f"{run_id}.event_logs": 2,
    }
    (execution,) = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(KEY, "not_empty"), limit=10
    )
    assert execution.status.value == "SUCCEEDED"
    # The number is the index's, of the later event.
    with closing(sqlite3.connect(folder / "history" / "runs" / "index.db")) as file:
        rows = file.execute("SELECT id, event FROM event_logs ORDER BY id").fetchall()
        query = "SELECT evaluation_event_storage_id FROM asset_check_executions"
        assert file.execute(query).fetchone() == (rows[-1][0],)
    for _, text in rows:
        assert dg.deserialize_value(text, dg.EventLogEntry).run_id == run_id


def test_dagsters_own_class_shows_short_runs_and_full_assets(
    instance: dg.DagsterInstance, run_id: str, folder: Path
) -> None:
    materialize(instance, run_id, "2021-01-05")
    settings = folder / "dagster.yaml"
    lines = settings.read_text()
    settings.write_text(lines[: lines.index("instance_class:")] + lines[lines.index("nux:") :])
    with dg.DagsterInstance.from_config(str(folder)) as stock:
        assert type(stock) is dg.DagsterInstance
        assert list_shown(stock, run_id) == [("2021-01-05", 7, ELSEWHERE)]
        latest = stock.fetch_materializations(KEY, limit=1).records[0].asset_materialization
        assert latest is not None
        assert latest.metadata["picture"].value == f"2021-01-057{PICTURE}"


def test_wipe_leaves_a_runs_page_readable(instance: dg.DagsterInstance, run_id: str) -> None:
    materialize(instance, run_id, "2021-01-05")
    instance.wipe_assets([KEY])
    assert list_shown(instance, run_id) == [("2021-01-05", 7, ELSEWHERE)]


def test_new_files_have_small_pages(
    instance: dg.DagsterInstance, run_id: str, folder: Path
) -> None:
    materialize(instance, run_id, "2021-01-05")
    runs = folder / "history" / "runs"
    for name in ("index", run_id):
        with closing(sqlite3.connect(runs / f"{name}.db")) as file:
            assert file.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)
            assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
