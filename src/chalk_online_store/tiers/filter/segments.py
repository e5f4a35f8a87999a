"""How a Bloom filter lies in the table.

A namespace's filter is a snapshot and a log. The log says which entities are new: segments of
their 64-bit hashes, numbered without gaps, in one or more streams for each region that is written
to. The snapshot is the filter itself, in chunks, as of certain numbers in the log. What is in the
log beyond them is added to it by every reader, and now and then by a writer in a new snapshot.

| item | pk | sk |
|---|---|---|
| head: which snapshot, and how far it goes | `!bloom:<namespace id>` | `head` |
| one for each stream of the log | the same | `stream:<stream>` |
| claim: who makes a new snapshot | the same | `claim` |
| segment of the log | `!bloom:<namespace id>:log:<stream>` | number, 12 digits |
| chunk of a snapshot | `!bloom:<namespace id>:<layer id>:<number>` | `chunk` |

Each has one attribute, `b`: format version, kind, checksum and content. The checksum covers the
item's key as well, so that a segment of another namespace is refused like a damaged one.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np
from xxhash import xxh3_64_digest

from chalk_online_store.codec.changes import Attributes, key_attributes
from chalk_online_store.codec.layout import RESERVED, ItemKey, TableLayout
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.errors import DamagedItem
from chalk_online_store.tiers.filter.bloom import Hashes, KeyFilter, Layer, Size, sizes_for

T = TypeVar("T", bound=msgspec.Struct)

VERSION = 1
HEAD = "head"
CLAIM = "claim"
STREAM = "stream:"
ATTRIBUTE = "b"

CHUNK_BYTES = 288 * 1024
"""Of content; DynamoDB takes 400 KB an item."""

SEGMENT_HASHES = 32_768
"""Hashes in one segment, at most: 256 KB."""


class FilterItemKind(IntEnum):
    """What an item is."""

    HEAD = 1
    STREAM = 2
    CLAIM = 3
    SEGMENT = 4
    CHUNK = 5


class LayerInfo(msgspec.Struct, frozen=True):
    """One layer of a snapshot: its chunks lie under `id`. Without an id it is empty."""

    id: str
    count: int
    nbytes: int
    digest: bytes

    @property
    def chunks(self) -> int:
        """How many chunks it has."""
        return -(-self.nbytes // CHUNK_BYTES) if self.id else 0


class Building(msgspec.Struct, frozen=True):
    """A snapshot that somebody builds by a Scan.

    `id` is different each time. What is in the log up to `positions` is left to the Scan.
    """

    id: str
    positions: dict[str, int]


class Head(msgspec.Struct, frozen=True):
    """What there is of a filter.

    `sizes` are those of all layers that there may be: processes must agree on them exactly.
    Without layers there is no filter yet. `generation` is another one after each build; merges
    add to it. `positions` are how far the snapshot goes in each stream of the log. Segments up
    to `floors` may be gone; those up to `marks`, set at `marked_at` (UTC us), are next.
    """

    generation: int
    sizes: tuple[Size, ...]
    layers: tuple[LayerInfo, ...]
    positions: dict[str, int]
    floors: dict[str, int]
    marks: dict[str, int]
    marked_at: int
    partitions: int
    building: Building | None = None


def reaches(positions: Mapping[str, int], others: Mapping[str, int]) -> bool:
    """Whether positions have come as far as others, in every stream of theirs."""
    return all(positions.get(stream, 0) >= number for stream, number in others.items())


class Stream(msgspec.Struct, frozen=True):
    """That there is such a stream."""

    name: str


class BuildLease(msgspec.Struct, frozen=True):
    """Who makes a new snapshot, the ids that its layers will have, and when it has failed."""

    by: str
    until: int
    layers: tuple[LayerInfo, ...] = ()


_KINDS: dict[type[msgspec.Struct], FilterItemKind] = {
    Head: FilterItemKind.HEAD,
    Stream: FilterItemKind.STREAM,
    BuildLease: FilterItemKind.CLAIM,
}


class FilterKeys:
    """The keys of one namespace's filter, by the id of the namespace."""

    def __init__(self, namespace_id: str) -> None:
        self.control = f"{RESERVED}bloom:{namespace_id}"

    def head(self) -> ItemKey:
        """The head."""
        return ItemKey(self.control, HEAD)

    def claim(self) -> ItemKey:
        """The claim."""
        return ItemKey(self.control, CLAIM)

    def stream(self, name: str) -> ItemKey:
        """What says that there is a stream."""
        return ItemKey(self.control, f"{STREAM}{name}")

    def log(self, stream: str) -> str:
        """The partition of a stream."""
        return f"{self.control}:log:{stream}"

    def segment(self, stream: str, number: int) -> ItemKey:
        """A segment."""
        return ItemKey(self.log(stream), numbered(number))

    def chunk(self, layer: str, number: int) -> ItemKey:
        """A chunk: each has a partition of its own, as all readers read all of them."""
        return ItemKey(f"{self.control}:{layer}:{number}", "chunk")


def numbered(number: int) -> str:
    """The sort key of a segment."""
    return f"{number:012d}"


# --- items ---------------------------------------------------------------------------------


def seal(layout: TableLayout, key: ItemKey, kind: FilterItemKind, content: bytes) -> Attributes:
    """An item with some content."""
    data = bytes((VERSION, kind)) + _checksum(key, kind, content) + content
    stored = b'{"B":"%b"}' % base64.b64encode(data)
    return {**key_attributes(layout, key), ATTRIBUTE: stored}


def unseal(item: Attributes, key: ItemKey, kind: FilterItemKind) -> bytes:
    """The content of the item at a key.

    Raises `DamagedItem` where it is of a later version, of another kind or place, or damaged.
    """
    try:
        stored: str = msgspec.json.decode(item[ATTRIBUTE], type=dict[str, str])["B"]
        data = base64.b64decode(stored, validate=True)
    except (KeyError, ValueError, *UNREADABLE) as error:
        raise DamagedItem(_REFUSED) from error
    if data[:1] != bytes((VERSION,)):
        raise DamagedItem("A part of a Bloom filter is of another version of this library.")
    content = data[10:]
    if data[1:2] != bytes((kind,)) or data[2:10] != _checksum(key, kind, content):
        raise DamagedItem(_REFUSED)
    return content


_REFUSED = "A part of a Bloom filter is damaged, or not what belongs there: build the filter anew."


def _checksum(key: ItemKey, kind: FilterItemKind, content: bytes) -> bytes:
    place = f"{VERSION} {kind} {key.pk} {key.sk} ".encode()
    return xxh3_64_digest(place + content)


def seal_struct(layout: TableLayout, key: ItemKey, value: msgspec.Struct) -> Attributes:
    """An item with a `Head`, a `Stream` or a `BuildLease`."""
    return seal(layout, key, _KINDS[type(value)], msgspec.msgpack.encode(value))


def unseal_struct(item: Attributes, key: ItemKey, kind: type[T]) -> T:
    """What such an item says; raises `DamagedItem`."""
    content = unseal(item, key, _KINDS[kind])
    try:
        return msgspec.msgpack.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise DamagedItem(_REFUSED) from error


class Segment(NamedTuple):
    """New entities, by their hashes, and where the filter of a generation has them.

    Whether an entity is new is asked of the filter itself. So some are taken for known ones, and
    not announced; a reader must then take them for known as well. It does if it has the same
    bits in the same layers, which is why a segment names its layer.
    """

    generation: int
    layer: int
    hashes: Hashes


_SEGMENT = struct.Struct("<QB")


def seal_segment(layout: TableLayout, key: ItemKey, segment: Segment) -> Attributes:
    """A segment of the log."""
    content = segment.hashes.astype("<u8").tobytes()
    return seal(
        layout,
        key,
        FilterItemKind.SEGMENT,
        _SEGMENT.pack(segment.generation, segment.layer) + content,
    )


def unseal_segment(item: Attributes, key: ItemKey) -> Segment:
    """A segment; raises `DamagedItem`."""
    content = unseal(item, key, FilterItemKind.SEGMENT)
    try:
        generation, layer = _SEGMENT.unpack_from(content)
        return Segment(generation, layer, np.frombuffer(content, "<u8", offset=_SEGMENT.size))
    except (struct.error, ValueError) as error:
        raise DamagedItem(_REFUSED) from error


# --- snapshots -----------------------------------------------------------------------------


def describe(layer: Layer, content: bytes, layer_id: str) -> LayerInfo:
    """What the head says of a layer with some content."""
    return LayerInfo(layer_id, layer.count, len(content), xxh3_64_digest(content))


def chunks_of(content: bytes) -> Iterator[bytes]:
    """What the chunks of a layer hold."""
    return (content[i : i + CHUNK_BYTES] for i in range(0, len(content), CHUNK_BYTES))


def restore(head: Head, layers: Sequence[Sequence[bytes]]) -> KeyFilter:
    """The filter of a snapshot, by the chunks of its layers.

    Raises `DamagedItem` where a layer is not what the head says.
    """
    found = [
        _layer(size, info, b"".join(chunks))
        for size, info, chunks in zip(head.sizes, head.layers, layers, strict=False)
    ]
    return KeyFilter(head.sizes, found)


def _layer(size: Size, info: LayerInfo, content: bytes) -> Layer:
    if not info.id:
        return Layer(size)
    if len(content) != info.nbytes or xxh3_64_digest(content) != info.digest:
        raise DamagedItem(_REFUSED)
    return Layer(size, info.count, content)


def empty_head(expected: int, rate: float, partitions: int, now: int) -> Head:
    """The head of an empty filter; `now` in UTC microseconds."""
    sizes, empty = sizes_for(expected, rate), LayerInfo("", 0, 0, b"")
    return Head(1, sizes, (empty,), {}, {}, {}, now, partitions)
