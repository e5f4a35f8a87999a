"""Durations as Chalk writes them: "1h 10m", a timedelta, seconds, "infinity"."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import TypeAlias

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
_HOW = 'write it as "1h 10m" (units w, d, h, m, s, ms), a timedelta, seconds, or "infinity"'


def microseconds(duration: Duration) -> int | None:
    """The duration in whole microseconds, or None for "infinity" (also "all", as in Chalk).

    Raises `InvalidSchema` for a negative duration or one that cannot be read.
    """
    if isinstance(duration, str):
        return _from_text(duration)
    if isinstance(duration, timedelta):
        exact = duration // timedelta(microseconds=1)
    else:
        exact = _from_seconds(duration)
    if exact < 0:
        raise InvalidSchema(f"{duration!r} is negative: a duration is 0 or more.")
    return exact


def seconds(duration: Duration) -> float:
    """The duration in seconds; infinite where it is. Raises as `microseconds` does."""
    exact = microseconds(duration)
    return math.inf if exact is None else exact / 1e6


def _from_seconds(seconds: float) -> int:
    try:
        return round(seconds * 1_000_000)
    except (TypeError, ValueError, OverflowError):
        raise InvalidSchema(f"{seconds!r} is not a duration: {_HOW}.") from None


def _from_text(text: str) -> int | None:
    if text in ("infinity", "all"):
        return INFINITY
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise InvalidSchema(f"{text!r} is not a duration: {_HOW}.")
    return sum(int(count) * _UNITS[unit] for count, unit in parts)
