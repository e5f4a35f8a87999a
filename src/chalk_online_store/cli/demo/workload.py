"""What the demo writes, in which order, and what has to be read afterwards.

The state at the end of November is loaded in bulk. Then December arrives: first the state at
the end of the year, and after it, late, the state of mid-December, which must change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from chalk_online_store.cli.demo.data import (
    AIRCRAFT,
    ROUTE,
    Row,
    Tables,
    aircraft_rows,
    busiest,
    route_rows,
)
from chalk_online_store.cli.demo.features import Aircraft, Route
from chalk_online_store.schema import Namespace, namespace_of

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
