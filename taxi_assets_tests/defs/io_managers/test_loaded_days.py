"""Stored days as frames and tables, by the annotation of an input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from taxi_assets.definitions import build_defs
from taxi_assets.defs.io_managers.loaded_days import DailyFrames, DailyTables, load_as_annotated
from taxi_assets.errors import PartitionNotStoredError, PartitionRejectedError, TerminalError
from taxi_assets.partitions import daily_partitions
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.test_daily import ASSET_NAMES, make_trip_line, write_month
from taxi_assets_tests.stores import Runs

GREEN = SERVICES["green"]
ASSET = "green/cleaned_trips"
DAYS = [date(2021, 1, 5), date(2021, 1, 6)]


def read(day: date) -> pa.Table:
    return pa.table({"day": [str(day)], "number": [day.day]})


@pytest.mark.parametrize(
    ("annotation", "kind", "key", "value"),
    [
        (DailyFrames, DailyFrames, date, pd.DataFrame),
        (DailyTables, DailyTables, date, pa.Table),
        (Mapping, DailyFrames, date, pd.DataFrame),
        (dict, dict, date, pd.DataFrame),
        (dict[str, pd.DataFrame], dict, str, pd.DataFrame),
        (dict[date, pa.Table], dict, date, pa.Table),
    ],
)
@pytest.mark.parametrize("days", [DAYS[:1], DAYS])
def test_annotation_decides_between_frame_and_mapping(
    annotation: Any, kind: type, key: type, value: type, days: list[date]
) -> None:
    loaded = load_as_annotated(annotation, days, read, ASSET)
    assert type(loaded) is kind
    assert [str(day) for day in loaded] == list(map(str, days))
    assert all(isinstance(day, key) and isinstance(rows, value) for day, rows in loaded.items())
    assert [
        int(rows["number"][0].as_py() if value is pa.Table else rows["number"][0])
        for rows in loaded.values()
    ] == [day.day for day in days]
    assert len(loaded) == len(days)


def test_single_day_is_a_frame_or_a_table() -> None:
    for annotation, kind in (
        (Any, pd.DataFrame),
        (pd.DataFrame, pd.DataFrame),
        (pa.Table, pa.Table),
    ):
        assert isinstance(load_as_annotated(annotation, DAYS[:1], read, ASSET), kind)
    assert isinstance(load_as_annotated(Any, DAYS, read, ASSET), DailyFrames)
    for annotation in (pd.DataFrame, pa.Table, list):
        with pytest.raises(
            TerminalError,
            match=rf"^{ASSET}: 2 days cannot be loaded as {annotation.__name__}: annotate .* Daily",
        ):
            load_as_annotated(annotation, DAYS, read, ASSET)
    for annotation in (Any, pa.Table):
        with pytest.raises(TerminalError, match=rf"^{ASSET}: .* choose one of 202\d-\d\d-01 to "):
            load_as_annotated(annotation, [], read, ASSET)
    assert load_as_annotated(DailyFrames, [], read, ASSET) == {}


def test_iterator_reads_each_day_on_demand() -> None:
    days_read: list[date] = []

    def noted(day: date) -> pa.Table:
        days_read.append(day)
        return read(day)

    pairs = load_as_annotated(Iterator, DAYS, noted, ASSET)
    assert days_read == []
    day, frame = next(pairs)
    assert (day, days_read, list(frame["number"])) == (DAYS[0], DAYS[:1], [5])
    frames = load_as_annotated(DailyFrames, DAYS, noted, ASSET)
    assert days_read == DAYS[:1]
    with pytest.raises(KeyError):
        frames[date(2021, 1, 7)]


SEEN: dict[str, list[str]] = {}
"""Type and row counts of the input of the assets below, by name."""


def define_own_asset(name: str, annotation: Any) -> dg.AssetsDefinition:
    """Define an asset that takes the lake's trips as annotated."""

    def body(trips: Any) -> None:
        days = dict(trips) if isinstance(trips, Iterator | Mapping) else {"": trips}
        kinds = {type(rows).__name__ for rows in days.values()}
        kind = "Iterator" if isinstance(trips, Iterator) else type(trips).__name__
        SEEN[name] = [kind, *kinds, *(str(len(rows)) for rows in days.values())]

    body.__annotations__["trips"] = annotation
    lake = {"trips": dg.AssetIn(["green", "gcs_trips"])}
    return dg.asset(name=name, partitions_def=daily_partitions(), ins=lake)(body)


def check_annotated_inputs(instance: dg.DagsterInstance) -> None:
    """Run assets of a user over a day and a range; Dagster checks the types, too."""
    annotations = {
        "frame": pd.DataFrame,
        "table": pa.Table,
        "frames": DailyFrames,
        "tables": DailyTables,
        "pairs": Iterator,
        "texts": dict[str, pa.Table],
        "dates": Mapping[date, pd.DataFrame],
        "whatever": Any,
    }
    ours = [define_own_asset(name, annotation) for name, annotation in annotations.items()]
    defs = dg.Definitions.merge(build_defs(), dg.Definitions(assets=ours))
    one_day = {"dagster/partition": str(DAYS[0])}
    ranged = {
        "dagster/asset_partition_range_start": str(DAYS[0]),
        "dagster/asset_partition_range_end": str(DAYS[1]),
    }

    def run(tags: dict[str, str], *names: str) -> dg.ExecuteInProcessResult:
        job = dg.define_asset_job("own", selection=list(names))
        merged = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("own")
        return merged.execute_in_process(tags=tags, instance=instance, raise_on_error=False)

    assert run(one_day, *annotations).success
    assert SEEN == {
        "frame": ["DataFrame", "DataFrame", "2"],
        "table": ["Table", "Table", "2"],
        "frames": ["DailyFrames", "DataFrame", "2"],
        "tables": ["DailyTables", "Table", "2"],
        "pairs": ["Iterator", "DataFrame", "2"],
        "texts": ["dict", "Table", "2"],
        "dates": ["dict", "DataFrame", "2"],
        "whatever": ["DataFrame", "DataFrame", "2"],
    }
    several = ("frames", "tables", "pairs", "texts", "dates", "whatever")
    assert run(ranged, *several).success
    assert {SEEN[name][0] for name in ("frames", "whatever")} == {"DailyFrames"}
    assert {tuple(SEEN[name][2:]) for name in several} == {("2", "1")}
    assert "2 days cannot be loaded as" in stores.failure(run(ranged, "frame"))


@pytest.mark.usefixtures("empty_stores")
def test_every_asset_loads_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        make_trip_line(str(DAYS[0]), 10.5),
        make_trip_line(str(DAYS[0]), 11),
        make_trip_line(str(DAYS[0]), 7, "0"),
    ]
    source = write_month(tmp_path, GREEN, "2021-01", [*lines, make_trip_line(str(DAYS[1]), 1)])
    monkeypatch.setenv("TAXI_SOURCE", source)
    runs = Runs()
    assert runs.run("green", str(DAYS[0]), "2021-01-07").success
    check_annotated_inputs(runs.instance)
    with build_defs().get_asset_value_loader(runs.instance) as loader:

        def load(name: str, day: str = str(DAYS[0]), **options: Any) -> Any:
            return loader.load_asset_value(["green", name], partition_key=day, **options)

        raw = load("raw_trips")
        assert list(raw.columns) == list(GREEN.header)
        assert [",".join(row) for row in raw.itertuples(index=False)] == lines
        columns = [column.name for column in GREEN.columns]
        cleaned = load("cleaned_trips")
        assert {name: str(kind) for name, kind in cleaned.dtypes.items()} == GREEN.pandas_types
        assert sorted(cleaned["total_amount"]) == [10.5, 11.0]
        for name in ASSET_NAMES[2:]:
            loaded = load(name).sort_values(columns).reset_index(drop=True)
            pd.testing.assert_frame_equal(loaded, cleaned.sort_values(columns, ignore_index=True))
        assert load("gcs_trips", python_type=pa.Table).schema.equals(GREEN.arrow_schema)
        ranged = dg.PartitionKeyRange(str(DAYS[0]), str(DAYS[1]))
        frames = loader.load_asset_value(["green", "bigquery_trips"], partition_key_range=ranged)
        assert {day: len(frame) for day, frame in frames.items()} == {DAYS[0]: 2, DAYS[1]: 1}
        with pytest.raises(TerminalError, match="the requested day is not a partition"):
            load("cleaned_trips", "2999-01-05")
        with pytest.raises(TerminalError, match="name one, as in partition_key='2021-01-05'"):
            loader.load_asset_value(["green", "cleaned_trips"])
        for name in ASSET_NAMES:
            assert len(load(name, "2021-01-07")) == 0
            with pytest.raises(
                PartitionNotStoredError, match=f"materialize green/{name} for that day"
            ):
                load(name, "2021-01-09")
        write_month(tmp_path, GREEN, "2021-01", [make_trip_line(str(DAYS[0]), "abc")])  # type: ignore[arg-type]
        assert not runs.run("green", str(DAYS[0])).success
        for name in ASSET_NAMES[1:]:
            with pytest.raises(PartitionRejectedError, match="rejected it in run"):
                load(name)
        assert len(load("raw_trips")) == 1
        stores.drop_tables()
        for name in ("postgres_trips", "bigquery_trips"):
            with pytest.raises(PartitionNotStoredError, match=f"materialize green/{name}"):
                load(name, str(DAYS[1]))
