"""Copying the items of one table into another, and comparing two tables, as operations.

Items are merged into the target by event time, so that both may be written meanwhile, and a page
may be copied twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chalk_online_store.backend import Backend, Call, ItemPage
from chalk_online_store.codec.changes import Attributes, key_of, read_number
from chalk_online_store.codec.copying import changes_of, hash_item
from chalk_online_store.codec.layout import RESERVED, TableLayout
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import OnlineStoreError, WriteFailed

PAGE_ITEMS = 500
_PAGE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Page:
    """Some items of a table.

    `expired` items are left out: nobody may read them any more. `next` begins the next page,
    and is empty where there is none.
    """

    items: Sequence[Attributes]
    expired: int
    next: bytes
    rcu: float


def read_page(table: Backend, start: bytes) -> Operation[Page]:
    """The items of entities in one page of a table. Raises `RequestError`."""
    now: Instant = yield NOW
    call = Call(now.monotonic + _PAGE_SECONDS)
    page: ItemPage = yield from table.scan_items(0, 1, start, PAGE_ITEMS, call)
    found = list(_entities(table.layout, page.items))
    live = [item for item in found if is_live(table.layout, item, now)]
    return Page(live, len(found) - len(live), page.next, page.units)


def _entities(layout: TableLayout, items: Sequence[Attributes]) -> Iterator[Attributes]:
    """Items of entities, each once: the registry is copied by itself."""
    seen = set()
    for item in items:
        key = key_of(layout, item)
        if not key.pk.startswith(RESERVED) and key not in seen:
            seen.add(key)
            yield item


def is_live(layout: TableLayout, item: Attributes, now: Instant) -> bool:
    """Return True if an item has not expired."""
    expires_at = read_number(item.get(layout.ttl))
    return expires_at is None or expires_at * 1_000_000 > now.wall


def write_items(
    target: Backend, layout: TableLayout, items: Sequence[Attributes]
) -> Operation[float]:
    """Merge items of a table with this layout into another one; the WCU that took.

    Raises `WriteFailed` where not all could be written, `RequestError`; all may be written again.
    """
    now: Instant = yield NOW
    call = Call(now.monotonic + _PAGE_SECONDS)
    histories = [changes_of(layout, item) for item in items]
    for turn in range(max(map(len, histories), default=0)):
        changes = [history[turn] for history in histories if turn < len(history)]
        outcomes = yield from target.change(changes, call)
        failed = {i: each for i, each in enumerate(outcomes) if isinstance(each, OnlineStoreError)}
        if failed:
            message = f"{len(failed)} of {len(changes)} items could not be written."
            raise WriteFailed(message, failed, call.report)
    return call.report.wcu


# --- comparing -----------------------------------------------------------------------------


class Fingerprint:
    """64 bits of each item of a table, 8 bytes of memory each."""

    def __init__(self) -> None:
        self._hashes = array("Q")

    def add(self, layout: TableLayout, items: Iterable[Attributes]) -> None:
        """Take items in; twice is as once."""
        self._hashes.extend(hash_item(layout, item) for item in items)

    def all(self) -> NDArray[np.uint64]:
        """Every hash, once."""
        return np.unique(np.frombuffer(self._hashes, np.uint64))


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many items two tables have alike, and how many only one of them, or otherwise."""

    alike: int
    only_source: int
    only_target: int

    @property
    def same(self) -> bool:
        """Whether there is no difference."""
        return not (self.only_source or self.only_target)


def compare(source: Fingerprint, target: Fingerprint) -> Comparison:
    """Compare two tables by their fingerprints."""
    ours, theirs = source.all(), target.all()
    alike = len(np.intersect1d(ours, theirs, assume_unique=True))
    return Comparison(alike, len(ours) - alike, len(theirs) - alike)
