"""Arrow tables as namespaces and rows: `pip install 'chalk-online-store[arrow]'`.

| Arrow | here |
|---|---|
| integers, floats, bool, string, binary, decimal | int, float, bool, str, bytes, Decimal |
| timestamp with a time zone | datetime |
| date, time, duration | date, time, timedelta |
| fixed_size_list of floats | `Vector[n]` of their width |
| list, map of strings, struct | list, dict, `Document` |
| dictionary | what it encodes |

What Arrow has in nanoseconds must be whole microseconds. A column that may be null is a feature
that may be None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from chalk_online_store.arguments import text_list
from chalk_online_store.errors import InvalidSchema, InvalidValue, MissingDependency

try:
    import pyarrow as pa
    import pyarrow.types as kinds
except ImportError as error:
    raise MissingDependency(
        "Arrow tables need pyarrow: pip install 'chalk-online-store[arrow]'."
    ) from error

from chalk_online_store.integrations.arrow_columns import (
    EXTENSIONS_WITHOUT_VALUES,
    FLOATS,
    decoded,
    dict_of,
    is_list,
    values_of,
    vectors_of,
)
from chalk_online_store.schema import Document, Feature, Namespace, Vector

KEY = "id"
"""What rows call a primary key of several columns."""

_VECTOR: Any = Vector  # Type checkers take no subscript of it outside of annotations.
_PLAIN: tuple[tuple[Callable[[Any], bool], Any], ...] = (
    (kinds.is_boolean, bool),
    (kinds.is_integer, int),
    (kinds.is_floating, float),
    (kinds.is_string, str),
    (kinds.is_large_string, str),
    (kinds.is_string_view, str),
    (kinds.is_binary, bytes),
    (kinds.is_large_binary, bytes),
    (kinds.is_binary_view, bytes),
    (kinds.is_fixed_size_binary, bytes),
    (kinds.is_date, date),
    (kinds.is_time, time),
    (kinds.is_duration, timedelta),
    (kinds.is_decimal, Decimal),
    (kinds.is_struct, Document),
)


def namespace_of(
    name: str,
    schema: pa.Schema,
    key: Sequence[str],
    *,
    leave_out: Sequence[str] = (),
    time_zone: str | None = None,
) -> Namespace:
    """The namespace whose rows a table of this schema has; `key` names its key columns.

    Timestamps without a time zone are in `time_zone`; unless that is given, they are refused.
    Raises `InvalidSchema` naming the column that has no type here.
    """
    key = text_list(key, "key", "column names")
    leave_out = text_list(leave_out, "leave_out", "column names")
    missing = [column for column in (*key, *leave_out) if column not in schema.names]
    if missing or not key:
        raise InvalidSchema(
            f"The file has no column {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, schema.names))}."
        )
    features = [
        Feature(field.name, _annotation(field, time_zone))
        for field in schema
        if field.name not in {*key, *leave_out}
    ]
    parts = [_key_type(schema.field(column)) for column in key]
    composite = len(parts) > 1
    annotation = tuple[tuple(parts)] if composite else parts[0]  # type: ignore[misc]
    return Namespace(name, annotation, features, key_name=KEY if composite else key[0])


def _key_type(field: pa.Field) -> type:
    found = _type(field.type, field.name)
    if found not in (int, str):
        raise InvalidSchema(f"Column {field.name!r} is {field.type}: a primary key is int or str.")
    return found  # type: ignore[no-any-return] # one of the two


def moment_type(field: pa.Field, time_zone: str | None = None) -> type[datetime]:
    """datetime, where a column has moments; else raises `InvalidSchema`."""
    if not kinds.is_timestamp(field.type) or not (field.type.tz or time_zone):
        raise InvalidSchema(
            f"Column {field.name!r} is {field.type}: moments are timestamps with a time zone."
        )
    return datetime


def _annotation(field: pa.Field, zone: str | None) -> Any:
    found = _type(field.type, field.name, zone)
    return found | None if field.nullable and found is not Document else found


def _type(kind: pa.DataType, column: str, zone: str | None = None) -> Any:
    if isinstance(kind, pa.BaseExtensionType):
        return _extension_type(kind, column, zone)
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        return _type(kind.value_type, column, zone)
    if kinds.is_timestamp(kind):
        return moment_type(pa.field(column, kind), zone)
    if kinds.is_fixed_size_list(kind) and kind.value_type in FLOATS:
        return _VECTOR[kind.list_size, FLOATS[kind.value_type]]
    if is_list(kind):
        return list[_annotation(kind.value_field, zone)]  # type: ignore[misc]
    if kinds.is_map(kind) and _type(kind.key_type, column, zone) is str:
        return dict[str, _annotation(kind.item_field, zone)]  # type: ignore[misc]
    for is_kind, found in _PLAIN:
        if is_kind(kind):
            return found
    raise InvalidSchema(f"Column {column!r} is {kind}, for which there is no feature type.")


_EXTENSIONS: dict[str, Any] = {"arrow.uuid": UUID, "arrow.bool8": bool, "arrow.json": str}


def _extension_type(kind: Any, column: str, zone: str | None) -> Any:
    name = kind.extension_name
    if name in EXTENSIONS_WITHOUT_VALUES:
        raise InvalidSchema(f"Column {column!r} is {kind}, for which there is no feature type.")
    return _EXTENSIONS.get(name) or _type(kind.storage_type, column, zone)


def rows_of(batch: pa.RecordBatch, key: Sequence[str], key_name: str) -> list[dict[str, Any]]:
    """The rows of a record batch, exactly; raises `InvalidValue` naming a column that is not so."""
    key = text_list(key, "key", "column names")
    names = [name for name in batch.schema.names if name not in key]
    columns = [_values(batch.column(name), name) for name in names]
    keys = [_values(batch.column(name), name) for name in key]
    ids = keys[0] if len(keys) == 1 else list(zip(*keys, strict=True))
    names = [key_name, *names]
    return [dict(zip(names, values, strict=True)) for values in zip(ids, *columns, strict=True)]


def _values(array: pa.Array, column: str) -> list[Any]:
    array = decoded(array, column)
    if kinds.is_fixed_size_list(array.type) and array.type.value_type in FLOATS:
        return vectors_of(array, column)
    values = values_of(array, column)
    if kinds.is_map(array.type):
        try:
            return [None if pairs is None else dict_of(pairs) for pairs in values]
        except InvalidValue as error:
            raise InvalidValue(f"Column {column!r} ({array.type}): {error}.") from None
    return values
