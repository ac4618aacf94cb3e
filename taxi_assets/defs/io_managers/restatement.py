"""The metadata of a restated day's object, and the copies of the former objects.

The object of a restated day contains the changes of its file, so that a run which was killed before
it logged its records finds them again. The former object is copied to `_former/` first, under the
hash of its content and without an extension, so that no reader of the lake mistakes it for data.
`defs/restatements` finds the changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.date_ranges import Month
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.lake_keys import LINES, ROWS, build_raw_key
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.row_diff import RowDiff

RESTATEMENT = "restatement"
"""Metadata key of the changes in a raw object."""
NAME_LENGTH = 32
"""Number of hexadecimal digits of the content's hash in the name of a former object."""


@dataclass(frozen=True)
class Restatement:
    """The replacement of a day's rows by those of another file."""

    diff: RowDiff
    former_url: str
    former_sha256: str
    """SHA-256 of the former month file."""
    former_object: str = ""
    """Key of the former object in the lake; empty until it is copied."""

    def to_metadata(self) -> dict[str, Any]:
        """Return the metadata of the new raw object."""
        return {
            "former_url": self.former_url,
            "former_sha256": self.former_sha256,
            "former_object": self.former_object,
            "diff": asdict(self.diff),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Restatement | None:
        """Create it from the metadata of a raw object; None if the day was not restated."""
        fields = metadata.get(RESTATEMENT)
        if not fields:
            return None
        return cls(
            RowDiff(**fields["diff"]),
            fields["former_url"],
            fields["former_sha256"],
            fields["former_object"],
        )


@dataclass(frozen=True)
class RawRecord(PartitionRecord):
    """The record of a raw day, with the changes of its file."""

    restatement: Restatement | None = None


def copy_former_rows(lake: Lake, service: Service, day: date) -> str:
    """Copy a day's raw object to the folder of former objects, and return its key there."""
    for kind in (LINES, ROWS):
        stored = lake.get(build_raw_key(service, day, kind))
        if stored is not None:
            name = hashlib.sha256(stored).hexdigest()[:NAME_LENGTH]
            key = f"{_get_former_folder(service)}/{day:%Y/%m/%d}/{name}"
            lake.put(key, stored)
            return key
    return ""


def delete_old_former_rows(lake: Lake, service: Service, retention: timedelta) -> None:
    """Delete former raw objects that are older than `retention`."""
    end = datetime.now(UTC) - retention
    for key, written in lake.times(_get_former_folder(service)).items():
        if written < end:
            lake.delete(key)


def build_page_key(service: Service, month: Month) -> str:
    """Return the key of the page on a month's last restatement."""
    return f"_reports/{service.name}/{month}.restatement.html"


def _get_former_folder(service: Service) -> str:
    return f"_former/{service.name}"
