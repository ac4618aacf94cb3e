"""A proxy that adds to the BigQuery emulator the rules that only Google enforces.

It is a fault proxy that tracks tables and jobs. docs/google.md lists each rule with its source and
its test.
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
# Properties of a table that the emulator does not store.
NOT_STORED = ("requirePartitionFilter", "expirationTime", "rangePartitioning", "location")


def strict_bigquery(endpoint: str) -> AbstractContextManager[HttpProxy]:
    """Run a strict BigQuery in front of the emulator at an endpoint."""
    return http_proxy(endpoint, module=__name__)


@dataclass
class Google:
    """The state of Google's tables and jobs."""

    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last written properties of each table, by `dataset.table`."""
    versions: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Number of changes of each table, including changes of its rows."""
    locations: dict[str, str] = field(default_factory=dict)
    """Location of each dataset."""
    writing: set[str] = field(default_factory=set)
    """Tables in which a transaction deletes."""
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Failed jobs that the emulator did not receive."""
    running: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Accepted jobs that the emulator has not received yet."""
    lock: Lock = field(default_factory=Lock)

    def etag(self, name: str, stock: str) -> str:
        """Return an etag that changes with the metadata and the rows of a table."""
        text = f"{name} {stock} {self.versions[name]}"
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def complete(self, name: str, resource: dict[str, Any]) -> dict[str, Any]:
        """Return a table as Google returns it."""
        known = self.tables.get(name, {})
        resource |= {key: known[key] for key in NOT_STORED if known.get(key) is not None}
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

    def find_required_filter(self, name: str) -> str | None:
        """Return the column by which queries must filter, if any."""
        known = self.tables.get(name, {})
        by = known.get("timePartitioning") or {}
        if known.get("requirePartitionFilter") or by.get("requirePartitionFilter"):
            return str(by.get("field", "_PARTITIONTIME"))
        return None

    def find_missing_filter(self, statements: list[exp.Expression]) -> str | None:
        """Return Google's error for the first table that is read without a required filter."""
        for table in (table for statement in statements for table in statement.find_all(exp.Table)):
            name = name_table(table)
            column = self.find_required_filter(name)
            scope = table.find_ancestor(exp.Select, exp.Delete, exp.Update, exp.Insert)
            if column is None or scope is None or isinstance(scope, exp.Insert):
                continue
            where = scope.args.get("where")
            if not where or not prunes(where.this, column):
                return (
                    f"Cannot query over table '{name}' without a filter over column(s) "
                    f"'{column}' that can be used for partition elimination"
                )
        return None


def name_table(table: exp.Table) -> str:
    """Return `dataset.table`."""
    parts = ".".join(part.name for part in table.parts).split(".")
    return ".".join(parts[-2:])


def prunes(condition: exp.Expression, column: str) -> bool:
    """Return whether a condition excludes partitions."""
    if isinstance(condition, exp.Paren):
        return prunes(condition.this, column)
    if isinstance(condition, exp.Or):
        return prunes(condition.left, column) and prunes(condition.right, column)
    if isinstance(condition, exp.And):
        return prunes(condition.left, column) or prunes(condition.right, column)
    this = condition.this if isinstance(condition, COMPARES) else None
    return isinstance(this, exp.Column) and this.name.casefold() == column.casefold()


def parse_statements(sql: str) -> list[exp.Expression]:
    """Return the statements of a script; none if it cannot be parsed."""
    try:
        return [expression for expression in sqlglot.parse(sql, dialect="bigquery") if expression]
    except sqlglot.errors.SqlglotError:
        return []


def get_specification(table: dict[str, Any]) -> tuple[Any, ...]:
    """Return partitions and clustering, which a copy job requires to be the same."""
    by = table.get("timePartitioning") or {}
    fields = (table.get("clustering") or {}).get("fields", [])
    return by.get("type"), by.get("field", "").casefold(), [name.casefold() for name in fields]


def get_schema(table: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return columns, types, modes and policy tags, in order."""
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
    """Return an error in the format of Google's API."""
    details = {"message": message, "domain": "global", "reason": reason}
    body = {"error": {"code": code, "message": message, "errors": [details]}}
    return code, {"Content-Type": "application/json"}, json.dumps(body).encode()


def answer(body: dict[str, Any]) -> Answer:
    """Return the response with a resource."""
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


class StrictExchange(Exchange):
    """Requests to a strict BigQuery."""

    google = Google()

    def forward(self, share: float = 1.0) -> Answer:
        """Respond as Google does where the emulator differs."""
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

    def parse_body(self) -> dict[str, Any]:
        """Return the body of the request; empty if it is not JSON."""
        with suppress(ValueError):
            return json.loads(self.body)
        return {}

    def on_dataset(self, path: re.Match[str]) -> Answer:
        code, headers, body = super().forward()
        if self.command == "POST" and code < 300:
            dataset = self.parse_body()
            name = dataset["datasetReference"]["datasetId"]
            self.google.locations[name] = dataset.get("location", "US")
        if self.command == "DELETE":
            for name in [table for table in self.google.tables if table.startswith(f"{path[2]}.")]:
                del self.google.tables[name]
            self.google.locations.pop(path[2] or "", None)
        if self.command == "GET" and path[2] in self.google.locations and code < 300:
            return answer(json.loads(body) | {"location": self.google.locations[path[2]]})
        return code, headers, body

    def on_table(self, path: re.Match[str]) -> Answer:
        resource = self.parse_body()
        table = path[3] or resource.get("tableReference", {}).get("tableId", "")
        name = f"{path[2]}.{table}"
        with self.google.lock:
            rejection = self.reject_patch(name, resource) if self.command == "PATCH" else None
            if rejection:
                return rejection
            code, headers, body = super().forward()
            if code >= 300 or not table:
                return code, headers, body
            if self.command == "DELETE":
                self.google.tables.pop(name, None)
                return code, headers, body
            if self.command in ("POST", "PATCH"):
                self.google.tables[name] = self.google.tables.get(name, {}) | resource
                self.google.versions[name] += 1
            return answer(self.google.complete(name, json.loads(body)))

    def reject_patch(self, name: str, patch: dict[str, Any]) -> Answer | None:
        """Return 412 for another etag than the table's, 400 for a schema that loses a column.

        A schema with policy tags is 403, as for an account that is only a data editor.
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
        """Accept a job at once, and run it a second later, even if no client waits for it."""
        job = self.build_job(self.parse_body(), "RUNNING")
        job_id = job["jobReference"]["jobId"]
        self.google.running[job_id] = job
        threading.Thread(target=self.delay(job_id)).start()
        self.send(*answer(job))

    def arrive_late(self) -> None:
        """Break the connection; the request reaches BigQuery two seconds later."""
        threading.Thread(target=self.delay("", 2.0)).start()
        self.reset()

    def delay(self, job_id: str, seconds: float = 1.0) -> Callable[[], None]:
        """Return a function that forwards the request after some seconds."""
        twin = copy.copy(self)

        def run() -> None:
            time.sleep(seconds)
            twin.forward()
            twin.google.running.pop(job_id, None)

        return run

    def exceed_rate(self) -> None:
        """Accept a job that fails because the table was changed too often."""
        message = "Exceeded rate limits: too many partition modifications for this table"
        self.send(*self.fail(self.parse_body(), message, "rateLimitExceeded"))

    def on_job(self, path: re.Match[str]) -> Answer:
        if self.command == "GET" and path[2] in self.google.failed:
            return self.failed_answer(self.google.failed[path[2]])
        if self.command == "GET" and path[2] in self.google.running:
            return answer(self.google.running[path[2]])
        if self.command == "GET" and not path[2] and "stateFilter=running" in self.path:
            return answer({"jobs": list(self.google.running.values())})
        if self.command != "POST" or path[2]:
            return super().forward()
        job = self.parse_body()
        reference, config = job.get("jobReference", {}), job["configuration"]
        if not JOB_ID.fullmatch(reference.get("jobId", "x")):
            return error(400, "invalid", f'Invalid job ID "{reference["jobId"]}"')
        statements = parse_statements(config.get("query", {}).get("query", ""))
        message = (
            self.google.find_missing_filter(statements)
            or self.find_mismatch(reference, config)
            or self.find_relaxed_column(reference, config)
        )
        rejection = self.reject_wrong_location(reference, config, statements)
        if message and not rejection:
            dry = config.get("dryRun")
            rejection = error(400, "invalidQuery", message) if dry else self.fail(job, message)
        return rejection or self.run(job, statements)

    def on_query(self, path: re.Match[str]) -> Answer:
        """Run a job and return its first rows in one response (jobs.query)."""
        query = self.parse_body()
        statements = parse_statements(query.get("query", ""))
        reference = {"projectId": path[1], "location": query.get("location")}
        rejection = self.reject_wrong_location(reference, {}, statements)
        message = self.google.find_missing_filter(statements)
        if message and not rejection:
            rejection = error(400, "invalidQuery", message)
        return rejection or super().forward()

    def find_mismatch(self, reference: dict[str, Any], config: dict[str, Any]) -> str | None:
        """Return Google's error for a copy job between partitions of tables that differ."""
        if "$" not in json.dumps(config.get("copy", {})):
            return None
        sources = config["copy"].get("sourceTables") or [config["copy"]["sourceTable"]]
        source, target = (
            self.table(reference["projectId"], table_reference)
            for table_reference in (sources[0], config["copy"]["destinationTable"])
        )
        for read in (get_specification, get_schema):
            if read(source) != read(target):
                return f"Incompatible tables: {read(source)} and {read(target)}"
        return None

    def find_relaxed_column(self, reference: dict[str, Any], config: dict[str, Any]) -> str | None:
        """Return Google's error for a load of Parquet, whose columns are optional, into others."""
        into = config.get("load", {}).get("destinationTable")
        fields = self.table(reference["projectId"], into).get("schema", {}) if into else {}
        for column in fields.get("fields", []):
            if column.get("mode") == "REQUIRED":
                return f"Field {column['name']} has changed mode from REQUIRED to NULLABLE"
        return None

    def table(self, project: str, reference: dict[str, Any]) -> dict[str, Any]:
        """Return a table as Google returns it."""
        dataset, table = reference["datasetId"], reference["tableId"].partition("$")[0]
        saved = self.command, self.path, self.body
        self.command, self.body = "GET", b""
        self.path = f"/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{table}"
        try:
            return self.google.complete(f"{dataset}.{table}", json.loads(super().forward()[2]))
        finally:
            self.command, self.path, self.body = saved

    def reject_wrong_location(
        self, reference: dict[str, Any], config: dict[str, Any], statements: list[exp.Expression]
    ) -> Answer | None:
        """Return 404 for a job in another location than its data."""
        datasets = {
            name_table(table).partition(".")[0]
            for statement in statements
            for table in statement.find_all(exp.Table)
        }
        datasets |= {
            table["datasetId"]
            for table in [config.get("load", {}).get("destinationTable")]
            if table
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
        """Run a job; of two transactions that delete rows of a table, cancel the second."""
        google, dry = self.google, job["configuration"].get("dryRun")
        begun = any(isinstance(statement, exp.Transaction) for statement in statements)
        deletes = (
            {
                name_table(statement.find(exp.Table))
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
                for statement in statements:
                    table = statement.find(exp.Table)
                    if not dry and isinstance(statement, WRITES) and table:
                        google.versions[name_table(table)] += 1
                for kind in ("load", "copy"):
                    into = job["configuration"].get(kind, {}).get("destinationTable")
                    if into:
                        name = into["tableId"].partition("$")[0]
                        google.versions[f"{into['datasetId']}.{name}"] += 1

    def build_job(self, job: dict[str, Any], state: str) -> dict[str, Any]:
        """Return the resource of a job."""
        return {
            "kind": "bigquery#job",
            "jobReference": job["jobReference"],
            "configuration": job["configuration"],
            "status": {"state": state},
            "statistics": {"query": {}},
        }

    def fail(self, request: dict[str, Any], message: str, reason: str = "invalidQuery") -> Answer:
        """Accept a job that fails."""
        details = {"reason": reason, "location": "query", "message": message}
        job = self.build_job(request, "DONE")
        job["status"] |= {"errorResult": details, "errors": [details]}
        self.google.failed[request["jobReference"]["jobId"]] = job
        return answer(job)

    def failed_answer(self, job: dict[str, Any]) -> Answer:
        """Return a failed job, or the error in place of its result."""
        if "/queries/" in self.path:
            return error(400, "invalidQuery", job["status"]["errorResult"]["message"])
        return answer(job)


if __name__ == "__main__":
    main(*sys.argv[1:], exchange=StrictExchange)
