"""Every run as OpenLineage events: how it began and ended, what it read and wrote."""

from collections import Counter
from datetime import UTC, datetime

import dagster as dg
from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.generated.output_statistics_output_dataset import (
    OutputStatisticsOutputDatasetFacet,
)

from taxi_assets import definitions as taxi

NAMESPACE = "taxi_assets"
PRODUCER = "https://openlineage.io/integration/dagster/sensor"
STATES = {
    dg.DagsterRunStatus.STARTED: RunState.START,
    dg.DagsterRunStatus.SUCCESS: RunState.COMPLETE,
    dg.DagsterRunStatus.FAILURE: RunState.FAIL,
    dg.DagsterRunStatus.CANCELED: RunState.ABORT,
}
UPSTREAM = {
    key: upstream
    for assets in taxi.defs.assets or ()
    if isinstance(assets, dg.AssetsDefinition)
    for key, upstream in assets.asset_deps.items()
}


def describe_run(context: dg.RunStatusSensorContext) -> RunEvent:
    """Describe a run by the assets that it has materialized so far, with their rows."""
    run, rows = context.dagster_run, Counter[dg.AssetKey]()
    for record in context.instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    ).records:
        day = record.event_log_entry.asset_materialization
        count = day.metadata.get("dagster/partition_row_count")
        rows[day.asset_key] += int(count.value) if count else 0
    read = {key for written in rows for key in UPSTREAM.get(written, ())} - set(rows)
    return RunEvent(
        eventTime=datetime.now(UTC).isoformat(),
        eventType=STATES[run.status],
        run=Run(run.run_id),
        job=Job(NAMESPACE, run.job_name),
        producer=PRODUCER,
        inputs=[InputDataset(NAMESPACE, key.to_user_string()) for key in sorted(read)],
        outputs=[
            OutputDataset(
                NAMESPACE,
                key.to_user_string(),
                outputFacets={
                    "outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=rows[key])
                },
            )
            for key in sorted(rows)
        ],
    )


def build_sensor(status: dg.DagsterRunStatus) -> dg.SensorDefinition:
    """Build the sensor that sends an event for each run that gets this status."""

    @dg.run_status_sensor(
        name=f"openlineage_{status.value.lower()}",
        run_status=status,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def send(context: dg.RunStatusSensorContext) -> None:
        OpenLineageClient().emit(describe_run(context))

    return send


sensors = [build_sensor(status) for status in STATES]
defs = dg.Definitions.merge(taxi.defs, dg.Definitions(sensors=sensors))
