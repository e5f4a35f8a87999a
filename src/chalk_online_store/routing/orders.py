"""What an operator has decided, whatever the router sees."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from chalk_online_store.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Orders:
    """Which region is pinned, which are drained, which evacuated; `at` is UTC microseconds.

    A pinned region is the only one that is asked. A drained one loses its traffic gradually, and
    is asked where all others are down. An evacuated one is not asked at all. Of two orders the
    later one holds.
    """

    at: int = 0
    pinned: str = ""
    drained: tuple[str, ...] = ()
    evacuated: tuple[str, ...] = ()

    def check(self, regions: Collection[str]) -> None:
        """Refuse what leaves no region, or names one that is not there; raises `InvalidValue`."""
        named = {self.pinned, *self.drained, *self.evacuated} - {""}
        unknown = sorted(named.difference(regions))
        if unknown:
            known = ", ".join(regions)
            raise InvalidValue(f"{unknown[0]!r} is no region of this store; it has: {known}.")
        if self.pinned in (*self.drained, *self.evacuated):
            raise InvalidValue(f"{self.pinned!r} cannot be pinned and drained or evacuated.")
        if not set(regions).difference(self.evacuated):
            raise InvalidValue("Not every region can be evacuated: one has to serve.")
