"""Values as bytes that are the same for the same value, in every process and version.

Each value is written as a letter for its type, the length of what follows, and that: so no two
different values have the same bytes. Types count: 1, 1.0, True and "1" are four values. Where
Python takes two for one, so do we: 0.0 and -0.0, all NaNs, lists and tuples, a member of an Enum
and its value, one moment in two time zones, dictionaries and sets in any order.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import numpy as np

from chalk_online_store.codec.values import is_masked, microseconds_utc, whole_microseconds

_Write = Callable[[Any], bytes]


def canonical(value: Any) -> bytes:
    """The bytes of a value; raises `TypeError` for what has none."""
    for kind, letter, write in _KINDS:
        if isinstance(value, kind):
            return _framed(letter, write(value))
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, np.generic):
        return canonical(_builtin(value))
    raise TypeError(type(value).__name__)


def _builtin(value: np.generic) -> Any:
    """A scalar of numpy's as a builtin; raises `TypeError` for NaT, and times that none holds."""
    found = value.item()
    # numpy makes an int of a datetime64 in nanoseconds, and None of NaT.
    if value.dtype.kind in "mM" and not isinstance(found, date | timedelta):
        raise TypeError("datetime64 or timedelta64 that is not whole microseconds")
    return found


def _framed(letter: bytes, content: bytes) -> bytes:
    return b"%b%d:%b" % (letter, len(content), content)


def _double(value: float) -> bytes:
    if math.isnan(value):
        return b"nan"
    return struct.pack(">d", value + 0.0)  # -0.0 + 0.0 is 0.0.


def _joined(parts: Iterable[Any]) -> bytes:
    return b"".join(map(canonical, parts))


def _sorted(parts: Iterable[Any]) -> bytes:
    return b"".join(sorted(map(canonical, parts)))


def _mapping(value: dict[Any, Any]) -> bytes:
    return b"".join(sorted(canonical(key) + canonical(each) for key, each in value.items()))


def _array(value: Any) -> bytes:
    if value.dtype.hasobject or value.dtype.names or is_masked(value):
        raise TypeError("array of objects, of records, or with masked elements")
    little = value.astype(value.dtype.newbyteorder("<"), copy=False)
    return _joined((little.dtype.str, value.shape, little.tobytes()))


def _moment(value: datetime) -> bytes:
    return b"%d" % microseconds_utc(value)


def _microseconds(value: timedelta) -> bytes:
    return b"%d" % whole_microseconds(value)


def _text(value: Any) -> bytes:
    return str(value).encode()


# In this order: a bool is an int, a datetime is a date, and an Enum may be a str.
_KINDS: tuple[tuple[Any, bytes, _Write], ...] = (
    (type(None), b"n", lambda value: b""),
    (bool | np.bool_, b"b", lambda value: b"1" if value else b"0"),
    (int, b"i", lambda value: b"%d" % value),
    (float, b"f", _double),
    (str, b"s", lambda value: str.__str__(value).encode()),
    (bytes, b"x", bytes),
    (datetime, b"t", _moment),
    (date, b"d", lambda value: value.isoformat().encode()),
    (time, b"o", lambda value: value.isoformat().encode()),
    (timedelta, b"e", _microseconds),
    (Decimal, b"c", _text),
    (UUID, b"u", lambda value: value.bytes),
    (list | tuple, b"l", _joined),
    (set | frozenset, b"S", _sorted),
    (dict, b"m", _mapping),
    (np.ndarray, b"a", _array),
)
