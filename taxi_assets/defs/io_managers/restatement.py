"""What a restated month file changed, day by day, and the raw rows that it replaced.

Before a day's raw object is replaced by rows of another file, both are compared. The result lies
in the new object, so a run that is killed in between finds it again, and the former object is
copied to `_former/`, under the hash of its content and without an ending: no reader of the lake's
folders takes it for data.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa

from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers.partition_data import Label, SourceFile, rejecting_damage
from taxi_assets.defs.io_managers.raw_objects import Content, open_raw
from taxi_assets.defs.io_managers.sealed_objects import (
    SealedParquetWriter,
    open_parquet,
    open_sealed_zstd,
    write_sealed_zstd,
)
from taxi_assets.defs.metadata.day_metadata import object_metadata
from taxi_assets.defs.metadata.table_metadata import URI
from taxi_assets.defs.resources.lake import LINES, ROWS, Lake, build_raw_key
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.report.restatement import restatement_page
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import MonthFile
from taxi_assets.trips.parse import parse_partition
from taxi_assets.trips.row_diff import RowDiff, diff_rows

FACT = "restatement"
"""Name under which a raw object carries what it changed."""
NAME = 32
"""Hexadecimal digits of the hash of an object's content that name it."""


@dataclass(frozen=True)
class Restatement:
    """What replaced a day's rows by those of another file."""

    diff: RowDiff
    former_url: str
    former_sha256: str
    """Of the month file."""
    former_object: str
    """Key in the lake."""

    def facts(self) -> dict[str, Any]:
        """Return the metadata that the new raw object carries."""
        return {
            "former_url": self.former_url,
            "former_sha256": self.former_sha256,
            "former_object": self.former_object,
            "diff": self.diff.figures(),
        }

    def carried_by(self, content: bytes, kind: str) -> bytes:
        """Return the raw object with this added to its metadata."""
        stored = pa.py_buffer(content)
        if kind == LINES:
            facts, packed = open_sealed_zstd(stored)
            return write_sealed_zstd({**facts, FACT: self.facts()}, packed.to_pybytes())
        parquet, facts = open_parquet(stored)
        rows, sink = parquet.read(use_threads=False), io.BytesIO()
        with SealedParquetWriter(sink, rows.schema, write_statistics=False) as writer:
            writer.write_table(rows)
            writer.seal({**facts, FACT: self.facts()})
        return sink.getvalue()

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Restatement | None:
        """Read one from the metadata of a raw object; None if nothing changed."""
        found = facts.get(FACT)
        if not found:
            return None
        return cls(
            RowDiff(**found["diff"]),
            found["former_url"],
            found["former_sha256"],
            found["former_object"],
        )

    def metadata(self, lake: Lake, page: str) -> dict[str, Any]:
        """Return the metadata for the day's record."""
        diff = self.diff
        found: dict[str, Any] = {
            "restated": str(diff),
            "rows_added": diff.added,
            "rows_removed": diff.removed,
            "rows_changed": diff.changed,
            "restatement": {"columns": diff.columns, **diff.examples},
            "former_source": self.former_url,
            "former_source_sha256": self.former_sha256,
            "former_rows": object_metadata(lake, self.former_object)[URI],
            "restatement_page": object_metadata(lake, page)[URI],
        }
        if diff.revenue_change is not None:
            found["revenue_change"] = diff.revenue_change
        return found


def find_restatement(
    lake: Lake, file: MonthFile, day: date, content: bytes, kind: str
) -> Restatement | None:
    """Compare a day's new object with the one that it is to replace; None if no row differs.

    An object of the same file carries what that file changed when it was first stored. Otherwise
    the former object is kept, before anything replaces it. A former object that is damaged, or
    whose columns are not the service's any more, is replaced without a comparison.
    """
    service = file.service
    for former_kind in (LINES, ROWS):
        key = build_raw_key(service, day, former_kind)
        try:
            with rejecting_damage(lake, key, Label(service.name, "raw_trips", str(day))):
                stored = lake.get(key)
                if stored is None:
                    continue
                former, facts = open_raw(stored, former_kind)
            source_file = SourceFile.of(facts)
            if source_file.sha256 == file.sha256:
                return Restatement.of(facts)
            new, _ = open_raw(pa.py_buffer(content), kind)
            diff = diff_content(former, new, service)
        except PartitionRejectedError:
            return None
        if diff.is_empty:
            return None
        kept = former_key(service, day, stored)
        lake.put(kept, stored)
        return Restatement(diff, source_file.url, source_file.sha256, kept)
    return None


def diff_content(before: Content, after: Content, service: Service) -> RowDiff:
    """Compare two raw contents of a day by the service's columns, CSV or Parquet alike.

    Rows with a value that is not of its column's type take no part; checks name them.

    Raises:
        PartitionRejectedError: the columns of one are not the service's.
    """
    return diff_rows(
        parse_partition(before, service).table, parse_partition(after, service).table, service
    )


def put_page(lake: Lake, file: MonthFile, changes: Mapping[date, Restatement]) -> None:
    """Write the page about what a month's restatement changed, if it changed anything."""
    if not changes:
        return
    former = {f"{one.former_url} (SHA-256 {one.former_sha256})" for one in changes.values()}
    content = restatement_page(
        file.service,
        file.month,
        {day: one.diff for day, one in changes.items()},
        "; ".join(sorted(former)),
        f"{file.url} (SHA-256 {file.sha256})",
    )
    lake.put(page_key(file.service, file.month), content, "text/html; charset=utf-8")


def former_folder(service: Service, day: date | None = None) -> str:
    """Return the folder of former raw objects of a service or a day."""
    return f"_former/{service.name}" + (f"/{day:%Y/%m/%d}" if day else "")


def former_key(service: Service, day: date, stored: pa.Buffer) -> str:
    """Name an object by its content; an ending would make it a file of data."""
    return f"{former_folder(service, day)}/{hashlib.sha256(stored).hexdigest()[:NAME]}"


def delete_old_former_rows(
    lake: Lake, service: Service, keep: timedelta, now: datetime | None = None
) -> list[str]:
    """Delete former raw objects that were replaced longer than `keep` ago; return their keys."""
    end = (now or datetime.now(UTC)) - keep
    old = [key for key, at in lake.times(former_folder(service)).items() if at < end]
    for key in old:
        lake.delete(key)
    return old


def page_key(service: Service, month: Month) -> str:
    """Return the key of the page about a month's last restatement."""
    return f"_reports/{service.name}/{month}.restatement.html"
