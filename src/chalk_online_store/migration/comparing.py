"""Comparing what two stores return for one feature: status, value and observed-at."""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Mapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from chalk_online_store.errors import InvalidSchema
from chalk_online_store.operations.rows import Answer
from chalk_online_store.schema.instances import form_of


class DifferenceKind(enum.StrEnum):
    """The kind of a difference between two results for one feature of one entity."""

    STATUS = "status"
    """One store has a value, a null or a stale value, and the other one has something else."""
    VALUE = "value"
    """Both stores have a value, and the values differ."""
    OBSERVED_AT = "observed_at"
    """The values are equal, and the times at which they were true differ."""


def difference_of(
    serving: Answer, shadow: Answer, tolerance: float = 0.0, observed_at_tolerance: float = 0.0
) -> DifferenceKind | None:
    """Return how two results differ; None if they are equal. See `DualSettings` for tolerances."""
    if serving.status is not shadow.status:
        return DifferenceKind.STATUS
    if not same_value(serving.value, shadow.value, tolerance):
        return DifferenceKind.VALUE
    if serving.observed_at is None or shadow.observed_at is None:
        same_time = serving.observed_at is shadow.observed_at
    else:
        apart = abs(serving.observed_at - shadow.observed_at)
        same_time = apart <= observed_at_tolerance * 1e6
    return None if same_time else DifferenceKind.OBSERVED_AT


_PLAIN = (type(None), bool, int, str, bytes, date, time, timedelta, UUID, enum.Enum)
"""Types whose `==` is exact. A datetime is a date."""


def same_value(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Return True if two values of one feature are equal, bit for bit.

    All NaNs are equal, and -0.0 differs from 0.0. Decimals have the same digits: 1.10 differs from
    1.1. Vectors have the same element type and the same bits.

    With a `tolerance`, two floats are equal if they differ by at most `tolerance`, or by at most
    `tolerance` times the larger one. It applies within lists, dicts and structs as well, but not to
    elements of sets, or of vectors.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, _PLAIN):
        return bool(one == other)
    if isinstance(one, float):
        return _same_float(one, other, tolerance)
    if isinstance(one, Set):
        return {_exact(each) for each in one} == {_exact(each) for each in other}
    parts = _parts(one)
    if parts is None:
        return bool(_exact(one) == _exact(other))
    others = _parts(other)
    assert others is not None  # Both values have the same type.
    return parts.keys() == others.keys() and all(
        same_value(value, others[name], tolerance) for name, value in parts.items()
    )


def _same_float(one: float, other: float, tolerance: float) -> bool:
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    if tolerance:
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
    return struct.pack(">d", one) == struct.pack(">d", other)


def _exact(value: Any) -> Any:
    """Return a hashable object. Two of them are equal if the values are equal bit for bit."""
    if isinstance(value, float):
        return float, "nan" if math.isnan(value) else struct.pack(">d", value)
    if isinstance(value, Decimal):
        return Decimal, value.as_tuple()
    if hasattr(value, "dtype"):  # A vector. Processes without vectors do not import NumPy.
        return str(value.dtype), value.shape, value.tobytes()
    if isinstance(value, tuple):
        return type(value), tuple(_exact(each) for each in value)
    return type(value), value


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """Return the parts of a container or a struct by name or position; None if it is neither."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Sequence):
        return dict(enumerate(value))
    if isinstance(value, Decimal) or hasattr(value, "dtype"):
        return None
    cls: Any = type(value)
    try:
        form = form_of(cls)
    except InvalidSchema:
        return None
    return {field.name: form.get(value, field.name) for field in form.fields}
