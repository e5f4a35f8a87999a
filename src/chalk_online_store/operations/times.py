"""When the values of a write were true: what callers state, in UTC microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from chalk_online_store.arguments import check_ordered, list_of
from chalk_online_store.codec.columns import Stored
from chalk_online_store.codec.values import ValueRefused, microseconds_utc
from chalk_online_store.errors import FutureTimestamp, InvalidValue

ObservedAt: TypeAlias = datetime | Sequence[datetime] | Stored | None
"""When the values of a write were true: of all rows, of each, or now."""

_LAST_MOMENT = 253_402_300_799_999_999
"""The last microsecond of the year 9999, in UTC microseconds."""


def times_of(observed_at: ObservedAt, count: int) -> list[int] | None:
    """UTC microseconds for each of `count` rows; None for now. Raises `InvalidValue`."""
    if observed_at is None:
        return None
    if isinstance(observed_at, datetime):
        return [time_of(observed_at)] * count
    if isinstance(observed_at, Stored):
        given: list[Any] = observed_at
    else:
        check_ordered(observed_at, "observed_at")
        given = list_of(observed_at, "observed_at", _EXPECTED, "datetime.now(UTC)")
    if len(given) != count:
        raise InvalidValue(
            f"observed_at has {len(given)} times for {count} rows. Pass one for each row, or one "
            "datetime for all."
        )
    if isinstance(observed_at, Stored):
        return _times_stored(given)
    return [time_of(time, f" (row {row})") for row, time in enumerate(given)]


def times_of_rows(
    observed_at: ObservedAt, count: int, own: Mapping[int, Any], now: int
) -> list[int]:
    """Return UTC microseconds for each of `count` rows; `now` for those of which nothing is said.

    `own` are the observed-ats that rows state themselves, by position. Raises `InvalidValue`, also
    if a row states another one than `observed_at` does.
    """
    stated = times_of(observed_at, count)
    times = [now] * count if stated is None else stated
    for position, given in own.items():
        time = time_of(given, f" (row {position})")
        if stated is not None and time != stated[position]:
            raise InvalidValue(
                f"observed_at (row {position}) differs from the observed-at that the row itself "
                "states, such as its FeatureTime. Leave out one of the two."
            )
        times[position] = time
    return times


_EXPECTED = "datetimes with a time zone, or one datetime"


def _times_stored(times: Sequence[Any]) -> list[int]:
    if None in times or not 0 <= min(times, default=0) <= max(times, default=0) <= _LAST_MOMENT:
        raise InvalidValue("observed_at has a null, or a time before 1970 or after the year 9999.")
    return list(times)


def time_of(time: Any, where: str = "") -> int:
    """One observed-at in UTC microseconds; `where` says whose. Raises `InvalidValue`."""
    try:
        exact = microseconds_utc(time)
    except TypeError:
        raise InvalidValue(
            f"observed_at{where} must be a datetime with a time zone; got {type(time).__name__}. "
            "Pass datetime.now(UTC), for example."
        ) from None
    except ValueRefused as refused:
        raise InvalidValue(
            f"observed_at{where} must be a datetime with a time zone: {refused}."
        ) from None
    if exact < 0:
        raise InvalidValue(f"observed_at{where} lies before 1970.")
    return exact


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
