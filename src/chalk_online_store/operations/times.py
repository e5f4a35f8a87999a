"""When the values of a write were true: what callers state, in UTC microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from chalk_online_store.codec.columns import Stored
from chalk_online_store.errors import FutureTimestamp, InvalidValue

ObservedAt: TypeAlias = datetime | Sequence[datetime] | Stored | None
"""When the values of a write were true: of all rows, of each, or now."""

MAX_FUTURE_SKEW = "5m"
"""The default of a store's `max_future_skew`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


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
    if None in times or not 0 <= min(times, default=0) <= max(times, default=0) <= _LAST:
        raise InvalidValue("observed_at has a null, or a time before 1970 or after the year 9999.")
    return list(times)


def _time(time: Any) -> int:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise InvalidValue("observed_at must be a datetime with a time zone.")
    if time < _EPOCH:
        raise InvalidValue("observed_at lies before 1970.")
    return int((time - _EPOCH) // timedelta(microseconds=1))


def check_not_ahead(times: Sequence[int], latest: int | None) -> None:
    """Raise `FutureTimestamp`, naming a row, if one of `times` is after `latest` (UTC us)."""
    if latest is not None and max(times, default=0) > latest:
        position = next(position for position, time in enumerate(times) if time > latest)
        raise future_timestamp(f"the row at position {position}")


def future_timestamp(what: str) -> FutureTimestamp:
    """The error for an observed-at that is too far ahead; `what` has it."""
    return FutureTimestamp(
        f"observed_at of {what} is further ahead of this process's clock than max_future_skew "
        "allows. Correct the timestamp: its unit, or the clock that it comes from. To allow more, "
        "open the store with a larger max_future_skew=."
    )
