"""The header of a month file: map each published name to a column of the service.

A file belongs to the schema version whose names match its own best. Additional names, known or new,
are accepted. A missing name together with a new one means a renamed column, which is rejected. For
a new name at the end, the file's month decides whether it is an additional or a renamed column.
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
from taxi_assets.tlc.column import Column, normalize_loosely, normalize_name
from taxi_assets.tlc.schema import SchemaVersion, Service

# The names that pandas gives to columns without one.
NAMELESS = re.compile(r"(unnamed: \d+)?")
MAX_HEADER_BYTES = 1 << 16
FIRST_LINE = 2
"""Number of the first line after the header, in a month and in a day."""
STORED = Month(1, 1)
"""Month for the header of a stored raw partition: its file has already been checked, and no column
is due in this month."""


class HeaderError(ValueError):
    """A header is invalid; the message is part of a sentence."""

    def describe(self, service: Service) -> tuple[str, str]:
        """Return the problem with the file, as a predicate, and its fix."""
        expected = f"{','.join(service.header)}, or the names of another year"
        problem = f"has a wrong header ({self}): expected {expected}"
        return problem, f"is this a {service.name} month as published?"


@dataclass(frozen=True)
class Header:
    """The columns of a file, in its order."""

    service: Service
    names: tuple[str, ...]
    """Published names, without surrounding blanks."""
    schema_version: SchemaVersion

    @cached_property
    def columns(self) -> tuple[Column | None, ...]:
        """The service's column for each name; None for a raw-only or unknown one."""
        return tuple(self.service.find_column(name) for name in self.names)

    @cached_property
    def places(self) -> dict[str, int]:
        """Position of each of the service's columns in the file."""
        return {name: places[0] for name, places in self.all_places.items()}

    @cached_property
    def all_places(self) -> dict[str, tuple[int, ...]]:
        """Positions of each of the service's columns in the file, the preferred one first."""
        places: dict[str, tuple[int, ...]] = {}
        for column in filter(None, self.columns):
            names = [normalize_loosely(name) for name in (column.published, *column.aliases)]
            ranked = [
                (names.index(normalize_loosely(self.names[at])), at)
                for at, other in enumerate(self.columns)
                if other is column
            ]
            places[column.name] = tuple(at for _, at in sorted(ranked))
        return places

    @cached_property
    def points(self) -> dict[str, tuple[int, int]]:
        """By column: positions of the longitude and latitude that the file has in its place."""
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
        """The file's name for each of the service's columns in it."""
        return {name: self.names[at] for name, at in self.places.items()}

    @cached_property
    def pickup_index(self) -> int:
        """Position of the pickup time."""
        return self.places[self.service.pickup_column]

    @cached_property
    def labels(self) -> dict[str, dict[str, str]]:
        """By column that is published as labels: each label, in capitals, and its value."""
        return {
            column.name: dict(column.labels)
            for column in self.columns
            if column and column.labels and (self.schema_version.labels or column.kind == "text")
        }

    @cached_property
    def raw_only(self) -> tuple[str, ...]:
        """Known columns that are stored in `raw_trips` only."""
        raw_only = set(map(normalize_name, self.service.raw_only_columns))
        return tuple(name for name in self.names if normalize_name(name) in raw_only)

    @cached_property
    def unknown(self) -> tuple[str, ...]:
        """Unknown columns; they are stored in `raw_trips` only."""
        pairs = zip(self.names, self.columns, strict=True)
        return tuple(name for name, column in pairs if not column and name not in self.raw_only)

    @cached_property
    def identities(self) -> tuple[str, ...]:
        """For each name, the key that it shares with its aliases."""
        return tuple(map(self.service.identify, self.names))

    @cached_property
    def missing(self) -> tuple[str, ...]:
        """Names of the schema version that are not in the file."""
        return tuple(
            name.strip()
            for name in self.schema_version.header
            if self.service.identify(name) not in self.identities
        )

    @cached_property
    def absent(self) -> tuple[str, ...]:
        """The service's columns that are not in the file; they are null in the stores."""
        return tuple(
            column.name for column in self.service.columns if column.name not in self.places
        )

    def rate_closeness(self, month: Month | None) -> tuple[int, int, bool]:
        """Rate how well the names match those of the schema version; a CSV version wins a tie.

        An unknown name at the position of a column that is due by the month counts as that column.
        """
        service, version = self.service, self.schema_version
        expected, present = set(map(service.identify, version.header)), set(self.identities)
        spelled, due = (set(map(normalize_name, names)) for names in (self.names, version.header))
        renamed = 0
        if month and not version.parquet and service.has_fixed_order:
            renamed = sum(
                name in self.unknown
                and due_name.strip() in self.missing
                and service.is_due(due_name, month)
                for name, due_name in zip(self.names, version.header, strict=False)
            )
        missing = len(expected - present) - renamed
        return len(expected & present) - missing, len(spelled & due), not version.parquet


def parse_header_line(line: bytes, service: Service, month: Month | None = None) -> Header:
    """Parse a CSV header line; unnamed last columns, as Excel writes them, are ignored.

    Args:
        line: the header as published.
        service: the service of the file.
        month: the month of the file, if known.

    Raises:
        HeaderError: naming the columns that are missing, unknown or in another place.
    """
    text = line.decode("utf-8-sig", "replace").rstrip("\r\n")
    if "\r" in text:
        raise HeaderError("its lines end in CR alone, not LF or CRLF")
    # Only a name with a comma needs its quotes; the comparison finds broken ones.
    try:
        names = next(csv.reader([text], skipinitialspace=True)) if '"' in text else text.split(",")
    except csv.Error as error:
        raise HeaderError(f"its first line cannot be read: {error}") from None
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
    return parse_header_line(read_header_line(content), service, STORED)


def read_header_line(lines: pa.Buffer) -> bytes:
    """Return the first of a day's CSV lines, with its end."""
    head = lines[:MAX_HEADER_BYTES].to_pybytes()
    return head[: head.find(b"\n") + 1 or len(head)]


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
        published: the names, in order.
        service: the service of the file.
        by_name: whether columns are found by name (Parquet): their order does not matter, and a
            missing one is null.
        month: the month of the file, if known.

    Raises:
        HeaderError: naming the columns that are missing, unknown or in another place.
    """
    names = tuple(name.strip().strip('"').strip() for name in published)
    by_name = by_name or not service.has_fixed_order
    versions = service.all_schema_versions[::-1]
    nearest, *others = sorted(
        (Header(service, names, version) for version in versions),
        key=lambda header: header.rate_closeness(month),
        reverse=True,
    )
    try:
        return _check_columns(nearest, by_name=by_name)
    except HeaderError:
        if month is None or any(service.is_due(name, month) for name in nearest.missing):
            raise
        # An additional column of later years made the file look like one of theirs.
        for header in others:
            with suppress(HeaderError):
                return _check_columns(header, by_name=by_name)
        raise


def _check_columns(header: Header, *, by_name: bool) -> Header:
    """Return the header if the file has the columns of its schema version."""
    names, service, missing = header.names, header.service, header.missing
    expected = {service.identify(name): name.strip() for name in header.schema_version.header}
    nameless = [str(at) for at, name in enumerate(names, 1) if NAMELESS.fullmatch(name.lower())]
    twice = [
        name
        for name, columns in Counter(header.identities).items()
        if name and columns > 1 and not _is_repeatable(name, header)
    ]
    unknown = [repr(name[:40]) for name in header.unknown if name]
    lacks_required = any(name not in header.places for name in service.required)
    if lacks_required or nameless or twice or (missing and (unknown or not by_name)):
        differences = (
            f"missing {', '.join(missing)}" if missing else "",
            f"unknown {', '.join(unknown[:5])}" if unknown else "",
            f"no name in column {', '.join(nameless[:5])}, as pandas writes an index"
            if nameless
            else "",
            f"twice {', '.join(expected.get(name, name) for name in twice)}" if twice else "",
        )
        raise HeaderError("; ".join(filter(None, differences)))
    if not by_name:
        places = [at for at, name in enumerate(header.identities) if name in expected]
        for at, (identity, due) in zip(places, expected.items(), strict=True):
            if header.identities[at] != identity:
                raise HeaderError(
                    f"in another order: column {at + 1} is {names[at]} instead of {due}"
                )
    return header


def _is_repeatable(identity: str, header: Header) -> bool:
    """Return whether a column may be in the file under several of its names."""
    spelled = [
        normalize_loosely(name)
        for name, key in zip(header.names, header.identities, strict=True)
        if key == identity
    ]
    column = header.service.by_name.get(identity)
    return column is not None and column.repeated and len(set(spelled)) == len(spelled)
