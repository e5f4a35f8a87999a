"""What lies in the table of a namespace's Bloom filter: read, followed and appended to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from chalk_online_store.backend import Backend, Call, fan_out
from chalk_online_store.codec.changes import Attributes, ConditionalWrite, key_of
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.effects import Operation
from chalk_online_store.errors import DamagedItem
from chalk_online_store.tiers.filter.bloom import Hashes, KeyFilter
from chalk_online_store.tiers.filter.segments import (
    CLAIM,
    HEAD,
    SEGMENT_HASHES,
    STREAM,
    Building,
    FilterItemKind,
    FilterKeys,
    Head,
    LayerInfo,
    Segment,
    Stream,
    numbered,
    reaches,
    restore,
    seal_segment,
    seal_struct,
    unseal,
    unseal_segment,
    unseal_struct,
)

_SEGMENT_OVERHEAD = 120
"""Bytes of a segment beside its hashes, about."""

_CHUNKS_AT_ONCE = 8

_MOST_SINCE = 1_000_000
"""Entities that are remembered while a filter is built; of more, some are announced again."""


@dataclass
class Control:
    """A filter's head, the item that it lies in, and the streams of its log.

    `damaged` says that there is a head, but it cannot be read.
    """

    head: Head | None = None
    item: Attributes | None = None
    damaged: bool = False
    claim: Attributes | None = None
    streams: frozenset[str] = frozenset()


@dataclass
class Followed:
    """A filter as far as its log was followed.

    `filter` is None while the first one is built, or where the snapshot is `damaged`; where the
    log is, the filter lacks something. `log_bytes` are those of the log beyond the snapshot.
    `since` has the hashes of what was announced since a build began.
    """

    generation: int
    filter: KeyFilter | None
    positions: dict[str, int]
    log_bytes: int = 0
    damaged: str = ""
    building: Building | None = None
    since: set[int] = field(default_factory=set)

    def continues(self, head: Head | None) -> bool:
        """Whether the log, as far as it is still there, goes on where this has come to."""
        return (
            head is not None
            and head.generation == self.generation
            and reaches(self.positions, head.floors)
        )

    def note(self, building: Building | None) -> None:
        """Note that a build has begun, or none is under way."""
        if building is None or self.building is None or self.building.id != building.id:
            self.since = set()
        self.building = building

    def learn(self, stream: str, number: int, segment: Segment) -> None:
        """Add what a segment announces."""
        if self.filter is not None:  # Of another generation, it does not know our layers.
            layer = segment.layer if segment.generation == self.generation else 0
            self.filter.add_to(layer, segment.hashes)
        since = self.building
        if since and number > since.positions.get(stream, 0) and len(self.since) < _MOST_SINCE:
            self.since.update(segment.hashes.tolist())
        self.log_bytes += segment.hashes.nbytes + _SEGMENT_OVERHEAD

    def unannounced(self, hashes: Hashes) -> Hashes:
        """Those of some hashes that have yet to be announced.

        While a filter is built it is not known what that will take for known: so it is exact.
        """
        if self.building is not None:
            known = np.array([value in self.since for value in hashes.tolist()], bool)
        elif self.filter is not None:
            known = self.filter.contains(hashes)
        else:
            known = np.zeros(len(hashes), bool)
        new: Hashes = hashes[~known]
        return new

    def segments(self, hashes: Hashes) -> Iterator[Segment]:
        """What announces new entities."""
        parts = [(0, hashes)] if self.filter is None else self.filter.parts(hashes)
        for layer, some in parts:
            for start in range(0, len(some), SEGMENT_HASHES):
                yield Segment(self.generation, layer, some[start : start + SEGMENT_HASHES])


class FilterLog:
    """A namespace's filter in the table: its parts, read and appended to."""

    def __init__(self, backend: Backend, namespace_id: str) -> None:
        self.backend = backend
        self.layout = backend.layout
        self.places = FilterKeys(namespace_id)

    def control(self, call: Call) -> Operation[Control]:
        """Read the head, and what streams there are."""
        found = Control()
        items = yield from self.backend.list_partition(self.places.control, " ", call)
        streams = []
        for item in items:
            key = key_of(self.layout, item)
            if key.sk == HEAD:
                found.item = item
                try:
                    found.head = unseal_struct(item, key, Head)
                except DamagedItem:
                    found.damaged = True
            elif key.sk == CLAIM:
                found.claim = item
            elif key.sk.startswith(STREAM):
                streams.append(key.sk.removeprefix(STREAM))
        found.streams = frozenset(streams)
        return found

    def follow(self, stream: str, followed: Followed, call: Call) -> Operation[bool]:
        """Learn what is new in a stream; False where a segment is not there yet, or any more."""
        number = followed.positions.get(stream, 0)
        items = yield from self.backend.list_partition(
            self.places.log(stream), numbered(number), call
        )
        for item in items:
            key = key_of(self.layout, item)
            if key.sk != numbered(number + 1):  # Replicas may get a later one first.
                return False
            number += 1
            self._learn(stream, number, key, item, followed)
        return True

    def _learn(
        self, stream: str, number: int, key: ItemKey, item: Attributes, followed: Followed
    ) -> None:
        try:
            followed.learn(stream, number, unseal_segment(item, key))
        except DamagedItem as error:  # For readers the filter has ended; writers go on.
            followed.damaged = str(error)
        followed.positions[stream] = number

    def load(self, head: Head, call: Call) -> Operation[Followed | None]:
        """The filter as the snapshot has it; None where its chunks are gone: look again."""
        followed = Followed(head.generation, None, dict(head.positions))
        layers = []
        try:
            for info in head.layers:
                tasks = [partial(self._chunk, info, number) for number in range(info.chunks)]
                chunks = (yield from fan_out(call, tasks, _CHUNKS_AT_ONCE)) if tasks else []
                if None in chunks:
                    return None
                layers.append([chunk for chunk in chunks if chunk is not None])
            followed.filter = restore(head, layers) if layers else None
        except DamagedItem as error:
            followed.damaged = str(error)
        return followed

    def _chunk(self, info: LayerInfo, number: int, call: Call) -> Operation[bytes | None]:
        key = self.places.chunk(info.id, number)
        items = yield from self.backend.list_partition(key.pk, " ", call)
        return unseal(items[0], key, FilterItemKind.CHUNK) if items else None

    def append(self, stream: str, number: int, segment: Segment, call: Call) -> Operation[bool]:
        """Append a segment; False where somebody else was faster."""
        item = seal_segment(self.layout, self.places.segment(stream, number), segment)
        return (yield from self.backend.transact([ConditionalWrite(None, item)], call))

    def open_stream(self, stream: str, call: Call) -> Operation[None]:
        """Let readers know of a stream, unless they do."""
        item = seal_struct(self.layout, self.places.stream(stream), Stream(stream))
        yield from self.backend.transact([ConditionalWrite(None, item)], call)
