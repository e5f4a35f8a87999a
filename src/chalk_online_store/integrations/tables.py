"""Tables and data frames of any library as Arrow tables, without a loss."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa

from chalk_online_store.codec.values import FINER_THAN_MICROSECONDS, nanoseconds_of
from chalk_online_store.errors import InvalidValue

_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name, which only counts the rows."""


def table_of(data: Any) -> pa.Table:
    """A table or data frame as an Arrow table. Raises `InvalidValue` if it is not one."""
    try:
        if type(data).__module__.partition(".")[0] == "pandas":
            _check_objects(data)
            table = pa.Table.from_pandas(data, preserve_index=True)
        elif isinstance(data, Mapping):
            raise TypeError
        else:
            table = pa.table(data)
    except InvalidValue:
        raise
    # pyarrow quotes values in its messages, and `from None` keeps them out of tracebacks.
    except (TypeError, ValueError, OverflowError, AttributeError, pa.ArrowException) as error:
        raise InvalidValue(
            f"table must be a table or data frame; {type(data).__name__} is no table that Arrow "
            f"knows, or holds values that it has no type for ({type(error).__name__})."
            f"{_column_at_fault(data)} Use the store's write for mappings and row objects."
        ) from None
    unnamed = [name for name in table.column_names if _INDEX.fullmatch(name)]
    return table.drop_columns(unnamed) if unnamed else table


def _column_at_fault(data: Any) -> str:
    """The column of a pandas data frame that Arrow cannot hold, as a sentence."""
    names = list(data.columns) if hasattr(type(data), "columns") else []
    for name in names:
        try:
            pa.array(data[name])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this column's.
            return f" Column {name!r} raised {type(error).__name__}: give it a plain dtype."
    return ""


def _check_objects(data: Any) -> None:
    """Refuse times with nanoseconds among Python objects: Arrow would cut these off."""
    index = data.index
    columns = [(name, values) for name, values in data.items()]
    columns += [(name, index.get_level_values(at)) for at, name in enumerate(index.names)]
    for name, values in columns:
        if values.dtype != object or _PLAIN.issuperset(map(type, values)):
            continue
        for row, value in enumerate(values):
            if _finer_than_microseconds(value):
                raise InvalidValue(f"Column {name!r} is {FINER_THAN_MICROSECONDS} (row {row}).")


_PLAIN = frozenset({str, bytes, bool, int, float, Decimal, UUID, date, type(None)})


def _finer_than_microseconds(value: Any) -> bool:
    """Whether a value is, or holds at any depth, a pandas time with nanoseconds."""
    if isinstance(value, datetime | timedelta):
        return value == value and bool(nanoseconds_of(value))  # noqa: PLR0124 - NaT is a null.
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_finer_than_microseconds, value))
    if isinstance(value, np.ndarray) and value.dtype == object:
        return any(map(_finer_than_microseconds, value.tolist()))
    return False


def batch_of(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch."""
    columns = [pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
               for column in table.columns]  # fmt: skip
    return pa.record_batch(columns, schema=table.schema)
