"""Who wins: the versions of each item, and which of them each region has. No socket, no clock."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(slots=True, eq=False)
class Sent:
    """One application of a version to a region; of the same version there may be several."""

    version: Version
    refused: bool = False
    """Whether the region held something else: no record will tell of it."""
    seen: int = 0
    """When the record was made that was taken for its own; 0 while there is none."""


class Item:
    """What is known of one item in all regions."""

    __slots__ = ("_arrived", "_latest", "holds", "key", "sent")

    def __init__(self, key: dict[str, Any], regions: list[str]) -> None:
        self.key = key
        self.holds = dict.fromkeys(regions, NEVER)
        """What each region has by its stream."""
        self.sent: dict[str, Sent] = {}
        """What was applied to a region, while its stream has not told what came of it."""
        self._arrived = dict.fromkeys(regions, NEVER)
        self._latest = dict.fromkeys(regions, NEVER)  # of each region's own clients

    def note(self, region: str, image: str | None, made: int) -> Version | None:
        """A record of a region's stream; gives the version if a client made it.

        A write on top of a version is newer than it, whatever the clocks say.
        """
        sent = self.sent.get(region)
        if sent is not None and not sent.refused and sent.version.image == image:
            sent.seen = made
            self.holds[region] = self.sent.pop(region).version
            return None
        return self._written(region, image, made)

    def _written(self, region: str, image: str | None, made: int) -> Version:
        newest = max(self.holds[region].made, self._latest[region].made)
        version = Version(max(made, newest + 1), region, image)
        self.holds[region] = self._latest[region] = version
        return version

    def send(self, target: str) -> Sent | None:
        """Begin to apply what is due to a region, if something is."""
        version = self.due(target)
        if version is None:
            return None
        sent = self.sent[target] = Sent(version)
        return sent

    def refuse(self, target: str, sent: Sent) -> Version | None:
        """What was sent found another item there.

        A record that was taken for its own was a client's, who wrote the same: gives the version
        then, unless it is written over already.
        """
        sent.refused = True
        if sent.seen and self.holds[target] == sent.version:
            return self._written(target, sent.version.image, sent.seen)
        return None

    def forget(self, target: str, sent: Sent) -> None:
        """All that there was to be seen of an application was seen: it took no effect, or did."""
        if self.sent.get(target) is sent:  # Else another one is under way by now.
            del self.sent[target]

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
