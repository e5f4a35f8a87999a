"""The result of a read: every asked feature of every asked key, with its status."""

from __future__ import annotations

import enum
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

from chalk_online_store.arguments import name_list, plain_name
from chalk_online_store.backend import RowOrError
from chalk_online_store.codec.compiled import Frame, kernels
from chalk_online_store.codec.decoding import FIRST, LATEST_AT, TIMES
from chalk_online_store.codec.shapes import Column, Columns, Shape, columns_of
from chalk_online_store.errors import (
    DamagedItem,
    DamagedValue,
    InvalidValue,
    OnlineStoreError,
    ReadFailed,
    UnknownFeature,
)
from chalk_online_store.operations import arrays
from chalk_online_store.operations.instances import NOTHING, instances
from chalk_online_store.operations.matrix import (
    FeatureMatrix,
    MatrixPlan,
    filled_by_answers,
    matrix_form,
)
from chalk_online_store.operations.notebooks import rows_table
from chalk_online_store.report import Report
from chalk_online_store.schema import Feature, PrimaryKey
from chalk_online_store.schema.types import FeatureType

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from typing_extensions import TypeVar as TypeVarWithDefault

    C_co = TypeVarWithDefault("C_co", covariant=True, default=Any)
else:
    C_co = TypeVar("C_co", covariant=True)
"""The feature class; Any for a `Namespace`, and where an annotation has none."""

C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T")
"""The type of a feature's values, which is the type of `User.risk` to a type checker."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SHOWN_ROWS = 10
_MAX_SHOWN_FEATURES = 20
_MAX_HTML_ROWS = 20
_MOST_MATRIX_PLANS = 256


class Status(enum.StrEnum):
    """What a read knows of one feature of one key."""

    HIT = "hit"
    """A value."""
    NULL = "null"
    """None was written."""
    MISSING = "missing"
    """Nothing was ever written, or it was deleted."""
    STALE = "stale"
    """What is there is older than may be served; also of a feature read with "0s"."""
    FAILED = "failed"
    """The read did not succeed before the call's deadline, or the value is damaged."""


class Answer(NamedTuple):
    """A feature's status and, where they are known, its value and observed-at (UTC us)."""

    status: Status
    value: Any = None
    observed_at: int | None = None


class ColumnSource(NamedTuple):
    """Where a read feature comes from; `shape` is None where it has no id or is not read."""

    group: int
    shape: Shape | None
    position: int
    staleness: int | None


class ColumnSources(dict[str, ColumnSource]):
    """Where each feature of a read comes from, in the order asked; the same for many reads.

    `features` has what the schema says of each. `namespace` is the namespace's name, `key` its
    primary key. Features are also found by their full names, and by references. `defaults` are
    the columns of features whose declared default is served.
    """

    def __init__(
        self,
        sources: Mapping[str, ColumnSource] | None = None,
        *,
        namespace: str = "",
        key: PrimaryKey | None = None,
    ) -> None:
        super().__init__(sources or {})
        self.features: dict[str, Feature] = {}
        self.defaults: dict[str, Column] = {}
        self._matrix_plans: dict[tuple[str, ...], MatrixPlan] = {}
        self.namespace = namespace
        self.key = PrimaryKey("id", str) if key is None else key

    def __reduce__(self) -> tuple[Any, ...]:
        plain = {name: tuple(source) for name, source in self.items()}
        return _restored_sources, (plain, self.namespace, self.key, self.features, self.defaults)

    def add_default(self, name: str, column: Column) -> None:
        """Serve a feature's declared default. Raises `InvalidValue` if it is not a value of it."""
        column.default  # noqa: B018 - refuses it at once.
        self.defaults[name] = column

    def default(self, name: Any) -> Column | None:
        """The column of a feature whose default is served; None for one without."""
        if not self.defaults:
            return None
        return self.defaults.get(plain_name(name).removeprefix(f"{self.namespace}."))

    def only(self, names: Sequence[str]) -> ColumnSources:
        """The sources of some of the features, in the order of their names."""
        some = ColumnSources(
            {name: self[name] for name in names}, namespace=self.namespace, key=self.key
        )
        some.features = {name: self.features[name] for name in names}
        some.defaults = {name: c for name, c in self.defaults.items() if name in some}
        return some

    def __missing__(self, name: Any) -> ColumnSource:
        """Find a feature by its full name or by a reference. Raises `UnknownFeature`."""
        plain = plain_name(name)
        source = None
        if isinstance(plain, str):
            source = self.by_full_name.get(plain)
        if source is None:
            raise UnknownFeature(f"{_shown(plain)} was not asked for in this read.")
        return source

    @cached_property
    def by_full_name(self) -> dict[str, ColumnSource]:
        """The same by full names, which references are."""
        return {f"{self.namespace}.{name}": source for name, source in self.items()}

    @cached_property
    def kinds(self) -> dict[str, FeatureType]:
        """The features' types."""
        return {name: feature.type for name, feature in self.features.items()}

    @cached_property
    def groups(self) -> dict[int, tuple[Shape, int | None]]:
        """Each group's shape, and the least max staleness (us) among its features."""
        found: dict[int, tuple[Shape, int | None]] = {}
        for group, shape, _, staleness in self.values():
            if shape is not None:
                _, least = found.get(group, (shape, None))
                ages = [age for age in (least, staleness) if age is not None]
                found[group] = shape, min(ages, default=None)
        return found

    @cached_property
    def readers(self) -> list[tuple[str, int, int]] | None:
        """Each feature's name, group and position; None if one is not read, or has a default."""
        if self.defaults or any(source.shape is None for source in self.values()):
            return None
        return [(name, group, position) for name, (group, _, position, _) in self.items()]

    def matrix_plan(self, names: Sequence[Any] | None) -> MatrixPlan:
        """Return the plan of a matrix of features of this read, of all of them for None.

        Raises `UnknownFeature`, and `InvalidValue` for a feature that has no place in a matrix.
        """
        wanted = tuple(self) if names is None else tuple(map(self.short_name, name_list(names)))
        plan = self._matrix_plans.get(wanted)
        if plan is None:
            if len(set(wanted)) < len(wanted):
                raise InvalidValue("features names a feature twice. Keep one of them.")
            if len(self._matrix_plans) >= _MOST_MATRIX_PLANS:
                self._matrix_plans.clear()
            plan = self._matrix_plans[wanted] = MatrixPlan(self, wanted)
        return plan

    def short_name(self, name: Any) -> str:
        """Return the short name of a feature of this read. Raises `UnknownFeature`."""
        self[name]
        short: str = plain_name(name).removeprefix(f"{self.namespace}.")
        return short

    @cached_property
    def kernels(self) -> Any:
        """The compiled kernels; None if they were not built, or are disabled."""
        return kernels()


def _restored_sources(
    plain: Mapping[str, tuple[Any, ...]],
    namespace: str,
    key: PrimaryKey,
    features: dict[str, Feature],
    defaults: dict[str, Column],
) -> ColumnSources:
    sources = ColumnSources(
        {name: ColumnSource(*source) for name, source in plain.items()},
        namespace=namespace,
        key=key,
    )
    sources.features = features
    sources.defaults = defaults
    return sources


_WITHOUT_VALUE = frozenset((Status.MISSING, Status.STALE))
"""Statuses for which a declared default is served."""

_MISSING = Answer(Status.MISSING)
_STALE = Answer(Status.STALE)
_FAILED = Answer(Status.FAILED)


def _shown(name: Any) -> str:
    return repr(name) if isinstance(name, str) else f"A {type(name).__name__}"


class Rows(Sequence["Row[C_co]"], Generic[C_co]):
    """What a read answers: a row per asked key, in the order of the keys, duplicates included.

    `keys` are the primary keys. `report` tells what the read cost. Values are taken out of what
    was read as they are asked for; whole columns much faster than one by one.

    A feature is named by its name, its full name or its reference (`User.risk`). For a reference,
    type checkers know the type of the values.
    """

    def __init__(
        self,
        keys: Sequence[Any],
        sources: ColumnSources,
        positions: Sequence[int] | None,
        found: Sequence[Sequence[RowOrError]],
        now: int,
        report: Report,
    ) -> None:
        self.keys = keys
        self.report = report
        self._sources = sources
        self._positions = positions  # None where no key was asked for twice.
        self._found = found
        self._now = now
        self._columns: dict[int, Columns] = {}

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features that were asked for."""
        return tuple(self._sources)

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, index: int) -> Row[C_co]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row[C_co]]: ...
    @overload
    def __getitem__(self, index: str) -> list[Any]: ...
    def __getitem__(self, index: Any) -> Any:
        """The row at a position, the rows of a slice, or the column of a feature."""
        if isinstance(index, slice):
            return [Row(self, i) for i in range(*index.indices(len(self)))]
        try:
            position = range(len(self))[index]
        except TypeError:  # A name, or a reference.
            return self.column(index)
        return Row(self, position)

    def __iter__(self) -> Iterator[Row[C_co]]:
        return (Row(self, i) for i in range(len(self)))

    def __repr__(self) -> str:
        """Show the first keys, and the statuses of their features; never a value.

        Tracebacks, debuggers and logs call `repr` unasked.
        """
        lines = [f"<{type(self).__name__} of {self._sources.namespace!r}: {len(self)} keys, "]
        lines[0] += f"{len(self._sources)} features"
        lines += [f"  {_summary(self, index)}" for index in range(min(len(self), _MAX_SHOWN_ROWS))]
        if len(self) > _MAX_SHOWN_ROWS:
            lines.append(f"  and {len(self) - _MAX_SHOWN_ROWS} more")
        return "\n".join(lines) + ">"

    def _repr_html_(self) -> str:
        """A table for notebooks, with the values of the first rows.

        A notebook calls this only to display what the user asked it to display.
        """
        return rows_table(self, self._sources.key.name, _MAX_HTML_ROWS)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the stored contents, undecoded."""
        found = {
            group: [_portable(shape, row) for row in self._found[group]]
            for group, (shape, _) in self._sources.groups.items()
        }
        keys, positions = list(self.keys), self._positions
        return _restored_rows, (keys, self._sources, positions, found, self._now, self.report)

    def only(self, index: int) -> Rows[C_co]:
        """Return the row of one key as `Rows`."""
        place = self._position(index)
        found = [[rows[place]] if rows else [] for rows in self._found]
        return Rows([self.keys[index]], self._sources, None, found, self._now, self.report)

    def answer(self, index: int, name: Any) -> Answer:
        """Status, value and observed-at of one feature of the key at `index`.

        Raises `UnknownFeature` for a feature that was not asked for.
        """
        source = self.source(name)
        if source.shape is None:
            answer = _STALE if source.staleness == 0 else _MISSING
        else:
            answer = self._answer(self._found[source.group][self._position(index)], source)
        if self._sources.defaults and answer.status in _WITHOUT_VALUE:
            column = self._sources.default(name)
            if column is not None:
                return answer._replace(value=column.converter.one(column.default))
        return answer

    def content(self, index: int, name: str) -> Any:
        """What is stored of one feature of the key at `index`; None if nothing is, or a null."""
        group, shape, position, _ = self.source(name)
        row: Any = self._found[group][self._position(index)] if shape is not None else None
        return row[FIRST + position] if isinstance(row, tuple) else None

    def _position(self, index: int) -> int:
        return index if self._positions is None else self._positions[index]

    def source(self, name: Any) -> ColumnSource:
        """Return the source of a feature. Raises `UnknownFeature`."""
        try:
            return self._sources[name]
        except UnknownFeature:
            raise
        except Exception:  # noqa: BLE001 - a list has no hash, nor has a reference to nothing.
            return self._sources.__missing__(name)

    def _answer(self, row: RowOrError, source: ColumnSource) -> Answer:
        if row is None:
            return _MISSING
        if isinstance(row, OnlineStoreError):
            return _FAILED
        _, shape, position, staleness = source
        assert shape is not None
        observed_at = shape.observed_at(row, position)
        if observed_at is None:
            return _MISSING
        if staleness is not None and self._now - observed_at > staleness:
            return Answer(Status.STALE, None, observed_at)
        try:
            value = shape.converters[position].one(row[FIRST + position])
        except DamagedItem:
            return Answer(Status.FAILED, None, observed_at)
        return Answer(Status.NULL if value is None else Status.HIT, value, observed_at)

    @overload
    def value(self, index: int, name: str) -> Any: ...
    @overload
    def value(self, index: int, name: T) -> T | None: ...
    def value(self, index: int, name: Any) -> Any:
        """The value; None for null, missing and stale, unless a declared default is served.

        Raises `ReadFailed` for failed.
        """
        group, shape, position, staleness = self.source(name)
        if shape is not None:  # Most rows are whole and fresh: nothing else is to be heeded.
            row: Any = self._found[group][self._position(index)]
            ordinary = type(row) is tuple and row[TIMES] is None
            if ordinary and (staleness is None or self._now - row[LATEST_AT] <= staleness):
                try:
                    return shape.converters[position].one(row[FIRST + position])
                except DamagedItem:  # Then the answer is a failure.
                    pass
        answer = self.answer(index, name)
        if answer.status is Status.FAILED:
            raise self._failure(index, name)
        return answer.value

    def _failure(self, index: int, name: Any) -> ReadFailed:
        """The error for a failed value."""
        group, shape, position, _ = self.source(name)
        row: Any = self._found[group][self._position(index)]
        what = f"{_shown(plain_name(name))} of the key at position {index} could not be read"
        cause = row if isinstance(row, OnlineStoreError) else _damage_of(shape, row, position)
        if isinstance(cause, DamagedItem):
            failed: ReadFailed = DamagedValue(
                f"{what}: {cause} Check .status() first. Write the value again, or read it with a "
                "schema that knows what is stored."
            )
        else:
            failed = ReadFailed(
                f"{what}: {cause} Check .status() first; where time was short, give the read more "
                "with timeout=."
            )
        failed.__cause__ = cause
        return failed

    @overload
    def column(self, name: str, *, skip_failed: bool = ...) -> list[Any]: ...
    @overload
    def column(self, name: T, *, skip_failed: bool = ...) -> list[T | None]: ...
    def column(self, name: Any, *, skip_failed: bool = False) -> list[Any]:
        """One feature's values, in the order of the keys.

        Raises as `value` does if one of them failed, naming the position of its key. With
        `skip_failed` such a value is None instead; `statuses` tells which they are.
        """
        return self._column(name, self.source(name), skip_failed=skip_failed)

    def _column(
        self, name: str, source: ColumnSource, *, stored: bool = False, skip_failed: bool = False
    ) -> list[Any]:
        """The values of a feature; if `stored`, what they are made of."""
        group, shape, position, staleness = source
        served = self._sources.default(name)
        default = None if served is None else served.default
        if shape is None:
            contents = [default] * len(self.keys)
            return contents if served is None or stored else served.converter.all(contents)
        if self.report.failed and not skip_failed:
            self._refuse_failed(group, name)
        columns = self._group(group, shape)
        oldest = self._oldest(staleness)
        try:
            if skip_failed:
                values = columns.readable(position, oldest, default, stored=stored)
            else:
                values = (columns.contents if stored else columns.values)(position, oldest, default)
        except DamagedItem:
            failure = self._first_failure(name)
            raise failure from failure.__cause__
        if default is not None and self.report.failed:  # A default does not hide a failure.
            found = zip(self._found[group], values, strict=True)
            values = [None if isinstance(row, OnlineStoreError) else value for row, value in found]
        if self._positions is None:
            return values
        return [values[position] for position in self._positions]

    def raise_failed(self) -> None:
        """Raise `ReadFailed` for the first failed value, by feature and then by key, if any."""
        if self.report.failed:
            self._raise_failed(self.features)

    def _raise_failed(self, names: Sequence[str]) -> None:
        for name in names:
            if Status.FAILED in self._statuses(name):
                raise self._first_failure(name)

    def _first_failure(self, name: str) -> ReadFailed:
        """The error for the first key of which a feature failed."""
        failed = (i for i, status in enumerate(self._statuses(name)) if status is Status.FAILED)
        return self._failure(next(failed), name)

    def _oldest(self, staleness: int | None) -> int | None:
        """The earliest observed-at (UTC us) that may be served; None for any."""
        return None if staleness is None else self._now - staleness

    def _group(self, group: int, shape: Shape) -> Columns:
        columns = self._columns.get(group)
        if columns is None:
            rows: Any = self._found[group]
            if self.report.failed and not isinstance(rows, Frame):
                rows = [None if isinstance(row, OnlineStoreError) else row for row in rows]
            columns = self._columns[group] = columns_of(shape, rows)
        return columns

    def _refuse_failed(self, group: int, name: str) -> None:
        rows = self._found[group]
        for index in range(len(self)):
            if isinstance(rows[self._position(index)], OnlineStoreError):
                raise self._failure(index, name)

    def times(self, name: Any, *, skip_failed: bool = False) -> Sequence[int | None]:
        """When one feature's values were true (UTC us), in the order of the keys.

        None where there is no value, nor a null; also for those that are stale. Raises
        `ReadFailed` if an item could not be read; with `skip_failed` its time is None.
        """
        group, shape, position, _ = self.source(name)
        if shape is None:
            return [None] * len(self.keys)
        if self.report.failed and not skip_failed:
            self._refuse_failed(group, name)
        times = self._group(group, shape).times(position)
        if self._positions is None:
            return times
        return [times[position] for position in self._positions]

    def statuses(self, name: Any) -> list[Status]:
        """One feature's statuses, in the order of the keys."""
        source = self.source(name)
        if not self._is_whole(source):
            return self._statuses(name)
        try:
            values = self._column(name, source)
        except DamagedItem:
            return self._statuses(name)
        null, hit = Status.NULL, Status.HIT
        return [null if value is None else hit for value in values]

    def _statuses(self, name: str) -> list[Status]:
        return [self.answer(index, name).status for index in range(len(self))]

    def _is_whole(self, source: ColumnSource) -> bool:
        """Whether every row has everything of the feature's group, and all of it is fresh."""
        group, shape, _, staleness = source
        if shape is None or self.report.failed:
            return False
        oldest = self._oldest(staleness)
        return self._group(group, shape).are_whole(oldest)

    def to_dict(self, *, skip_failed: bool = False) -> dict[str, list[Any]]:
        """Columns of values by feature name; see `column`."""
        readers = self._sources.readers
        if readers is not None and self._are_plain():
            columns = self._columns
            with suppress(DamagedItem):  # Column by column it is found where.
                return {name: columns[group].plain(place) for name, group, place in readers}
        return {
            name: self._column(name, source, skip_failed=skip_failed)
            for name, source in self._sources.items()
        }

    def _are_plain(self) -> bool:
        """Whether all columns are what lies in the rows, converted, and nothing is to be heeded."""
        if self._positions is not None or self.report.failed:
            return False
        for group, (shape, age) in self._sources.groups.items():
            oldest = self._oldest(age)
            if not self._group(group, shape).are_plain(oldest):
                return False
        return True

    def to_pylist(
        self, *, with_key: bool = False, skip_failed: bool = False
    ) -> list[dict[str, Any]]:
        """A dictionary of values by feature name for each key; see `column`.

        With `with_key` the primary key comes first, under its name.
        """
        columns = self.to_dict(skip_failed=skip_failed)
        if with_key:
            columns = {self._sources.key.name: list(self.keys), **columns}
        if self._sources.kernels is not None:
            made: list[dict[str, Any]] = self._sources.kernels.dicts(
                tuple(columns), tuple(columns.values()), len(self.keys)
            )
            return made
        blank = dict.fromkeys(columns)
        rows = [blank.copy() for _ in self.keys]
        for name, column in columns.items():  # Half the time of row by row.
            for row, value in zip(rows, column):  # noqa: B905 - as long as the keys, and hot
                row[name] = value
        return rows

    @overload
    def to(self, cls: type[C], *, skip_failed: bool = ...) -> list[C]: ...
    @overload
    def to(self, cls: type[C], default: D, *, skip_failed: bool = ...) -> list[C | D]: ...
    def to(self, cls: type[Any], default: Any = NOTHING, *, skip_failed: bool = False) -> list[Any]:
        """An instance of a class for each key: a dataclass, attrs class, pydantic model, ….

        Its fields are the primary key and features that were read, of the same types; it may be
        the class of the schema, or one of some of its features. What is missing or stale is left
        to the class's default, or else is None where the field may be None. Where neither is so,
        the row becomes `default`. Nothing is validated again.

        Raises `IncompleteRow` where there is no `default`, naming what is lacking, `InvalidValue`
        where there is none and the class itself refuses a row, `InvalidSchema` for a field that is
        not made of what was read, and as `value` does. With `skip_failed` a failed value is lacking
        instead.
        """
        columns = partial(self.column, skip_failed=skip_failed)
        kinds = self._sources.kinds
        return instances(self, columns, self._sources.key.name, kinds, cls, default)

    def matrix(
        self,
        features: Sequence[Any] | None = None,
        *,
        dtype: Any = "f4",
        missing: float = math.nan,
        skip_failed: bool = False,
    ) -> FeatureMatrix:
        """Features of all keys as one numpy matrix, with a matrix of their statuses.

        `features` are float, int, bool, datetime, date, timedelta or vector features of this read,
        in the order of the columns (default: all features that were read). A vector has a column
        for each element. Datetimes and dates are in seconds since 1970 in UTC, timedeltas in
        seconds. `dtype` is "f4" or "f8": numbers are rounded to it, as numpy rounds them. Where a
        feature has no value that may be served, there is `missing`, or its served default.

        Raises `InvalidValue` for other features and arguments, `UnknownFeature`, and `ReadFailed`
        for the first failed value. With `skip_failed` a failed value counts as missing and has
        the status `failed`.
        """
        form = matrix_form(dtype, missing)
        plan = self._sources.matrix_plan(features)
        if self._positions is None:
            filled = plan.fill(self._found, len(self), self._now, form)
        else:  # Each distinct key is filled once.
            count = max(self._positions, default=-1) + 1
            filled = plan.fill(self._found, count, self._now, form)
            if filled is not None:
                values, statuses = filled
                filled = values[self._positions], statuses[self._positions]
        if filled is None:
            if not skip_failed:
                self._raise_failed(plan.features)
            filled = filled_by_answers(self, plan, form)
        return FeatureMatrix(self.keys, plan.features, plan.columns, *filled, self.report)

    def to_numpy(self, name: Any, missing: Any = None, *, skip_failed: bool = False) -> Any:
        """One feature as a numpy array; raises as `value` does, and `InvalidValue`.

        With `skip_failed` a failed value counts as missing.

        A vector gives a matrix with a row for each key. Floats, ints, bools, datetimes, dates
        and timedeltas give arrays of float64, int64, bool, datetime64 and timedelta64; other
        types arrays of objects. Where there is no value there is `missing`: unless stated, NaN,
        NaT or None. An int or a bool can be none of these, so there it must be stated.
        """
        source = self.source(name)
        column = self._column_of(name, source)
        if column is None:
            return arrays.numpy_nothing(len(self), missing)
        stored = arrays.numpy_takes_stored(column.feature.type)
        with self._damage_first(name, source, skip_failed):
            contents = self._column(name, source, stored=stored, skip_failed=skip_failed)
            return arrays.numpy_array(column, contents, missing)

    def to_arrow(
        self,
        *,
        with_key: bool = False,
        statuses: bool = False,
        observed_at: bool = False,
        skip_failed: bool = False,
    ) -> pa.Table:
        """The columns as an Arrow table; raises as `value` does, and `MissingDependency`.

        Each type has its Arrow type, listed in docs/frames.md. With `with_key` the primary key
        comes first, a tuple as a column for each part (`id.0`). With `statuses` there is a column
        `risk.status` of text beside each `risk`, with `observed_at` one `risk.observed_at` of
        moments in UTC. With `skip_failed` a failed value is null.
        """
        pa = arrays.import_arrow()
        table: dict[str, Any] = {}
        if with_key:
            table |= arrays.key_arrays(self._sources.key, self.keys)
        for name, source in self._sources.items():
            table[name] = self._arrow(name, source, skip_failed)
            if statuses:
                table[f"{name}.status"] = pa.array(map(str, self.statuses(name)), pa.string())
            if observed_at:
                times = pa.array(self.times(name, skip_failed=skip_failed), pa.int64())
                table[f"{name}.observed_at"] = times.cast(pa.timestamp("us", "UTC"))
        return pa.table(table)

    def to_pandas(
        self,
        *,
        with_key: bool = True,
        statuses: bool = False,
        observed_at: bool = False,
        skip_failed: bool = False,
    ) -> pd.DataFrame:
        """The columns as a data frame of pandas, by way of `to_arrow`.

        The primary key comes first, unless `with_key` is false. Types do not depend on the values:
        ints are Int64 and bools boolean, which have nulls, floats float64 with NaN for a null,
        datetimes datetime64[us, UTC]. Vectors are arrays of numpy, dictionaries stay such.
        Raises as `to_arrow` does.
        """
        return arrays.to_pandas(
            self.to_arrow(
                with_key=with_key,
                statuses=statuses,
                observed_at=observed_at,
                skip_failed=skip_failed,
            )
        )

    def to_polars(
        self,
        *,
        with_key: bool = True,
        statuses: bool = False,
        observed_at: bool = False,
        skip_failed: bool = False,
    ) -> pl.DataFrame:
        """The columns as a data frame of polars, by way of `to_arrow`; see there.

        The primary key comes first, unless `with_key` is false.
        """
        return arrays.to_polars(
            self.to_arrow(
                with_key=with_key,
                statuses=statuses,
                observed_at=observed_at,
                skip_failed=skip_failed,
            )
        )

    def _arrow(self, name: str, source: ColumnSource, skip_failed: bool) -> Any:
        column = self._column_of(name, source)
        if column is None:
            return arrays.arrow_nothing(self._sources.kinds.get(name), len(self))
        stored = arrays.arrow_takes_stored(column.feature.type)
        with self._damage_first(name, source, skip_failed):
            contents = self._column(name, source, stored=stored, skip_failed=skip_failed)
            return arrays.arrow_array(column, contents)

    def _column_of(self, name: Any, source: ColumnSource) -> Column | None:
        """Return the column that decodes a feature's contents; None if it has no contents."""
        if source.shape is None:
            return self._sources.default(name)
        return source.shape.columns[source.position]

    @contextmanager
    def _damage_first(self, name: str, source: ColumnSource, skip_failed: bool) -> Iterator[None]:
        """Where an array cannot be made of damaged contents, say that they are."""
        try:
            yield
        except (OverflowError, ValueError):
            self._column(name, source, skip_failed=skip_failed)
            raise


def _damage_of(shape: Shape | None, row: Any, position: int) -> DamagedItem | None:
    """Why the value at a position of a row cannot be read; None if it can."""
    try:
        if shape is not None:
            shape.cell(row, position)
    except DamagedItem as error:
        return error
    return None


def _portable(shape: Shape, row: RowOrError) -> Any:
    return shape.portable(row) if isinstance(row, tuple) else row


def _restored_rows(
    keys: Sequence[Any],
    sources: ColumnSources,
    positions: Sequence[int] | None,
    portable: Mapping[int, Sequence[Any]],
    now: int,
    report: Report,
) -> Rows[Any]:
    shapes = sources.groups
    found: list[Sequence[RowOrError]] = [()] * (max(shapes, default=-1) + 1)
    for group, (shape, _) in shapes.items():
        found[group] = [
            shape.restored(row) if isinstance(row, tuple) else row for row in portable[group]
        ]
    return Rows(keys, sources, positions, found, now, report)


def _summary(rows: Rows[Any], index: int) -> str:
    """Format a key and the statuses of its features."""
    names = rows.features[:_MAX_SHOWN_FEATURES]
    shown = ", ".join(f"{name} {rows.answer(index, name).status}" for name in names)
    if len(rows.features) > len(names):
        shown += f", and {len(rows.features) - len(names)} more"
    return f"{reprlib.repr(rows.keys[index])}: {shown}"


class Row(Mapping[str, Any], Generic[C_co]):
    """One key's features: a mapping of names to values. A failed value raises `ReadFailed`."""

    __slots__ = ("_index", "_rows")

    def __init__(self, rows: Rows[C_co], index: int) -> None:
        self._rows = rows
        self._index = index

    @property
    def key(self) -> Any:
        """The primary key, as it was asked for."""
        return self._rows.keys[self._index]

    @overload
    def __getitem__(self, name: str) -> Any: ...
    @overload
    def __getitem__(self, name: T) -> T | None: ...
    def __getitem__(self, name: Any) -> Any:
        return self._rows.value(self._index, name)

    def __contains__(self, name: object) -> bool:
        try:
            self._rows.source(name)
        except UnknownFeature:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.features)

    def __len__(self) -> int:
        return len(self._rows.features)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle this row alone, not all that were read with it."""
        return Row, (self._rows.only(self._index), 0)

    @overload
    def get(self, name: str, default: Any = ...) -> Any: ...
    @overload
    def get(self, name: T, default: None = ...) -> T | None: ...
    @overload
    def get(self, name: T, default: D) -> T | D: ...
    def get(self, name: Any, default: Any = None) -> Any:
        """Return the value or the served declared default; otherwise `default`."""
        value = self._rows.answer(self._index, name).value
        return default if value is None else value

    def status(self, name: Any) -> Status:
        """`hit`, `null`, `missing`, `stale` or `failed`."""
        return self._rows.answer(self._index, name).status

    def observed_at(self, name: Any) -> datetime | None:
        """When the value was true (UTC); None where that is not known."""
        microseconds = self._rows.answer(self._index, name).observed_at
        if microseconds is None:
            return None
        try:
            return _EPOCH + timedelta(0, 0, microseconds)
        except OverflowError as error:
            raise DamagedItem(
                f"The observed-at of {_shown(plain_name(name))} is no date."
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Values by feature name; raises `ReadFailed` where one failed."""
        rows, index = self._rows, self._index
        return {name: rows.value(index, name) for name in rows.features}

    def __repr__(self) -> str:
        """Show the key and the statuses, never a value: see `Rows.__repr__`."""
        return f"<Row {_summary(self._rows, self._index)}>"
