"""BigQuery's IO manager against a strict BigQuery, with our tables and a user's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any

import pyarrow.fs as pa_fs
import pytest
from google.api_core.exceptions import BadRequest, Forbidden, NotFound, PreconditionFailed
from google.cloud import bigquery

from taxi_assets.defs.io_managers import bigquery_jobs as module
from taxi_assets.defs.io_managers.bigquery import BigQueryTripsIOManager
from taxi_assets.defs.io_managers.bigquery_replace import replace_in_transaction
from taxi_assets.defs.io_managers.bigquery_staging import Staging, load_staging
from taxi_assets.defs.io_managers.bigquery_table import build_table_schema
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.errors import StoreError, UnavailableError, is_transient
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.io_managers.test_postgres import make_stored_day
from taxi_assets_tests.defs.jobs import jobs as small_jobs
from taxi_assets_tests.fault_proxy import HttpProxy
from taxi_assets_tests.strict_bigquery import strict_bigquery

GREEN = SERVICES["green"]
DATASET = "store_test"
TABLE = f"{DATASET}.{GREEN.table}"
DAY = date(2021, 1, 5)
NEXT_DAY = date(2021, 1, 6)
INSERT, COPY = r"^POST \S+/jobs\b.*INSERT INTO", r'^POST \S+/jobs\b.*"copy"'
PATCH, GET = r"^PATCH \S+/tables/", rf"^GET \S+/tables/{GREEN.table}"


@dataclass
class Log:
    """Collects warnings in place of Dagster's log."""

    warnings: list[str] = field(default_factory=list)

    def info(self, *args: object) -> None:
        """Discard the message."""

    def warning(self, message: str) -> None:
        """Collect the warning."""
        self.warnings.append(message)


@pytest.fixture(scope="module")
def proxy(home: object) -> Iterator[HttpProxy]:
    with strict_bigquery(stores.stack().bigquery_endpoint) as proxy:
        yield proxy


@pytest.fixture
def google(proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpProxy]:
    """Return a strict BigQuery without the dataset."""
    monkeypatch.setenv("BIGQUERY_ENDPOINT", proxy.address)
    monkeypatch.setenv("BIGQUERY_TOKEN", stores.stack().bigquery_token)
    monkeypatch.setenv("BIGQUERY_DATASET", DATASET)
    yield proxy
    left = proxy.left
    proxy.clear()
    with BigQueryResource().client() as client:
        client.delete_dataset(DATASET, delete_contents=True, not_found_ok=True)
    assert left == []


@pytest.fixture
def client(google: HttpProxy) -> Iterator[bigquery.Client]:
    with BigQueryResource().client() as client:
        yield client


@pytest.fixture
def lake(home: object) -> Lake:
    root = stores.stack().lake_root / "store-test"
    root.mkdir(exist_ok=True)
    return Lake(pa_fs.LocalFileSystem(), str(root), "store-test", "hive")


def store_in_bigquery(
    lake: Lake, *days: date, rows: int = 10, log: Log | None = None
) -> dict[date, Any]:
    """Store days; return the metadata of each."""
    own = replace(lake, root=f"{lake.root}/{rows}", bucket=f"{lake.bucket}/{rows}")
    slices = {day: make_stored_day(own, day, rows) for day in days}
    manager = BigQueryTripsIOManager({"green": GREEN}, BigQueryResource())
    stored = manager.store(GREEN, slices, log or Log())
    return {day: record.metadata for day, record in stored}


def load_staging_table(client: bigquery.Client, lake: Lake, rows: int) -> Staging:
    """Load the rows of DAY into a staging table."""
    target = f"{client.project}.{TABLE}"
    staging = Staging(target, GREEN, (DAY,), timedelta(hours=1), lambda: None)
    own = replace(lake, root=f"{lake.root}/{rows}", bucket=f"{lake.bucket}/{rows}")
    load_staging(client, staging, {DAY: make_stored_day(own, DAY, rows)})
    return staging


def count_rows(client: bigquery.Client, *days: date) -> list[int]:
    assert f"{client.project}.{DATASET}" == BigQueryResource().dataset
    manager = BigQueryTripsIOManager({"green": GREEN}, BigQueryResource())
    totals = manager.read_totals(GREEN, list(days), Log())
    return [totals.get(day, (0, 0.0))[0] for day in days]


def create_table(client: bigquery.Client, **changes: Any) -> bigquery.Table:
    """Create a user's table that differs from ours by `changes`."""
    client.create_dataset(DATASET, exists_ok=True)
    schema = [*build_table_schema(GREEN), bigquery.SchemaField(GREEN.day_column, "DATE")]
    table = bigquery.Table(f"{client.project}.{TABLE}", schema=changes.pop("schema", schema))
    table.time_partitioning = bigquery.TimePartitioning(field=GREEN.day_column)
    for name, value in changes.items():
        setattr(table, name, value)
    return client.create_table(table)


def test_stored_days_are_replaced(google: HttpProxy, client: bigquery.Client, lake: Lake) -> None:
    log = Log()
    assert store_in_bigquery(lake, DAY, NEXT_DAY, log=log)[DAY]["dagster/row_count"] == 20
    assert store_in_bigquery(lake, NEXT_DAY, rows=7, log=log)[NEXT_DAY]["dagster/row_count"] == 17
    assert count_rows(client, DAY, NEXT_DAY) == [10, 7]
    table = client.get_table(TABLE)
    assert table.description.startswith("Last written from ")
    assert table.time_partitioning.field == GREEN.day_column
    assert log.warnings == []
    assert [table.table_id for table in client.list_tables(DATASET)] == [GREEN.table]


@pytest.mark.parametrize(
    ("on", "act", "status"),
    [
        (PATCH, "answer", 412),
        (PATCH, "answer", 403),
        (PATCH, "answer", 503),
        (PATCH, "answer_in_html", 0),
        (PATCH, "cut_json", 0),
        (r"^DELETE \S+/tables/_staging", "answer", 403),
    ],
)
def test_nothing_after_the_commit_fails_a_run(
    on: str, act: str, status: int, google: HttpProxy, lake: Lake
) -> None:
    google.add(on, act, times=99, status=status)
    log = Log()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LABEL_SECONDS", 0.5)
        recorded = store_in_bigquery(lake, DAY, log=log)
    google.clear()
    assert recorded[DAY]["rows"] == 10
    with BigQueryResource().client() as client:
        assert count_rows(client, DAY) == [10]
    assert len(log.warnings) == 1
    assert "the rows are stored" in log.warnings[0]


def test_unavailable_row_count_is_omitted(
    google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    store_in_bigquery(lake, DAY)
    # The first request checks that the table exists.
    google.add(GET, "hold")
    google.add(GET, "answer", status=403)
    log = Log()
    recorded = store_in_bigquery(lake, DAY, rows=12, log=log)
    assert "dagster/row_count" not in recorded[DAY]
    assert count_rows(client, DAY) == [12]
    assert len(log.warnings) == 1


def test_users_table_retains_its_additions(
    google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    tags = bigquery.PolicyTagList(
        [f"projects/{client.project}/locations/us/taxonomies/1/policyTags/2"]
    )
    *columns, total = [*build_table_schema(GREEN), bigquery.SchemaField(GREEN.day_column, "DATE")]
    upper = bigquery.SchemaField(columns[0].name.upper(), columns[0].field_type, policy_tags=tags)
    remark = bigquery.SchemaField("remark", "STRING", description="ours")
    # It lacks two columns that our schema got later.
    missing, columns = columns[-2:], columns[:-2]
    users_table = create_table(
        client,
        schema=[upper, *columns[1:], total, remark],
        description="Trips of the night shift",
        labels={"team": "night"},
        clustering_fields=["vendorid"],
        require_partition_filter=True,
    )
    log = Log()
    recorded = store_in_bigquery(lake, DAY, log=log)
    store_in_bigquery(lake, DAY, rows=8, log=log)
    assert log.warnings == []
    assert recorded[DAY]["dagster/row_count"] == 10
    assert count_rows(client, DAY) == [8]
    stored_table = client.get_table(TABLE)
    assert (stored_table.description, stored_table.labels) == (
        users_table.description,
        users_table.labels,
    )
    assert stored_table.clustering_fields == ["vendorid"]
    assert stored_table.require_partition_filter is True
    stored_columns = {column.name: column for column in stored_table.schema}
    assert stored_columns[upper.name].policy_tags == tags
    assert stored_columns["remark"].description == "ours"
    assert {field.name for field in missing} <= set(stored_columns)


ANOTHER_DAY = bigquery.SchemaField("loaded_on", "DATE")
TABLE_SCHEMA = [*build_table_schema(GREEN), bigquery.SchemaField(GREEN.day_column, "DATE")]


def make_changed_schema(
    name: str, kind: str | None = None, mode: str = "NULLABLE"
) -> dict[str, Any]:
    """Return the schema with one column of another type or mode."""
    return {
        "schema": [
            bigquery.SchemaField(name, kind or field.field_type, mode)
            if field.name == name
            else field
            for field in TABLE_SCHEMA
        ]
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"time_partitioning": None}, " is not partitioned and must be partitioned by DAY on lpep"),
        (
            {"time_partitioning": bigquery.TimePartitioning()},
            " is partitioned by DAY on the time of ingestion and must be",
        ),
        (
            {"time_partitioning": bigquery.TimePartitioning("MONTH", GREEN.day_column)},
            " is partitioned by MONTH on lpep_pickup_date and must be",
        ),
        (
            {"time_partitioning": bigquery.TimePartitioning("HOUR", GREEN.pickup_column)},
            " is partitioned by HOUR on lpep_pickup_datetime and must be",
        ),
        (
            {
                "schema": [*TABLE_SCHEMA, ANOTHER_DAY],
                "time_partitioning": bigquery.TimePartitioning(field="loaded_on"),
            },
            " is partitioned by DAY on loaded_on and must be",
        ),
        (
            {
                "time_partitioning": None,
                "range_partitioning": bigquery.RangePartitioning(
                    bigquery.PartitionRange(0, 9, 1), "vendorid"
                ),
            },
            " is partitioned by ranges of vendorid and must be",
        ),
        (
            make_changed_schema("vendorid", "STRING"),
            ".vendorid is STRING and must be INT64: alter or drop",
        ),
        (
            make_changed_schema("vendorid", mode="REPEATED"),
            ".vendorid is ARRAY<INT64> and must be INT64",
        ),
        (
            make_changed_schema("vendorid", mode="REQUIRED"),
            ".vendorid is REQUIRED and its value can be missing",
        ),
        (
            {"schema": [*TABLE_SCHEMA, bigquery.SchemaField("remark", "STRING", "REQUIRED")]},
            ".remark is REQUIRED and no file has it",
        ),
    ],
)
def test_table_that_would_lose_rows_is_rejected(
    changes: dict[str, Any], expected: str, client: bigquery.Client, lake: Lake
) -> None:
    users_table = create_table(client, **changes)
    with pytest.raises(StoreError) as error:
        store_in_bigquery(lake, DAY)
    assert f"taxi-local.{TABLE}{expected}" in str(error.value)
    assert str(error.value).endswith(", then run again")
    assert client.get_table(TABLE).etag == users_table.etag
    assert [table.table_id for table in client.list_tables(DATASET)] == [GREEN.table]


def test_columns_without_nulls_may_be_required(client: bigquery.Client, lake: Lake) -> None:
    required = {GREEN.day_column, GREEN.pickup_column}
    schema = [
        bigquery.SchemaField(field.name, field.field_type, "REQUIRED")
        if field.name in required
        else field
        for field in TABLE_SCHEMA
    ]
    create_table(client, schema=schema)
    store_in_bigquery(lake, DAY)
    assert count_rows(client, DAY) == [10]


def test_view_in_place_of_the_table_is_rejected(client: bigquery.Client, lake: Lake) -> None:
    client.create_dataset(DATASET)
    name = f"{client.project}.{TABLE}"
    view = bigquery.Table(name)
    view.view_query = "SELECT 1 AS vendorid"
    external = bigquery.Table(name, schema=TABLE_SCHEMA)
    external.external_data_configuration = bigquery.ExternalConfig("PARQUET")
    external.external_data_configuration.source_uris = ["gs://store-test/*.parquet"]
    for table, kind in ((view, "VIEW"), (external, "EXTERNAL")):
        client.create_table(table)
        with pytest.raises(StoreError, match=f"is a {kind} and must be a TABLE: drop it"):
            store_in_bigquery(lake, DAY)
        client.delete_table(name)


def test_dataset_in_another_location_is_named(client: bigquery.Client, lake: Lake) -> None:
    dataset = bigquery.Dataset(f"{client.project}.{DATASET}")
    dataset.location = "EU"
    client.create_dataset(dataset)
    expected = "is in EU and BIGQUERY_LOCATION is US: set BIGQUERY_LOCATION=EU, then run again"
    with pytest.raises(StoreError, match=expected):
        store_in_bigquery(lake, DAY)
    create_table(client)
    with pytest.raises(StoreError, match=expected):
        store_in_bigquery(lake, DAY)


def test_days_that_would_expire_immediately_are_rejected(
    client: bigquery.Client, lake: Lake
) -> None:
    sixty = 60 * 24 * 3600 * 1000
    by = bigquery.TimePartitioning(field=GREEN.day_column, expiration_ms=sixty)
    create_table(client, time_partitioning=by)
    with pytest.raises(StoreError, match=r"after 60 days, so 2021-01-05 to 2021-01-06 would be"):
        store_in_bigquery(lake, DAY, NEXT_DAY)
    recent = date.today() - timedelta(days=3)  # noqa: DTZ011 - any day of the last weeks
    store_in_bigquery(lake, recent)
    assert count_rows(client, recent) == [10]


def test_conflicting_transaction_can_be_retried(
    google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    """The table has policy tags, which rule out copy jobs."""
    tags = bigquery.PolicyTagList(["projects/p/locations/us/taxonomies/1/policyTags/2"])
    first_field, *other_fields = TABLE_SCHEMA
    tagged = bigquery.SchemaField(first_field.name, first_field.field_type, policy_tags=tags)
    create_table(client, schema=[tagged, *other_fields])
    store_in_bigquery(lake, DAY)
    google.add(r"^POST \S+/jobs.*BEGIN TRANSACTION", "hold_for_another")

    def attempt(staging: Staging) -> str:
        try:
            replace_in_transaction(client, staging)
        except UnavailableError as error:
            return str(error)
        return ""

    # Not `store`: it drops the staging tables of writers that have lost the lock of the month.
    stagings = [load_staging_table(client, lake, rows) for rows in (5, 6)]
    with ThreadPoolExecutor() as pool:
        errors = list(pool.map(attempt, stagings))
    assert sorted(map(bool, errors)) == [False, True]
    assert "a concurrent transaction wrote to" in max(errors)
    assert count_rows(client, DAY) == [5 if not errors[0] else 6]
    store_in_bigquery(lake, DAY, rows=9)
    assert count_rows(client, DAY) == [9]
    google.clear()
    assert [table.table_id for table in client.list_tables(DATASET)] == [GREEN.table]


def test_answers_that_are_not_json_count_as_lost(
    google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    google.add(r'^POST \S+/jobs\b.*"load"', "answer_in_html")
    google.add(INSERT, "cut_json")
    store_in_bigquery(lake, DAY)
    assert count_rows(client, DAY) == [10]
    google.add(r'^POST \S+/jobs\b.*"load"', "answer_in_html")
    google.add(COPY, "cut_json")
    store_in_bigquery(lake, DAY, NEXT_DAY, rows=7)
    assert count_rows(client, DAY, NEXT_DAY) == [7, 7]


def test_months_are_replaced_concurrently(
    google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    """Deleting transactions would cancel each other."""
    months = [[date(2021, month, 5), date(2021, month, 6)] for month in (1, 2, 3, 4)]
    for rows in (10, 7):
        google.add(rf"{INSERT}|{COPY[1:]}", "hold", times=4)
        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(lambda days, rows=rows: store_in_bigquery(lake, *days, rows=rows), months)
            )
        google.clear()
        assert count_rows(client, *(day for days in months for day in days)) == [rows] * 8
    assert [table.table_id for table in client.list_tables(DATASET)] == [GREEN.table]


def test_copies_of_a_run_are_started_concurrently(google: HttpProxy, lake: Lake) -> None:
    """Each answer takes a second, as Google's do."""
    days = [date(2021, 5, day) for day in range(1, 9)]
    store_in_bigquery(lake, *days)
    google.add(COPY, "hold", times=len(days))
    assert set(store_in_bigquery(lake, *days, rows=7)) == set(days)
    assert google.left == []
    assert google.most_held >= len(days) / 2


def test_rate_limited_copy_job_is_retried(
    google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    store_in_bigquery(lake, DAY, NEXT_DAY)
    google.add(COPY, "exceed_rate", times=2)
    assert set(store_in_bigquery(lake, DAY, NEXT_DAY, rows=7)) == {DAY, NEXT_DAY}
    assert count_rows(client, DAY, NEXT_DAY) == [7, 7]


def test_days_that_landed_before_a_failure_are_recorded(
    google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    store_in_bigquery(lake, DAY, NEXT_DAY)
    google.add(rf"{COPY}.*\${NEXT_DAY:%Y%m%d}", "answer", times=9, status=403)
    manager = BigQueryTripsIOManager({"green": GREEN}, BigQueryResource())
    stored = manager.store(
        GREEN, {day: make_stored_day(lake, day, 7) for day in (DAY, NEXT_DAY)}, Log()
    )
    recorded = [next(iter(stored))[0]]
    with pytest.raises(Forbidden):
        recorded += [day for day, _ in stored]
    google.clear()
    assert recorded == [DAY]
    assert count_rows(client, DAY, NEXT_DAY) == [7, 10]


@pytest.mark.parametrize(
    ("layout", "mode", "inserts"),
    [("hive", "NULLABLE", 0), ("date", "NULLABLE", 1), ("hive", "REQUIRED", 1)],
)
def test_a_rewrite_loads_into_the_partitions_where_it_can(
    layout: Any, mode: str, inserts: int, client: bigquery.Client, lake: Lake
) -> None:
    """The folder's name is the day, and a load takes no column that may not be null."""
    create_table(client, **make_changed_schema(GREEN.pickup_column, mode=mode))
    own = replace(lake, layout=layout)
    store_in_bigquery(own, DAY, NEXT_DAY)
    before = {job.job_id for job in client.list_jobs()}
    store_in_bigquery(own, DAY, NEXT_DAY, rows=7)
    assert count_rows(client, DAY, NEXT_DAY) == [7, 7]
    suffixes = [job.job_id for job in client.list_jobs() if job.job_id not in before]
    assert sum(name.endswith("_load") for name in suffixes) == 1
    assert sum(name.endswith("_by_day") for name in suffixes) == inserts


def test_rows_of_another_day_replace_nothing(
    google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    store_in_bigquery(lake, DAY, NEXT_DAY)
    manager = BigQueryTripsIOManager({"green": GREEN}, BigQueryResource())
    crossed = {DAY: make_stored_day(lake, NEXT_DAY, 5), NEXT_DAY: make_stored_day(lake, DAY, 7)}
    said = "has other rows than the lake of 2021-01-05, 2021-01-06: 12 in place of 12; nothing was"
    with pytest.raises(StoreError, match=said):
        list(manager.store(GREEN, crossed, Log()))
    assert count_rows(client, DAY, NEXT_DAY) == [10, 10]


def test_days_without_rows_are_emptied(client: bigquery.Client, lake: Lake) -> None:
    store_in_bigquery(lake, DAY, NEXT_DAY)
    slices = {DAY: make_stored_day(lake, DAY, 7), NEXT_DAY: make_stored_day(lake, NEXT_DAY, 0)}
    manager = BigQueryTripsIOManager({"green": GREEN}, BigQueryResource())
    assert {day for day, _ in manager.store(GREEN, slices, Log())} == {DAY, NEXT_DAY}
    assert count_rows(client, DAY, NEXT_DAY) == [7, 0]


@pytest.mark.parametrize("act", ["arrive_late", "run_late"])
def test_late_jobs_of_an_interrupted_run_duplicate_nothing(
    act: str, google: HttpProxy, client: bigquery.Client, lake: Lake
) -> None:
    """Its INSERT is in transit, or running, when the next run reads the table."""
    google.add(INSERT, act)
    # With this error it ends: it neither repeats the job nor waits for its end.
    google.add(rf"{INSERT}|^GET \S+/queries/", "answer", status=403)
    with pytest.raises(Forbidden):
        store_in_bigquery(lake, DAY)
    if act == "run_late":
        # The job is already reading the staging table, so dropping it does not help.
        google.add(r"^DELETE \S+/tables/_staging", "answer", status=404)
    store_in_bigquery(lake, DAY, rows=7)
    time.sleep(2.5)
    assert count_rows(client, DAY) == [7]


def test_html_answer_is_named(google: HttpProxy, lake: Lake) -> None:
    google.add(r"^GET \S+/tables/", "answer_in_html")
    with pytest.raises(
        UnavailableError, match=f"{google.address} did not answer with JSON"
    ) as error:
        store_in_bigquery(lake, DAY)
    assert is_transient(error.value)
    google.add(r"^POST \S+/jobs", "answer_in_html")
    output = small_jobs.run_and_read_failure("sql_query", query="SELECT 1", store="bigquery")
    assert "did not answer with JSON, as BigQuery does: a proxy may require a sign-in" in output


def test_strict_bigquery_is_as_strict_as_google(client: bigquery.Client, lake: Lake) -> None:
    """Show that the tests above can fail."""
    create_table(client, require_partition_filter=True)
    table_before = client.get_table(TABLE)
    store_in_bigquery(lake, DAY)
    table_before.description = "stale"
    with pytest.raises(PreconditionFailed, match="Precondition check failed"):
        client.update_table(table_before, ["description"])
    fresh = client.get_table(TABLE)
    assert fresh.etag != table_before.etag
    assert fresh.num_rows == 10
    tagged = fresh.schema[0].to_api_repr() | {"policyTags": {"names": ["a/b"]}}
    fresh.schema = [bigquery.SchemaField.from_api_repr(tagged), *fresh.schema[1:]]
    with pytest.raises(Forbidden, match="permission to get taxonomy"):
        client.update_table(fresh, ["schema"])
    fresh.schema = fresh.schema[1:]
    with pytest.raises(BadRequest, match="is missing in new schema"):
        client.update_table(fresh, ["schema"])

    unfiltered_query = f"SELECT COUNT(*) FROM `{TABLE}`"
    expected = (
        "without a filter over column.* 'lpep_pickup_date' that can be used for partition elim"
    )
    for condition in (
        "",
        " WHERE vendorid = 1",
        " WHERE lpep_pickup_date = '2021-01-05' OR vendorid = 1",
    ):
        with pytest.raises(BadRequest, match=expected):
            client.query(unfiltered_query + condition).result()
        with pytest.raises(BadRequest, match=expected):
            client.query(
                unfiltered_query + condition, job_config=bigquery.QueryJobConfig(dry_run=True)
            )
    with pytest.raises(BadRequest, match=expected):
        client.query(f"DELETE FROM `{TABLE}` WHERE TRUE").result()
    (row,) = client.query(f"{unfiltered_query} WHERE lpep_pickup_date = '2021-01-05'").result()
    assert row[0] == 10

    client.create_table(bigquery.Table(f"{client.project}.{TABLE}_plain", schema=TABLE_SCHEMA))
    with pytest.raises(BadRequest, match="Incompatible tables"):
        client.copy_table(f"{TABLE}_plain$20210105", f"{TABLE}$20210105").result()
    required = make_changed_schema(GREEN.pickup_column, mode="REQUIRED")
    client.create_table(bigquery.Table(f"{client.project}.{TABLE}_strict", **required))
    parquet = bigquery.LoadJobConfig(source_format="PARQUET")
    with pytest.raises(BadRequest, match="has changed mode from REQUIRED to NULLABLE"):
        client.load_table_from_uri([], f"{TABLE}_strict", job_config=parquet).result()
    with pytest.raises(BadRequest, match="Invalid job ID"):
        client.query("SELECT 1", job_id="a.b", job_retry=None)
    with pytest.raises(NotFound, match="was not found in location EU"):
        client.query(
            f"{unfiltered_query} WHERE lpep_pickup_date = '2021-01-05'", location="EU"
        ).result()
