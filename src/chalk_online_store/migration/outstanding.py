"""Entities that were not written to one of two stores, to be copied again. Bounded, thread-safe."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from chalk_online_store.codec.values import moment
from chalk_online_store.migration.report import SIDES, Outstanding, Side
from chalk_online_store.schema import Namespace

Deletes: TypeAlias = dict[tuple[str, ...] | None, int]
"""Times of deletes (UTC us) by the features that they delete; None for the entity."""


@dataclass(slots=True)
class Entity:
    """An entity that is outstanding.

    `deletes` are in the other store. `uncertain` deletes failed in the other store, which may
    have performed them.
    """

    namespace: Namespace
    key: Any
    deletes: Deletes = field(default_factory=dict)
    uncertain: Deletes = field(default_factory=dict)


Entities: TypeAlias = dict[tuple[str, Any], Entity]
"""Entities by the name of their namespace and by their key."""


class OutstandingEntities:
    """The entities of each store that are outstanding, at most `limit` of each."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.renew()

    def renew(self) -> None:
        """Have no entities; also in a forked child, since the parent process copies its own."""
        self._lock = threading.Lock()
        self._entities: dict[Side, Entities] = {side: {} for side in SIDES}
        self.dropped = 0

    def add(
        self,
        side: Side,
        namespace: Namespace,
        keys: Iterable[Any],
        deletes: Mapping[tuple[str, ...] | None, int] | None = None,
        *,
        is_certain: bool = True,
    ) -> None:
        """Add entities of one namespace, with deletes that hold for all of them.

        `is_certain` is False if the deletes have failed in the other store.
        """
        for key in keys:
            entity = Entity(namespace, key)
            (entity.deletes if is_certain else entity.uncertain).update(deletes or {})
            self.put_back(side, [entity])

    def put_back(self, side: Side, entities: Iterable[Entity]) -> None:
        """Add entities, for example the result of `take`."""
        with self._lock:
            known = self._entities[side]
            for entity in entities:
                place = (entity.namespace.name, entity.key)
                found = known.get(place)
                if found is not None:
                    _add(found.deletes, entity.deletes)
                    _add(found.uncertain, entity.uncertain)
                elif len(known) < self._limit:
                    known[place] = entity
                else:
                    self.dropped += 1

    def take(self, side: Side, limit: int) -> list[Entity]:
        """Remove and return up to `limit` entities, the oldest first."""
        with self._lock:
            known = self._entities[side]
            places = [place for place, _ in zip(known, range(limit), strict=False)]
            return [known.pop(place) for place in places]

    def count(self, side: Side) -> int:
        """Return the number of outstanding entities of a store."""
        return len(self._entities[side])

    def listed(self, side: Side) -> list[Outstanding]:
        """Return the outstanding entities of a store."""
        with self._lock:
            return [
                Outstanding(
                    side,
                    entity.namespace.name,
                    entity.key,
                    {
                        features: moment(time)
                        for features, time in (entity.uncertain | entity.deletes).items()
                    },
                )
                for entity in self._entities[side].values()
            ]


def _add(deletes: Deletes, others: Deletes) -> None:
    """Add deletes. If two delete the same features, the later one counts."""
    for features, time in others.items():
        deletes[features] = max(time, deletes.get(features, 0))
