"""A day's profile says what pandas says of the same frame."""

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


def frame(rows: int, seed: int = 3) -> pd.DataFrame:
    """Rows of one day with nulls, ties, negative and very large amounts."""
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
def test_every_column_in_figures_is_what_pandas_says(rows: int) -> None:
    made = frame(rows)
    found = profile_partition(convert_to_table(made, YELLOW), YELLOW)
    assert found.rows == rows
    assert [one.column for one in found.columns] == list(made)
    for one in found.columns:
        column = made[one.column]
        assert one.nulls == column.isna().sum()
        assert one.distinct == column.nunique()
        if not one.distinct:
            assert (one.least, one.mean, one.most, one.top) == (None, None, None, [])
        elif column.dtype.kind == "M":
            assert (one.least, one.most) == (str(column.min()), str(column.max()))
            assert (one.mean, one.top) == (None, [])
        else:
            assert (one.least, one.most) == (column.min(), column.max())
            counts = column.value_counts()
            assert [count for _, count in one.top] == list(counts.head(3))
            assert all(counts[value] == count for value, count in one.top)
            if column.dtype != "string":
                assert one.mean == pytest.approx(column.mean(), abs=1e-4)


def test_hours_bins_and_medians_are_what_pandas_says() -> None:
    made = frame(3000)
    found = profile_partition(convert_to_table(made, YELLOW), YELLOW)
    hours = made[YELLOW.pickup_column].dt.hour.value_counts()
    assert found.hours == [hours.get(hour, 0) for hour in range(24)]
    for bins in list_bins(YELLOW):
        column = made[bins.column]
        edges = [-math.inf, *(bins.width * at for at in range(bins.count + 1)), math.inf]
        expected = pd.cut(column, edges, right=False).value_counts(sort=False)
        assert found.bins[bins.column] == list(expected)
        assert found.medians[bins.column] == pytest.approx(column.median())


def test_times_with_parts_of_seconds_or_far_apart_are_counted_too() -> None:
    made = frame(4)
    times = [DAY, DAY, DAY + timedelta(microseconds=5), DAY + timedelta(days=900)]
    made["tpep_dropoff_datetime"] = pd.Series(times, dtype="datetime64[us]")
    found = profile_partition(convert_to_table(made, YELLOW), YELLOW)
    dropoff = next(one for one in found.columns if one.column == "tpep_dropoff_datetime")
    assert (dropoff.distinct, dropoff.most) == (3, "2023-06-24 00:00:00")


def test_the_first_rows_are_plain_values_in_order() -> None:
    made = frame(9)
    first = profile_partition(convert_to_table(made, YELLOW), YELLOW).first
    assert len(first) == 5
    for row, (_, expected) in zip(first, made.iterrows(), strict=False):
        for name, value in zip(made, row, strict=True):
            assert (value is None) == pd.isna(expected[name])
            assert value is None or str(value) == str(expected[name])


@pytest.mark.parametrize("rows", [0, 50])
def test_a_profile_survives_json(rows: int) -> None:
    found = profile_partition(convert_to_table(frame(rows), YELLOW), YELLOW)
    facts = json.loads(json.dumps(found.to_metadata(), allow_nan=False))
    assert DayProfile.from_metadata(facts) == found
    assert DayProfile.from_metadata({**facts, "more": 1}) is None
    assert DayProfile.from_metadata({}) is None


def test_the_first_and_last_values_that_stores_hold_have_a_profile() -> None:
    made = frame(40)
    made["tpep_dropoff_datetime"] = [datetime.min, datetime.max] * 20  # noqa: DTZ901
    made["tpep_dropoff_datetime"] = made["tpep_dropoff_datetime"].astype("datetime64[us]")
    made["passenger_count"] = pd.array([2**63 - 1, -(2**63)] * 20, "Int64")
    made["total_amount"] = [1e18, -1e18] * 20
    found = profile_partition(convert_to_table(made, YELLOW), YELLOW)
    json.dumps(found.to_metadata(), allow_nan=False)
    columns = {one.column: one for one in found.columns}
    dropoff = columns["tpep_dropoff_datetime"]
    assert (dropoff.least, dropoff.most) == ("0001-01-01 00:00:00", "9999-12-31 23:59:59")
    assert columns["passenger_count"].most == 2**63 - 1
    assert columns["total_amount"].mean == 0
