"""Hypothesis strategies that several tests share: values of every type, and what makes them equal.

`VALUES` maps each annotation to a strategy for its values; a new feature type gets a row here.
"""

from __future__ import annotations

import enum
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from chalk_online_store import Vector

vector: Any = Vector
"""`Vector`, which type checkers let nobody subscript."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Colour(enum.Enum):
    """An Enum stored as text."""

    RED = "r"
    GREEN = "g"
    CRIMSON = "r"  # noqa: PIE796 - an alias


class Level(enum.IntEnum):
    """An Enum stored as a number."""

    LOW = -1
    HIGH = 10**20


class Mark(enum.Enum):
    """An Enum stored as bytes."""

    EMPTY = b""
    FULL = b"\x00\xff"


def exactly(value: Any) -> Any:
    """Something that is equal only for identical values: types, signs, digits and NaN bits."""
    if isinstance(value, float):
        return float, struct.pack(">d", value)
    if isinstance(value, Decimal):
        return Decimal, value.as_tuple()
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, datetime):
        return datetime, (value - EPOCH) // timedelta(microseconds=1)
    return type(value), value


def double(bits: int) -> float:
    """The float of these 64 bits."""
    return float(struct.unpack(">d", struct.pack(">Q", bits))[0])


def in_utc_range(value: datetime) -> bool:
    """Whether the year in UTC is one that Python has."""
    year_one = datetime.min.replace(tzinfo=UTC)
    return year_one <= value <= datetime.max.replace(tzinfo=UTC)


EDGE_FLOATS = [0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]
EDGE_FLOATS += [1e-130, -1e-130, 9.999999999999999e-131, 9.99e125, 9.999999999999999e125, 1e126]
EDGE_FLOATS += [-1e126, 0.1, 1e22, 1e16, 2.0**53, float("inf"), float("-inf"), float("nan")]
EDGE_FLOATS += [double(0xFFF8000000000000), double(0x7FF8000000000001), double(0x7FF0000000000001)]

doubles = st.integers(0, 2**64 - 1).map(double)
floats = st.sampled_from(EDGE_FLOATS) | doubles | st.floats()

MAX_INT = 10**38 - 1
ints = st.integers(-MAX_INT, MAX_INT) | st.integers(-300, 300)
ints |= st.integers(0, 37).map(lambda exponent: 10**exponent)

digits = st.lists(st.integers(0, 9), min_size=1, max_size=45)
exponents = st.integers(-300, 300) | st.integers(-40, 3) | st.sampled_from([-131, -130, -129])
finite_decimals = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
    st.integers(0, 1),
    digits,
    exponents,
)
EDGE_DECIMALS = ["9" * 38, "9" * 39, "0." + "3" * 38, "0." + "3" * 39, "1E-130", "1E-131"]
EDGE_DECIMALS += ["100", "1E+2", "1" + "0" * 37, "1" + "0" * 38, "1.10", "0.00", "0", "1E+125"]
SPECIAL_DECIMALS = ["NaN", "-NaN", "NaN123", "sNaN", "-sNaN7", "Infinity", "-Infinity", "-0"]
decimals = (
    finite_decimals | st.sampled_from(EDGE_DECIMALS + SPECIAL_DECIMALS).map(Decimal) | st.decimals()
)

offsets = st.timedeltas(timedelta(hours=-23, minutes=-59), timedelta(hours=23, minutes=59))
zones = st.timezones() | offsets.map(timezone) | st.just(UTC)
EDGE_DATETIMES = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC), EPOCH]
any_datetimes = st.datetimes(timezones=zones) | st.sampled_from(EDGE_DATETIMES)
datetimes = any_datetimes.filter(in_utc_range)


def vectors(size: int, dtype: str) -> SearchStrategy[Any]:
    """Vectors of any bits at all."""
    width = size * np.dtype(dtype).itemsize
    return st.binary(min_size=width, max_size=width).map(
        lambda raw: np.frombuffer(raw, np.dtype(f"<{dtype}"))
    )


VALUES: dict[Any, SearchStrategy[Any]] = {
    bool: st.booleans(),
    str: st.text(),
    bytes: st.binary() | st.binary(min_size=3, max_size=3),
    int: ints,
    float: floats,
    Decimal: decimals,
    datetime: datetimes,
    date: st.dates(),
    time: st.times(),
    timedelta: st.timedeltas() | st.sampled_from([timedelta.min, timedelta.max]),
    UUID: st.uuids(),
    None: st.none(),
    Colour: st.sampled_from(Colour),
    Level: st.sampled_from(Level),
    Mark: st.sampled_from(Mark),
    Literal["x", "y"]: st.sampled_from(["x", "y"]),
    Literal[True]: st.just(True),
    vector[3]: vectors(3, "f2"),
    vector[2, "f4"]: vectors(2, "f4"),
    vector[1, "f8"]: vectors(1, "f8"),
}
"""Strategies for the values of each annotation."""
