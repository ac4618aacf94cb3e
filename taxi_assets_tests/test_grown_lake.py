"""The documented readers of other libraries, on a lake to which columns were added."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets_tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "how-it-works.md"
SETUP, READS = (
    re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    .strip()
    .split("\n\npandas.read_parquet")
)
LINES = f"pandas.read_parquet{READS}".splitlines()


def compute_totals(values: Any) -> tuple[int, float]:
    """Return the number of rows and the sum of the column that the older day does not have."""
    table = values.arrow() if hasattr(values, "arrow") else values
    if isinstance(table, pa.RecordBatchReader):
        table = table.read_all()
    if isinstance(table, pa.Table):
        table = table.to_pandas()
    return len(table), float(table["night_fee"].sum())


def test_documented_readers_read_a_lake_with_added_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for day, columns in (
        ("2021-01-05", {"total_amount": [1.5]}),
        ("2021-01-31", {"total_amount": [2.5], "night_fee": [0.75]}),
    ):
        folder = Path(f".taxi/lake/taxi/yellow/tpep_pickup_date={day}")
        folder.mkdir(parents=True)
        pq.write_table(pa.table(columns), folder / "trips.parquet")
    names: dict[str, Any] = {}
    exec(SETUP, names)  # noqa: S102 - our own page
    read = 0
    for line in LINES:
        if line.startswith("columns ="):
            exec(line, names)  # noqa: S102
            continue
        assert compute_totals(eval(line, names)) == (2, 0.75), line  # noqa: S307
        read += 1
    assert read == 4
