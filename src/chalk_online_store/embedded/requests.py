"""What the SQLite engine can be asked: one transaction each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chalk_online_store.codec.changes import Change, ConditionalWrite
from chalk_online_store.codec.decoding import Row
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.codec.nearest import ExactSearch
from chalk_online_store.errors import DamagedItem


@dataclass(frozen=True, slots=True)
class Get:
    """Read items; answered by a dict of the found ones' JSON by key."""

    keys: Sequence[ItemKey]


@dataclass(frozen=True, slots=True)
class Merge:
    """Apply changes as `codec.changes.merge` says; answered by `backend.Applied`s in order."""

    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Replace:
    """Put what the changes leave, or delete what they erase; answered as `Merge`."""

    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class ListPartition:
    """Items of a partition past a sort key; answered by a list of their JSON."""

    pk: str
    after: str


@dataclass(frozen=True, slots=True)
class Transact:
    """Perform all swaps or none; answered by whether they were performed."""

    swaps: Sequence[ConditionalWrite]


@dataclass(frozen=True, slots=True)
class ScanKeys:
    """Some keys, in order, after one of them; answered by a list of `ItemKey`s."""

    after: ItemKey
    limit: int


@dataclass(frozen=True, slots=True)
class ScanItems:
    """Some items, in the order of their keys, after one of them; answered by their JSON by key.

    They are those of one of so many segments: see `segment_of`.
    """

    after: ItemKey
    limit: int
    segment: int = 0
    segments: int = 1


@dataclass(frozen=True, slots=True)
class SearchGroup:
    """Add some items of a group to an exact search, in the order of their keys.

    `last` is the last key of the group that is possible. Answered by the last key that was added,
    or None after the last items.
    """

    sk: str
    after: str
    last: str
    limit: int
    search: ExactSearch
    decode: Callable[[Sequence[bytes]], Sequence[Row | DamagedItem]]


Request = Get | Merge | Replace | ListPartition | Transact | ScanKeys | ScanItems | SearchGroup
