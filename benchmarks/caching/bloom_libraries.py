"""Bloom filters of other libraries beside ours; one that is not installed is left out."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from xxhash import xxh3_128_intdigest

from benchmarks.caching.turns import take_turns
from chalk_online_store.tiers.filter.bloom import KeyFilter, hash_keys

RATE = 0.01
SIZES = (100, 1)
OURS = "ours"
_TENTH = "expecting a tenth"
_PROBES = 10
"""One probe of an absent key for so many keys."""


class Filter(ABC):
    """A filter for so many keys. `same_bytes`: whether another process makes the same of them."""

    name: str
    same_bytes = "yes"

    @abstractmethod
    def add(self, keys: list[str]) -> None:
        """Add many keys."""

    @abstractmethod
    def check(self, keys: list[str]) -> list[bool]:
        """Whether each may be there."""

    @abstractmethod
    def bits(self) -> int:
        """The bits of memory."""


class Ours(Filter):
    """`KeyFilter`."""

    name = OURS
    same_bytes = "yes"

    def __init__(self, keys: int) -> None:
        self._filter = KeyFilter.sized(keys, RATE)

    def add(self, keys: list[str]) -> None:
        self._filter.add(hash_keys(keys))

    def check(self, keys: list[str]) -> list[bool]:
        return self._filter.might_contain(keys)

    def bits(self) -> int:
        return self._filter.nbytes * 8


class OursThatGrew(Ours):
    """The same where a tenth of the entities was expected."""

    name = f"ours, {_TENTH}"

    def __init__(self, keys: int) -> None:
        super().__init__(max(1, keys // 10))


class Pybloom(Filter):
    """The reference."""

    name = "pybloom_live.BloomFilter"

    def __init__(self, keys: int) -> None:
        from pybloom_live import BloomFilter

        self._filter: Any = BloomFilter(keys, RATE)

    def add(self, keys: list[str]) -> None:
        add = self._filter.add
        for key in keys:
            add(key)

    def check(self, keys: list[str]) -> list[bool]:
        known = self._filter
        return [key in known for key in keys]

    def bits(self) -> int:
        bits: int = self._filter.num_bits
        return bits


class PybloomThatGrew(Pybloom):
    """Its filter that grows."""

    name = f"pybloom_live.ScalableBloomFilter, {_TENTH}"

    def __init__(self, keys: int) -> None:
        from pybloom_live import ScalableBloomFilter

        self._filter = ScalableBloomFilter(max(1, keys // 10), RATE)

    def bits(self) -> int:
        return sum(layer.num_bits for layer in self._filter.filters)


class Rbloom(Filter):
    """In Rust; Python's own hashes differ from process to process, so it is given another."""

    name = "rbloom.Bloom, XXH3"
    same_bytes = "yes; not with its default hash"

    def __init__(self, keys: int) -> None:
        from rbloom import Bloom

        self._filter: Any = Bloom(keys, RATE, _signed_hash)

    def add(self, keys: list[str]) -> None:
        self._filter.update(keys)

    def check(self, keys: list[str]) -> list[bool]:
        known = self._filter
        return [key in known for key in keys]

    def bits(self) -> int:
        bits: int = self._filter.size_in_bits
        return bits


def _signed_hash(key: str) -> int:
    return xxh3_128_intdigest(key.encode()) - (1 << 127)


class Fastbloom(Filter):
    """In Rust, with checks of many keys at once."""

    name = "fastbloom_rs.BloomFilter"

    def __init__(self, keys: int) -> None:
        from fastbloom_rs import FilterBuilder

        self._filter: Any = FilterBuilder(keys, RATE).build_bloom_filter()

    def add(self, keys: list[str]) -> None:
        self._filter.add_str_batch(keys)

    def check(self, keys: list[str]) -> list[bool]:
        found: list[bool] = self._filter.contains_str_batch(keys)
        return found

    def bits(self) -> int:
        return len(self._filter.get_bytes()) * 8


FILTERS: tuple[type[Any], ...] = (
    Ours,
    Pybloom,
    Rbloom,
    Fastbloom,
    OursThatGrew,
    PybloomThatGrew,
)


def run(rounds: int = 15, seed: int = 0, keys: int = 1_000_000) -> list[dict[str, Any]]:
    """A line for each library."""
    names = [f"user:{number}" for number in range(keys)]
    absent = [f"user:{number}" for number in range(keys, keys + keys // _PROBES)]
    filters = list(_installed(keys))
    seconds = {known.name: _seconds_to_add(known, names) for known in filters}
    pairs = zip(names[:: keys // 50][:50], absent[:50], strict=True)
    mixed = [key for pair in pairs for key in pair]
    ways = {
        f"{known.name}, {size}": (lambda k=known, some=mixed[-size:]: k.check(some), size)
        for known in filters
        for size in SIZES
    }
    turns = take_turns(ways, rounds, seed)
    return [
        {
            "library": known.name,
            "check_us": {str(n): turns[f"{known.name}, {n}"].median for n in SIZES},
            "check_ratio": {
                str(n): turns[f"{known.name}, {n}"].times(turns[f"{OURS}, {n}"]) for n in SIZES
            },
            "add_us": seconds[known.name] / keys * 1e6,
            "false_positive_rate": sum(known.check(absent)) / len(absent),
            "bits_a_key": known.bits() / keys,
            "same_bytes": known.same_bytes,
        }
        for known in filters
    ]


def _installed(keys: int) -> Iterator[Filter]:
    for kind in FILTERS:
        with suppress(ImportError):
            yield kind(keys)


def _seconds_to_add(known: Filter, keys: list[str]) -> float:
    started = time.process_time()
    known.add(keys)
    return time.process_time() - started
