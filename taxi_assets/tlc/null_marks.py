r"""The texts that mean "no value".

The marks are those of pandas (`read_csv`, parameter `na_values`), `\N` of MySQL, Hive and
PostgreSQL's COPY, and `NaT` of pandas' times. Case does not matter. A label of TLC's dictionary
has precedence: `NA` is an unknown payment in months that were published with labels.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from taxi_assets.tlc.arrow_types import is_text_type

NULL_MARKS = frozenset(
    {
        *("", "NULL", r"\N", "NAN", "-NAN", "NA", "<NA>", "N/A", "NONE", "NAT"),
        *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "1.#IND", "-1.#QNAN", "1.#QNAN"),
    }
)
"""In capitals."""


@lru_cache(maxsize=16)
def list_null_spellings(except_for: frozenset[str] = frozenset()) -> list[str]:
    """Return the marks in every mix of upper and lower case, for readers that compare bytes."""
    return [
        "".join(letters)
        for mark in sorted(NULL_MARKS - except_for)
        for letters in product(*(sorted({letter.lower(), letter}) for letter in mark))
    ]


def replace_null_marks(values: pa.Array, labels: Collection[str] = ()) -> pa.Array:
    """Return plain values with null in place of NULL_MARKS in texts, and of NaN in numbers."""
    if is_text_type(values.type):
        marks = pa.array(sorted(NULL_MARKS.difference(labels)), pa.string())
        blank = pc.is_in(pc.ascii_upper(values), marks)
    elif types.is_floating(values.type):
        blank = pc.is_nan(values)
    else:
        return values
    if not pc.any(blank).as_py():
        return values
    return pc.if_else(blank, pa.scalar(None, values.type), values)
