"""Who wins: the versions of each item, and which of them each region has. No socket, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

Link = tuple[str, str]
"""From one region to another."""


class Version(NamedTuple):
    """What a client's write made of an item; of two versions, the greater wins."""

    made: int
    """When, in nanoseconds since 1970."""
    region: str
    image: str | None
    """The item as JSON; None when it was deleted."""


NEVER = Version(0, "", None)


def image_of(item: dict[str, Any] | None) -> str | None:
    """An item as text, which is the same for the same item."""
    return None if item is None else json.dumps(item, sort_keys=True, separators=(",", ":"))


class Links:
    """Between which regions replication runs, and how long it takes, in seconds."""

    def __init__(self, regions: list[str], lag: float) -> None:
        self.lag: dict[Link, float] = {(a, b): lag for a in regions for b in regions if a != b}
        self.cut: set[Link] = set()

    def targets(self, source: str) -> Iterator[tuple[str, float]]:
        """Where the writes of a region go, and their lag."""
        for (origin, target), lag in self.lag.items():
            if origin == source and (origin, target) not in self.cut:
                yield target, lag

    def is_open(self, source: str, target: str) -> bool:
        """Whether writes of one region reach another; a region reaches itself."""
        return (source, target) not in self.cut


class Item:
    """What is known of one item in all regions."""

    __slots__ = ("_arrived", "_latest", "holds", "key", "sent")

    def __init__(self, key: dict[str, Any], regions: list[str]) -> None:
        self.key = key
        self.holds = dict.fromkeys(regions, NEVER)
        """What each region has by its stream."""
        self.sent: dict[str, Version] = {}
        """What was applied to a region, while its stream has not told what came of it."""
        self._arrived = dict.fromkeys(regions, NEVER)
        self._latest = dict.fromkeys(regions, NEVER)  # of each region's own clients

    def note(self, region: str, image: str | None, made: int) -> Version | None:
        """A record of a region's stream; gives the version if a client made it.

        A write on top of a version is newer than it, whatever the clocks say.
        """
        sent = self.sent.get(region)
        if sent is not None and sent.image == image:
            self.holds[region] = self.sent.pop(region)
            return None
        newest = max(self.holds[region].made, self._latest[region].made)
        version = Version(max(made, newest + 1), region, image)
        self.holds[region] = self._latest[region] = version
        return version

    def refuse(self, target: str) -> None:
        """What was sent found another item there: no record will tell of it."""
        if target in self.sent:
            self.sent[target] = self.sent[target]._replace(image="")

    def arrive(self, target: str, version: Version) -> None:
        """A version has come to a region, where it may win or lose."""
        self._arrived[target] = max(self._arrived[target], version)

    def due(self, target: str) -> Version | None:
        """What is to be applied to a region now."""
        if target in self.sent:
            return None
        best = max(self._arrived[target], self._latest[target])
        if best <= self.holds[target]:
            return None
        if best.image == self.holds[target].image:  # Nothing to write, only to know.
            self.holds[target] = best
            return None
        return best

    def missing(self, target: str, links: Links) -> Iterator[Version]:
        """Versions that a region will have to take over the links that are open."""
        for origin, version in self._latest.items():
            if links.is_open(origin, target) and version > self.holds[target]:
                yield version

    def lacks(self, target: str, links: Links) -> bool:
        """Whether a region is behind as far as the links allow."""
        return target in self.sent or any(self.missing(target, links))

    def settle(self) -> bool:
        """Whether all regions have the winner; what led there is forgotten then."""
        versions = set(self.holds.values())
        if len(versions) > 1 or self.sent or max(self._latest.values()) > max(versions):
            return False
        self._latest = dict.fromkeys(self._latest, NEVER)
        self._arrived = dict.fromkeys(self._arrived, NEVER)
        return True
