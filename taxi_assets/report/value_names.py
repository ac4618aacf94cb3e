"""The names of coded values, and the format of numbers for readers."""

from __future__ import annotations

import re
from functools import cache

from taxi_assets.report.zones import find_zone
from taxi_assets.tlc.column import Column

CODE = re.compile(r"\b(\d+) ([^,;()]+)")
"""A code in a column's description: `1 credit card`."""
ZONE_COLUMN = "locationid"
"""Suffix of the names of zone columns."""


@cache
def _parse_codes(column: Column) -> dict[int, str]:
    if column.kind != "id" or column.name.endswith(ZONE_COLUMN):
        return {}
    return {int(code): name.strip() for code, name in CODE.findall(column.description)}


def name_value(column: Column, value: object) -> str:
    """Return a value for readers: the name of a taxi zone or of a code, else a formatted number."""
    if isinstance(value, int) and column.name.endswith(ZONE_COLUMN):
        return find_zone(value).name
    if isinstance(value, int) and value in _parse_codes(column):
        return _parse_codes(column)[value]
    return format_value(value)


def format_value(value: object) -> str:
    """Return a number with separators and at most two decimals; return text unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.2f}".removesuffix(".00")


def shorten(text: str, length: int) -> str:
    """Return a text of at most `length` characters, which ends with `…` if it was longer."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def shorten_words(text: str, length: int) -> str:
    """Return a text with shortened words, because a browser breaks lines between words only."""
    return " ".join(shorten(word, length) for word in text.split(" "))


def format_share(rows: int, of_rows: int) -> str:
    """Return a share as `12%`, `0.4%`, `<0.1%`; empty for 0."""
    if not rows or not of_rows:
        return ""
    percent = 100 * rows / of_rows
    if percent < 0.1:  # noqa: PLR2004 - the last digit that is written
        return "<0.1%"
    return f"{percent:.0f}%" if percent >= 10 else f"{percent:.1f}%"  # noqa: PLR2004
