"""Folders of Dagster's settings for each storage, with our parts or without."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import dagster as dg
import yaml
from dagster._core.storage.event_log import EventLogStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY

SETTINGS = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
STORAGES = ("sqlite", "postgres", "wrapped sqlite", "wrapped postgres")


@contextmanager
def dagster_home(folder: Path, storage: str, *, ours: bool) -> Iterator[Path]:
    """Make a folder with the repository's settings on a storage; Postgres gets a database."""
    settings = dict(SETTINGS)
    if not ours:
        del settings["instance_class"]
    folder = folder / f"{'ours' if ours else 'stock'} {storage}"
    folder.mkdir()
    database = f"dagster_{uuid.uuid4().hex[:8]}"
    url = stores.postgres_url(database)
    parts: dict[str, dict[str, Any]] = {
        "sqlite": {
            "module": "dagster._core.storage.event_log",
            "class": "SqliteEventLogStorage",
            "config": {"base_dir": str(folder / "history" / "runs")},
        },
        "postgres": {
            "module": "dagster_postgres",
            "class": "PostgresEventLogStorage",
            "config": {"postgres_url": url},
        },
    }
    name = storage.removeprefix("wrapped ")
    if name == "postgres":
        with stores.postgres() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {database}")
        settings["storage"] = {"postgres": {"postgres_url": url}}
    if storage.startswith("wrapped"):
        settings.pop("storage", None)
        settings["event_log_storage"] = {
            "module": __name__,
            "class": "WrappingEventLogStorage",
            "config": {"wrapped": json.dumps(parts[name])},
        }
    (folder / "dagster.yaml").write_text(yaml.safe_dump(settings))
    try:
        yield folder
    finally:
        if name == "postgres":
            with stores.postgres() as connection, connection.cursor() as cursor:
                cursor.execute(f"DROP DATABASE {database} WITH (FORCE)")


class WrappingEventLogStorage(EventLogStorage, ConfigurableClass):
    """An event log that wraps another one, as lineage exporters do.

    Like dagster-openlineage 0.2.1 it forwards the abstract methods alone, and has no instance for
    the other one.
    """

    def __init__(self, inner: Any, inst_data: ConfigurableClassData | None) -> None:
        self.inner = inner
        self.seen: list[dg.EventLogEntry] = []
        self._inst_data = inst_data
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> Any:
        return {"wrapped": str}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        wrapped = json.loads(config_value["wrapped"])
        data = ConfigurableClassData(
            wrapped["module"], wrapped["class"], yaml.safe_dump(wrapped["config"])
        )
        return cls(data.rehydrate(as_type=EventLogStorage), inst_data)

    def store_event(self, event: dg.EventLogEntry) -> None:
        self.seen.append(event)
        self.inner.store_event(event)

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        for event in events:
            self.store_event(event)


def _forward(name: str) -> Any:
    value = getattr(EventLogStorage, name)
    if isinstance(value, property):
        return property(lambda self: getattr(self.inner, name))

    def method(self: WrappingEventLogStorage, *arguments: Any, **options: Any) -> Any:
        return getattr(self.inner, name)(*arguments, **options)

    return method


for _name in WrappingEventLogStorage.__abstractmethods__:
    setattr(WrappingEventLogStorage, _name, _forward(_name))
WrappingEventLogStorage.__abstractmethods__ = frozenset()
