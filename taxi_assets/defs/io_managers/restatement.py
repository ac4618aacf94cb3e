"""What a raw object carries about the rows that it replaced, and where those are kept.

A restated day's object says itself what its file changed, so a run that is killed before it logged
its records finds it again. The object that it replaces is copied to `_former/` first, under the
hash of its content and without an ending: no reader of the lake's folders takes it for data. What
changed is found in `defs/restatements`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.date_ranges import Month
from taxi_assets.defs.resources.lake import LINES, ROWS, Lake, build_raw_key
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.row_diff import RowDiff

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
    former_object: str = ""
    """Key in the lake; empty until the former rows are kept."""

    def facts(self) -> dict[str, Any]:
        """Return the metadata that the new raw object carries."""
        return {
            "former_url": self.former_url,
            "former_sha256": self.former_sha256,
            "former_object": self.former_object,
            "diff": self.diff.figures(),
        }

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


@dataclass(frozen=True)
class RawRecord(PartitionRecord):
    """The record of a raw day, and what its file changed in it."""

    restatement: Restatement | None = None


def keep_former_rows(lake: Lake, service: Service, day: date) -> str:
    """Copy a day's raw object to where former ones are kept; return its key there."""
    for kind in (LINES, ROWS):
        stored = lake.get(build_raw_key(service, day, kind))
        if stored is not None:
            name = hashlib.sha256(stored).hexdigest()[:NAME]
            key = f"{_former_folder(service)}/{day:%Y/%m/%d}/{name}"
            lake.put(key, stored)
            return key
    return ""


def delete_old_former_rows(
    lake: Lake, service: Service, keep: timedelta, now: datetime | None = None
) -> list[str]:
    """Delete former raw objects that were replaced longer than `keep` ago; return their keys."""
    end = (now or datetime.now(UTC)) - keep
    old = [key for key, at in lake.times(_former_folder(service)).items() if at < end]
    for key in old:
        lake.delete(key)
    return old


def build_page_key(service: Service, month: Month) -> str:
    """Return the key of the page about a month's last restatement."""
    return f"_reports/{service.name}/{month}.restatement.html"


def _former_folder(service: Service) -> str:
    return f"_former/{service.name}"
