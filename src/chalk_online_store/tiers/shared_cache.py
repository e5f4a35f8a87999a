"""A table behind a cache that processes share: read through it, and told of every write.

The cache never makes a read worse than the table alone. Where it does not answer in time, it is
left alone for a while, and the table is asked. What it then could not be told of, it forgets as
soon as it is back: until then others may read from it what was there before, for at most the
time that it keeps an item.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar
from weakref import WeakKeyDictionary

from chalk_online_store.backend import (
    Backend,
    Call,
    GroupKeys,
    ItemPage,
    KeyPage,
    Outcome,
    RowOrError,
    Searched,
    WriteOutcome,
)
from chalk_online_store.codec.changes import Attributes, Change, ConditionalWrite, render_item
from chalk_online_store.codec.decoding import DamagedRow, Row
from chalk_online_store.codec.layout import RESERVED, ItemKey, TableLayout
from chalk_online_store.codec.nearest import VectorQuery
from chalk_online_store.codec.raw_items import ATTRIBUTES, RawItemShape
from chalk_online_store.codec.shapes import Shape
from chalk_online_store.codec.values import UNREADABLE
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import DamagedItem, OnlineStoreError, RequestError, RequestTimeout
from chalk_online_store.logs import event
from chalk_online_store.valkey.commands import invalidated_key
from chalk_online_store.valkey.packing import packed_item
from chalk_online_store.valkey.rows import RowReader
from chalk_online_store.valkey.sharing import ABSENT, HOLD, SharedItems

logger = logging.getLogger("chalk_online_store.shared_cache")

T = TypeVar("T")

RETRY_AFTER_SECONDS = 1.0
"""Seconds that a cache is left alone after it has not answered."""

FILL_WINDOW_SECONDS = HOLD / 2
"""Seconds after which what was read is not kept any more, and what a region may be behind."""

MAX_PENDING_INVALIDATIONS = 100_000
"""Items that are remembered while the cache is away; the oldest are forgotten beyond."""


@dataclass(frozen=True, slots=True)
class SharedCacheStats:
    """What this process had of a shared cache: items, but for `failures`, which are requests.

    `hits` were there, `misses` had to be read of the table, and `filled` of these are kept now.
    It was `told` of so many that were written; of `untold` ones it has yet to hear.
    """

    hits: int = 0
    misses: int = 0
    filled: int = 0
    told: int = 0
    untold: int = 0
    failures: int = 0


class SharedCacheBackend:
    """The contract of `backend.Backend` for a table behind a shared cache."""

    def __init__(self, table: Backend, cache: SharedItems) -> None:
        self.layout: TableLayout = table.layout
        self._table = table
        self._cache = cache
        self._readings: WeakKeyDictionary[Shape, _ItemReader] = WeakKeyDictionary()
        self._counts: Counter[str] = Counter()
        self._untold: dict[ItemKey, None] = {}
        self._back_at = 0.0
        self._away = False

    @property
    def scans_in_order(self) -> bool:
        """The table's."""
        return self._table.scans_in_order

    @property
    def identity(self) -> str:
        """The table's."""
        return self._table.identity

    @property
    def home(self) -> str:
        """The table's."""
        return self._table.home

    @property
    def origin(self) -> str:
        """The table's."""
        return self._table.origin

    def stats(self) -> SharedCacheStats:
        """What this process did so far."""
        return SharedCacheStats(**self._counts, untold=len(self._untold))

    # --- reading ---------------------------------------------------------------------------

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """From the cache, and the rest from the table. A consistent read renews the cache."""
        began: Instant = (yield NOW) if call.as_of is None else call.as_of
        left = call.deadline - began.monotonic
        if began.monotonic < self._back_at or left <= 0:
            return (yield from self._table.get(wanted, call))
        call.as_of = None
        if self._untold:
            yield from self._tell([], call)
        packed: list[bytes | None] = [None] * sum(len(want.pks) for want in wanted)
        if not call.consistent:
            packed = yield from self._ask(self._cache.get(wanted, left), packed, left)
        if began.monotonic < self._back_at:  # It has just gone.
            return (yield from self._table.get(wanted, call))
        items = iter(packed)
        looks = [_CachedGroup(want, self._reading(want.shape), items) for want in wanted]
        hits = sum(len(look.want.pks) - len(look.missed) for look in looks)
        call.report.shared_hits += hits
        self._counts["hits"] += hits
        missed = [look for look in looks if look.missed]
        if missed:
            yield from self._read_missed(missed, call, began)
        return [look.found for look in looks]

    def _read_missed(
        self, looks: Sequence[_CachedGroup], call: Call, began: Instant
    ) -> Operation[None]:
        self._counts["misses"] += sum(len(look.missed) for look in looks)
        found = yield from self._table.get([look.asked for look in looks], call)
        to_keep = [
            kept for look, rows in zip(looks, found, strict=True) for kept in look.take(rows)
        ]
        now: Instant = yield NOW
        until = min(began.monotonic + FILL_WINDOW_SECONDS, call.deadline)
        if to_keep and self._back_at <= now.monotonic < until and not _may_be_behind(call):
            left = until - now.monotonic
            self._counts["filled"] += yield from self._ask(self._cache.fill(to_keep, left), 0, left)

    def _reading(self, shape: Shape) -> _ItemReader:
        reading = self._readings.get(shape)
        if reading is None:
            reading = self._readings[shape] = _ItemReader(shape, self.layout)
        return reading

    # --- writing ---------------------------------------------------------------------------

    def change(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """The table's; then the cache hears of it."""
        return (yield from self._write(self._table.change(changes, call), changes, call, True))

    def replace(self, changes: Sequence[Change], call: Call) -> Operation[list[Outcome]]:
        """The table's; then the cache forgets what it had: there is no order of time."""
        return (yield from self._write(self._table.replace(changes, call), changes, call, False))

    def _write(
        self,
        writing: Operation[list[Outcome]],
        changes: Sequence[Change],
        call: Call,
        in_order: bool,
    ) -> Operation[list[Outcome]]:
        unknown = dict.fromkeys(change.key for change in changes)
        try:
            outcomes = yield from writing
            heard = [
                change if in_order and isinstance(outcome, WriteOutcome) else change.key
                for change, outcome in zip(changes, outcomes, strict=True)
                if outcome is not WriteOutcome.SUPERSEDED
            ]
            yield from self._tell(heard, call)
        except BaseException:
            # If the call is cut off, the state of the items is not known. This must be a single
            # call into C: an exception of a signal handler could come before the second one.
            self._untold.update(unknown)
            raise
        return outcomes

    def _tell(self, heard: Sequence[Change | ItemKey], call: Call) -> Operation[None]:
        """Invalidate what was written, and what could not be invalidated before."""
        untold: dict[ItemKey, None] = {}
        try:
            # Between these two stores no signal handler and no other thread can run.
            untold, self._untold = self._untold, {}
            told: dict[ItemKey, Change | ItemKey] = {invalidated_key(each): each for each in heard}
            told |= {key: key for key in untold}
            told = {key: each for key, each in told.items() if not key.pk.startswith(RESERVED)}
            untold |= dict.fromkeys(told)
            if (not told) or (yield from self._update(list(told.values()), call)):
                untold = {}
        finally:
            self._untold.update(untold)
        self._forget_oldest()

    def _update(self, told: Sequence[Change | ItemKey], call: Call) -> Operation[bool]:
        """Tell the cache; return whether it has heard."""
        now: Instant = yield NOW
        left = call.deadline - now.monotonic
        if left <= 0 or self._back_at > now.monotonic:
            return False
        heard_of = yield from self._ask(self._cache.update(told, left), 0, left)
        self._counts["told"] += heard_of
        return heard_of > 0

    def _forget_oldest(self) -> None:
        for key in list(self._untold)[: max(0, len(self._untold) - MAX_PENDING_INVALIDATIONS)]:
            self._untold.pop(key, None)

    # --- the cache -------------------------------------------------------------------------

    def _ask(self, asking: Operation[T], otherwise: T, left: float) -> Operation[T]:
        """What the cache answers; `otherwise` where it does not, and is left alone from then on.

        One that was given less than its time, which the call had not, is not at fault.
        """
        try:
            answer = yield from asking
        except RequestError as error:
            if isinstance(error, RequestTimeout) and left < self._cache.timeout:
                return otherwise
            now: Instant = yield NOW
            self._counts["failures"] += 1
            if not self._back_at:
                said = event("shared_cache.away", error=error)
                logger.warning("the shared cache is away: %s", error, extra=said)
            self._back_at = now.monotonic + RETRY_AFTER_SECONDS
            return otherwise
        if self._back_at:
            logger.info("the shared cache is back", extra=event("shared_cache.back"))
            self._back_at = 0.0
        return answer

    # --- what the cache has no part in -----------------------------------------------------

    def list_partition(self, pk: str, after: str, call: Call) -> Operation[list[Attributes]]:
        """The table's."""
        return self._table.list_partition(pk, after, call)

    def transact(self, swaps: Sequence[ConditionalWrite], call: Call) -> Operation[bool]:
        """The table's."""
        return self._table.transact(swaps, call)

    def scan_keys(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[KeyPage]:
        """The table's."""
        return self._table.scan_keys(segment, segments, start, limit, call)

    def scan_items(
        self, segment: int, segments: int, start: bytes, limit: int, call: Call
    ) -> Operation[ItemPage]:
        """The table's."""
        return self._table.scan_items(segment, segments, start, limit, call)

    def check_search(self, call: Call) -> Operation[None]:
        """The table's."""
        return self._table.check_search(call)

    def search(self, query: VectorQuery, call: Call) -> Operation[Searched]:
        """The table's."""
        return self._table.search(query, call)


class _ItemReader:
    """How the items of one shape are read, of the cache and of the table."""

    def __init__(self, shape: Shape, layout: TableLayout) -> None:
        self.whole = RawItemShape(layout)
        self.rows = RowReader(shape).rows
        self._layout = layout

    def packed(self, attributes: Attributes) -> bytes | None:
        """An item as the cache keeps it; None where that cannot be."""
        try:
            return packed_item(self._layout, attributes)
        except (*UNREADABLE, DamagedItem):
            return None


class _CachedGroup:
    """What was found of one group: in the cache, then in the table."""

    def __init__(
        self, want: GroupKeys, reading: _ItemReader, packed: Iterator[bytes | None]
    ) -> None:
        self.want = want
        self._reading = reading
        self.found: list[RowOrError] = [None] * len(want.pks)
        self.missed: list[int] = []
        items = {}
        for place, item in enumerate(islice(packed, len(want.pks))):
            if item is None:
                self.missed.append(place)
            elif item != ABSENT:
                items[place] = item
        for place, row in self._rows(items):
            if isinstance(row, DamagedItem | DamagedRow):  # Then the table has to say.
                self.missed.append(place)
            else:
                self.found[place] = row

    def _rows(self, items: Mapping[int, bytes]) -> Iterator[tuple[int, Row | DamagedItem]]:
        """The rows of packed items, by place."""
        pks, sk = self.want.pks, self.want.sk
        rows = self._reading.rows(sk, [(pks[place], item) for place, item in items.items()])
        return zip(items, rows, strict=True)

    @property
    def asked(self) -> GroupKeys:
        """What the table is asked for."""
        pks = [self.want.pks[place] for place in self.missed]
        return GroupKeys(self.want.sk, self._reading.whole, pks)

    def take(self, rows: Sequence[RowOrError]) -> list[tuple[ItemKey, bytes]]:
        """Take what the table has; what of it may be kept, packed."""
        items: dict[int, bytes] = {}
        absent = []
        for place, row in zip(self.missed, rows, strict=True):
            if row is None:
                absent.append(place)
            elif isinstance(row, OnlineStoreError):
                self.found[place] = row
            elif (item := self._reading.packed(row[ATTRIBUTES])) is None:
                (self.found[place],) = self.want.shape.decode_each([render_item(row[ATTRIBUTES])])
            else:
                items[place] = item
        for place, found in self._rows(items):
            self.found[place] = found
        kept = {**items, **dict.fromkeys(absent, ABSENT)}
        return [(ItemKey(self.want.pks[place], self.want.sk), item) for place, item in kept.items()]


def _may_be_behind(call: Call) -> bool:
    """Whether what has answered may be further behind than the cache remembers writes."""
    report = call.report
    if not report.regions:
        return False
    return report.behind is None or report.behind > FILL_WINDOW_SECONDS
