"""Time zones by name or offset, and datetimes in them."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

from chalk_online_store.errors import InvalidValue

_OFFSET = re.compile("([+-])([01][0-9]|2[0-3]):([0-5][0-9])")


def zone_of(name: str | None) -> tzinfo | None:
    """Return a time zone by its name or offset; raises `InvalidValue` if it is not known."""
    if name is None:
        return None
    if offset := _OFFSET.fullmatch(name):
        sign, hours, minutes = offset.groups()
        span = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-span if sign == "-" else span)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise InvalidValue(f"No time zone is called {name!r}.") from None


def in_zone(value: datetime, zone: tzinfo | None) -> datetime:
    """Return a datetime without a time zone in this one.

    Raises `ValueError` for a time that the zone does not have, or has twice.
    """
    if zone is None or value.tzinfo is not None:
        return value
    found = value.replace(tzinfo=zone)
    if found.utcoffset() != found.replace(fold=1 - found.fold).utcoffset():
        raise ValueError("the clocks change then")
    return found
