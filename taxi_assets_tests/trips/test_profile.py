"""A day's profile equals the figures of pandas for the same frame."""

from __future__ import annotations

import json
import math
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import convert_to_table
from taxi_assets.trips.profile import DayProfile, list_bins, profile_partition

YELLOW = SERVICES["yellow"]
DAY = datetime(2021, 1, 5)  # noqa: DTZ001 - New York wall time, as in the files


def make_frame(rows: int, seed: int = 3) -> pd.DataFrame:
    """Return rows of one day with nulls, ties, negative and very large amounts."""
    random = np.random.default_rng(seed)
    values: dict[str, pd.Series] = {}
    for column in YELLOW.columns:
        if column.kind == "time":
            seconds = random.integers(0, 86400, rows)
            values[column.name] = pd.Series([DAY + timedelta(seconds=int(n)) for n in seconds])
        elif column.kind == "text":
            values[column.name] = pd.Series(random.choice(["Y", "N"], rows))
        elif column.kind == "id":
            values[column.name] = pd.Series(random.integers(0, 5, rows))
        else:
            values[column.name] = pd.Series(random.normal(10, 30, rows).round(2))
        if column.name != YELLOW.pickup_column:
            values[column.name] = values[column.name].where(random.random(rows) > 0.2)
    values["cbd_congestion_fee"] = pd.Series([math.nan] * rows)
    return pd.DataFrame(values).astype(YELLOW.pandas_types)


@pytest.mark.parametrize("rows", [0, 1, 4, 3000])
def test_column_figures_equal_those_of_pandas(rows: int) -> None:
    frame = make_frame(rows)
    profile = profile_partition(convert_to_table(frame, YELLOW), YELLOW)
    assert profile.rows == rows
    assert [column.column for column in profile.columns] == list(frame)
    for column_profile in profile.columns:
        column = frame[column_profile.column]
        assert column_profile.nulls == column.isna().sum()
        assert column_profile.distinct == column.nunique()
        if not column_profile.distinct:
            assert (
                column_profile.least,
                column_profile.mean,
                column_profile.most,
                column_profile.top,
            ) == (None, None, None, [])
        elif column.dtype.kind == "M":
            assert (column_profile.least, column_profile.most) == (
                str(column.min()),
                str(column.max()),
            )
            assert (column_profile.mean, column_profile.top) == (None, [])
        else:
            assert (column_profile.least, column_profile.most) == (column.min(), column.max())
            counts = column.value_counts()
            assert [count for _, count in column_profile.top] == list(counts.head(3))
            assert all(counts[value] == count for value, count in column_profile.top)
            if column.dtype != "string":
                assert column_profile.mean == pytest.approx(column.mean(), abs=1e-4)


def test_hours_bins_and_medians_equal_those_of_pandas() -> None:
    frame = make_frame(3000)
    profile = profile_partition(convert_to_table(frame, YELLOW), YELLOW)
    hours = frame[YELLOW.pickup_column].dt.hour.value_counts()
    assert profile.hours == [hours.get(hour, 0) for hour in range(24)]
    for bins in list_bins(YELLOW):
        column = frame[bins.column]
        edges = [-math.inf, *(bins.width * index for index in range(bins.count + 1)), math.inf]
        expected = pd.cut(column, edges, right=False).value_counts(sort=False)
        assert profile.bins[bins.column] == list(expected)
        assert profile.medians[bins.column] == pytest.approx(column.median())


def test_fractional_and_distant_times_are_counted() -> None:
    frame = make_frame(4)
    times = [DAY, DAY, DAY + timedelta(microseconds=5), DAY + timedelta(days=900)]
    frame["tpep_dropoff_datetime"] = pd.Series(times, dtype="datetime64[us]")
    profile = profile_partition(convert_to_table(frame, YELLOW), YELLOW)
    dropoff = next(column for column in profile.columns if column.column == "tpep_dropoff_datetime")
    assert (dropoff.distinct, dropoff.most) == (3, "2023-06-24 00:00:00")


def test_first_rows_are_plain_values_in_order() -> None:
    frame = make_frame(9)
    first_rows = profile_partition(convert_to_table(frame, YELLOW), YELLOW).first
    assert len(first_rows) == 5
    for row, (_, expected) in zip(first_rows, frame.iterrows(), strict=False):
        for name, value in zip(frame, row, strict=True):
            assert (value is None) == pd.isna(expected[name])
            assert value is None or str(value) == str(expected[name])


@pytest.mark.parametrize("rows", [0, 50])
def test_profile_round_trips_through_json(rows: int) -> None:
    profile = profile_partition(convert_to_table(make_frame(rows), YELLOW), YELLOW)
    metadata = json.loads(json.dumps(profile.to_metadata(), allow_nan=False))
    assert DayProfile.from_metadata(metadata) == profile
    assert DayProfile.from_metadata({**metadata, "more": 1}) is None
    assert DayProfile.from_metadata({}) is None


def test_profile_of_the_extreme_values_that_stores_hold() -> None:
    frame = make_frame(40)
    frame["tpep_dropoff_datetime"] = [datetime.min, datetime.max] * 20  # noqa: DTZ901
    frame["tpep_dropoff_datetime"] = frame["tpep_dropoff_datetime"].astype("datetime64[us]")
    frame["passenger_count"] = pd.array([2**63 - 1, -(2**63)] * 20, "Int64")
    frame["total_amount"] = [1e18, -1e18] * 20
    profile = profile_partition(convert_to_table(frame, YELLOW), YELLOW)
    json.dumps(profile.to_metadata(), allow_nan=False)
    columns = {column.column: column for column in profile.columns}
    dropoff = columns["tpep_dropoff_datetime"]
    assert (dropoff.least, dropoff.most) == ("0001-01-01 00:00:00", "9999-12-31 23:59:59")
    assert columns["passenger_count"].most == 2**63 - 1
    assert columns["total_amount"].mean == 0
