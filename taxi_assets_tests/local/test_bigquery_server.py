"""The emulator with our changes: atomic loads and transactions, a folder that stays small."""

import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core.exceptions import Conflict, GoogleAPICallError
from google.cloud import bigquery

from taxi_assets.local import Stack
from taxi_assets_tests.local.clients import bigquery_client

DATASET = "taxi-local.spare"
SCHEMA = [
    bigquery.SchemaField("pickup", "DATETIME"),
    bigquery.SchemaField("amount", "FLOAT64"),
    bigquery.SchemaField("pickup_date", "DATE"),
]


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[bigquery.Client]:
    with bigquery_client(stack) as client:
        client.create_dataset(DATASET)
        yield client


@pytest.fixture
def table(client: bigquery.Client, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"{DATASET}.{request.node.name}"
    partitioned = bigquery.Table(name, schema=SCHEMA)
    partitioned.time_partitioning = bigquery.TimePartitioning(field="pickup_date")
    client.create_table(partitioned)
    yield name
    client.delete_table(name)


def stage_day(stack: Stack, table: str, day: int, amounts: Sequence[float] = (1.5,) * 3) -> str:
    key = f"{table}/pickup_date=2021-01-{day:02}/trips.parquet"
    path = stack.lake_root / "taxi" / key
    path.parent.mkdir(parents=True)
    # In another order than in the table: BigQuery matches columns by name.
    columns = {"amount": amounts, "pickup": [datetime(2021, 1, day)] * len(amounts)}  # noqa: DTZ001
    types = pa.schema([("amount", pa.float64()), ("pickup", pa.timestamp("us"))])
    pq.write_table(pa.table(columns, schema=types), path)
    return f"gs://taxi/{key}"


def load(client: bigquery.Client, uris: list[str], table: str, disposition: str) -> int:
    config = bigquery.LoadJobConfig(
        schema=SCHEMA, source_format="PARQUET", write_disposition=disposition
    )
    job = client.load_table_from_uri(uris, table, job_config=config)
    job.result()
    return job.output_rows or 0


def query_rows(client: bigquery.Client, sql: str) -> list[tuple[object, ...]]:
    return [row.values() for row in client.query(sql).result()]


def test_load_and_one_transaction(stack: Stack, client: bigquery.Client, table: str) -> None:
    uris = [stage_day(stack, table, day) for day in (1, 2)]
    staging = f"{table}_staging"
    assert load(client, uris, staging, "WRITE_TRUNCATE") == 6
    assert query_rows(client, f"SELECT DISTINCT pickup_date FROM `{staging}`") == [(None,)]
    for _ in range(2):
        client.query(
            f"BEGIN TRANSACTION; DELETE FROM `{table}` WHERE pickup_date >= DATE '2021-01-01';"
            f"INSERT INTO `{table}` (pickup, amount, pickup_date)"
            f" SELECT pickup, amount, DATE(pickup) FROM `{staging}`; COMMIT TRANSACTION;"
        ).result()
    client.delete_table(staging)
    days = query_rows(
        client,
        f"SELECT EXTRACT(DAY FROM pickup_date), COUNT(*), SUM(amount) FROM `{table}`"
        " GROUP BY 1 ORDER BY 1",
    )
    assert days == [(1, 3, 4.5), (2, 3, 4.5)]


def test_a_load_fills_the_day_from_the_folder(
    stack: Stack, client: bigquery.Client, table: str
) -> None:
    root = f"gs://taxi/{table}"
    uris = [stage_day(stack, table, day) for day in (1, 2)]

    def load_hive(mode: str, prefix: str) -> None:
        hive = bigquery.HivePartitioningOptions()
        hive.mode, hive.source_uri_prefix = mode, prefix
        config = bigquery.LoadJobConfig(schema=SCHEMA[:2], source_format="PARQUET")
        config.hive_partitioning = hive
        client.load_table_from_uri(uris, table, job_config=config).result()

    load_hive("CUSTOM", f"{root}/{{pickup_date:DATE}}")
    days = f"SELECT EXTRACT(DAY FROM pickup_date), COUNT(*) FROM `{table}` GROUP BY 1 ORDER BY 1"
    assert query_rows(client, days) == [(1, 3), (2, 3)]
    for mode, prefix in (
        ("CUSTOM", root),
        ("AUTO", f"{root}/{{pickup_date:DATE}}"),
        ("CUSTOM", f"{root}/{{day:DATE}}"),
        ("CUSTOM", "gs://taxi/{pickup_date:DATE}"),
    ):
        with pytest.raises(GoogleAPICallError):
            load_hive(mode, prefix)
    assert query_rows(client, days) == [(1, 3), (2, 3)]


def test_failed_load_leaves_the_table_unchanged(
    stack: Stack, client: bigquery.Client, table: str
) -> None:
    uri = stage_day(stack, table, 1)
    load(client, [uri], table, "WRITE_TRUNCATE")
    missing = uri.replace("trips", "lost")
    with pytest.raises(GoogleAPICallError):
        load(client, [uri, missing], table, "WRITE_TRUNCATE")
    assert query_rows(client, f"SELECT COUNT(*) FROM `{table}`") == [(3,)]
    assert load(client, [uri], table, "WRITE_APPEND") == 6


def test_failed_script_rolls_back(stack: Stack, client: bigquery.Client, table: str) -> None:
    load(client, [stage_day(stack, table, 1)], table, "WRITE_TRUNCATE")
    for end in ("SELECT ERROR('stop')", "ROLLBACK TRANSACTION"):
        script = f"BEGIN TRANSACTION; DELETE FROM `{table}` WHERE TRUE; {end};"
        if "ERROR" in end:
            with pytest.raises(GoogleAPICallError):
                client.query(script).result()
        else:
            client.query(script).result()
        assert query_rows(client, f"SELECT COUNT(*) FROM `{table}`") == [(3,)]


def test_rewrites_do_not_grow_the_folder(
    stack: Stack, client: bigquery.Client, table: str, shared_home: Path
) -> None:
    chance = random.Random(0)  # noqa: S311  so that the column does not compress: 2.4 MB a write
    uri = stage_day(stack, table, 1, [chance.random() for _ in range(300_000)])
    sizes: list[int] = []
    for _ in range(16):
        load(client, [uri], table, "WRITE_TRUNCATE")
        sizes.append(sum(path.stat().st_size for path in (shared_home / "bigquery").iterdir()))
    # Up to 16 MB lie in DuckDB's log before a checkpoint; a copy per write would double it.
    assert max(sizes[8:]) <= 1.5 * max(sizes[:8]), sizes


def test_concurrent_readers_get_their_own_results(
    stack: Stack, client: bigquery.Client, table: str
) -> None:
    uri = stage_day(stack, table, 1)
    load(client, [uri], table, "WRITE_TRUNCATE")
    finished = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        with bigquery_client(stack) as own:
            while not finished.is_set():
                counts = query_rows(own, f"SELECT COUNT(*) FROM `{table}`")
                listed = len(list(own.list_rows(table)))
                if counts != [(3,)] or listed != 3:
                    wrong.append((counts, listed))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(20):
        load(client, [uri], table, "WRITE_TRUNCATE")
    finished.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_job_id_is_used_once(client: bigquery.Client, table: str) -> None:
    insert, own = f"INSERT INTO `{table}` (amount) SELECT 1.0", table.rpartition(".")[2]
    client.query(insert, job_id=own, job_retry=None).result()
    with pytest.raises(Conflict, match="Already Exists"):
        client.query(insert, job_id=own, job_retry=None)
    with pytest.raises(Conflict):
        client.load_table_from_uri(["gs://taxi/none"], table, job_id=own)
    assert query_rows(client, f"SELECT COUNT(*) FROM `{table}`") == [(1,)]


def test_partition_is_copied_alone_and_completely(client: bigquery.Client, table: str) -> None:
    staging = f"{table}_staging"
    staging_table = bigquery.Table(staging, schema=SCHEMA)
    staging_table.time_partitioning = bigquery.TimePartitioning(field="pickup_date")
    client.create_table(staging_table)
    insert = "INSERT INTO `{}` (amount, pickup_date) VALUES {}"
    old_rows = ", ".join(f"(1, DATE '2021-01-0{day}')" for day in (5, 5, 6))
    client.query(insert.format(table, old_rows)).result()
    new = ", ".join(f"({day}, DATE '2021-01-0{day}')" for day in (5, 6, 6, 6))
    client.query(insert.format(staging, new)).result()
    truncate = bigquery.CopyJobConfig(write_disposition="WRITE_TRUNCATE")

    def copy(day: int, into: int) -> None:
        source, target = f"{staging}$2021010{day}", f"{table}$2021010{into}"
        client.copy_table(source, target, job_config=truncate).result()

    copy(6, 6)
    totals = f"SELECT pickup_date, SUM(amount) FROM `{table}` GROUP BY 1 ORDER BY 1"
    assert [row[1] for row in query_rows(client, totals)] == [2, 18]
    for day, into in ((7, 7), (5, 6)):
        with pytest.raises(GoogleAPICallError):
            copy(day, into)
    assert [row[1] for row in query_rows(client, totals)] == [2, 18]
    client.delete_table(staging)


FULL = """
import resource, signal, sys
from pathlib import Path
from bqemulator.config import PersistenceMode, Settings
from taxi_assets.local.bigquery_server import Engine

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
engine = Engine(Settings(persistence=PersistenceMode.PERSISTENT, data_dir=Path(sys.argv[1])))
import duckdb
engine._connection = duckdb.connect(str(Path(sys.argv[1], "full.duckdb")))
engine.execute("SET wal_autocheckpoint = '1TB'")
engine.execute("CREATE TABLE numbers AS SELECT random() FROM range(100000)")
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
for statement in ("FORCE CHECKPOINT", "SELECT 1"):
    try:
        engine.execute(statement)
    except Exception as error:
        print(type(error).__name__, error, flush=True)
print("still running", flush=True)
"""


def test_emulator_ends_if_its_database_must_be_restarted(tmp_path: Path) -> None:
    completed = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 1
    assert "still running" not in completed.stdout
    assert completed.stderr.splitlines()[-1].startswith("FATAL Error: ")
