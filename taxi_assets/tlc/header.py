"""The columns of a month file: which of the service's columns each published name is.

A file is of the era whose names its own match best. The names of an era may come with others,
known or new; one that is missing beside a new one is a renamed column, and rejected. Whether a new
name at the end is a column more or the renamed last one, the file's month decides.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache

import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.schema import Column, SchemaVersion, Service, loose_key, normalize_name

# What pandas calls a column that has no name.
NAMELESS = re.compile(r"(unnamed: \d+)?")
MAX_HEADER_BYTES = 1 << 16
"""Bytes."""
STORED = Month(1, 1)
"""Month of a raw slice's header: its file had the columns that were due, and none is by now."""


class HeaderError(ValueError):
    """What is wrong with a header, as part of a sentence."""


@dataclass(frozen=True)
class Header:
    """The columns of a file, in its order."""

    service: Service
    names: tuple[str, ...]
    """As published, without blanks around them."""
    schema_version: SchemaVersion

    @cached_property
    def columns(self) -> tuple[Column | None, ...]:
        """The service's column of each name; None for what stays in raw."""
        return tuple(self.service.find_column(name) for name in self.names)

    @cached_property
    def places(self) -> dict[str, int]:
        """Position of each of the service's columns that the file has."""
        return {name: places[0] for name, places in self.all_places.items()}

    @cached_property
    def all_places(self) -> dict[str, tuple[int, ...]]:
        """Positions of each of the service's columns that the file has, the preferred one first."""
        found: dict[str, list[int]] = {}
        for at, column in enumerate(self.columns):
            if column:
                found.setdefault(column.name, []).append(at)
        return {name: self._by_preference(places) for name, places in found.items()}

    def _by_preference(self, places: list[int]) -> tuple[int, ...]:
        """Sort positions of one column by its names: the published one, then the aliases."""
        column = self.columns[places[0]]
        if column is None or len(places) == 1:
            return tuple(places)
        names = [loose_key(name) for name in (column.published, *column.aliases)]
        return tuple(sorted(places, key=lambda at: names.index(loose_key(self.names[at]))))

    @cached_property
    def points(self) -> dict[str, tuple[int, int]]:
        """Positions of longitude and latitude that the file has in place of a column, by column."""
        at = {normalize_name(name): place for place, name in enumerate(self.names)}
        return {
            column.name: (at[normalize_name(x)], at[normalize_name(y)])
            for column in self.service.columns
            for x, y in column.points
            if column.name not in self.places
            and normalize_name(x) in at
            and normalize_name(y) in at
        }

    @cached_property
    def published(self) -> dict[str, str]:
        """The file's name for each of the service's columns that it has."""
        return {name: self.names[at] for name, at in self.places.items()}

    @cached_property
    def pickup_index(self) -> int:
        """Position of the pickup time."""
        return self.places[self.service.pickup_column]

    @cached_property
    def labels(self) -> dict[str, dict[str, str]]:
        """By column that is published in labels: the label in capitals, and its value."""
        return {
            column.name: dict(column.labels)
            for column in self.columns
            if column and column.labels and (self.schema_version.labels or column.kind == "text")
        }

    @cached_property
    def raw_only(self) -> tuple[str, ...]:
        """Known columns that the schema has no place for."""
        known = set(map(normalize_name, self.service.elsewhere))
        return tuple(name for name in self.names if normalize_name(name) in known)

    @cached_property
    def unknown(self) -> tuple[str, ...]:
        """Columns never seen before; they are kept in raw."""
        pairs = zip(self.names, self.columns, strict=True)
        return tuple(name for name, column in pairs if not column and name not in self.raw_only)

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """The service's columns that the file lacks: null in the stores."""
        return tuple(one.name for one in self.service.columns if one.name not in self.places)


def parse_header_line(line: bytes, service: Service, month: Month | None = None) -> Header:
    """Parse a CSV header line; Excel's unnamed last columns are ignored.

    Args:
        line: the header as published.
        service: whose trips.
        month: whose file it is, where that is known.

    Raises:
        HeaderError: naming the columns that are missing, unknown or in another place.
    """
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    if "\r" in text:
        raise HeaderError("its lines end in CR alone, not LF or CRLF")
    # Only a name with a comma in it needs its quotes; broken ones are left to the comparison.
    names = next(csv.reader([text], skipinitialspace=True)) if '"' in text else text.split(",")
    while len(names) > 1 and not names[-1].strip(' "'):
        names.pop()
    return match_header(tuple(names), service, month=month)


def parse_stored_header(content: pa.Buffer | pa.Table, service: Service) -> Header:
    """Return the header of a day's raw partition: CSV lines under their header, or a table.

    Raises:
        HeaderError: naming the columns that are missing, unknown or in another place.
    """
    if isinstance(content, pa.Table):
        return match_header(tuple(content.schema.names), service, by_name=True, month=STORED)
    line, _, _ = content[:MAX_HEADER_BYTES].to_pybytes().partition(b"\n")
    return parse_header_line(line, service, STORED)


@lru_cache(maxsize=64)
def match_header(
    published: Sequence[str],
    service: Service,
    *,
    by_name: bool = False,
    month: Month | None = None,
) -> Header:
    """Match published names to the service's columns.

    Args:
        published: their names, in order.
        service: whose trips.
        by_name: readers find columns by name (Parquet), so that their order tells nothing and
            one that is not there is null.
        month: whose file it is, where that is known.

    Raises:
        HeaderError: naming the columns that are missing, unknown or in another place.
    """
    names = tuple(name.strip().strip('"').strip() for name in published)
    by_name = by_name or not service.has_fixed_order
    nearest, *others = (
        Header(service, names, schema_version)
        for schema_version in _rank_by_closeness(names, service, month)
    )
    try:
        return _check_columns(nearest, by_name=by_name)
    except HeaderError:
        if month is None or any(service.is_due(name, month) for name in _find_missing(nearest)):
            raise
        # A column more, of later years, made the file look like theirs.
        for header in others:
            with suppress(HeaderError):
                return _check_columns(header, by_name=by_name)
        raise


def _check_columns(header: Header, *, by_name: bool) -> Header:
    """Return the header, if its file has the columns of its era."""
    names, service = header.names, header.service
    expected = {
        _normalize_alias(name, service): name.strip() for name in header.schema_version.header
    }
    found = [_normalize_alias(name, service) for name in names]
    missing = _find_missing(header)
    nameless = [str(at) for at, name in enumerate(names, 1) if NAMELESS.fullmatch(name.lower())]
    twice = [
        name
        for name, columns in Counter(found).items()
        if name and columns > 1 and not _is_repeatable(name, names, service)
    ]
    unknown = [repr(name[:40]) for name in header.unknown if name]
    lacks = any(name not in header.places for name in service.required)
    if lacks or nameless or twice or (missing and (unknown or not by_name)):
        differs = (
            f"missing {', '.join(missing)}" if missing else "",
            f"unknown {', '.join(unknown[:5])}" if unknown else "",
            f"no name in column {', '.join(nameless[:5])}, as pandas writes an index"
            if nameless
            else "",
            f"twice {', '.join(expected.get(name, name) for name in twice)}" if twice else "",
        )
        raise HeaderError("; ".join(part for part in differs if part))
    if not by_name:
        _check_order(names, [one in expected for one in found], header.schema_version, service)
    return header


def _is_repeatable(identity: str, names: Sequence[str], service: Service) -> bool:
    """Return whether a column may be in the file under several of its names."""
    spelled = [loose_key(name) for name in names if _normalize_alias(name, service) == identity]
    column = service.by_name.get(identity)
    return column is not None and column.repeated and len(set(spelled)) == len(spelled)


def _find_missing(header: Header) -> list[str]:
    """Return the names of the schema version that the file does not have."""
    found = {_normalize_alias(name, header.service) for name in header.names}
    names = header.schema_version.header
    return [name.strip() for name in names if _normalize_alias(name, header.service) not in found]


def _normalize_alias(name: str, service: Service) -> str:
    """Return the key that a name and its aliases share."""
    column = service.find_column(name)
    return column.name if column else normalize_name(name)


def _rank_by_closeness(
    names: Sequence[str], service: Service, month: Month | None
) -> list[SchemaVersion]:
    """Rank the schema versions by how well their names match; ties go to the newest of CSV.

    An unknown name at the place of a column that CSV files have by the month is taken for it.
    """
    found = {_normalize_alias(name, service) for name in names}
    spelled = set(map(normalize_name, names))
    raw_only = set(map(normalize_name, service.elsewhere))
    unknown = {
        at
        for at, name in enumerate(names)
        if not service.find_column(name) and normalize_name(name) not in raw_only
    }

    def closeness(schema_version: SchemaVersion) -> tuple[int, int, bool]:
        expected = {_normalize_alias(name, service) for name in schema_version.header}
        same = len(spelled & set(map(normalize_name, schema_version.header)))
        renamed = 0
        if month and not schema_version.parquet and service.has_fixed_order:
            renamed = sum(
                at in unknown and service.is_due(name, month)
                for at, name in enumerate(schema_version.header)
                if _normalize_alias(name, service) not in found
            )
        missing = len(expected - found) - renamed
        return len(expected & found) - missing, same, not schema_version.parquet

    newest_first = service.all_schema_versions[::-1]
    return sorted(newest_first, key=closeness, reverse=True)


def _check_order(
    names: Sequence[str], of_era: Sequence[bool], schema_version: SchemaVersion, service: Service
) -> None:
    kept = [
        (at, name) for at, (name, known) in enumerate(zip(names, of_era, strict=True), 1) if known
    ]
    for (at, name), expected in zip(kept, schema_version.header, strict=True):
        if _normalize_alias(name, service) != _normalize_alias(expected, service):
            raise HeaderError(
                f"in another order: column {at} is {name} instead of {expected.strip()}"
            )
