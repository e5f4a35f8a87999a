"""When the values of a write were true: what callers state, in UTC microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from chalk_online_store.codec.columns import Stored
from chalk_online_store.errors import InvalidValue

ObservedAt: TypeAlias = datetime | Sequence[datetime] | Stored | None
"""When the values of a write were true: of all rows, of each, or now."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def times_of(observed_at: ObservedAt, count: int) -> list[int] | None:
    """UTC microseconds for each of `count` rows; None for now."""
    if observed_at is None:
        return None
    if isinstance(observed_at, datetime):
        return [_time(observed_at)] * count
    given = list(observed_at)
    if len(given) != count:
        raise InvalidValue(f"observed_at has {len(given)} times for {count} rows.")
    if isinstance(observed_at, Stored):
        return _times_stored(given)
    return [_time(time) for time in given]


def _times_stored(times: Sequence[Any]) -> list[int]:
    if None in times or min(times, default=0) < 0:
        raise InvalidValue("observed_at has a null, or a time before 1970.")
    return list(times)


def _time(time: Any) -> int:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise InvalidValue("observed_at must be a datetime with a time zone.")
    if time < _EPOCH:
        raise InvalidValue("observed_at lies before 1970.")
    return int((time - _EPOCH) // timedelta(microseconds=1))
