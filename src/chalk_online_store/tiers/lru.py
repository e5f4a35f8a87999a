"""Items by key, least recently used out first, each with its own expiry; and reads under way.

Coherence: a write tells the cache when it begins and what it left. A read registers what it is to
bring, and a write of the same item strikes it from there: what the read then brings may be from
before the write, so it is not kept, and nobody joins it any more. So within this process a read
that begins after a write has returned never sees the item from before it.

Interruptions. An exception of a signal handler can end a read or a write before it has removed
what it registered, whatever its `finally` says. So a trip and a writing have an `owner`: a lock
that the operation holds by `with`, which CPython leaves in C. What is registered counts only while
its owner is locked; the rest is replaced by the next operation that meets it.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.effects import SharedResult
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.schema import LRUCache

Key: TypeAlias = tuple[str, str]
"""Partition key and sort key: an `ItemKey`, or a plain tuple that equals one."""

Read: TypeAlias = tuple[Any, Any]
"""The shape that a row was read as, and the row; None as the row for an absent item."""


class _Unasked:
    """The one of its kind."""


KNOWN_ABSENT = _Unasked()
"""Stands for an absent item that the table was not asked for."""

_NOT_KEPT = (OnlineStoreError, _Unasked)

MISS = object()
"""Stands for an item that nothing is known of, and that nobody else is reading."""

ENTRY_BYTES = 250
"""What an entry takes beside its row, about: its key, its times, its places in two tables."""

_SAMPLED = 128

_MIN_PURGED = 4096
"""Items on their way, beyond which those of interrupted reads are looked for."""


class InFlightRead:
    """A read on its way: the items that it brings, and the result that others wait for.

    Whoever reads holds `owner` from before the first item is registered.
    """

    __slots__ = ("due", "future", "owner", "shapes")

    def __init__(self) -> None:
        self.owner = threading.Lock()
        self.shapes: dict[Key, Any] = {}
        self.due: list[Key] = []
        """Items that were found, but should be read anew, by whoever made the trip."""
        self.future: SharedResult[dict[Key, Any]] | None = None


class Lookup(NamedTuple):
    """What a cache knows of some items, in their order.

    `found` has a row, None for an absent item, or `MISS`; at the positions in `joined` it has
    the `InFlightRead` that fetches the item. `missed` are the positions of the items that the
    read has to fetch itself.
    """

    found: list[Any]
    missed: list[int]
    joined: list[int]


class InFlightWrite:
    """A write on its way, and which of its items others write meanwhile.

    Whoever writes holds `owner` from before `write_begins` until after `written`.
    """

    __slots__ = ("contested", "keys", "owner")

    def __init__(self, keys: Iterable[Key]) -> None:
        self.owner = threading.Lock()
        self.keys = frozenset(keys)
        self.contested: set[Key] = set()


@dataclass(slots=True)
class CacheStats:
    """The account of a cache since it was made; `entries` and `bytes` are today's.

    `hits` include `negative_hits`, which are of absent items. `misses` include `expired`, of
    entries too old, and `joined`, of items that another read was bringing. `evictions` were
    pushed out by others; `invalidations` by writes. `refreshes` are items read anew while they
    were still served. `bytes` is an estimate.
    """

    entries: int = 0
    bytes: int = 0
    hits: int = 0
    negative_hits: int = 0
    misses: int = 0
    expired: int = 0
    joined: int = 0
    evictions: int = 0
    invalidations: int = 0
    refreshes: int = 0


_Entry: TypeAlias = tuple[float, Any, Any, float, int]
"""Until when it is fresh, its shape, its row, until when it is served, its bytes.

A plain tuple: a named one takes several times as long to make.
"""

_SHAPE: Final = 1
_ROW: Final = 2
_SERVED: Final = 3
_BYTES: Final = 4


class ItemCache:
    """A namespace's items by key. Thread-safe; a fork keeps what is in it.

    `now` is a reading of the monotonic clock, in seconds: one for a whole batch. `rng` draws
    the jitter.
    """

    def __init__(self, config: LRUCache, rng: random.Random | None = None) -> None:
        self._config = config
        self._life = config.ttl_seconds
        self._grace = config.grace_seconds
        self._early = config.refresh_ahead
        self._jitter = config.ttl_jitter
        self._most = config.max_size
        self._weighs = config.max_bytes is not None
        self._most_bytes = config.max_bytes or sys.maxsize
        self._bytes = 0
        self._is_miscounted = False
        """Whether an interruption came between a change of the entries and of `_bytes`."""
        self._random = (rng or random.Random()).random
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._stats = CacheStats()
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Forget what others have under way."""
        self._lock = threading.Lock()
        self._flying: dict[Key, InFlightRead] = {}
        self._writing: dict[Key, list[InFlightWrite]] = {}
        self._purge_at = _MIN_PURGED

    def stats(self) -> CacheStats:
        """The account; a copy."""
        with self._lock:
            entries = len(self._entries)
            return replace(self._stats, entries=entries, bytes=self._bytes or self._sampled())

    def _sampled(self) -> int:
        """The bytes that some entries, the newest and the oldest, let expect of all."""
        entries = self._entries
        newest = islice(reversed(entries.values()), _SAMPLED)
        weights = [_weigh(entry[_ROW]) for entry in (*newest, *islice(entries.values(), _SAMPLED))]
        return round(sum(weights) / len(weights) * len(entries)) if weights else 0

    # --- reads -----------------------------------------------------------------------------

    def look(
        self, pks: Sequence[str], sk: str, shape: Any, now: float, trip: InFlightRead
    ) -> Lookup:
        """What is known of items of one group; the trip is to bring what is not."""
        look = Lookup([], [], [])
        append = look.found.append
        negative = 0
        with self._lock:
            get, renew, writing = self._entries.get, self._entries.move_to_end, self._writing
            for pk in pks:
                key = (pk, sk)
                if writing and key in writing:
                    self._end_lost_writes(key)
                entry = get(key)
                if entry is not None and (
                    # A row from another reading of the registry has other columns.
                    (entry[0] > now and entry[_SHAPE] is shape)
                    or self._serves(key, entry, shape, now, trip)
                ):
                    renew(key)
                    row = entry[_ROW]
                    append(row)
                    if row is None:
                        negative += 1
                else:
                    self._stats.expired += entry is not None and entry[_SERVED] <= now
                    append(self._join_or_begin_fetch(key, shape, trip, look))
            self._count(look, negative)
        return look

    def _serves(self, key: Key, entry: _Entry, shape: Any, now: float, trip: InFlightRead) -> bool:
        """Whether an entry is an absent item, or of an age at which it is to be read anew."""
        fresh_until, of, row, served_until, _ = entry
        if served_until <= now or not (of is shape or row is None):
            return False
        if fresh_until <= now:
            self._entries[key] = (served_until, *entry[1:])  # Renewed once only.
            trip.due.append(key)
        return True

    def _join_or_begin_fetch(self, key: Key, shape: Any, trip: InFlightRead, look: Lookup) -> Any:
        position = len(look.found)
        other = self._flying.get(key)
        if other is None or not other.owner.locked() or other.shapes[key] is not shape:
            look.missed.append(position)
            self._depart(key, shape, trip)
            return MISS
        look.joined.append(position)
        if other.future is None:
            other.future = SharedResult(other.owner)
        return other

    def _depart(self, key: Key, shape: Any, trip: InFlightRead) -> None:
        if len(self._flying) >= self._purge_at:
            self._flying = {k: other for k, other in self._flying.items() if other.owner.locked()}
            self._purge_at = max(_MIN_PURGED, 2 * len(self._flying))
        trip.shapes[key] = shape
        self._flying[key] = trip

    def _count(self, look: Lookup, negative: int) -> None:
        stats, missed, joined = self._stats, len(look.missed), len(look.joined)
        stats.hits += len(look.found) - missed - joined
        stats.negative_hits += negative
        stats.misses += missed + joined
        stats.joined += joined

    def begin_fetch(self, pks: Iterable[str], sk: str, shape: Any, trip: InFlightRead) -> None:
        """Have a trip bring items whatever is known of them, and whoever else is reading them."""
        with self._lock:
            for pk in pks:
                self._depart((pk, sk), shape, trip)

    def renew(self, due: Iterable[Key], trip: InFlightRead) -> None:
        """Have a trip bring anew what was found to be due, as far as nobody else does."""
        with self._lock:
            for key in due:
                entry, other = self._entries.get(key), self._flying.get(key)
                if entry is not None and (other is None or not other.owner.locked()):
                    self._depart(key, entry[_SHAPE], trip)
            self._stats.refreshes += len(trip.shapes)

    def land(
        self, trip: InFlightRead, keys: Sequence[Key], rows: Sequence[Any], now: float
    ) -> None:
        """End a trip: keep the rows that it brought, and hand all to those who wait.

        What a write struck from the trip is not kept, nor an error, nor what stands for an item
        that the table was not asked for (`KNOWN_ABSENT`).
        """
        with self._lock:
            flying, shapes, put, writing = self._flying, trip.shapes, self._put, self._writing
            for key, row in zip(keys, rows, strict=True):
                if key in writing and self._end_lost_writes(key):
                    continue
                if flying.get(key) is trip and not isinstance(row, _NOT_KEPT):
                    put(key, (shapes[key], row), now)
            self._leave(trip)
        if trip.future is not None:  # Nobody joins any more.
            trip.future.set_result(dict(zip(keys, rows, strict=True)))

    def fail(self, trip: InFlightRead, error: Exception | None) -> None:
        """End a trip that brought nothing; those who wait hear of the error, if there is one."""
        with self._lock:
            self._leave(trip)
        if trip.future is not None:
            if error is None:
                trip.future.set_result({})
            else:
                trip.future.set_exception(error)

    def _leave(self, trip: InFlightRead) -> None:
        flying = self._flying
        for key in trip.shapes:
            if flying.get(key) is trip:
                del flying[key]

    # --- writes ----------------------------------------------------------------------------

    def write_begins(self, writing: InFlightWrite) -> None:
        """To be called before a write is sent, and followed by `written`, whatever happens."""
        with self._lock:
            for key in writing.keys:
                self._end_lost_writes(key)
                others = self._writing.setdefault(key, [])
                if others:  # Which of them comes last is not known.
                    writing.contested.add(key)
                    for other in others:
                        other.contested.add(key)
                others.append(writing)

    def written(self, writing: InFlightWrite, reads: Mapping[Key, Read], now: float) -> None:
        """Account for a write: some items as they now are; what the others are is not known."""
        with self._lock:
            for key in writing.keys:
                self._flying.pop(key, None)
                self._end_writing(key, writing)
                if key in reads and key not in writing.contested:
                    self._put(key, reads[key], now)
                else:
                    self._stats.invalidations += self._forget(key)

    def _end_lost_writes(self, key: Key) -> bool:
        """Account for writes of an item that were interrupted; return True if there were any."""
        others = self._writing.get(key, ())
        lost = [other for other in others if not other.owner.locked()]
        for writing in lost:  # What the item is now is not known.
            self._flying.pop(key, None)
            self._stats.invalidations += self._forget(key)
            self._end_writing(key, writing)
        return bool(lost)

    def _end_writing(self, key: Key, writing: InFlightWrite) -> None:
        others = self._writing.get(key)
        if others and writing in others:  # Not in a fork of who began.
            others.remove(writing)
        if not others:
            self._writing.pop(key, None)

    # --- entries: under the lock -----------------------------------------------------------

    def _put(self, key: Key, read: Read, now: float) -> None:
        shape, row = read
        entries = self._entries
        if key in entries:
            self._forget(key)
        size = _weigh(row) if self._weighs else 0
        if size > self._most_bytes or (row is None and not self._config.store_cache_misses):
            return
        life = self._life * (1 - self._jitter * self._random()) if self._jitter else self._life
        fresh_until = now + life * (1 - self._early)
        self._count_again()
        self._is_miscounted = True
        entries[key] = (fresh_until, shape, row, now + life + self._grace, size)
        self._bytes += size
        while len(entries) > self._most or self._bytes > self._most_bytes:
            self._bytes -= entries.popitem(last=False)[1][_BYTES]
            self._stats.evictions += 1
        self._is_miscounted = False

    def _forget(self, key: Key) -> bool:
        self._count_again()
        self._is_miscounted = True
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry[_BYTES]
        self._is_miscounted = False
        return entry is not None

    def _count_again(self) -> None:
        if self._is_miscounted:
            self._bytes = sum(entry[_BYTES] for entry in self._entries.values())


_size_of = sys.getsizeof


def _weigh(row: Any) -> int:
    """The bytes of memory that an entry takes, about: what others share with it counts as well."""
    if row is None:
        return ENTRY_BYTES
    if _FLAT.issuperset(map(type, row)):
        return ENTRY_BYTES + _size_of(row) + sum(map(_size_of, row))
    return ENTRY_BYTES + _nested(row)


_FLAT = frozenset((str, int, float, bytes, bool, type(None)))


def _nested(value: Any) -> int:
    """The same of anything that lies in a row."""
    size = _size_of(value)
    if isinstance(value, dict):
        return size + sum(_nested(k) + _nested(v) for k, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return size + sum(map(_nested, value))
    fields = getattr(value, "__struct_fields__", ())
    return size + sum(_nested(getattr(value, name)) for name in fields)
