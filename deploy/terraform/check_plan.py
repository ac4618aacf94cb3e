"""What a plan holds: no secret, no role beside the listed ones, nothing public.

Reads `terraform show -json <plan>` on standard input; `check.sh` runs it, on a plan of the defaults
and, with `everything`, on one with every toggle on.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

Resource = dict[str, Any]

WRITE_ONLY = ("password", "password_wo", "root_password", "secret_data", "secret_data_wo")
READ = ("google_project",)
SECRET_SETTINGS = ("DAGSTER_PG_URL", "POSTGRES_PASSWORD")
# Roles by type of resource, with how often each is given; tests/roles.tftest.hcl says to whom.
GRANTS = {
    "google_project_iam_member": {"roles/cloudsql.client": 3, "roles/bigquery.jobUser": 1},
    "google_bigquery_dataset_iam_member": {"roles/bigquery.dataEditor": 1},
    "google_secret_manager_secret_iam_member": {"roles/secretmanager.secretAccessor": 4},
    "google_storage_bucket_iam_member": {
        "roles/storage.legacyBucketReader": 4,
        "roles/storage.objectUser": 3,
        "roles/storage.objectViewer": 1,
    },
    "google_cloud_run_v2_job_iam_member": {
        "roles/run.jobsExecutor": 3,
        "roles/run.jobsExecutorWithOverrides": 1,
        "roles/run.viewer": 1,
    },
    "google_cloud_run_v2_service_iam_member": {"roles/run.invoker": 1},
}

# What toggles add: Cloud Build's account, a reader of the database, a secret setting, IAP.
EVERYTHING = {
    "google_artifact_registry_repository_iam_member": {"roles/artifactregistry.writer": 1},
    "google_iap_web_cloud_run_service_iam_member": {"roles/iap.httpsResourceAccessor": 1},
    "google_project_iam_member": {
        "roles/cloudsql.client": 1,
        "roles/cloudsql.instanceUser": 1,
        "roles/logging.logWriter": 1,
    },
    "google_secret_manager_secret_iam_member": {"roles/secretmanager.secretAccessor": 2},
    "google_storage_bucket_iam_member": {"roles/storage.objectViewer": 1},
}


def expected(*, everything: bool) -> dict[str, Counter[str]]:
    """Return the roles by type of resource that a plan must have, and no other."""
    found = {kind: Counter(roles) for kind, roles in GRANTS.items()}
    for kind, roles in EVERYTHING.items() if everything else ():
        found.setdefault(kind, Counter()).update(roles)
    return found


def secrets(resource: Resource) -> list[str]:
    """Return complaints about values that the state would contain."""
    values = resource["values"]
    found = [f"{resource['address']}.{name} is set" for name in WRITE_ONLY if values.get(name)]
    if resource["mode"] != "managed" and resource["type"] not in READ:
        found.append(f"{resource['address']} is in the plan")
    return found + [
        f"{resource['address']}: {variable['name']} is in plain text"
        for variable in variables(values)
        if variable.get("name") in SECRET_SETTINGS and not variable.get("value_source")
    ]


def variables(values: Any) -> list[dict[str, Any]]:
    """Environment variables of containers, however deep."""
    if isinstance(values, list):
        return [variable for value in values for variable in variables(value)]
    if not isinstance(values, dict):
        return []
    own = values.get("env") or []
    return [*own, *(found for value in values.values() for found in variables(value))]


def grants(resources: list[Resource], wanted: dict[str, Counter[str]]) -> list[str]:
    """Return complaints about roles, and about members that are everyone."""
    found: dict[str, Counter[str]] = {}
    public = []
    for resource in resources:
        kind = resource["type"]
        if "_iam_" not in kind and not kind.endswith("_access"):
            continue
        found.setdefault(kind, Counter())[resource["values"].get("role", "?")] += 1
        if str(resource["values"].get("member")).startswith("all"):
            public.append(f"{resource['address']} is for everyone")
    if found == wanted:
        return public
    return [*public, f"roles are {json.dumps(found, indent=2)}, not those in check_plan.py"]


def main() -> int:
    """Print complaints; 1 where there is any."""
    plan = json.load(sys.stdin)
    resources = plan["planned_values"]["root_module"]["resources"]
    complaints = [line for resource in resources for line in secrets(resource)]
    complaints += grants(resources, expected(everything="everything" in sys.argv))
    for line in complaints:
        sys.stderr.write(f"{line}\n")
    if not complaints:
        sys.stdout.write(f"{len(resources)} resources planned: roles as listed, no secret.\n")
    return int(bool(complaints))


if __name__ == "__main__":
    sys.exit(main())
