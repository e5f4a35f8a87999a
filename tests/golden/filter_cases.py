"""Parts of a Bloom filter as they lie in the table: what golden files are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np

from chalk_online_store.codec.changes import Attributes
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.tiers.filter import segments
from chalk_online_store.tiers.filter.bloom import KeyFilter, Size, hash_keys
from tests.golden.cases import LAYOUT

PLACES = segments.FilterKeys("a")
KEYS = ["a:1", "a:2", "a:x:y", "a:\u00fc"]


def layer() -> bytes:
    """Two blocks with the keys."""
    known = KeyFilter([Size(8, 0.001, 2)])
    known.add_to(0, hash_keys(KEYS))
    return known.layers[0].content()


class Part(NamedTuple):
    """A part's key, how it is stored, and how it is read."""

    key: ItemKey
    seal: Callable[[], Attributes]
    unseal: Callable[[Attributes], Any]
    says: Any


def _struct(key: ItemKey, value: Any) -> Part:
    return Part(
        key,
        lambda: segments.seal_struct(LAYOUT, key, value),
        lambda item: segments.unseal_struct(item, key, type(value)),
        value,
    )


INFO = segments.LayerInfo("1f", 4, 64, b"12345678")
HEAD = segments.Head(
    generation=3,
    sizes=(Size(8, 0.01, 2), Size(16, 0.005, 5)),
    layers=(INFO,),
    positions={"us-east-1/0": 12},
    floors={"us-east-1/0": 4},
    marks={"us-east-1/0": 9},
    marked_at=1_800_000_000_000_000,
    partitions=1,
)
BUILT = segments.Building("0a", {"us-east-1/0": 7})
_LOG, _CHUNK = PLACES.segment("us-east-1/0", 7), PLACES.chunk("1f", 0)


def _segment() -> Attributes:
    segment = segments.Segment(3, 1, hash_keys(KEYS))
    return segments.seal_segment(LAYOUT, _LOG, segment)


def _read_segment(item: Attributes) -> Any:
    generation, number, hashes = segments.unseal_segment(item, _LOG)
    return generation, number, hashes.tolist()


PARTS = {
    "head": _struct(PLACES.head(), HEAD),
    "head while building": _struct(PLACES.head(), msgspec.structs.replace(HEAD, building=BUILT)),
    "stream": _struct(PLACES.stream("us-east-1/0"), segments.Stream("us-east-1/0")),
    "claim": _struct(PLACES.claim(), segments.BuildLease("0b", 1_800_000_000_000_000, (INFO,))),
    "segment": Part(_LOG, _segment, _read_segment, (3, 1, np.asarray(hash_keys(KEYS)).tolist())),
    "chunk": Part(
        _CHUNK,
        lambda: segments.seal(LAYOUT, _CHUNK, segments.FilterItemKind.CHUNK, layer()),
        lambda item: segments.unseal(item, _CHUNK, segments.FilterItemKind.CHUNK),
        layer(),
    ),
}
"""By what each is."""
