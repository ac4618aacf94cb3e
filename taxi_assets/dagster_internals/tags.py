"""Undocumented tags and serialized forms of Dagster, each defined once.

Documented keys (`dagster/partition`, `dagster/uri`, `dagster/column_schema`) are written where they
are used. A test compares each tag here with the constant of the installed Dagster.
"""

from __future__ import annotations

import json

CODE_VERSION = "dagster/code_version"
DATA_VERSION = "dagster/data_version"
DATA_VERSION_IS_OURS = "dagster/data_version_is_user_provided"
INPUT_DATA_VERSION = "dagster/input_data_version"
"""Prefix; a slash and the input's asset key follow."""
INPUT_EVENT_POINTER = "dagster/input_event_pointer"
"""Prefix; a slash and the input's asset key follow."""
NO_EVENT = "NULL"
"""Event pointer of an input without an event."""
BACKFILL = "dagster/backfill"
SCHEDULE_NAME = "dagster/schedule_name"
SENSOR_NAME = "dagster/sensor_name"
PARENT_RUN = "dagster/parent_run_id"
FROM_UI = "dagster/from_ui"
"""Set by the UI; Dagster has no Python constant for it."""
MAX_RETRIES = "dagster/max_retries"
WILL_RETRY = "dagster/will_retry"
RETRY_ON_FAILURE = "dagster/retry_on_asset_or_op_failure"
HIDDEN = ".dagster/"
"""Prefix of tags that the UI's list of runs does not show."""
CODE_SERVER_ADDRESS = ".dagster/grpc_info"
"""Tag of runs that a code server started."""
EVENT_BATCH_SIZE = "DAGSTER_EVENT_BATCH_SIZE"
"""Environment variable: number of planned events that the instance stores at once."""


def build_job_origin(location: str, repository: str, job: str) -> str:
    """Return the serialized form of the origin of a run's job."""
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
