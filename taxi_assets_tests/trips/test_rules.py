"""The rows that each rule drops, and the rule that they count under."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest

from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import GREEN, YELLOW
from taxi_assets.trips.expected_values import DESCRIPTIONS
from taxi_assets.trips.rules import FARES, RULES, apply_rules

DROPPED: dict[str, tuple[str, list[float | None], list[float | None]]] = {
    "zero_passengers": ("passenger_count", [0, -1], [1, 9, None]),
    "null_passengers": ("passenger_count", [None], [0, 1]),
    "zero_distance": ("trip_distance", [0.0, -0.1], [0.01, None]),
    "negative_total": ("total_amount", [-0.01], [0.0, 5.0, None]),
    "outside_fare": ("fare_amount", [-1.0, FARES[1] + 0.01], [0.0, 500.0, None]),
    "null_vendor": ("vendorid", [None], [1]),
}


def build_rows(service: Service = YELLOW, **columns: list[float | None]) -> pa.Table:
    number = len(next(iter(columns.values())))
    return pa.table(
        {column.name: columns.get(column.name, [None] * number) for column in service.columns},
        schema=service.arrow_schema,
    )


def test_every_rule_is_described_and_tested() -> None:
    # Rules of the schema are tested with the check that shares them, in defs/test_value_checks.py.
    assert set(DROPPED) == set(RULES) - set(DESCRIPTIONS)
    assert all(rule.description for rule in RULES.values())


@pytest.mark.parametrize("name", DROPPED)
def test_rule_drops_its_rows(name: str) -> None:
    column, dropped_values, kept_values = DROPPED[name]
    remaining, dropped = apply_rules(
        build_rows(**{column: [*dropped_values, *kept_values]}), YELLOW, [name]
    )
    assert dropped == {name: len(dropped_values)}
    assert remaining[column].to_pylist() == kept_values


def test_row_counts_under_the_first_rule_that_drops_it() -> None:
    table = build_rows(passenger_count=[0, 1, None, 0], trip_distance=[0.0, 0.0, 0.0, 1.0])
    for names, counts in (
        (["zero_passengers", "null_passengers", "zero_distance"], [2, 1, 1]),
        (["zero_distance", "null_passengers", "zero_passengers"], [3, 0, 1]),
        (["zero_distance"], [3]),
    ):
        remaining, dropped = apply_rules(table, YELLOW, names)
        assert list(dropped.items()) == list(zip(names, counts, strict=True))
        assert remaining.num_rows == 4 - sum(counts)


def test_no_rules_drop_no_rows() -> None:
    table = build_rows(passenger_count=[0, None])
    assert apply_rules(table, YELLOW, []) == (table, {})


def test_rule_without_its_column_drops_nothing() -> None:
    columns = tuple(
        column for column in GREEN.columns if column.name not in ("passenger_count", "extra")
    )
    service = dataclasses.replace(GREEN, columns=columns, schema_versions=())
    table = build_rows(service, total_amount=[-1.0, 1.0])
    remaining, dropped = apply_rules(table, service, list(RULES))
    assert (remaining.num_rows, dropped["negative_total"], sum(dropped.values())) == (0, 1, 2)
    assert not {"zero_passengers", "null_passengers"} & set(dropped)
