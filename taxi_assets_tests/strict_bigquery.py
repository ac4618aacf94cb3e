"""The BigQuery emulator, held to what Google enforces and the emulator does not.

A fault proxy that also knows tables: docs/google.md lists each rule, where it is known from, and
the test that holds the project to it.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import sqlglot
from sqlglot import exp

from taxi_assets_tests.fault_proxy import Exchange, HttpProxy, http_proxy, main

Answer = tuple[int, dict[str, str], bytes]
DATASETS = re.compile(r"/bigquery/v2/projects/([^/]+)/datasets(?:/([^/?]+))?(?:\?.*)?$")
TABLES = re.compile(
    r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables(?:/([^/?]+))?(?:\?.*)?$"
)
JOBS = re.compile(r"/bigquery/v2/projects/([^/]+)/(?:jobs|queries)(?:/([^/?]+))?(?:\?.*)?$")
QUERY = re.compile(r"/bigquery/v2/projects/([^/]+)/queries(?:\?.*)?$")
JOB_ID = re.compile(r"[A-Za-z0-9_-]{1,1024}")
WRITES = (exp.Insert, exp.Delete, exp.Update, exp.Merge, exp.Create, exp.Drop, exp.Alter)
DELETES = (exp.Delete, exp.Update, exp.Merge)
COMPARES = (exp.GT, exp.GTE, exp.LT, exp.LTE, exp.EQ, exp.Between, exp.In)
# What the emulator forgets of a table.
FORGOTTEN = ("requirePartitionFilter", "expirationTime", "rangePartitioning", "location")


def strict_bigquery(endpoint: str) -> AbstractContextManager[HttpProxy]:
    """A strict BigQuery in front of the emulator at an endpoint."""
    return http_proxy(endpoint, module=__name__)


@dataclass
class Google:
    """What Google knows of its tables and jobs."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was last written of each, by `dataset.table`."""
    versions: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """How often each changed, its rows too."""
    locations: dict[str, str] = field(default_factory=dict)
    """Of each dataset."""
    writing: set[str] = field(default_factory=set)
    """Tables in which a transaction deletes."""
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Jobs that failed without the emulator having heard of them."""
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Jobs that were accepted, and which the emulator will hear of."""
    lock: Lock = field(default_factory=Lock)

    def etag(self, name: str, stock: str) -> str:
        """Changes with the table's metadata and with its rows."""
        text = f"{name} {stock} {self.versions[name]}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def complete(self, name: str, resource: dict[str, Any]) -> dict[str, Any]:
        """A table as Google shows it."""
        known = self.tables.get(name, {})
        resource |= {key: known[key] for key in FORGOTTEN if known.get(key) is not None}
        if "externalDataConfiguration" in known:
            resource["type"] = "EXTERNAL"
        with suppress(KeyError):
            resource["location"] = self.locations[name.partition(".")[0]]
        columns = {column["name"]: column for column in known.get("schema", {}).get("fields", [])}
        for column in resource.get("schema", {}).get("fields", []):
            column |= {
                key: value
                for key, value in columns.get(column["name"], {}).items()
                if key in ("policyTags", "defaultValueExpression")
            }
        resource["etag"] = self.etag(name, resource["etag"])
        return resource

    def protected(self, name: str) -> str | None:
        """The column that queries must filter by."""
        known = self.tables.get(name, {})
        by = known.get("timePartitioning") or {}
        if known.get("requirePartitionFilter") or by.get("requirePartitionFilter"):
            return str(by.get("field", "_PARTITIONTIME"))
        return None

    def unfiltered(self, statements: list[exp.Expression]) -> str | None:
        """What Google says of the first table that is read whole and must not be."""
        for table in (table for statement in statements for table in statement.find_all(exp.Table)):
            column = self.protected(named(table))
            scope = table.find_ancestor(exp.Select, exp.Delete, exp.Update, exp.Insert)
            if column is None or scope is None or isinstance(scope, exp.Insert):
                continue
            where = scope.args.get("where")
            if not where or not prunes(where.this, column):
                return (
                    f"Cannot query over table '{named(table)}' without a filter over column(s) "
                    f"'{column}' that can be used for partition elimination"
                )
        return None


def named(table: exp.Table) -> str:
    """`dataset.table`."""
    parts = ".".join(part.name for part in table.parts).split(".")
    return ".".join(parts[-2:])


def prunes(condition: exp.Expression, column: str) -> bool:
    """Whether a condition leaves partitions out."""
    if isinstance(condition, exp.Paren):
        return prunes(condition.this, column)
    if isinstance(condition, exp.Or):
        return prunes(condition.left, column) and prunes(condition.right, column)
    if isinstance(condition, exp.And):
        return prunes(condition.left, column) or prunes(condition.right, column)
    this = condition.this if isinstance(condition, COMPARES) else None
    return isinstance(this, exp.Column) and this.name.casefold() == column.casefold()


def statements_of(sql: str) -> list[exp.Expression]:
    """A script's statements; none if it cannot be read."""
    try:
        return [expression for expression in sqlglot.parse(sql, dialect="bigquery") if expression]
    except sqlglot.errors.SqlglotError:
        return []


def specification(table: dict[str, Any]) -> tuple[Any, ...]:
    """How a table is partitioned and clustered: of both a copy job wants the same."""
    by = table.get("timePartitioning") or {}
    fields = (table.get("clustering") or {}).get("fields", [])
    return by.get("type"), by.get("field", "").casefold(), [name.casefold() for name in fields]


def schema_of(table: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Columns, types, modes and policy tags, in order."""
    return [
        (
            column["name"].casefold(),
            {"INTEGER": "INT64", "FLOAT": "FLOAT64"}.get(column["type"], column["type"]),
            column.get("mode", "NULLABLE"),
            column.get("policyTags"),
        )
        for column in table.get("schema", {}).get("fields", [])
    ]


def error(code: int, reason: str, message: str) -> Answer:
    """An error as Google's API answers it."""
    details = {"message": message, "domain": "global", "reason": reason}
    body = {"error": {"code": code, "message": message, "errors": [details]}}
    return code, {"Content-Type": "application/json"}, json.dumps(body).encode()


def answer(body: dict[str, Any]) -> Answer:
    """A resource."""
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


class StrictExchange(Exchange):
    """Requests to a strict BigQuery."""

    google = Google()

    def forward(self, share: float = 1.0) -> Answer:
        """Answer as Google would, where the emulator would not."""
        if share < 1:
            return super().forward(share)
        for pattern, act in (
            (TABLES, self.on_table),
            (DATASETS, self.on_dataset),
            (QUERY, self.on_query),
            (JOBS, self.on_job),
        ):
            match = pattern.match(self.path)
            if match:
                return act(match)
        return super().forward()

    def asked(self) -> dict[str, Any]:
        """The request's body."""
        with suppress(ValueError):
            return json.loads(self.body)
        return {}

    def on_dataset(self, path: re.Match[str]) -> Answer:
        code, headers, body = super().forward()
        if self.command == "POST" and code < 300:
            made = self.asked()
            name = made["datasetReference"]["datasetId"]
            self.google.locations[name] = made.get("location", "US")
        if self.command == "DELETE":
            for name in [table for table in self.google.tables if table.startswith(f"{path[2]}.")]:
                del self.google.tables[name]
            self.google.locations.pop(path[2] or "", None)
        if self.command == "GET" and path[2] in self.google.locations and code < 300:
            return answer(json.loads(body) | {"location": self.google.locations[path[2]]})
        return code, headers, body

    def on_table(self, path: re.Match[str]) -> Answer:
        asked = self.asked()
        table = path[3] or asked.get("tableReference", {}).get("tableId", "")
        name = f"{path[2]}.{table}"
        with self.google.lock:
            refusal = self.refuse_patch(name, asked) if self.command == "PATCH" else None
            if refusal:
                return refusal
            code, headers, body = super().forward()
            if code >= 300 or not table:
                return code, headers, body
            if self.command == "DELETE":
                self.google.tables.pop(name, None)
                return code, headers, body
            if self.command in ("POST", "PATCH"):
                self.google.tables[name] = self.google.tables.get(name, {}) | asked
                self.google.versions[name] += 1
            return answer(self.google.complete(name, json.loads(body)))

    def refuse_patch(self, name: str, patch: dict[str, Any]) -> Answer | None:
        """412 for an etag that is not the table's, 400 for a schema that loses a column.

        And 403 for one with policy tags, as for an account that is no more than a data editor.
        """
        command, sent, self.command, self.body = self.command, self.body, "GET", b""
        code, _, body = super().forward()
        self.command, self.body = command, sent
        if code >= 300:
            return None
        payload = json.loads(body)
        etag = self.google.etag(name, payload["etag"])
        if self.headers.get("If-Match", etag) != etag:
            return error(412, "conditionNotMet", "Precondition check failed.")
        columns = {column["name"] for column in payload.get("schema", {}).get("fields", [])}
        patched_columns = {column["name"] for column in patch.get("schema", {}).get("fields", [])}
        if "schema" in patch and columns - patched_columns:
            lost = min(columns - patched_columns)
            message = f"Provided Schema does not match Table {name}."
            return error(400, "invalid", f"{message} Field {lost} is missing in new schema")
        if any("policyTags" in column for column in patch.get("schema", {}).get("fields", [])):
            message = f"Access Denied: {name}: User does not have permission to get taxonomy"
            return error(403, "accessDenied", message)
        return None

    def run_late(self) -> None:
        """Accept a job at once, and run it a second later, whether anybody waits or not."""
        job = self.job_of(self.asked(), "RUNNING")
        job_id = job["jobReference"]["jobId"]
        self.google.running[job_id] = job
        threading.Thread(target=self.later(job_id)).start()
        self.send(*answer(job))

    def arrive_late(self) -> None:
        """Break the connection; the request reaches BigQuery two seconds later."""
        threading.Thread(target=self.later("", 2.0)).start()
        self.reset()

    def later(self, job_id: str, seconds: float = 1.0) -> Callable[[], None]:
        """Send the request some time from now."""
        twin = copy.copy(self)

        def run() -> None:
            time.sleep(seconds)
            twin.forward()
            twin.google.running.pop(job_id, None)

        return run

    def exceed_rate(self) -> None:
        """Accept a job that fails because the table has been changed too often of late."""
        message = "Exceeded rate limits: too many partition modifications for this table"
        self.send(*self.fail(self.asked(), message, "rateLimitExceeded"))

    def on_job(self, path: re.Match[str]) -> Answer:
        if self.command == "GET" and path[2] in self.google.failed:
            return self.failed_answer(self.google.failed[path[2]])
        if self.command == "GET" and path[2] in self.google.running:
            return answer(self.google.running[path[2]])
        if self.command == "GET" and not path[2] and "stateFilter=running" in self.path:
            return answer({"jobs": list(self.google.running.values())})
        if self.command != "POST" or path[2]:
            return super().forward()
        job = self.asked()
        reference, config = job.get("jobReference", {}), job["configuration"]
        if not JOB_ID.fullmatch(reference.get("jobId", "x")):
            return error(400, "invalid", f'Invalid job ID "{reference["jobId"]}"')
        statements = statements_of(config.get("query", {}).get("query", ""))
        message = (
            self.google.unfiltered(statements)
            or self.mismatch(reference, config)
            or self.relaxed(reference, config)
        )
        refusal = self.elsewhere(reference, config, statements)
        if message and not refusal:
            dry = config.get("dryRun")
            refusal = error(400, "invalidQuery", message) if dry else self.fail(job, message)
        return refusal or self.run(job, statements)

    def on_query(self, path: re.Match[str]) -> Answer:
        """A job and its first rows in one answer: jobs.query."""
        query = self.asked()
        statements = statements_of(query.get("query", ""))
        reference = {"projectId": path[1], "location": query.get("location")}
        refusal = self.elsewhere(reference, {}, statements)
        message = self.google.unfiltered(statements)
        if message and not refusal:
            refusal = error(400, "invalidQuery", message)
        return refusal or super().forward()

    def mismatch(self, reference: dict[str, Any], config: dict[str, Any]) -> str | None:
        """What Google says of a copy job between partitions of tables of another making."""
        if "$" not in json.dumps(config.get("copy", {})):
            return None
        sources = config["copy"].get("sourceTables") or [config["copy"]["sourceTable"]]
        source, target = (
            self.table(reference["projectId"], table_reference)
            for table_reference in (sources[0], config["copy"]["destinationTable"])
        )
        for what in (specification, schema_of):
            if what(source) != what(target):
                return f"Incompatible tables: {what(source)} and {what(target)}"
        return None

    def relaxed(self, reference: dict[str, Any], config: dict[str, Any]) -> str | None:
        """What Google says of a load of Parquet, whose columns are optional here, into others."""
        into = config.get("load", {}).get("destinationTable")
        fields = self.table(reference["projectId"], into).get("schema", {}) if into else {}
        for column in fields.get("fields", []):
            if column.get("mode") == "REQUIRED":
                return f"Field {column['name']} has changed mode from REQUIRED to NULLABLE"
        return None

    def table(self, project: str, reference: dict[str, Any]) -> dict[str, Any]:
        """A table as Google knows it."""
        dataset, table = reference["datasetId"], reference["tableId"].partition("$")[0]
        saved = self.command, self.path, self.body
        self.command, self.body = "GET", b""
        self.path = f"/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{table}"
        try:
            return self.google.complete(f"{dataset}.{table}", json.loads(super().forward()[2]))
        finally:
            self.command, self.path, self.body = saved

    def elsewhere(
        self, reference: dict[str, Any], config: dict[str, Any], statements: list[exp.Expression]
    ) -> Answer | None:
        """404 for a job that runs in another place than its data is."""
        datasets = {
            named(table).partition(".")[0]
            for statement in statements
            for table in statement.find_all(exp.Table)
        }
        datasets |= {
            it["datasetId"] for it in [config.get("load", {}).get("destinationTable")] if it
        }
        place = reference.get("location")
        for name in sorted(datasets):
            at = self.google.locations.get(name)
            if place and at and place.casefold() != at.casefold():
                dataset = f"{reference['projectId']}:{name}"
                message = f"Not found: Dataset {dataset} was not found in location {place}"
                return error(404, "notFound", message)
        return None

    def run(self, job: dict[str, Any], statements: list[exp.Expression]) -> Answer:
        """Run a job; a transaction that deletes in a table where another one does is cancelled."""
        google, dry = self.google, job["configuration"].get("dryRun")
        begun = any(isinstance(statement, exp.Transaction) for statement in statements)
        deletes = (
            {
                named(statement.find(exp.Table))
                for statement in statements
                if isinstance(statement, DELETES)
            }
            if begun and not dry
            else set()
        )
        with google.lock:
            conflict = next(iter(deletes & google.writing), None)
            if conflict is None:
                google.writing |= deletes
        if conflict:
            return self.fail(
                job,
                "Query error: Transaction is aborted due to concurrent update against table "
                f"{job['jobReference']['projectId']}:{conflict}. Transaction ID: 1 at [2:1]",
            )
        try:
            return super().forward()
        finally:
            with google.lock:
                google.writing -= deletes
                for one in statements:
                    if not dry and isinstance(one, WRITES) and one.find(exp.Table):
                        google.versions[named(one.find(exp.Table))] += 1
                for kind in ("load", "copy"):
                    into = job["configuration"].get(kind, {}).get("destinationTable")
                    if into:
                        table = into["tableId"].partition("$")[0]
                        google.versions[f"{into['datasetId']}.{table}"] += 1

    def job_of(self, job: dict[str, Any], state: str) -> dict[str, Any]:
        """A job's resource."""
        return {
            "kind": "bigquery#job",
            "jobReference": job["jobReference"],
            "configuration": job["configuration"],
            "status": {"state": state},
            "statistics": {"query": {}},
        }

    def fail(self, asked: dict[str, Any], message: str, reason: str = "invalidQuery") -> Answer:
        """Accept a job, and have it fail."""
        details = {"reason": reason, "location": "query", "message": message}
        job = self.job_of(asked, "DONE")
        job["status"] |= {"errorResult": details, "errors": [details]}
        self.google.failed[asked["jobReference"]["jobId"]] = job
        return answer(job)

    def failed_answer(self, job: dict[str, Any]) -> Answer:
        """A failed job, or what there is in place of its result."""
        if "/queries/" in self.path:
            return error(400, "invalidQuery", job["status"]["errorResult"]["message"])
        return answer(job)


if __name__ == "__main__":
    main(*sys.argv[1:], exchange=StrictExchange)
