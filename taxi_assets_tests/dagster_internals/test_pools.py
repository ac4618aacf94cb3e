"""The limits of Dagster's pools are stored from the settings before the queue starts a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.op_concurrency_limits_counter import GlobalOpConcurrencyLimitsCounter
from dagster._core.storage.dagster_run import RunOpConcurrency

from taxi_assets.dagster_internals.instance import TaxiInstance
from taxi_assets.definitions import defs
from taxi_assets.errors import SettingsError
from taxi_assets_tests.isolation import REPOSITORY

JOB = "green_daily"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a DAGSTER_HOME without a file of Dagster's own."""
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path)
    return tmp_path


def read_limits(instance: dg.DagsterInstance) -> dict[str, int]:
    return {pool.name: pool.limit for pool in instance.event_log_storage.get_pool_limits()}


def open_for_queue(folder: Path) -> dg.DagsterInstance:
    """Open the instance and do the first step of a daemon's pass over the queue."""
    instance = dg.DagsterInstance.from_config(str(folder))
    assert isinstance(instance, TaxiInstance)
    instance.get_concurrency_config()
    return instance


def test_new_instance_has_the_limits_before_its_first_pass(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_POSTGRES_POOL", "1")
    with open_for_queue(folder) as instance:
        assert read_limits(instance) == {"postgres": 1, "bigquery": 4}
        job = defs.resolve_job_def(JOB)
        runs = [instance.create_run_for_job(job) for _ in range(3)]
        pools = RunOpConcurrency(
            root_key_counts={},
            has_unconstrained_root_nodes=True,
            all_pools={"postgres", "bigquery"},
        )
        runs = [run._replace(run_op_concurrency=pools) for run in runs]
        counter = GlobalOpConcurrencyLimitsCounter(
            instance,
            runs,
            [],
            concurrency_keys=instance.event_log_storage.get_concurrency_keys(),
            pool_limits=instance.event_log_storage.get_pool_limits(),
            pool_granularity=instance.get_concurrency_config().pool_config.pool_granularity,
        )
        launched = 0
        for run in runs:
            if not counter.is_blocked(run):
                counter.update_counters_with_launched_item(run)
                launched += 1
        assert launched == 1


def test_two_concurrent_first_runs_have_the_limits(folder: Path) -> None:
    """The second run stores its limit between the first run's read and write."""
    other_instances = iter([dg.DagsterInstance.from_config(str(folder))])

    def store_first(*arguments: object) -> None:
        statement = str(arguments[2])
        if statement.startswith("INSERT INTO concurrency_limits"):
            for other_instance in other_instances:
                with other_instance:
                    other_instance.event_log_storage.set_concurrency_slots("postgres", 4)

    sa.event.listen(sa.Engine, "before_cursor_execute", store_first)
    try:
        with open_for_queue(folder) as instance:
            assert read_limits(instance) == {"postgres": 4, "bigquery": 4}
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", store_first)
    assert list(other_instances) == []


def test_limit_set_by_a_person_stays_unless_a_variable_is_set(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_for_queue(folder) as instance:
        assert read_limits(instance) == {"postgres": 4, "bigquery": 4}
        instance.event_log_storage.set_concurrency_slots("postgres", 9)
    monkeypatch.setenv("TAXI_BIGQUERY_POOL", "2")
    with open_for_queue(folder) as instance:
        assert read_limits(instance) == {"postgres": 9, "bigquery": 2}
    monkeypatch.setenv("TAXI_POSTGRES_POOL", "3")
    with open_for_queue(folder) as instance:
        assert read_limits(instance) == {"postgres": 3, "bigquery": 2}


def test_invalid_limit_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_POSTGRES_POOL", "0")
    with (
        dg.DagsterInstance.from_config(str(folder)) as instance,
        pytest.raises(SettingsError, match="TAXI_POSTGRES_POOL"),
    ):
        instance.get_concurrency_config()
