"""What was written is what is read, bit for bit, through every engine."""

from __future__ import annotations

import enum
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import numpy as np
import pytest

from chalk_online_store import Feature, Namespace, Vector
from tests.contract.conftest import Open


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


FLOATS = [0.0, -0.0, 1.5, 0.1, -1e-7, 5e-324, 1.7976931348623157e308, 1e-130, 9.99e125, 1e126]
FLOATS += [float("inf"), float("-inf"), float("nan"), 123456789.123456789, 1e22]

EXAMPLES: list[tuple[Any, list[Any]]] = [
    (bool, [True, False]),
    (str, ["", "text", "naïve ☃ \U0001f600", 'quote " back \\ \x00 \n', "x" * 10_000]),
    (bytes, [b"", b"\x00\xff", bytes(range(256))]),
    (int, [0, -1, 2**63, 10**38 - 1, -(10**38) + 1, 1000, 10**37]),
    (float, FLOATS),
    (Decimal, [Decimal(t) for t in ("1.10", "0", "-0", "1E+2", "0.00001", "NaN", "-Infinity")]),
    (Decimal, [Decimal(t) for t in ("9" * 38, "1." + "3" * 37, "1E-300", "100", "-5.5", "0.00")]),
    (datetime, [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)]),
    (datetime, [datetime(2026, 11, 24, 1, 2, 3, 4, timezone(timedelta(hours=5, minutes=30)))]),
    (date, [date.min, date(1969, 12, 31), date.max]),
    (time, [time.min, time(12, 30, 15, 123456), time.max]),
    (timedelta, [timedelta.min, timedelta(microseconds=-1), timedelta(0), timedelta.max]),
    (UUID, [UUID(int=0), UUID("12345678-1234-5678-1234-567812345678")]),
    (Colour, list(Colour)),
    (Literal[1, 2, 300], [1, 300]),
    (None, [None]),
    (str | None, [None, "", "None"]),
]


def exactly(value: Any) -> Any:
    """Something that is equal only for identical values: types, signs, digits and NaNs."""
    if isinstance(value, float):
        return float, struct.pack(">d", value)
    if isinstance(value, Decimal):
        return Decimal, value.as_tuple()
    return type(value), value


@pytest.mark.parametrize(("annotation", "values"), EXAMPLES, ids=str)
def test_a_scalar_comes_back_exactly(open_store: Open, annotation: Any, values: list[Any]) -> None:
    """Each scalar type's ordinary and extreme values survive being stored, in both orders."""
    namespace = Namespace("thing", int, [Feature("value", annotation)])
    store = open_store([namespace])
    rows = [{"id": i, "value": value} for i, value in enumerate(values)]
    for ordering in ("event", "arrival"):
        store.write(namespace, rows, ordering=ordering)
        found = store.read(namespace, range(len(values))).column("value")
        assert list(map(exactly, found)) == list(map(exactly, values))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_a_vector_comes_back_exactly(open_store: Open, dtype: str) -> None:
    """A vector keeps every bit of its dtype, infinities and NaN included."""
    namespace = Namespace("thing", int, [Feature("value", Vector.__class_getitem__((5, dtype)))])
    store = open_store([namespace])
    vector = np.array([0.1, -0.0, np.inf, np.nan, -65504], dtype=dtype)
    store.write(namespace, [{"id": 1, "value": vector}, {"id": 2, "value": [1, 2, 3, 4, 5]}])
    first, second = store.read(namespace, [1, 2]).column("value")
    assert (first.dtype, first.tobytes()) == (vector.dtype, vector.tobytes())
    assert second.tolist() == [1, 2, 3, 4, 5]


KEYS: list[tuple[Any, list[Any]]] = [
    (int, [0, -1, 2**70]),
    (str, ["", "a:b", "ü\\", "x" * 2000]),
    (UUID, [UUID(int=7)]),
    (tuple[int, str], [(1, "a"), (1, "a:b"), (1, "")]),
    (tuple[str, str], [("a:", "b"), ("a", ":b"), ("a\\", ":b")]),
]


@pytest.mark.parametrize(("annotation", "keys"), KEYS, ids=str)
def test_every_kind_of_primary_key(open_store: Open, annotation: Any, keys: list[Any]) -> None:
    """Ints, strings, UUIDs and tuples of them each find their own entity."""
    namespace = Namespace("thing", annotation, [Feature("value", int)])
    store = open_store([namespace])
    store.write(namespace, [{"id": key, "value": i} for i, key in enumerate(keys)])
    assert store.read(namespace, keys).column("value") == list(range(len(keys)))
