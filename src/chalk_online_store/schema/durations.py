"""Durations as Chalk writes them: "1h 10m", a timedelta, seconds, "infinity"."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

from chalk_online_store.arguments import is_numpy
from chalk_online_store.errors import InvalidSchema

Duration: TypeAlias = str | timedelta | int | float

INFINITY = None
"""An infinite duration, in the microseconds that `microseconds` answers."""

_UNITS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
}
_PART = re.compile(r"(\d+)\s*(ms|[wdhms])\s*")
_MICROSECOND = timedelta(microseconds=1)
_LONGEST = timedelta.max // _MICROSECOND
_MOST_SHOWN = 40
_HOW = 'write it as "1h 10m" (units w, d, h, m, s, ms), a timedelta, seconds, or "infinity"'


def microseconds(duration: Duration, argument: str = "") -> int | None:
    """The duration in whole microseconds, or None for "infinity" (also "all", as in Chalk).

    Raises `InvalidSchema` for a negative duration, one that cannot be read, and a timedelta that
    is finer than microseconds; the message names `argument`.
    """
    try:
        exact = _exact(duration)
    except (TypeError, ValueError, ArithmeticError):
        raise _invalid(duration, argument, f"is not a duration: {_HOW}") from None
    if exact is not None and exact < 0:
        raise _invalid(duration, argument, "is negative: a duration is 0 or more")
    if exact is not None and exact > _LONGEST:
        raise _invalid(duration, argument, f'is too long: write "infinity", or {_HOW}')
    return exact


def seconds(duration: Duration, argument: str = "") -> float:
    """The duration in seconds; infinite where it is. Raises as `microseconds` does."""
    exact = microseconds(duration, argument)
    return math.inf if exact is None else exact / 1e6


def _invalid(duration: object, argument: str, why: str) -> InvalidSchema:
    named = f"{argument}: " if argument else ""
    shown = repr(duration) if isinstance(duration, str | int | float) else type(duration).__name__
    return InvalidSchema(f"{named}{shown[:_MOST_SHOWN]} {why}.")


def _exact(duration: Duration) -> int | None:
    """Microseconds; raises `TypeError`, `ValueError` or `ArithmeticError` for none."""
    if isinstance(duration, str):
        return _from_text(duration)
    if isinstance(duration, timedelta):
        exact = duration // _MICROSECOND
        # pandas' Timedelta is a timedelta with nanoseconds, which must not be dropped.
        if type(duration) is not timedelta and duration != timedelta(0, 0, exact):
            raise ValueError("nanoseconds")
        return int(exact)
    # True is an int, and numpy's timedelta64 a number without its unit.
    if isinstance(duration, bool) or is_numpy(duration, "bool", "bool_", "timedelta64"):
        raise TypeError
    return int(round(duration * 1_000_000))  # noqa: RUF046 - numpy's round to their own.


def _from_text(text: str) -> int | None:
    if text in ("infinity", "all"):
        return INFINITY
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ValueError(text)
    return sum(int(count) * _UNITS[unit] for count, unit in parts)
