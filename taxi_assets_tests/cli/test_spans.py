"""Spans of days as people write them."""

from __future__ import annotations

from datetime import date

import pytest

from taxi_assets.cli.spans import UsageError, find_service, parse_partition_span, parse_span
from taxi_assets.partitions import daily_partitions


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2021-02", "2021-02-01", "2021-02-28"),
        ("2019-12..2020-02", "2019-12-01", "2020-02-29"),
        ("2021-01-05", "2021-01-05", "2021-01-05"),
        ("2021-01-05..2021-02-10", "2021-01-05", "2021-02-10"),
        ("2021-01..2021-01-10", "2021-01-01", "2021-01-10"),
        ("2021-01-30..2021-02", "2021-01-30", "2021-02-28"),
    ],
)
def test_span_includes_all_of_its_days(text: str, first: str, last: str) -> None:
    window = parse_span(text)
    assert (str(window.start), str(max(window))) == (first, last)


@pytest.mark.parametrize(
    "text",
    [
        *("", "2021", "2021-13", "2021-02-30", "2021-02..2021-01", "2021-01-05..2021-01-04", "x"),
        *("0000-01", "9999-12", "9999-12-31"),
    ],
)
def test_invalid_span_is_one_line_of_error(text: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_span(text)
    assert "\n" not in str(error.value)
    assert repr(text) in str(error.value)


def test_span_ends_with_the_last_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-01")
    last_partition = daily_partitions().get_last_partition_key() or ""
    assert str(max(parse_partition_span(f"2021-01..{last_partition[:7]}"))) == last_partition
    with pytest.raises(UsageError, match="2020-12-01 is before the first partition, 2021-01-01"):
        parse_partition_span("2020-12..2021-02")
    with pytest.raises(UsageError, match=r"after the last partition, .*: .* is yesterday's"):
        parse_partition_span(f"{date.today().year + 1}-01")  # noqa: DTZ011 - any day of next year
    monkeypatch.setenv("TAXI_END_DATE", "2021-01-31")
    with pytest.raises(UsageError, match="2021-01-31: set TAXI_END_DATE to 2021-02-01 or a later"):
        parse_partition_span("2021-02")


def test_unknown_service_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="there is no service 'red': choose one of yellow, green"):
        find_service("red")
    with pytest.raises(UsageError, match="service 'fhv': set TAXI_SERVICES=yellow,green,fhv,"):
        find_service("fhv")
