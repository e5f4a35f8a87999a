"""Features of many entities as one numpy matrix, for models.

The compiled kernel writes plain values from a response's cells, or from rows, straight into the
matrix. If anything is not plain, such as a failed read or a damaged value, `filled_by_answers`
fills the whole matrix instead, value by value. It defines what the kernel has to write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.arrays import RANGES, stored_kind
from chalk_online_store.report import Report
from chalk_online_store.schema.types import FeatureType, VectorType

if TYPE_CHECKING:
    from chalk_online_store.operations.rows import ColumnSources, Rows

_DTYPES = {"f4": np.dtype("f4"), "f8": np.dtype("f8")}

_NUMBER, _WHOLE, _BOOLEAN, _MOMENT = range(4)
_VECTORS = {"f2": 4, "f4": 5, "f8": 6}
_KINDS = {"float": _NUMBER, "int": _WHOLE, "bool": _BOOLEAN}
_SECONDS = {"datetime": (1, 1e6), "date": (86_400, 1.0), "timedelta": (1, 1e6)}
"""What the stored integer of a moment is multiplied by, and divided by, to give seconds."""

_ANY = (-(2**63), 2**63 - 1)
_LONGEST = 2**62
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_ZERO = date(1970, 1, 1).toordinal()
_MICROSECOND = timedelta(microseconds=1)

CODES = {"hit": 0, "null": 1, "missing": 2, "stale": 3, "failed": 4}
"""The code of each status in `FeatureMatrix.statuses`."""


@dataclass(frozen=True, eq=False, slots=True)
class FeatureMatrix:
    """Features of many entities as one matrix, with the status of each of them.

    `values` has a row for each key and, for each of `features`, one column, or as many as the
    vector has elements: `columns` has the slice of each feature. `statuses` (uint8) has a row for
    each key and a column for each feature. Its codes are 0 for `hit`, 1 for `null`, 2 for
    `missing`, 3 for `stale` and 4 for `failed`. `report` tells what the read cost.
    """

    keys: Sequence[Any]
    features: tuple[str, ...]
    columns: Mapping[str, slice]
    values: np.ndarray[Any, np.dtype[Any]]
    statuses: np.ndarray[Any, np.dtype[np.uint8]]
    report: Report

    def __repr__(self) -> str:
        """Show the size; never a value."""
        return f"<FeatureMatrix of {len(self.keys)} keys, {len(self.features)} features>"


@dataclass(frozen=True, slots=True)
class MatrixForm:
    """The dtype of a matrix, and what stands in place of absent values."""

    dtype: np.dtype[Any]
    missing: float


def matrix_form(dtype: Any, missing: Any) -> MatrixForm:
    """Check the arguments of a matrix. Raises `InvalidValue`."""
    try:
        found = np.dtype(dtype) if dtype is not None else None
    except TypeError:
        found = None
    if found not in _DTYPES.values() or found is None:
        raise InvalidValue('dtype must be "f4" or "f8", or numpy\'s float32 or float64.')
    if isinstance(missing, bool) or not isinstance(missing, float | int | np.floating | np.integer):
        raise InvalidValue(
            f"missing must be a number, such as nan or 0.0; got {type(missing).__name__}."
        )
    try:
        number = float(missing)
    except OverflowError:
        number = math.inf
    limit = float(np.finfo(found).max)
    if abs(number) > limit and not (isinstance(missing, float | np.floating) and number in _INF):
        raise InvalidValue(f"missing must be a number that {found} holds.")
    return MatrixForm(found, number)


_INF = (math.inf, -math.inf)


def check_numeric(full_name: str, kind: FeatureType) -> int:
    """Return how many columns a feature has in a matrix. Raises `InvalidValue` for other types."""
    if isinstance(kind, VectorType):
        return kind.size
    if stored_kind(kind) in _KINDS or stored_kind(kind) in _SECONDS:
        return 1
    raise InvalidValue(
        f"{full_name}: expected a float, int, bool, datetime, date, timedelta or vector feature "
        f"in a matrix; got {kind.name}. Read the others by column()."
    )


class MatrixPlan:
    """What a matrix of some features of a read is made of; the same for many reads."""

    def __init__(self, sources: ColumnSources, names: Sequence[str]) -> None:
        self.features = tuple(names)
        self.columns: dict[str, slice] = {}
        self.kinds = [sources.features[name].type for name in names]
        fixed: list[tuple[int, slice, int, Any]] = []
        described: dict[int, list[Any]] = {}
        self._is_plain = sources.kernels is not None
        width = 0
        for index, (name, kind) in enumerate(zip(names, self.kinds, strict=True)):
            size = check_numeric(f"{sources.namespace}.{name}", kind)
            columns = self.columns[name] = slice(width, width + size)
            width += size
            default = sources.default(name)
            served = None if default is None else default.converter.one(default.default)
            self._is_plain &= served is None or not isinstance(kind, VectorType)
            number = None if served is None else _number(kind, served)
            group, shape, position, staleness = sources[name]
            if shape is None:
                status = CODES["stale" if staleness == 0 else "missing"]
                fixed.append((index, columns, status, number))
            else:
                place = (position, columns.start, index, size)
                described.setdefault(group, []).append(_described(kind, place, staleness, number))
        self.width = width
        self._fixed = fixed
        self._fillers = [
            (group, sources.kernels.Filler(tuple(features)))
            for group, features in (described.items() if self._is_plain else ())
        ]

    def fill(
        self, found: Sequence[Any], count: int, now: int, form: MatrixForm
    ) -> tuple[Any, Any] | None:
        """Return the matrices of values and of statuses; None if something is not plain."""
        if not self._is_plain:
            return None
        values = np.empty((count, self.width), form.dtype)
        statuses = np.empty((count, len(self.features)), np.uint8)
        for group, filler in self._fillers:
            if not filler.fill(found[group], now, values, statuses, form.missing):
                return None
        for index, columns, status, number in self._fixed:
            statuses[:, index] = status
            values[:, columns] = form.missing if number is None else number
        return values, statuses


def _described(
    kind: FeatureType, place: tuple[int, int, int, int], staleness: int | None, number: Any
) -> tuple[Any, ...]:
    """Describe a feature for `_kernels.Filler`."""
    age = -1 if staleness is None else min(staleness, _LONGEST)
    name = stored_kind(kind)
    factor, divisor = _SECONDS.get(name, (1, 1.0))
    code = _VECTORS[kind.dtype] if isinstance(kind, VectorType) else _KINDS.get(name, _MOMENT)
    return (code, *place, age, *RANGES.get(name, _ANY), factor, divisor, number)


def _number(kind: FeatureType, value: Any) -> Any:
    """Return the number, or the numbers of a vector, that stand for a value in a matrix."""
    if isinstance(kind, VectorType):
        return value
    if isinstance(value, datetime):
        return float((value - _EPOCH) // _MICROSECOND) / 1e6
    if isinstance(value, timedelta):
        return float(value // _MICROSECOND) / 1e6
    if isinstance(value, date):
        return float((value.toordinal() - _DAY_ZERO) * 86_400)
    return float(value)


def filled_by_answers(rows: Rows[Any], plan: MatrixPlan, form: MatrixForm) -> tuple[Any, Any]:
    """Return the matrices of values and of statuses, value by value."""
    values = np.full((len(rows), plan.width), form.missing, form.dtype)
    statuses = np.empty((len(rows), len(plan.features)), np.uint8)
    for index, (name, kind) in enumerate(zip(plan.features, plan.kinds, strict=True)):
        columns = plan.columns[name]
        for place in range(len(rows)):
            answer = rows.answer(place, name)
            statuses[place, index] = CODES[answer.status]
            if answer.value is not None:
                with np.errstate(over="ignore"):
                    values[place, columns] = _number(kind, answer.value)
    return values, statuses
