"""When the values of a write were true: what callers state, in UTC microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

from chalk_online_store.arguments import check_ordered, list_of
from chalk_online_store.codec.columns import Stored
from chalk_online_store.codec.values import Refused, microseconds_utc
from chalk_online_store.errors import InvalidValue

ObservedAt: TypeAlias = datetime | Sequence[datetime] | Stored | None
"""When the values of a write were true: of all rows, of each, or now."""


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


_EXPECTED = "datetimes with a time zone, or one datetime"


def _times_stored(times: Sequence[Any]) -> list[int]:
    if None in times or min(times, default=0) < 0:
        raise InvalidValue("observed_at has a null, or a time before 1970.")
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
    except Refused as refused:
        raise InvalidValue(
            f"observed_at{where} must be a datetime with a time zone: {refused}."
        ) from None
    if exact < 0:
        raise InvalidValue(f"observed_at{where} lies before 1970.")
    return exact
