"""What an operator has decided, whatever the router sees."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from chalk_online_store.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class RegionCommands:
    """Which region is pinned, which are drained, which evacuated; `at` is UTC microseconds.

    A pinned region is the only one that is asked. A drained one loses its traffic gradually, and
    is asked where all others are down. An evacuated one is not asked at all. Of two orders the
    later one holds.
    """

    at: int = 0
    pinned: str = ""
    drained: tuple[str, ...] = ()
    evacuated: tuple[str, ...] = ()

    def given(self, now: int, held: RegionCommands) -> RegionCommands:
        """These, given at `now` (UTC us): later than what holds, whoever's clock was ahead."""
        return replace(self, at=max(now, held.at + 1))

    # Each of these says what holds then; whoever gives the orders sets `at`.

    def pin(self, region: str) -> RegionCommands:
        """Ask this region alone."""
        return replace(self, pinned=region)

    def drain(self, regions: Iterable[str]) -> RegionCommands:
        """Drain these as well. Raises `InvalidValue` where one is evacuated, which is more."""
        drained = tuple(dict.fromkeys((*self.drained, *regions)))
        for name in drained:
            if name in self.evacuated:
                raise InvalidValue(f"{name!r} is evacuated, which is more: release it first.")
        return replace(self, drained=drained)

    def evacuate(self, regions: Iterable[str]) -> RegionCommands:
        """Evacuate these as well; they need not be drained then."""
        evacuated = tuple(dict.fromkeys((*self.evacuated, *regions)))
        drained = tuple(name for name in self.drained if name not in evacuated)
        return replace(self, drained=drained, evacuated=evacuated)

    def release(self, regions: Collection[str]) -> RegionCommands:
        """Take back what was ordered of these."""
        return replace(
            self,
            pinned="" if self.pinned in regions else self.pinned,
            drained=tuple(name for name in self.drained if name not in regions),
            evacuated=tuple(name for name in self.evacuated if name not in regions),
        )

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
