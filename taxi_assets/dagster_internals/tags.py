"""Tags and stored forms of Dagster that its documentation does not promise, written down once.

Documented keys (`dagster/partition`, `dagster/uri`, `dagster/column_schema`) stand where they are
used. A test compares each tag here with the installed Dagster's own constant.
"""

from __future__ import annotations

import json

CODE_VERSION = "dagster/code_version"
DATA_VERSION = "dagster/data_version"
DATA_VERSION_IS_OURS = "dagster/data_version_is_user_provided"
INPUT_DATA_VERSION = "dagster/input_data_version"
"""In front of a slash and the input's asset key."""
INPUT_EVENT_POINTER = "dagster/input_event_pointer"
"""In front of a slash and the input's asset key."""
NO_EVENT = "NULL"
"""Value of an event pointer whose input has no event."""
BACKFILL = "dagster/backfill"
SCHEDULE_NAME = "dagster/schedule_name"
SENSOR_NAME = "dagster/sensor_name"
PARENT_RUN = "dagster/parent_run_id"
FROM_UI = "dagster/from_ui"
"""The UI sets it; Dagster has no constant for it in Python."""
WILL_RETRY = "dagster/will_retry"
RETRY_ON_FAILURE = "dagster/retry_on_asset_or_op_failure"
CODE_SERVER_ADDRESS = ".dagster/grpc_info"
"""On runs that a code server started."""
EVENT_BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"
"""Environment variable: planned events that the instance hands to the event log at once."""


def job_origin(location: str, repository: str, job: str) -> str:
    """Return Dagster's stored form of where a run's job is from."""
    return json.dumps(
        {
            "__class__": "ExternalPipelineOrigin",
            "external_repository_origin": {
                "__class__": "ExternalRepositoryOrigin",
                "repository_location_origin": {
                    "__class__": "RegisteredRepositoryLocationOrigin",
                    "location_name": location,
                },
                "repository_name": repository,
            },
            "pipeline_name": job,
        }
    )
