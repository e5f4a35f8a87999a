"""Columns of text: the cells of CSV files, and the directories of partitioned ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from chalk_online_store.codec.columns import Stored
from chalk_online_store.codec.values import microseconds_utc, moment
from chalk_online_store.errors import InvalidValue
from chalk_online_store.integrations.arrow_columns import column_of
from chalk_online_store.integrations.text_values import (
    CONVERSION_ERRORS,
    reason_of,
    text_converter,
)
from chalk_online_store.integrations.time_zones import zone_of
from chalk_online_store.schema.types import SCALARS, FeatureType, Scalar


@dataclass(frozen=True, slots=True)
class Texts:
    """A column of texts that are converted by the feature's type; null for a null."""

    array: pa.Array

    def __len__(self) -> int:
        return len(self.array)


def values_of_texts(
    column: Texts, kind: FeatureType, nullable: bool, name: str, first: int, zone: str | None
) -> Sequence[Any]:
    """Return a column's values for a feature; raises `InvalidValue` naming a bad column and row."""
    array = column.array
    if array.null_count and not nullable:
        row = first + array.is_null().to_pylist().index(True)
        raise InvalidValue(
            f"Column {name!r} has a null, and the feature is {kind.name} without `| None` "
            f"(row {row}). --null says which texts are nulls."
        )
    found = _all_at_once(array, kind, name, zone)
    if found is not None:
        return found
    convert = text_converter(kind, zone_of(zone))
    values: list[Any] = []
    try:
        for text in array.to_pylist():
            values.append(None if text is None else convert(text))
    except CONVERSION_ERRORS as error:
        raise InvalidValue(
            f"Column {name!r} has a text that is no {kind.name}{reason_of(error)} "
            f"(row {first + len(values)})."
        ) from None
    return values


def moments_of_texts(column: Texts, name: str, first: int, zone: str | None) -> Stored:
    """Return observed-at as they are stored; raises `InvalidValue` naming a bad column and row."""
    found = values_of_texts(column, SCALARS[datetime], True, name, first, zone)
    if isinstance(found, Stored):
        return found
    return Stored([None if v is None else microseconds_utc(v) for v in found], moment)


# --- whole columns -------------------------------------------------------------------------

_EXACT_TEXTS: dict[str, tuple[str, pa.DataType]] = {
    "int": ("^-?[0-9]{1,18}$", pa.int64()),
    "float": (r"^-?[0-9]{1,15}(\.[0-9]{1,30})?$", pa.float64()),
    "date": ("^[0-9]{4}-[0-9]{2}-[0-9]{2}$", pa.date32()),
    "bool": ("^([Tt]rue|[Ff]alse)$", pa.bool_()),
}
_ZONED = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9:.]+(Z|[+-][0-9]{2}:?[0-9]{2})$"
_NAIVE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9:.]+)?$"


def _all_at_once(
    array: pa.Array, kind: FeatureType, name: str, zone: str | None
) -> Sequence[Any] | None:
    """Convert a whole column by Arrow, if every text is in the form that it reads exactly."""
    if kind == SCALARS[str]:
        return array.to_pylist()  # type: ignore[no-any-return]
    forms = [_EXACT_TEXTS[kind.name]] if kind.name in _EXACT_TEXTS else []
    if kind == SCALARS[datetime]:
        forms = [(_ZONED, pa.timestamp("us", "UTC")), (_NAIVE, pa.timestamp("us"))]
    if not isinstance(kind, Scalar):
        return None
    for form, found in forms:
        if pc.all(pc.match_substring_regex(array, form), min_count=0).as_py():
            try:
                return column_of(array.cast(found), kind, name, 0, zone)
            except (pa.ArrowInvalid, InvalidValue):  # Value by value, to find the row.
                return None
    return None
