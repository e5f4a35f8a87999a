"""Columns of a read as numpy arrays and Arrow arrays.

Without a Python object for each value where the stored form allows it: vectors go from bytes to
one matrix, moments from integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from operator import index
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from chalk_online_store.codec.shapes import Column
from chalk_online_store.errors import InvalidValue, MissingDependency
from chalk_online_store.operations.arrow_types import arrow_type, to_plain
from chalk_online_store.schema import PrimaryKey
from chalk_online_store.schema.types import ChoiceType, FeatureType, VectorType

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

_NUMPY = {
    "float": np.dtype("f8"),
    "int": np.dtype("i8"),
    "bool": np.dtype("?"),
    "datetime": np.dtype("M8[us]"),
    "date": np.dtype("M8[D]"),
    "timedelta": np.dtype("m8[us]"),
}
"""Of scalars whose stored content numpy takes as it is."""


_DAY_ZERO = date(1970, 1, 1).toordinal()
_FIRST_DAY, _LAST_DAY = 1 - _DAY_ZERO, date.max.toordinal() - _DAY_ZERO
_DAY = timedelta(days=1) // timedelta(microseconds=1)
RANGES = {
    "datetime": (_FIRST_DAY * _DAY, (_LAST_DAY + 1) * _DAY - 1),
    "date": (_FIRST_DAY, _LAST_DAY),
    "time": (0, _DAY - 1),
}
"""The least and the greatest content of scalars for which arrays have a wider range."""


def stored_kind(kind: FeatureType) -> str:
    """The name of the scalar that a feature's content is stored as; "" for what has parts."""
    if isinstance(kind, ChoiceType | VectorType):
        return ""
    return kind.name


def numpy_takes_stored(kind: FeatureType) -> bool:
    """Whether a numpy array is made of what is stored, not of the feature's values."""
    return isinstance(kind, VectorType) or stored_kind(kind) in _NUMPY


def arrow_takes_stored(kind: FeatureType) -> bool:
    """Whether an Arrow array is."""
    return numpy_takes_stored(kind) or stored_kind(kind) == "time"


def _check_range(kind: FeatureType, contents: Sequence[Any]) -> None:
    """Raise ValueError for contents that are none of the feature's values, but fit into arrays."""
    bounds = RANGES.get(stored_kind(kind))
    present = [content for content in contents if content is not None] if bounds else ()
    if bounds and present and not bounds[0] <= min(present) <= max(present) <= bounds[1]:
        raise ValueError(f"out of the range of {stored_kind(kind)}")


# --- numpy ---------------------------------------------------------------------------------


def numpy_array(column: Column, contents: Sequence[Any], missing: Any) -> Any:
    """A column's contents as an array; of a vector, a matrix with a row for each.

    Where there is none, there is `missing`; unless that is stated, NaN among floats and NaT
    among moments. Raises `InvalidValue` where an array cannot say that a value is missing.
    """
    kind = column.feature.type
    if isinstance(kind, VectorType):
        return _matrix(column, kind, contents, np.nan if missing is None else missing)
    dtype = _NUMPY.get(stored_kind(kind))
    if dtype is not None:
        _check_range(kind, contents)
    if dtype is None:
        values = np.empty(len(contents), object)
        values[:] = [missing if value is None else value for value in contents]
        return values
    if None not in contents:
        return _array(column, contents, dtype)
    if missing is None and dtype.kind in "ib?":
        raise InvalidValue(
            f"{column.full_name} has no value for {contents.count(None)} of the keys, and "
            f"an array of {dtype} cannot say so: state what to put there with missing=."
        )
    gap = np.nan if dtype.kind == "f" else "NaT"
    gaps = np.array([value is None for value in contents])
    filled = _array(column, [0 if value is None else value for value in contents], dtype)
    _fill(column, filled, gaps, gap if missing is None else missing)
    return filled


def numpy_nothing(count: int, missing: Any) -> Any:
    """The array of a feature of which nothing was ever written: nobody knows its type."""
    return np.full(count, missing, object)


def _array(column: Column, contents: Sequence[Any], dtype: Any) -> Any:
    # Integers and floats first: numpy takes no list of integers for moments quickly.
    plain = np.dtype("i8") if dtype.kind in "Mm" else dtype
    try:
        return np.array(contents, plain).astype(dtype, copy=False)
    except OverflowError:
        raise InvalidValue(
            f"{column.full_name} has an integer of more than 64 bits: read it by column()."
        ) from None


def _matrix(column: Column, vector: VectorType, contents: Sequence[Any], missing: Any) -> Any:
    gaps = [i for i, content in enumerate(contents) if content is None]
    flat = np.frombuffer(_joined(vector, contents), f"<{vector.dtype}")
    matrix = flat.reshape(len(contents), vector.size)
    if gaps:
        matrix = matrix.copy()
        _fill(column, matrix, gaps, missing)
    return matrix


def _fill(column: Column, array: Any, gaps: Any, missing: Any) -> None:
    """Put `missing` into the gaps of an array; `InvalidValue` if its elements cannot hold it."""
    try:
        with np.errstate(all="ignore"):
            array[gaps] = missing
            exact = array.dtype.kind not in "ib?" or bool(np.all(array[gaps] == missing))
    except (TypeError, ValueError, OverflowError):
        exact = False
    if not exact:
        raise InvalidValue(
            f"missing= must be a value that an array of {array.dtype} holds, for "
            f"{column.full_name}; got {type(missing).__name__}. Pass such a value, or read the "
            "feature by column()."
        )


def _joined(vector: VectorType, contents: Sequence[Any]) -> bytes:
    """The bytes of vectors one after the other: zeros where there is none."""
    if None in contents:
        nothing = bytes(vector.size * np.dtype(vector.dtype).itemsize)
        contents = [nothing if content is None else content for content in contents]
    return b"".join(contents)


# --- Arrow ---------------------------------------------------------------------------------


def import_arrow(what: str = "to_arrow()") -> Any:
    """pyarrow, which `what` needs; raises `MissingDependency`."""
    try:
        import pyarrow as pa
    except ImportError:
        raise MissingDependency(
            f"{what} needs pyarrow: pip install 'chalk-online-store[arrow]'."
        ) from None
    return pa


def arrow_array(column: Column, contents: Sequence[Any]) -> pa.Array:
    """A column's contents as an Arrow array; raises `InvalidValue` where Arrow cannot hold them."""
    pa = import_arrow()
    kind = column.feature.type
    if isinstance(kind, VectorType):
        return _fixed_size_list(pa, kind, contents)
    if stored_kind(kind) == "int":
        return integers_array(contents)
    found = arrow_type(pa, kind)
    plain = to_plain(kind)
    if plain is not None:
        contents = [None if value is None else plain(value) for value in contents]
    try:
        if arrow_takes_stored(kind) and pa.types.is_temporal(found):
            _check_range(kind, contents)
            number = pa.int32() if pa.types.is_date32(found) else pa.int64()
            return pa.array(contents, number).cast(found)
        return pa.array(contents, found)
    except (OverflowError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidValue(
            f"{column.full_name} has a value that Arrow cannot hold: read it by column()."
        ) from error


def arrow_nothing(kind: FeatureType | None, count: int) -> pa.Array:
    """The array of a feature of which nothing was ever written."""
    pa = import_arrow()
    return pa.nulls(count, None if kind is None else arrow_type(pa, kind))


def integers_array(contents: Sequence[Any]) -> Any:
    """Return integers of 64 bits; decimals of 38 digits if one of them is larger."""
    pa = import_arrow()
    try:
        return pa.array(contents, pa.int64())
    except (OverflowError, pa.ArrowInvalid):
        return pa.array(contents, pa.decimal128(38, 0))


def key_arrays(key: PrimaryKey, keys: Sequence[Any]) -> dict[str, Any]:
    """Convert primary keys to columns by name. A tuple has a column for each part: `id.0`, `id.1`.

    Ints are int64, uint64 if one of them needs it, or decimal128(38, 0). UUIDs are text. Raises
    `InvalidValue` for an int of more than 38 digits.
    """
    if not key.composite:
        return {key.name: _key_array(key, key.parts[0], keys)}
    return {
        f"{key.name}.{place}": _key_array(key, part, [each[place] for each in keys])
        for place, part in enumerate(key.parts)
    }


def _key_array(key: PrimaryKey, part: type, keys: Sequence[Any]) -> Any:
    pa = import_arrow()
    if part is not int:
        return pa.array([str.__str__(k) if part is str else str(k) for k in keys], pa.string())
    numbers = [index(number) for number in keys]
    for kind in (pa.int64(), pa.uint64(), pa.decimal128(38, 0)):
        try:
            return pa.array(numbers, kind)
        except (OverflowError, pa.ArrowInvalid):
            continue
    raise InvalidValue(
        f"{key.name} has a primary key of more than 38 digits, which Arrow cannot hold: take "
        "rows.keys."
    )


def to_pandas(table: pa.Table) -> pd.DataFrame:
    """Convert a table to a data frame of pandas, whose types do not depend on the values."""
    try:
        import pandas as pd
    except ImportError:
        raise MissingDependency("to_pandas() needs pandas: pip install pandas.") from None
    pa = import_arrow("to_pandas()")
    # Without these, pandas has floats in place of ints, and objects in place of bools, if there
    # is a null: floats are not exact.
    nullable = {
        pa.int64(): pd.Int64Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    frame: pd.DataFrame = table.to_pandas(types_mapper=nullable.get, maps_as_pydicts="strict")
    return frame


def to_polars(table: pa.Table) -> pl.DataFrame:
    """Convert a table to a data frame of polars."""
    try:
        import polars as pl
    except ImportError:
        raise MissingDependency("to_polars() needs polars: pip install polars.") from None
    frame: Any = pl.from_arrow(table)
    return cast("pl.DataFrame", frame)


def _fixed_size_list(pa: Any, vector: VectorType, contents: Sequence[Any]) -> Any:
    buffers = [None, pa.py_buffer(_joined(vector, contents))]
    found: Any = arrow_type(pa, vector)
    flat = pa.Array.from_buffers(found.value_type, len(contents) * vector.size, buffers)
    gaps = pa.array([content is None for content in contents], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(flat, vector.size, mask=gaps)
