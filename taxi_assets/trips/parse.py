"""Parse a day's raw partition, CSV lines or a Parquet table, into the service's types."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from taxi_assets.errors import PartitionRejectedError
from taxi_assets.tlc.header import HeaderError, parse_stored_header
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.zone_polygons import ZonePolygons
from taxi_assets.trips.parse_csv import parse_lines
from taxi_assets.trips.parsed import Parsed, parse_by_value


def parse_partition(
    content: pa.Buffer | pa.Table, service: Service, zones: ZonePolygons | None = None
) -> Parsed:
    """Parse a raw partition into the service's columns and types; missing columns are null.

    If the file has coordinates in place of zones, `zones` maps them to zones.

    Raises:
        PartitionRejectedError: the partition's columns are not the service's.
    """
    try:
        header = parse_stored_header(content, service)
    except HeaderError as error:
        raise PartitionRejectedError(
            f"the raw partition has {error}: materialize {service.name}/raw_trips again"
        ) from None
    if isinstance(content, pa.Table):
        parsed = parse_by_value(
            content.column, content.num_rows, header, zones, first_row=1, unit="row"
        )
    else:
        parsed = parse_lines(content, header, zones)
    return replace(parsed, located=tuple(header.points)) if zones else parsed
