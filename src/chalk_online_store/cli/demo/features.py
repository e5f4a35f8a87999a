"""What the demo stores: declared as a user would.

The namespaces' names begin with `demo_`, so that no rows of yours are ever touched.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated

import numpy as np

from chalk_online_store.schema import Vector, feature, features, namespace_of


class Engine(Enum):
    """What drives an aircraft."""

    FAN = "Turbo-fan"
    JET = "Turbo-jet"
    PROP = "Turbo-prop"
    SHAFT = "Turbo-shaft"
    PISTON = "Reciprocating"
    FOUR_CYCLE = "4 Cycle"


@features(name="demo_aircraft")
class Aircraft:
    """One aircraft: what it is, and what it has done this year."""

    tailnum: str = feature(primary=True)
    airline: str
    manufacturer: str | None
    model: str | None
    engine: Engine | None
    built: int | None
    seats: int | None
    flights: int
    cancelled: int
    miles: int
    airborne: timedelta
    speed: float | None
    departure_delay: float | None
    arrival_delay: float | None
    arrival_delay_p90: float | None
    longest_delay: int | None
    late_share: float | None
    punctuality: Decimal | None
    grounded: bool
    first_seen: date
    last_departure: datetime
    last_destination: str
    departures_by_hour: Annotated[np.ndarray, Vector[24]]
    delay_by_month: Annotated[np.ndarray, Vector[12, np.float32]]


@features(name="demo_route")
class Route:
    """One airline's route; its last week is in a group, hence an item, of its own."""

    route: tuple[str, str, str] = feature(primary=True)  # origin, destination, carrier
    airline: str
    miles: int
    flights: int
    aircraft: int
    air_time: float | None
    arrival_delay: float | None
    late_share: float | None
    delay_by_month: Annotated[np.ndarray, Vector[12, np.float32]]
    last_departure: datetime = feature(group="realtime")
    last_cancelled: bool = feature(group="realtime")
    flights_7d: int = feature(group="realtime")
    cancelled_7d: int = feature(group="realtime")
    arrival_delay_7d: float | None = feature(group="realtime")


SCHEMA: tuple[type, ...] = (Aircraft, Route)


def key_name(schema: type) -> str:
    """What rows of a namespace call their primary key."""
    return namespace_of(schema).key_name
