"""Read rows of Postgres as Arrow tables by COPY in its CSV format.

The round trip is exact: Postgres writes the shortest decimal of a float, ISO times, an empty field
for null and `""` for an empty text, and Arrow parses them to the same bits.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.csv as pa_csv

if TYPE_CHECKING:
    from psycopg import Cursor


def read_query_as_arrow(cursor: Cursor, query: str, schema: pa.Schema) -> pa.Table:
    """Return the rows of a SELECT, whose columns are those of `schema` in this order.

    Raises:
        psycopg.Error: the server rejected the query.
    """
    content = io.BytesIO()
    with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv)") as copy:
        for row in copy:
            content.write(row)
    if not content.tell():
        return schema.empty_table()
    content.seek(0)
    return pa_csv.read_csv(
        content,
        read_options=pa_csv.ReadOptions(column_names=schema.names, use_threads=False),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=schema,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    )
