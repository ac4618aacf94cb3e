"""Dagster's suite of event logs on Postgres, as `dagster-postgres` runs it on its own class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import instance_for_test
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage
from dagster_tests.storage_tests.utils.event_log_storage import TestEventLogStorage

from taxi_assets_tests.dagster_suites.parts import PART, POSTGRES_URL


class TestPostgresEventLogStorage(TestEventLogStorage):
    __test__ = True

    @pytest.fixture(name="instance")
    def instance(self) -> Iterator[dg.DagsterInstance]:
        url = os.environ[POSTGRES_URL]
        PostgresRunStorage.create_clean_storage(url)
        PostgresEventLogStorage.create_clean_storage(url)
        storage = {"postgres": {"postgres_url": url}}
        with instance_for_test(overrides={"storage": storage}) as instance:
            yield instance

    @pytest.fixture(name="storage")
    def event_log_storage(self, instance: dg.DagsterInstance) -> Any:
        storage = instance.event_log_storage
        assert isinstance(storage, PostgresEventLogStorage)
        assert (type(storage) is PostgresEventLogStorage) == (PART not in os.environ)
        return storage

    def can_wipe_asset_partitions(self) -> bool:
        return False
