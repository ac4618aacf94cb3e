"""Zones by coordinates in a run: TAXI_ZONES fills them, and the materialization counts them."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from taxi_assets.tlc.services import YELLOW
from taxi_assets_tests import stores
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.tlc.zones import find_centre, write_zip

DAY = "2014-05-05"
KEYS = [dg.AssetKey(["yellow", name]) for name in ("raw_trips", "cleaned_trips")]

pytestmark = pytest.mark.usefixtures("empty_stores")


def write_month(path: Path) -> None:
    """Write two trips between zones, and one that starts outside all zones."""
    (version,) = (
        version for version in YELLOW.schema_versions if version.months == "2010-01 to 2014-12"
    )
    values = {"time": f"{DAY} 08:00:00", "id": "1", "amount": "2.5", "text": "N"}
    trips = [
        (find_centre(0, 0), find_centre(1, 0)),
        (find_centre(0, 1), find_centre(0, 0)),
        ((0, 0), find_centre(0, 1)),
    ]
    lines = [",".join(version.header)]
    for points in trips:
        places = iter([str(item) for point in points for item in point])
        columns = [YELLOW.find_column(name) for name in version.header]
        lines.append(
            ",".join(values[column.kind] if column else next(places) for column in columns)
        )
    path.write_text("\n".join(lines) + "\n")


def clean_day(runs: Runs) -> tuple[dict[str, object], pd.DataFrame]:
    """Return the metadata of the cleaned day, and its rows."""
    result = runs.run("yellow", DAY, asset_selection=KEYS)
    assert result.success, stores.failure(result)
    event = runs.materializations(result.run_id)["yellow/cleaned_trips", DAY]
    metadata = {name: getattr(value, "value", None) for name, value in event.metadata.items()}
    path = stores.lake() / "_cleaned/yellow/2014/05/05/trips.parquet"
    return metadata, pd.read_parquet(path, columns=["pulocationid", "dolocationid"])


def test_month_with_coordinates_gets_zones_from_polygons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_month(tmp_path / "yellow_2014-05.csv")
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_{year}-{month}.csv"))
    monkeypatch.setenv("TAXI_START_DATE", "2014-05-01")
    runs = Runs()
    without, frame = clean_day(runs)
    assert frame["pulocationid"].isna().all()
    assert not [name for name in without if "zones" in name or "coordinates" in name]
    zones = write_zip(tmp_path / "taxi_zones.zip", tmp_path / "unpacked")
    monkeypatch.setenv("TAXI_ZONES", str(zones))
    cleaned, frame = clean_day(runs)
    assert frame["pulocationid"].fillna(0).tolist() == [41, 7, 0]
    assert frame["dolocationid"].tolist() == [42, 41, 7]
    counts = {name: value for name, value in cleaned.items() if "LOCATIONID" in name.upper()}
    assert counts == {
        "pulocationid_by_coordinates": 2,
        "pulocationid_outside_zones": 1,
        "dolocationid_by_coordinates": 3,
        "dolocationid_outside_zones": 0,
    }
    monkeypatch.setenv("TAXI_ZONES", str(tmp_path / "gone.zip"))
    result = runs.run("yellow", DAY, asset_selection=KEYS)
    assert not result.success
    assert "TAXI_ZONES: " in stores.failure(result)
