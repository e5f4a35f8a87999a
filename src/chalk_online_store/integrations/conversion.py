"""The conversion of a table's columns into the rows of a namespace: one rule for all of them.

`write_table` and `load` use it, for Arrow tables, data frames and files. The feature's type decides
how a column is read. A column is one of three kinds: an Arrow array, a list of Python objects (a
column of objects in pandas), or `Texts`, the cells of a CSV file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress
from typing import Any, NamedTuple, TypeAlias

import pyarrow as pa

from chalk_online_store.codec.columns import ColumnBatch, Stored
from chalk_online_store.errors import InvalidValue
from chalk_online_store.integrations.arrow_columns import column_of, moments_of
from chalk_online_store.integrations.objects import (
    moments_of_objects,
    values_of_objects,
)
from chalk_online_store.integrations.texts import Texts, moments_of_texts, values_of_texts
from chalk_online_store.integrations.time_zones import zone_of
from chalk_online_store.schema import Namespace
from chalk_online_store.schema.types import SCALARS, FeatureType

Column: TypeAlias = "pa.Array | list[Any] | Texts"
"""Some values of one column of a table."""

_LAST = 253_402_300_799_999_999


class Converted(NamedTuple):
    """Rows, and their observed-at if a column has it.

    `refused` has the error of each row that cannot be converted, by its position among the rows
    that were given. These rows are not in `rows`.
    """

    rows: ColumnBatch
    observed_at: Stored | None
    refused: dict[int, InvalidValue]


class TableConverter:
    """Converts columns to the rows of a namespace.

    `key` names the columns of the primary key, `observed_at` the column of the observed-at.
    Timestamps without a time zone are in `zone`. Raises `InvalidValue` or `UnknownFeature` for
    names that the namespace does not have.
    """

    def __init__(
        self,
        namespace: Namespace,
        names: Sequence[str],
        key: Sequence[str],
        observed_at: str | None,
        zone: str | None,
    ) -> None:
        self._namespace = namespace
        self._key = list(key)
        self._observed_at = observed_at
        self._zone = zone
        zone_of(zone)  # It raises for an unknown one, even if no timestamp needs it.
        check_names(names)
        needed = {*self._key, *([] if observed_at is None else [observed_at])}
        for name in [*self._key, observed_at]:
            if name is not None and name not in names:
                raise InvalidValue(f"The table has no column {name!r}; it has {', '.join(names)}.")
        self._features = {n: namespace.feature(n) for n in names if n not in needed}
        _check_features(f.name for f in self._features.values())

    @property
    def names(self) -> list[str]:
        """The names of the features that the columns are."""
        return [feature.name for feature in self._features.values()]

    def convert(self, columns: Mapping[str, Column], first: int) -> Converted:
        """Convert rows, the first of which is at `first`. Raises `InvalidValue` for a bad one."""

        def values(name: str, kind: FeatureType, nullable: bool) -> Sequence[Any]:
            return self._values(columns[name], kind, nullable, name, first)

        return self._assemble(values, lambda name: self._moments(columns[name], name, first), {})

    def convert_rows(self, columns: Mapping[str, Column], first: int) -> Converted:
        """Convert the rows that can be converted; the others are in `refused`."""
        refused: dict[int, InvalidValue] = {}

        def values(name: str, kind: FeatureType, nullable: bool) -> Sequence[Any]:
            def convert(column: Column, at: int) -> Sequence[Any]:
                return self._values(column, kind, nullable, name, at)

            return _row_by_row(columns[name], convert, first, refused)

        def moments(name: str) -> Stored:
            def convert(column: Column, at: int) -> Stored:
                found = self._moments(column, name, at)
                _check_moments(found, name, at)
                return found

            found = _row_by_row(columns[name], convert, first, refused)
            return found if isinstance(found, Stored) else Stored(found, lambda number: number)

        return self._assemble(values, moments, refused)

    def _assemble(
        self,
        values: Callable[[str, FeatureType, bool], Sequence[Any]],
        moments: Callable[[str], Stored],
        refused: dict[int, InvalidValue],
    ) -> Converted:
        namespace = self._namespace
        parts = zip(self._key, namespace.key.parts, strict=True)
        keys = [values(name, SCALARS[part], False) for name, part in parts]
        columns = {
            namespace.key_name: list(zip(*keys, strict=True))
            if namespace.key.composite
            else keys[0]
        }
        for name, feature in self._features.items():
            columns[feature.name] = values(name, feature.type, feature.nullable)
        times = None if self._observed_at is None else moments(self._observed_at)
        if refused:
            good = [row not in refused for row in range(len(keys[0]))]
            columns = {name: _chosen(column, good) for name, column in columns.items()}
            times = None if times is None else _chosen(times, good)
        return Converted(ColumnBatch(columns), times, dict(sorted(refused.items())))

    def _values(
        self, column: Column, kind: FeatureType, nullable: bool, name: str, first: int
    ) -> Sequence[Any]:
        if isinstance(column, Texts):
            return values_of_texts(column, kind, nullable, name, first, self._zone)
        if isinstance(column, list):
            return values_of_objects(column, kind, name, first, self._zone)
        return column_of(column, kind, name, first, self._zone)

    def _moments(self, column: Column, name: str, first: int) -> Stored:
        if isinstance(column, Texts):
            return moments_of_texts(column, name, first, self._zone)
        if isinstance(column, list):
            return moments_of_objects(column, name, first, self._zone)
        return moments_of(column, name, first, self._zone)


def check_names(names: Sequence[str]) -> None:
    """Raise `InvalidValue` if two columns of a table have one name."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InvalidValue(
            f"The table has two columns of one name: {', '.join(map(repr, twice))}. Rename or drop "
            "one of them."
        )


def _check_features(names: Iterable[str]) -> None:
    """`risk` and `user.risk` are one feature."""
    check_names([*names])


def _check_moments(found: Stored, name: str, first: int) -> None:
    for row, number in enumerate(found, first):
        if number is None or not 0 <= number <= _LAST:
            what = "a null" if number is None else "a time before 1970 or after the year 9999"
            raise InvalidValue(f"Column {name!r} has {what} as observed-at (row {row}).")


def _row_by_row(
    column: Column,
    convert: Callable[[Column, int], Sequence[Any]],
    first: int,
    refused: dict[int, InvalidValue],
) -> Sequence[Any]:
    """Convert a column; if it has bad values, each row alone, with None for bad ones."""
    try:
        return convert(column, first)
    except InvalidValue:
        pass
    found: list[Any] = []
    make = None
    for row in range(len(column)):
        try:
            one = convert(slice_of(column, row, 1), first + row)
        except InvalidValue as error:
            refused.setdefault(row, error)
            one = [None]
        if isinstance(one, Stored):
            make = one.make
        found.extend(one)
    return found if make is None else Stored(found, make)


def slice_of(column: Column, start: int, count: int) -> Column:
    """Return `count` rows of a column from `start` on."""
    if isinstance(column, list):
        return column[start : start + count]
    if isinstance(column, Texts):
        return Texts(column.array.slice(start, count))
    return column.slice(start, count)


def _chosen(column: Sequence[Any], good: Sequence[bool]) -> Any:
    chosen = compress(column, good)
    return Stored(chosen, column.make) if isinstance(column, Stored) else list(chosen)


def original_row(columns: Mapping[str, Column], row: int) -> dict[str, Any]:
    """Return a row as its file or table has it."""
    found: dict[str, Any] = {}
    for name, column in columns.items():
        one = slice_of(column, row, 1)
        array: Any = one.array if isinstance(one, Texts) else one
        try:
            found[name] = (array if isinstance(array, list) else array.to_pylist())[0]
        except (ValueError, pa.ArrowException):
            found[name] = "?"
    return found
