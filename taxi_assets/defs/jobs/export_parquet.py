"""`export_parquet`: a range of days of a service as one Parquet object."""

import time
from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg
import pyarrow as pa
from pydantic import Field

from taxi_assets.date_ranges import ONE_DAY, DateRange
from taxi_assets.defs.io_managers.partition_data import Label, add_missing_columns, open_lake_trips
from taxi_assets.defs.io_managers.sealed_objects import SealedParquetWriter
from taxi_assets.defs.jobs.inspect_object import locate_object
from taxi_assets.defs.jobs.result import fail_in_one_line, list_columns
from taxi_assets.defs.resources.lake import Lake, LakeResource
from taxi_assets.defs.resources.lake_keys import build_trips_key
from taxi_assets.errors import StoreError, format_count, format_list
from taxi_assets.tlc.loaded_services import find_example_service
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES


class ExportParquetConfig(dg.Config):
    """The config of a run."""

    service: str = Field(description=f"One of {', '.join(SERVICES)}.")
    first_day: str = Field(description="First pickup day, as 2021-01-01.")
    last_day: str = Field(description="Last pickup day, as 2021-01-31; it is included.")
    object: str = Field(
        "nyc_taxi_data.parquet",
        description="Key of the object in the lake; an existing object is replaced.",
    )
    skip_missing_days: bool = Field(
        False, description="Omit days that the lake does not have instead of failing."
    )


def _build_example(service: Service) -> dict[str, Any]:
    """Return the initial config of the launchpad: the day of the quick start."""
    return {
        "service": service.name,
        "first_day": "2021-01-05",
        "last_day": "2021-01-05",
        "object": "nyc_taxi_data.parquet",
    }


def build_export_parquet_job(services: Mapping[str, Service]) -> dg.JobDefinition:
    """Build the job of one op, `export`."""

    @dg.op(out=dg.Out(dg.Nothing))
    def export(
        context: dg.OpExecutionContext, config: ExportParquetConfig, lake: LakeResource
    ) -> None:
        """Copy the days in order into one object."""
        began = time.monotonic()
        with fail_in_one_line():
            service, days = _list_requested_days(config, services)
            target = lake.lake
            key = _find_target(target, config.object, services)
            stored_days, missing = _find_stored_days(target, service, days)
            if missing and not (config.skip_missing_days and stored_days):
                raise StoreError(
                    f"{target.path(service.name)} does not have {len(missing)} of "
                    f"{format_count(len(days), 'day')}: {format_list(missing)}. "
                    f"Materialize {service.name}/gcs_trips for them"
                    + (", or set skip_missing_days" if stored_days else "")
                )
            rows = write_export(target, service, stored_days, key)
        size = target.size(key) or 0
        context.log.info(
            f"{target.path(key)}: {format_count(len(stored_days), 'day')}, "
            f"{format_count(rows, 'row')}, {size:,} bytes"
        )
        context.add_output_metadata(
            {
                "rows": rows,
                "days": len(stored_days),
                "missing_days": len(missing),
                "bytes": size,
                "seconds": round(time.monotonic() - began, 3),
                "dagster/uri": target.path(key),
                "columns": dg.TableSchema(list_columns(build_export_schema(service))),
            }
        )

    @dg.job(
        name="export_parquet",
        config={"ops": {"export": {"config": _build_example(find_example_service(services))}}},
        description="Writes a range of days of a service from the lake into one Parquet object.",
    )
    def export_parquet() -> None:
        export()

    return export_parquet


def build_export_schema(service: Service) -> pa.Schema:
    """Return the columns of the service and the pickup DATE, which the lake has only in paths."""
    return service.arrow_schema.append(pa.field(service.day_column, pa.date32()))


def write_export(lake: Lake, service: Service, days: list[date], key: str) -> int:
    """Write the days to one object, a row group for each day, and return the number of rows.

    Raises:
        StoreError: the object of a day was deleted meanwhile.
        PartitionRejectedError: the object of a day is damaged.
    """
    rows = 0
    with (
        lake.writer(key) as stream,
        SealedParquetWriter(stream, build_export_schema(service)) as writer,
    ):
        for day in days:
            rows += _append_day(writer, lake, service, day)
        label = Label(service.name, "export_parquet", f"{days[0]} to {days[-1]}")
        writer.seal(label.to_metadata())
    return rows


def _append_day(writer: SealedParquetWriter, lake: Lake, service: Service, day: date) -> int:
    """Write the rows of one day; its memory is free before the next day is read."""
    trips = open_lake_trips(lake, service, day)
    if trips is None:
        raise StoreError(f"{service.name} {day} was deleted from the lake: run again")
    rows = add_missing_columns(trips.read_table(), service.arrow_schema)
    dates = pa.repeat(pa.scalar(day, pa.date32()), rows.num_rows)
    writer.write_table(
        rows.append_column(service.day_column, dates).cast(build_export_schema(service))
    )
    return int(rows.num_rows)


def _list_requested_days(
    config: ExportParquetConfig, services: Mapping[str, Service]
) -> tuple[Service, list[date]]:
    service = services.get(config.service)
    if service is None:
        raise StoreError(f"service {config.service!r} is none of {', '.join(services)}")
    try:
        first, last = map(date.fromisoformat, (config.first_day, config.last_day))
        return service, list(DateRange(first, last + ONE_DAY))
    except (ValueError, OverflowError):
        raise StoreError(
            f"first_day {config.first_day!r} to last_day {config.last_day!r} is not a range of"
            " days: write them as 2021-01-01, the first one first"
        ) from None


def _find_target(lake: Lake, address: str, services: Mapping[str, Service]) -> str:
    """Return the key to write; it must be outside the folders of the assets."""
    home, key = locate_object(lake, address)
    folder, _, rest = key.partition("/")
    if home is not lake or not key.endswith(".parquet"):
        raise StoreError(f"{address!r} is not a key in the lake that ends in .parquet")
    if rest and (folder in services or folder.startswith("_")):
        raise StoreError(f"{address!r} is in {folder}/, which belongs to the assets")
    return key


def _find_stored_days(
    lake: Lake, service: Service, days: list[date]
) -> tuple[list[date], list[date]]:
    """Return the days that the lake has, and the missing ones."""
    keys = lake.keys(service.name)
    stored = [day for day in days if build_trips_key(service, day, lake.layout) in keys]
    return stored, sorted(set(days).difference(stored))
