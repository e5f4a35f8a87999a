"""A Bloom filter of keys: surely absent, or perhaps there.

Split blocks, as Parquet specifies them: a key's 64-bit hash chooses one block of 256 bits, and in
each of the block's eight words of 32 bits one bit. So a check touches one cache line, and numpy
checks many keys at once. The hash is XXH3 of the key's UTF-8, which is the same in every process,
on every machine and in every version of xxhash since 0.8.

Sources: Putze, Sanders, Singler, "Cache-, Hash- and Space-Efficient Bloom Filters", 2007; Apache
Parquet, "Split Block Bloom Filters", for the salts; Almeida et al., "Scalable Bloom Filters",
2007, for growing by further layers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

Hashes: TypeAlias = NDArray[np.uint64]

BLOCK_BYTES = 32
_SALTS = (
    0x47B6137B,
    0x44974D91,
    0x8824AD5B,
    0xA2B7289D,
    0x705495C7,
    0x2DF1424B,
    0x9EFC4947,
    0x5C6BFB31,
)
_SALT = np.array(_SALTS, "<u4")
_ONE, _27, _32 = np.uint32(1), np.uint32(27), np.uint64(32)

_FEW = 6
"""Keys that are quicker checked one by one than by numpy."""

_MOST_LAYERS = 12
_GROWTH = 2
"""How many times larger each further layer is, and how many times stricter."""

_MEASURED = 16_384
"""Blocks that statistics look at: a few milliseconds."""


def hash_keys(keys: Sequence[str]) -> Hashes:
    """The 64-bit hash of each partition key."""
    return np.fromiter(map(xxh3_64_intdigest, map(str.encode, keys)), "<u8", len(keys))


def false_positive_rate(load: float) -> float:
    """The rate of blocks that hold `load` keys each on average.

    A block holds a Poisson number of keys; a word with i keys has each bit set with probability
    1 - (31/32)^i, and all eight words have to agree.
    """
    likely = range(math.floor(load + 12 * math.sqrt(load) + 24))
    return sum(
        math.exp(i * math.log(load) - load - math.lgamma(i + 1)) * (1 - (31 / 32) ** i) ** 8
        for i in likely
    )


@lru_cache(maxsize=256)
def blocks_for(capacity: int, rate: float) -> int:
    """How many blocks hold `capacity` keys at a false-positive rate of at most `rate`."""
    low, high = 0.0, 1024.0
    while high - low > 1e-9 * high:
        load = (low + high) / 2
        low, high = (load, high) if false_positive_rate(load) <= rate else (low, load)
    return max(1, math.ceil(capacity / low))


def different(hashes: Hashes) -> Hashes:
    """Each hash once, not sorted: a part of them must not all lie in the same blocks."""
    _, first = np.unique(hashes, return_index=True)
    return hashes[np.sort(first)]


class Size(msgspec.Struct, frozen=True):
    """How many keys a layer is for, at what false-positive rate, and its blocks."""

    capacity: int
    rate: float
    blocks: int


def sizes_for(expected_entities: int, rate: float) -> tuple[Size, ...]:
    """The sizes of a filter's layers, from the first one on.

    The first keeps the target rate, each further one half of that of the one before: together at
    most twice the target, however far the number of entities was underestimated.
    """
    targets = [(expected_entities * _GROWTH**i, rate / _GROWTH**i) for i in range(_MOST_LAYERS)]
    return tuple(Size(capacity, rate, blocks_for(capacity, rate)) for capacity, rate in targets)


class Layer:
    """Blocks of a size.

    `content` are the blocks, little-endian, of a layer that has `count` different keys already.
    Bits are only ever set, so threads may check while one adds.
    """

    def __init__(self, size: Size, count: int = 0, content: bytes | None = None) -> None:
        self.size = size
        self.count = count
        self.blocks = size.blocks
        flat = bytearray(content or self.blocks * BLOCK_BYTES)  # A copy, as it is written to.
        self.nbytes = len(flat)
        self._words = np.frombuffer(flat, "<u4").reshape(self.blocks, 8)
        self._flat = memoryview(flat).cast("I")
        self._count = np.uint64(self.blocks)

    @property
    def room(self) -> int:
        """How many more keys keep the rate below the target."""
        return max(0, self.size.capacity - self.count)

    def content(self) -> bytes:
        """The blocks, little-endian, as `Layer` takes them."""
        return self._words.tobytes()

    def add(self, hashes: Hashes) -> None:
        """Set the bits of hashes."""
        hashes = different(hashes[~self.contains(hashes)])
        blocks, masks = self._places(hashes)
        np.bitwise_or.at(self._words, blocks, masks)
        self.count += len(hashes)

    def contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Whether each hash may have been added."""
        blocks, masks = self._places(hashes)
        found: NDArray[np.bool_] = ((self._words.take(blocks, axis=0) & masks) == masks).all(axis=1)
        return found

    def contains_one(self, hashed: int) -> bool:
        """The same of one hash: quicker than by numpy."""
        place = ((hashed >> 32) * self.blocks >> 32) * 8
        low, flat = hashed & 0xFFFFFFFF, self._flat
        for salt in _SALTS:
            if not flat[place] >> ((low * salt & 0xFFFFFFFF) >> 27) & 1:
                return False
            place += 1
        return True

    def _places(self, hashes: Hashes) -> tuple[NDArray[np.intp], NDArray[np.uint32]]:
        """Each hash's block, and the bits that it sets there."""
        blocks = ((hashes >> _32) * self._count >> _32).view(np.intp)
        masks = _ONE << ((hashes.view("<u4")[::2, None] * _SALT) >> _27)
        return blocks, masks

    def measure(self) -> tuple[int, float]:
        """The number of bits that are set, and the false-positive rate that they make.

        Of more than `_MEASURED` blocks both are estimates, by so many of them.
        """
        words = self._words[:: -(-self.blocks // _MEASURED)]
        flat = np.ascontiguousarray(words).reshape(-1).view("u1")
        ones = np.unpackbits(flat).reshape(-1, 8, 32).sum(axis=2)
        bits = round(int(ones.sum()) * self.blocks / len(words))
        return bits, float((ones / 32).prod(axis=1).mean())


class KeyFilter:
    """Layers of keys: when the last is full, a larger one is begun. Thread-safe."""

    def __init__(self, sizes: Sequence[Size], layers: Sequence[Layer] = ()) -> None:
        self.sizes = tuple(sizes)
        self.layers = tuple(layers) or (Layer(sizes[0]),)
        self._lock = threading.Lock()

    @classmethod
    def sized(cls, expected_entities: int, rate: float) -> KeyFilter:
        """An empty filter."""
        return cls(sizes_for(expected_entities, rate))

    @property
    def count(self) -> int:
        """How many different keys were added, less those taken for known ones."""
        return sum(layer.count for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(layer.nbytes for layer in self.layers)

    def might_contain(self, keys: Sequence[str]) -> list[bool]:
        """False for each key that was surely never added."""
        if len(keys) < _FEW:
            hashed = [xxh3_64_intdigest(key.encode()) for key in keys]
            layers = self.layers
            return [any(layer.contains_one(h) for layer in layers) for h in hashed]
        found: list[bool] = self.contains(hash_keys(keys)).tolist()
        return found

    def contains(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Whether each hash may have been added."""
        first, *others = self.layers
        found = first.contains(hashes)
        for layer in others:
            found |= layer.contains(hashes)
        return found

    def parts(self, hashes: Hashes) -> Iterator[tuple[int, Hashes]]:
        """New keys, by their hashes, and the numbers of the layers that have room for them."""
        number, room = len(self.layers) - 1, self.layers[-1].room
        while len(hashes):
            if not room and number + 1 < len(self.sizes):
                number += 1
                room = self.sizes[number].capacity
            some, hashes = np.split(hashes, [room or len(hashes)])
            room = 0
            if len(some):
                yield number, some

    def add_to(self, layer: int, hashes: Hashes) -> None:
        """Add keys, by their hashes, to a layer."""
        with self._lock:
            while len(self.layers) <= layer:
                self.layers = (*self.layers, Layer(self.sizes[len(self.layers)]))
            self.layers[layer].add(hashes)

    def add(self, hashes: Hashes) -> None:
        """Add keys by their hashes, as far as they are new, where there is room."""
        for layer, some in self.parts(different(hashes[~self.contains(hashes)])):
            self.add_to(layer, some)

    def measure(self) -> tuple[int, float]:
        """As `Layer.measure`, of all layers together."""
        measured = [layer.measure() for layer in self.layers]
        passes = math.prod(1 - rate for _, rate in measured)
        return sum(bits for bits, _ in measured), 1 - passes
