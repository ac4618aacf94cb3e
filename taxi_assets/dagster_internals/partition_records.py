"""A record for every day, also when one run covers a month.

Dagster 1.13 copies one set of metadata and one data version to every partition of a run over a
range, records a range's check once and without a partition, and materializes every partition of
the range whatever happened to it (dagster-io/dagster #17005, #17836). This module is the one place
that does it differently: each day has its own materialization with its own metadata, data version
and provenance, and its own check evaluations; a day that was rejected has a record of that
(`rejections.py`) and no materialization. A run of one day goes the same way, so a chunk's record
is that of single runs.

`OutputContext._asset_key` is the only private thing touched: without a key Dagster adds no events
of its own to ours.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckEvaluation, DagsterEventType
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    NULL_EVENT_POINTER,
    compute_logical_data_version,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)
from dagster._core.storage.tags import BACKFILL_ID_TAG

from taxi_assets.dagster_internals.event_log import batch_transaction
from taxi_assets.dagster_internals.rejections import list_later_steps, log_rejection
from taxi_assets.errors import PartitionRejectedError
from taxi_assets.partitions import list_run_days

Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class CheckResult:
    """What one check says of one day."""

    check: str
    passed: bool
    metadata: Metadata = field(default_factory=dict[str, Any])
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
    description: str | None = None


@dataclass(frozen=True)
class PartitionRecord:
    """What is known of one day after an asset stored it."""

    metadata: Metadata
    data_version: str | None = None
    """Hash of the day's content; None derives it from code and inputs, as Dagster does."""
    code_version: str | None = None
    """Of the code that made the day, where a run's config made it another than the asset's."""
    checks: Sequence[CheckResult] = ()
    """What was checked before the day was stored."""

    def adding(self, metadata: Metadata) -> PartitionRecord:
        """Return the record with more metadata, such as where the day was stored."""
        return replace(self, metadata={**self.metadata, **metadata})


PROGRESS = 2.0
"""Seconds between two lines about how far a long step is."""

AnyContext = (
    dg.AssetExecutionContext | dg.AssetCheckExecutionContext | dg.OutputContext | dg.InputContext
)


def list_partition_days(context: AnyContext) -> list[date]:
    """The days that the run is asked for."""
    if isinstance(context, dg.OutputContext | dg.InputContext):
        return list_run_days(context.step_context.dagster_run.tags)
    return list_run_days(context.run.tags)


def log_materializations(
    context: dg.OutputContext,
    records: Iterable[tuple[date, PartitionRecord | PartitionRejectedError]],
) -> None:
    """Log one materialization or rejection a day, in place of what Dagster would derive.

    A day is logged as `records` yields it, while the next ones are still on their way.
    """
    key = context.asset_key
    days = list_partition_days(context)
    provenance = _Provenance(context, [str(day) for day in days])
    recorded: set[str] = set()
    told, rows = time.monotonic(), 0
    with batch_transaction(context.step_context.instance, context.run_id):
        for day, record in records:
            if isinstance(record, PartitionRejectedError):
                log_rejection(context, key, day, record)
                continue
            context.log_event(
                dg.AssetMaterialization(
                    key,
                    partition=str(day),
                    metadata=dict(record.metadata),
                    tags=provenance.tags(str(day), record),
                )
            )
            recorded.add(str(day))
            rows += int(record.metadata.get("rows", 0))
            if time.monotonic() - told > PROGRESS:
                told = time.monotonic()
                share = 100 * len(recorded) // len(days)
                context.log.info(
                    f"{key.to_user_string()}: {len(recorded)} of {len(days)} days, "
                    f"{rows:,} rows ({share} %)"
                )
    context._asset_key = None  # noqa: SLF001 - no events of Dagster's own


def log_observation(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    partition: str,
    data_version: str,
    metadata: Metadata,
) -> None:
    """Log what was found of an external asset's partition."""
    context.log_event(build_observation(key, partition, data_version, metadata))


def build_observation(
    key: dg.AssetKey, partition: str, data_version: str, metadata: Metadata
) -> dg.AssetObservation:
    """What was found of an external asset's partition."""
    return dg.AssetObservation(
        key,
        partition=partition,
        metadata=dict(metadata),
        tags={DATA_VERSION_TAG: data_version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"},
    )


def log_check_results(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    results: Mapping[date, Sequence[CheckResult]],
    key: dg.AssetKey,
) -> Iterator[AssetCheckEvaluation | dg.Output[None]]:
    """Yield one evaluation a check and day, then the outputs that Dagster expects of checks."""
    stored = context.instance.event_log_storage.get_latest_storage_id_by_partition(
        key, DagsterEventType.ASSET_MATERIALIZATION, {str(day) for day in results}
    )
    run_id = context.run.run_id
    with batch_transaction(context.instance, run_id):
        for day, day_results in results.items():
            target = None
            if str(day) in stored:
                target = Target(storage_id=stored[str(day)], run_id=run_id, timestamp=time.time())
            for result in day_results:
                yield AssetCheckEvaluation(
                    asset_key=key,
                    check_name=result.check,
                    passed=result.passed,
                    metadata=dict(result.metadata),
                    target_materialization_data=target,
                    severity=result.severity,
                    description=result.description,
                    partition=str(day),
                )
    layer = context.job_def.asset_layer
    for check in context.selected_asset_check_keys:
        yield dg.Output(None, output_name=str(layer.get_op_output_name(check)))


def build_check_evaluations(
    instance: dg.DagsterInstance, run_id: str, check: str
) -> dict[dg.AssetKey, dict[date, AssetCheckEvaluation]]:
    """Return what a check said in a run so far, by asset and day."""
    records = instance.get_records_for_run(run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION)
    found: dict[dg.AssetKey, dict[date, AssetCheckEvaluation]] = {}
    for record in records.records:
        event = record.event_log_entry.asset_check_evaluation
        if event is not None and event.check_name == check and event.partition:
            found.setdefault(event.asset_key, {})[date.fromisoformat(event.partition)] = event
    return found


def is_last(context: dg.AssetExecutionContext) -> bool:
    """Whether no step of this run comes after this asset's, also in a run of some steps alone."""
    steps = context.run.step_keys_to_execute or [node.name for node in context.job_def.nodes]
    return not list_later_steps(context.asset_key).intersection(steps)


class _Provenance:
    """Per day: which data of which inputs an asset was made from."""

    def __init__(self, context: dg.OutputContext, partitions: Sequence[str]) -> None:
        step = context.step_context
        layer = step.job_def.asset_layer
        storage = step.instance.event_log_storage
        node = layer.get(context.asset_key)
        self.code_version = node.code_version or context.run_id
        self.backfill_id = step.get_tag(BACKFILL_ID_TAG)
        self.inputs: dict[dg.AssetKey, dict[str, tuple[str, int]]] = {}
        for parent in node.parent_keys:
            external = layer.get(parent).is_external
            names = {day: f"{day[:7]}-01" if external else day for day in partitions}
            kind = (
                DagsterEventType.ASSET_OBSERVATION
                if external
                else DagsterEventType.ASSET_MATERIALIZATION
            )
            ids = storage.get_latest_storage_id_by_partition(parent, kind, set(names.values()))
            tags = storage.get_latest_tags_by_partition(
                parent, kind, [DATA_VERSION_TAG], sorted(set(names.values()))
            )
            self.inputs[parent] = {
                day: (tags.get(name, {}).get(DATA_VERSION_TAG, "INITIAL"), ids[name])
                for day, name in names.items()
                if name in ids
            }

    def tags(self, day: str, record: PartitionRecord) -> dict[str, str]:
        """Dagster's provenance tags for one day's event."""
        code_version = record.code_version or self.code_version
        tags = {CODE_VERSION_TAG: code_version}
        versions: dict[dg.AssetKey, dg.DataVersion] = {}
        for parent, days in self.inputs.items():
            version, pointer = days.get(day, ("INITIAL", None))
            versions[parent] = dg.DataVersion(version)
            tags[get_input_data_version_tag(parent)] = version
            tags[get_input_event_pointer_tag(parent)] = str(pointer or NULL_EVENT_POINTER)
        if record.data_version is None:
            derived = compute_logical_data_version(code_version, versions)
            tags[DATA_VERSION_TAG] = derived.value
        else:
            tags[DATA_VERSION_TAG] = record.data_version
            tags[DATA_VERSION_IS_USER_PROVIDED_TAG] = "true"
        if self.backfill_id:
            tags[BACKFILL_ID_TAG] = self.backfill_id
        return tags
