"""`inspect_object`: schema, row count and first rows of any CSV or Parquet object."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.csv as pc
from pydantic import Field

from taxi_assets.defs.io_managers.sealed_objects import DamagedError, verify_sealed_stream
from taxi_assets.defs.jobs.result import (
    build_result_table,
    fail_in_one_line,
    format_table,
    list_columns,
)
from taxi_assets.defs.resources.lake import Lake, LakeResource, open_lake
from taxi_assets.errors import StoreError, format_count
from taxi_assets.settings import Settings
from taxi_assets.settings.stores import BUCKET
from taxi_assets.tlc.loaded_services import find_example_service
from taxi_assets.tlc.parquet_limits import TooLargeError, open_checked, read_first_rows
from taxi_assets.tlc.schema import Service

CSV, PARQUET = (".csv", ".csv.gz", ".csv.zst"), (".parquet",)
"""Endings of the keys that can be inspected."""
BLOCK = 1 << 20
"""Bytes of CSV that are in memory at a time, and the maximum length of a row."""
MAX_SHOWN_BYTES = 256 << 20
"""Maximum size of the rows that are shown."""
MAX_UNPACKED_BYTES = 64 << 30
"""Maximum size of the CSV text of an object; stops zstd and gzip bombs."""


class InspectObjectConfig(dg.Config):
    """The config of a run."""

    object: str = Field(
        description="A key of the lake (titanic_clean.csv), a path in the lake's folder, or a "
        "gs:// URI. It ends in .csv, .csv.gz, .csv.zst or .parquet."
    )
    rows: int = Field(20, ge=1, le=1000, description="Rows to show, 1 to 1000.")
    delimiter: str = Field(
        ",", min_length=1, max_length=1, description="The separator of a CSV object."
    )


@dataclass(frozen=True)
class Content:
    """The columns, row count and first rows of an object."""

    columns: list[dg.TableColumn]
    rows: int
    first: list[tuple[Any, ...]]


def _build_example(service: Service) -> dict[str, Any]:
    """Return the initial config of the launchpad: the day of the quick start."""
    day = f"{service.day_column}=2021-01-05"
    return {"object": f"{service.name}/{day}/trips.parquet", "rows": 20}


def build_inspect_object_job(services: Mapping[str, Service]) -> dg.JobDefinition:
    """Build the job of one op, `inspect`."""

    @dg.op(out=dg.Out(dg.Nothing))
    def inspect(
        context: dg.OpExecutionContext, config: InspectObjectConfig, lake: LakeResource
    ) -> None:
        """Read one object and show its content."""
        began = time.monotonic()
        with fail_in_one_line():
            home, key = locate_object(lake.lake, config.object)
            content = inspect_content(home, key, config)
        preview = build_result_table(content.columns, content.first)
        context.log.info(
            f"{home.path(key)}: {format_count(content.rows, 'row')}\n{format_table(preview)}"
        )
        context.add_output_metadata(
            {
                "rows": content.rows,
                "bytes": home.size(key) or 0,
                "seconds": round(time.monotonic() - began, 3),
                "dagster/uri": home.path(key),
                "columns": dg.TableSchema(content.columns),
                # Last: a wide table is wider than the page.
                "preview": preview,
            }
        )

    @dg.job(
        name="inspect_object",
        config={"ops": {"inspect": {"config": _build_example(find_example_service(services))}}},
        description="Shows schema, row count and first rows of a CSV or Parquet object; fails when "
        "it is empty or cannot be read.",
    )
    def inspect_object() -> None:
        inspect()

    return inspect_object


def locate_object(lake: Lake, address: str) -> tuple[Lake, str]:
    """Return the bucket and key of an object; a local path, with links resolved, is in the lake.

    Raises:
        StoreError: the path is outside the lake, or the object is neither CSV nor Parquet.
    """
    if not address.endswith(CSV + PARQUET):
        raise StoreError(f"{address!r} ends in none of {', '.join(CSV + PARQUET)}")
    if address.startswith("gs://"):
        bucket, _, key = address.removeprefix("gs://").partition("/")
        if not BUCKET.fullmatch(bucket) or not key:
            raise StoreError(f"{address!r} is not of the form gs://<bucket>/<key>")
        if bucket != lake.bucket:
            other = {"lake": f"gs://{bucket}", "lake_layout": lake.layout}
            lake = open_lake(Settings.from_env().lake.model_copy(update=other))
    else:
        key = address
    if not lake.local:
        if key.startswith("/") or ".." in key.split("/"):
            raise StoreError(f"{address!r} is not a key of {lake.path('')}")
        return lake, key
    root = Path(lake.root).resolve()
    try:
        path = (root / key).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"{address!r} is not a path") from error
    if not path.is_relative_to(root):
        raise StoreError(f"{address!r} is outside the lake's folder {root}")
    return lake, path.relative_to(root).as_posix()


def inspect_content(lake: Lake, key: str, config: InspectObjectConfig) -> Content:
    """Read the schema, row count and first rows of an object, a block at a time.

    Raises:
        StoreError: the object does not exist, is empty or cannot be read.
    """
    try:
        with lake.open(key) as stream:
            verify_sealed_stream(stream)
        if key.endswith(PARQUET):
            content = _inspect_parquet(lake, key, config.rows)
        else:
            content = _inspect_csv(lake, key, config)
    except FileNotFoundError as error:
        raise StoreError(f"there is no {lake.path(key)}") from error
    except TooLargeError as error:
        raise StoreError(f"{lake.path(key)} is too large to show: {error}") from error
    except DamagedError as error:
        raise StoreError(f"{lake.path(key)} cannot be read: it {error}") from error
    except (pa.ArrowException, OSError, MemoryError, UnicodeError) as error:
        raise StoreError(f"{lake.path(key)} cannot be read: {error}") from error
    if content.rows == 0:
        raise StoreError(f"{lake.path(key)} is empty: it has no rows")
    return content


def _inspect_parquet(lake: Lake, key: str, rows: int) -> Content:
    with (
        lake.open(key) as stream,
        open_checked(stream, buffer_size=BLOCK, page_checksum_verification=True) as parquet,
    ):
        first = read_first_rows(parquet, rows, MAX_SHOWN_BYTES)
        return Content(
            list_columns(parquet.schema_arrow), parquet.metadata.num_rows, _to_tuples(first, rows)
        )


def _inspect_csv(lake: Lake, key: str, config: InspectObjectConfig) -> Content:
    """Infer types from the first block and count all rows as text."""
    with _open_csv_reader(lake, key, config, pc.ConvertOptions()) as reader:
        columns = list_columns(reader.schema)
        first = _to_tuples(next(reader, None), config.rows)
        names = reader.schema.names
    as_text = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    with _open_csv_reader(lake, key, config, as_text) as reader:
        return Content(columns, _count_csv_rows(reader), first)


def _count_csv_rows(reader: pc.CSVStreamingReader) -> int:
    rows = size = 0
    for batch in reader:
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if size > MAX_UNPACKED_BYTES:
            raise TooLargeError(f"it unpacks to over {MAX_UNPACKED_BYTES:,} bytes")
    return rows


@contextmanager
def _open_csv_reader(
    lake: Lake, key: str, config: InspectObjectConfig, convert: pc.ConvertOptions
) -> Iterator[pc.CSVStreamingReader]:
    with (
        lake.filesystem.open_input_stream(f"{lake.root}/{key}", compression="detect") as stream,
        pc.open_csv(
            stream,
            read_options=pc.ReadOptions(use_threads=False, block_size=BLOCK),
            parse_options=pc.ParseOptions(delimiter=config.delimiter, newlines_in_values=True),
            convert_options=convert,
        ) as reader,
    ):
        yield reader


def _to_tuples(batch: pa.RecordBatch | pa.Table | None, rows: int) -> list[tuple[Any, ...]]:
    if batch is None:
        return []
    cells = [column.to_pylist() for column in batch.slice(0, rows).columns]
    return list(zip(*cells, strict=True))
