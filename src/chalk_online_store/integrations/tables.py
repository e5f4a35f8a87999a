"""Tables and data frames of any library as columns, without a loss."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as kinds

from chalk_online_store.arguments import is_frame, key_list, kind_of, text_list
from chalk_online_store.errors import InvalidKey, InvalidValue
from chalk_online_store.integrations.conversion import Column, TableConverter, slice_of
from chalk_online_store.schema import Namespace

_INDEX = re.compile(r"__index_level_\d+__")
"""What pandas calls an index without a name, which only counts the rows."""


class Table:
    """Columns of one length, in the order of their names; a name may occur twice."""

    def __init__(self, names: Sequence[str], columns: Sequence[Any], rows: int) -> None:
        self.names = list(names)
        self.num_rows = rows
        self._columns = columns

    def slice(self, start: int, count: int) -> dict[str, Column]:
        """Return `count` rows from `start` on."""
        return {
            name: _one_array(slice_of(column, start, count))
            for name, column in zip(self.names, self._columns, strict=True)
        }


def table_of(data: Any) -> Table:
    """Return the columns of a table or data frame. Raises `InvalidValue` if it is not one."""
    library = type(data).__module__.partition(".")[0]
    try:
        if library == "pandas":
            return _of_pandas(data)
        if library == "polars":
            data = _of_polars(data)
        if isinstance(data, Mapping):
            raise TypeError
        table = pa.table(data)
    except InvalidValue:
        raise
    # pyarrow quotes values in its messages, and `from None` keeps them out of tracebacks.
    except (TypeError, ValueError, OverflowError, AttributeError, pa.ArrowException) as error:
        raise InvalidValue(
            f"table must be a table or data frame; {type(data).__name__} is no table that Arrow "
            f"knows, or holds values that it has no type for ({type(error).__name__}). "
            "Use the store's write for mappings and row objects."
        ) from None
    named = [not _INDEX.fullmatch(name) for name in table.column_names]
    return Table(
        [n for n, keep in zip(table.column_names, named, strict=True) if keep],
        [c for c, keep in zip(table.columns, named, strict=True) if keep],
        table.num_rows,
    )


def index_names(data: Any) -> list[str] | None:
    """Return the names of the levels of a pandas MultiIndex, if all have one; else None."""
    names = list(getattr(getattr(data, "index", None), "names", None) or [])
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        return None
    return names


def _one_array(column: Any) -> Column:
    if not isinstance(column, pa.ChunkedArray):
        return column  # An array already, or objects.
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


# --- pandas --------------------------------------------------------------------------------


def _of_pandas(frame: Any) -> Table:
    if not hasattr(frame, "columns"):
        raise TypeError
    names: list[str] = []
    columns: list[Any] = []
    for name, series in _series(frame):
        if isinstance(name, tuple):
            raise InvalidValue(
                f"Column {name!r} has a name of several levels: give every column one name, a text."
            )
        names.append(str(name))
        columns.append(_column_of_pandas(str(name), series))
    return Table(names, columns, len(frame))


def _series(frame: Any) -> Iterator[tuple[Any, Any]]:
    """The columns, and the levels of the index that have a name."""
    yield from ((name, frame.iloc[:, place]) for place, name in enumerate(frame.columns))
    index = frame.index
    for level, name in enumerate(index.names):
        if name is not None:
            yield name, index.get_level_values(level).to_series()


def _column_of_pandas(name: str, series: Any) -> Any:
    """Return objects as they are: Arrow would unite the keys of dictionaries, and cut off times."""
    dtype = series.dtype
    if getattr(dtype, "categories", None) is not None and dtype.categories.dtype == object:
        series = series.astype(object)
    if series.dtype == object:
        return series.tolist()
    try:
        found = pa.Array.from_pandas(series)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this column's.
        raise InvalidValue(
            f"Column {name!r} is {dtype}, which Arrow cannot hold ({type(error).__name__}): give "
            "it a plain dtype."
        ) from None
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


# --- polars --------------------------------------------------------------------------------


def _of_polars(frame: Any) -> Any:
    """Return a data frame of columns that Arrow can hold."""
    if type(frame).__name__ == "LazyFrame":
        frame = frame.collect()
    types = dict(getattr(frame, "schema", {}))
    for name, dtype in types.items():
        if any(type(each).__name__ == "Object" for each in _parts_of(dtype)):
            raise InvalidValue(
                f"Column {name!r} is {dtype} of polars, whose values cannot be read: Arrow has "
                "only their memory addresses. Cast it to the type of its values."
            )
        if any(type(each).__name__ in _WIDE for each in list(_parts_of(dtype))[1:]):
            raise InvalidValue(
                f"Column {name!r} is {dtype} of polars, which Arrow cannot hold: cast what is "
                "within it to Int64 or Decimal."
            )
    wide = [name for name, dtype in types.items() if type(dtype).__name__ in _WIDE]
    if not wide:
        return frame
    table = pa.table(frame.drop(wide))
    for name in wide:
        digits = pa.array(map(_decimal, frame[name].to_list()), pa.decimal256(40, 0))
        table = table.add_column(frame.columns.index(name), name, digits)
    return table


_WIDE = ("Int128", "UInt128")
"""Integer types of polars that Arrow does not have."""


def _decimal(value: int | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def _parts_of(dtype: Any) -> Iterator[Any]:
    """A polars type, and the types that it is made of."""
    yield dtype() if isinstance(dtype, type) else dtype
    inner = [getattr(dtype, "inner", None), *(f.dtype for f in getattr(dtype, "fields", []))]
    for each in inner:
        if each is not None:
            yield from _parts_of(each)


# --- Primary keys in tables: the columns that have them, and columns of keys to read -------


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
