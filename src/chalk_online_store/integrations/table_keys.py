"""Primary keys in tables: the columns that have them, and columns of keys to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from chalk_online_store.arguments import is_frame, key_list, kind_of, text_list
from chalk_online_store.errors import InvalidKey, InvalidValue
from chalk_online_store.integrations.conversion import TableConverter
from chalk_online_store.integrations.tables import Table, index_names, table_of
from chalk_online_store.schema import Namespace


class Keys(NamedTuple):
    """Primary keys, the names of their columns, and the Arrow types of integer columns."""

    values: list[Any]
    names: list[str]
    types: Mapping[str, pa.DataType]


def key_columns(namespace: Namespace, key: Sequence[str] | None) -> list[str]:
    """Return the names of the key's columns. Raises `InvalidValue` unless each part has one."""
    count = len(namespace.key.parts)
    if isinstance(key, str):
        key = [key]
    if key is None and not namespace.key.composite:
        key = [namespace.key_name]
    key = None if key is None else text_list(key, "key", "column names")
    if key is None or len(key) != count:
        raise InvalidValue(
            f"The primary key of {namespace.name!r} has {count} parts: name the column of each, "
            "key=[...]."
        )
    return list(key)


def keys_of(namespace: Namespace, keys: Any, key: Sequence[str] | None) -> Keys:
    """Return the keys of a list, a column, or a frame. Raises `InvalidKey`, `InvalidValue`."""
    if type(keys).__name__ == "MultiIndex":
        keys = keys.to_frame()
        key = index_names(keys) if key is None else key
    if key is None and is_frame(keys):
        raise InvalidKey(
            f"keys must be a list or a column of primary keys; got {kind_of(keys)}. Name the "
            "columns of the key, key=[...], or pass the column."
        )
    names = key_columns(namespace, key)
    table = _table(keys, names)
    if table is None:
        return Keys(key_list(keys), names, {})
    converter = TableConverter(namespace, names, names, None, None)
    missing = [name for name in names if name not in table.names]
    if missing:
        raise InvalidValue(
            f"keys has no column {missing[0]!r}; it has {', '.join(table.names)}. Name the columns "
            "of the key: key=[...]."
        )
    columns = table.slice(0, table.num_rows)
    rows = converter.convert({name: columns[name] for name in names}, 0).rows
    types = {}
    for name in names:
        column = columns[name]
        if isinstance(column, pa.Array) and kinds.is_integer(column.type):
            types[name] = column.type
    return Keys(list(rows.columns[namespace.key_name]), names, types)


def _table(keys: Any, names: list[str]) -> Table | None:
    """Return a frame, or a column of keys, as a table; None for any other iterable."""
    if is_frame(keys):
        return table_of(_without_other_columns(keys, names))
    if isinstance(keys, np.ndarray) and keys.ndim == 1 and keys.dtype != object:
        keys = pa.array(keys)
    if isinstance(keys, pa.Array | pa.ChunkedArray):
        if kinds.is_struct(keys.type):
            chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
            return table_of(pa.Table.from_batches(map(pa.RecordBatch.from_struct_array, chunks)))
        return Table(names, [keys], len(keys)) if len(names) == 1 else None
    library = type(keys).__module__.partition(".")[0]
    if library not in ("pandas", "polars"):
        return None
    if len(names) == 1:
        return table_of(_frame_of_column(keys, names[0], library))
    if library == "polars" and type(keys.dtype).__name__ == "Struct":
        return table_of(keys.struct.unnest())
    return None


def _without_other_columns(frame: Any, names: list[str]) -> Any:
    """Leave out columns that are not of the key: they may be many, and of any type."""
    if type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    if hasattr(frame, "loc"):
        present = frame.columns.isin(names)  # A level of the index may be a part of the key, too.
        return frame.loc[:, present] if present.any() else frame
    known = getattr(frame, "column_names", None) or getattr(frame, "columns", None)
    is_known = isinstance(known, list) and {*names} <= {*filter(_is_text, known)}
    return frame.select(names) if is_known else frame


def _is_text(name: Any) -> bool:
    return isinstance(name, str)


def _frame_of_column(column: Any, name: str, library: str) -> Any:
    """Return a frame with a Series or Index of pandas, or a Series of polars, as its column."""
    if library == "polars":
        return column.to_frame(name)
    return column.to_frame(name=name).reset_index(drop=True)
