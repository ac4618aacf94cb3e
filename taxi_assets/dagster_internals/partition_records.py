"""Record every day separately, also when one run covers a month.

For a run over a range, Dagster 1.13 copies one set of metadata and one data version to every
partition, records a check once and without a partition, and materializes every partition, rejected
or not (dagster-io/dagster #17005, #17836). With this module each day has its own materialization
with metadata, data version and provenance, and its own check evaluations. A rejected day has a
record of its rejection (`rejections.py`) and no materialization. A run of one day uses the same
code, so the records do not depend on how days are grouped into runs.

`OutputContext._asset_key` is private: without a key Dagster adds no events of its own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckEvaluation, DagsterEventType

from taxi_assets.dagster_internals import tags
from taxi_assets.dagster_internals.event_batches import batch_transaction
from taxi_assets.dagster_internals.private_names import ASSET_KEY, CHECK_TARGET
from taxi_assets.dagster_internals.rejections import list_later_steps, log_rejection
from taxi_assets.errors import PartitionRejectedError, escape_markdown
from taxi_assets.partitions import list_run_days

Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class CheckResult:
    """The result of one check for one day."""

    check: str
    passed: bool
    metadata: Metadata = field(default_factory=dict[str, Any])
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    description: str | None = None


@dataclass(frozen=True)
class PartitionRecord:
    """The record of one day that an asset has stored."""

    metadata: Metadata
    data_version: str | None = None
    """Hash of the day's content; None derives it from code and inputs, as Dagster does."""
    code_version: str | None = None
    """Version of the code that made the day, if a run's config changed it from the asset's."""
    checks: Sequence[CheckResult] = ()
    """Results of checks before the day was stored."""

    def add_metadata(self, metadata: Metadata) -> PartitionRecord:
        """Return the record with additional metadata, such as the location of the day."""
        return replace(self, metadata={**self.metadata, **metadata})


NOT_VERSIONED = "INITIAL"
"""Dagster's data version of an input without one."""
PROGRESS_SECONDS = 2.0
"""Interval between two log lines about the progress of a long step."""

AnyContext = (
    dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OutputContext | dg.InputContext
)


def list_partition_days(context: AnyContext) -> list[date]:
    """Return the days that the run requests."""
    if isinstance(context, dg.OutputContext | dg.InputContext):
        return list_run_days(context.step_context.dagster_run.tags)
    return list_run_days(context.run.tags)


def log_materializations(
    context: dg.OutputContext,
    records: Iterable[tuple[date, PartitionRecord | PartitionRejectedError]],
) -> None:
    """Log one materialization or rejection per day, in place of the events that Dagster derives.

    Each day is logged when `records` yields it.
    """
    key = context.asset_key
    days = list_partition_days(context)
    provenance = _Provenance(context, [str(day) for day in days])
    recorded: set[str] = set()
    rejected: list[str] = []
    reported, rows = time.monotonic(), 0
    with batch_transaction():
        for day, record in records:
            if isinstance(record, PartitionRejectedError):
                log_rejection(context, key, day, record)
                rejected.append(str(day))
                continue
            context.log_event(
                dg.AssetMaterialization(
                    key,
                    partition=str(day),
                    metadata=dict(record.metadata),
                    tags=provenance.build_tags(str(day), record),
                )
            )
            recorded.add(str(day))
            rows += int(record.metadata.get("rows", 0))
            if time.monotonic() - reported > PROGRESS_SECONDS:
                reported = time.monotonic()
                share = 100 * len(recorded) // len(days)
                context.log.info(
                    f"{key.to_user_string()}: {len(recorded)} of {len(days)} days, "
                    f"{rows:,} rows ({share} %)"
                )
    if ASSET_KEY.is_on(context):
        context._asset_key = None  # noqa: SLF001 - suppresses Dagster's own events
    elif rejected:
        raise dg.Failure(
            f"{key.to_user_string()}: this Dagster would record the rejected {', '.join(rejected)} "
            "as stored. Materialize the other days alone",
            allow_retries=False,
        )


def build_observation(
    key: dg.AssetKey, partition: str, data_version: str, metadata: Metadata
) -> dg.AssetObservation:
    """Return an observation of an external asset's partition."""
    return dg.AssetObservation(
        key,
        partition=partition,
        metadata=dict(metadata),
        tags={tags.DATA_VERSION: data_version, tags.DATA_VERSION_IS_OURS: "true"},
    )


def report_external_version(instance: dg.DagsterInstance, observation: dg.AssetObservation) -> None:
    """Report an observed version of an external asset's partition as materialized, once.

    Dagster shows a partition without a materialization as missing, however often it was observed.
    The event belongs to no run, because no run writes an external asset.
    """
    records_filter = dg.AssetRecordsFilter(
        observation.asset_key, asset_partitions=[str(observation.partition)]
    )
    latest = instance.fetch_materializations(records_filter, limit=1).records
    event = latest[0].asset_materialization if latest else None
    version = observation.tags.get(tags.DATA_VERSION)
    if event is None or (event.tags or {}).get(tags.DATA_VERSION) != version:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                observation.asset_key,
                description="This version was published at the source; a run has read it.",
                partition=observation.partition,
                metadata=dict(observation.metadata),
                tags=dict(observation.tags),
            )
        )


def log_check_results(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    results: Mapping[date, Sequence[CheckResult]],
    key: dg.AssetKey,
    of_run: Sequence[CheckResult] = (),
) -> Iterator[AssetCheckEvaluation | dg.Output[None]]:
    """Yield one evaluation per check and day, then the outputs that Dagster expects of checks.

    Those of the whole run (`of_run`) have no partition.
    """
    storage_ids = context.instance.event_log_storage.get_latest_storage_id_by_partition(
        key, DagsterEventType.ASSET_MATERIALIZATION, {str(day) for day in results}
    )
    run_id = context.run.run_id
    target_type = CHECK_TARGET.find()
    with batch_transaction():
        yield from (build_evaluation(key, result) for result in of_run)
        for day, day_results in results.items():
            target = None
            if str(day) in storage_ids and target_type is not None:
                target = target_type(
                    storage_id=storage_ids[str(day)], run_id=run_id, timestamp=time.time()
                )
            for result in day_results:
                yield build_evaluation(key, result, str(day), target)
    layer = context.job_def.asset_layer
    for check in context.selected_asset_check_keys:
        yield dg.Output(None, output_name=str(layer.get_op_output_name(check)))


def build_evaluation(
    key: dg.AssetKey, result: CheckResult, partition: str | None = None, target: Any = None
) -> AssetCheckEvaluation:
    """Return the event of a check's result, without its empty metadata."""
    return AssetCheckEvaluation(
        asset_key=key,
        check_name=result.check,
        passed=result.passed,
        metadata={name: value for name, value in result.metadata.items() if value != ""},
        target_materialization_data=target,
        severity=result.severity,
        description=None if result.description is None else escape_markdown(result.description),
        partition=partition,
    )


def find_check_target(instance: dg.DagsterInstance, key: dg.AssetKey) -> Any:
    """Return the latest materialization of an asset as a check result names it; None without one.

    The UI shows a result that names none as not evaluated if the materialization is as old, in
    whole seconds.
    """
    records = instance.fetch_materializations(key, limit=1).records
    target_type = CHECK_TARGET.find()
    if not records or target_type is None:
        return None
    latest = records[0]
    return target_type(
        storage_id=latest.storage_id, run_id=latest.run_id, timestamp=latest.timestamp
    )


def read_check_evaluations(
    instance: dg.DagsterInstance, run_id: str, check: str
) -> dict[dg.AssetKey, dict[date, AssetCheckEvaluation]]:
    """Return the evaluations of a check in a run so far, by asset and day."""
    records = instance.get_records_for_run(run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations: dict[dg.AssetKey, dict[date, AssetCheckEvaluation]] = {}
    for record in records.records:
        event = record.event_log_entry.asset_check_evaluation
        if event is not None and event.check_name == check and event.partition:
            evaluations.setdefault(event.asset_key, {})[date.fromisoformat(event.partition)] = event
    return evaluations


def list_run_steps(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
) -> set[str]:
    """Return the steps of this run, which may be a part of its job."""
    steps = context.run.step_keys_to_execute or [node.name for node in context.job_def.nodes]
    return set(steps)


def is_last_step(context: dg.AssetExecutionContext) -> bool:
    """Return whether no later step of this run depends on this asset, even in a partial run."""
    return list_later_steps(context.asset_key).isdisjoint(list_run_steps(context))


def is_planned_in_process(context: dg.AssetExecutionContext, key: dg.AssetKey) -> bool:
    """Return whether this run also materializes another asset, in a step of this process."""
    is_in_process = dg.in_process_executor.name in context.job_def.executor_def.name
    return is_in_process and key.to_python_identifier() in list_run_steps(context)


class _Provenance:
    """The versions of the inputs from which an asset made each day."""

    def __init__(self, context: dg.OutputContext, partitions: Sequence[str]) -> None:
        step = context.step_context
        layer = step.job_def.asset_layer
        storage = step.instance.event_log_storage
        node = layer.get(context.asset_key)
        self.code_version = node.code_version or context.run_id
        self.backfill_id = step.get_tag(tags.BACKFILL)
        self.inputs: dict[dg.AssetKey, dict[str, tuple[str, int]]] = {}
        for parent in node.parent_keys:
            # In a run of some assets Dagster also calls the others external; only the file is
            # observed, by month.
            monthly = isinstance(layer.get(parent).partitions_def, dg.MonthlyPartitionsDefinition)
            names = {day: f"{day[:7]}-01" if monthly else day for day in partitions}
            kind = (
                DagsterEventType.ASSET_OBSERVATION
                if monthly
                else DagsterEventType.ASSET_MATERIALIZATION
            )
            ids = storage.get_latest_storage_id_by_partition(parent, kind, set(names.values()))
            versions = storage.get_latest_tags_by_partition(
                parent, kind, [tags.DATA_VERSION], sorted(set(names.values()))
            )
            self.inputs[parent] = {
                day: (versions.get(name, {}).get(tags.DATA_VERSION, NOT_VERSIONED), ids[name])
                for day, name in names.items()
                if name in ids
            }

    def build_tags(self, day: str, record: PartitionRecord) -> dict[str, str]:
        """Return Dagster's provenance tags for the event of one day."""
        code_version = record.code_version or self.code_version
        event_tags = {tags.CODE_VERSION: code_version}
        content = hashlib.sha256(code_version.encode())
        for parent, days in sorted(self.inputs.items()):
            version, pointer = days.get(day, (NOT_VERSIONED, None))
            name = parent.to_user_string()
            event_tags[f"{tags.INPUT_DATA_VERSION}/{name}"] = version
            event_tags[f"{tags.INPUT_EVENT_POINTER}/{name}"] = str(pointer or tags.NO_EVENT)
            content.update(f"|{name}={version}".encode())
        if record.data_version is None:
            event_tags[tags.DATA_VERSION] = content.hexdigest()
        else:
            event_tags[tags.DATA_VERSION] = record.data_version
            event_tags[tags.DATA_VERSION_IS_OURS] = "true"
        if self.backfill_id:
            event_tags[tags.BACKFILL] = self.backfill_id
        return event_tags
