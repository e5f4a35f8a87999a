"""How a table is laid out: the names of what lies in an item.

One attribute name is one byte wherever it can be: names are paid for in every item.
"""

from __future__ import annotations

import hashlib
import itertools
import string
from collections.abc import Container, Iterator
from typing import NamedTuple

import msgspec
import xxhash

LATEST = "@"
"""N, UTC microseconds: the newest observed-at of anything in the item."""

BASE = "~"
"""N, UTC microseconds: the observed-at of every feature that has no own one.

Absent where it equals `LATEST`, which is always so until a part of a group is written apart. A
whole write afterwards may leave one that equals `LATEST`.
0 where no feature was ever written together with the whole group.
"""

WIDTH = "%"
"""N: how many features of the group the last whole write knew of.

A process with an older schema must not move the observed-at of features that it has never
heard of; it sees by this number that there are some.
"""

ERASED = "!"
"""N, UTC microseconds: when the entity was last erased; absent where it never was.

It is the observed-at of every feature that the item holds neither a value nor an own observed-at
of: a whole write leaves a value of each feature that it knows, so only an erasure spoke of it.
"""


RESERVED = "!"
"""What the partition keys that are no entity's begin with: "!" is in no id."""


def own(feature_id: str) -> str:
    """The attribute with a feature's own observed-at: present where it differs from `BASE`."""
    return "@" + feature_id


class ItemKey(NamedTuple):
    """What identifies an item: its partition key and its sort key."""

    pk: str
    sk: str


def segment_of(pk: str, segments: int) -> int:
    """The segment of a scan that a partition key is in, for engines that have no segments."""
    return xxhash.xxh3_64_intdigest(pk.encode()) % segments


class TableLayout(msgspec.Struct, frozen=True, cache_hash=True):
    """The three attribute names that a table declares: partition key, sort key, TTL."""

    pk: str = "pk"
    sk: str = "sk"
    ttl: str = "ttl"

    @property
    def reserved(self) -> frozenset[str]:
        """Names that no feature id may take."""
        return frozenset((self.pk, self.sk, self.ttl))


# --- Stable ids of names in the table ------------------------------------------------------
#
# Most ids are the shortest base-62 strings, in one fixed order, and unique within a scope. Ids of
# indexed features are unique within the table: DynamoDB checks the type of an indexed attribute
# in every item, whatever namespace the item belongs to. They are made of the feature's name, so
# that an index can be created with the table, before anything is registered.


ALPHABET = string.ascii_lowercase + string.ascii_uppercase + string.digits


def all_ids() -> Iterator[str]:
    """a, b, … 9, aa, ab, …: every id, shortest first. The order is part of the stored form."""
    for length in itertools.count(1):
        for letters in itertools.product(ALPHABET, repeat=length):
            yield "".join(letters)


INDEXED = "x_"
"""Begins the id of an indexed feature. "_" is in no other id."""

_INDEXED_DIGITS = 10


def indexed_id(full_name: str, taken: Container[str] = ()) -> str:
    """The id of an indexed feature; another one if a retired feature of that name has it."""
    for attempt in itertools.count():
        text = full_name if not attempt else f"{full_name}#{attempt}"
        number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        letters = ""
        for _ in range(_INDEXED_DIGITS):
            number, digit = divmod(number, len(ALPHABET))
            letters += ALPHABET[digit]
        if f"{INDEXED}{letters}" not in taken:
            return f"{INDEXED}{letters}"
    raise AssertionError


def place(name_id: str) -> tuple[int, list[int]]:
    """What sorts ids as `all_ids` gives them; ids of indexed features come last."""
    return len(name_id), [ALPHABET.find(letter) for letter in name_id]


def free_ids(taken: Container[str]) -> Iterator[str]:
    """The ids that are not taken, shortest first."""
    return (candidate for candidate in all_ids() if candidate not in taken)
