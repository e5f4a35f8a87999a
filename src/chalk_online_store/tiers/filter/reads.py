"""Reading a namespace's items past its Bloom filter: what is surely absent is not asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, compress
from typing import Any

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.backend import Call, GroupKeys, RowOrError
from chalk_online_store.effects import NOW, Instant, Operation, Spawn
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.report import Report
from chalk_online_store.schema import BloomFilter
from chalk_online_store.tiers.cached_reads import Reads
from chalk_online_store.tiers.filter.bloom import KeyFilter
from chalk_online_store.tiers.filter.keeper import FilterKeeper, is_older

_REST = 0.5
"""What part of the time that the filter may be old passes before it is refreshed."""


@dataclass(slots=True)
class FilterStats:
    """The account of a Bloom filter, of this process.

    `trusted` says whether reads use it now, `degraded_reason` why it was not refreshed. Of the
    entities that reads asked the filter about, `skips` were surely absent; `false_positives`
    were let through and then found to have no item among those that were read.
    `empirical_false_positive_rate` is their share of all that were absent, 0 where there were
    none; `estimated_false_positive_rate` is computed from the bits. `entities` is about how many
    were announced. `generation` tells its builds apart. `rcu` is what refreshing took.
    """

    trusted: bool = False
    degraded_reason: str = ""
    generation: int = 0
    entities: int = 0
    capacity: int = 0
    layers: int = 0
    bytes: int = 0
    bits_set: int = 0
    estimated_false_positive_rate: float = 0.0
    empirical_false_positive_rate: float = 0.0
    checks: int = 0
    skips: int = 0
    false_positives: int = 0
    refreshes: int = 0
    rcu: float = 0.0


class FilteredReads:
    """Reads past a filter. `timeout`, in seconds, bounds each refresh in the background.

    An absent item is answered as `absent` where the filter says so, and by None otherwise: the
    cache keeps only what the table has said. `keeper` is there as soon as the namespace has an
    id.
    """

    def __init__(self, below: Reads, config: BloomFilter, timeout: float, absent: Any) -> None:
        self.keeper: FilterKeeper | None = None
        self._below = below
        self._oldest = config.refresh_seconds
        self._timeout = timeout
        self._absent = absent
        self._stats = FilterStats()
        self._not_before = 0.0
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """A refresh of the parent goes on there."""
        self._lock = threading.Lock()
        self._refreshing_until = 0.0
        """On the monotonic clock, so that a refresh that was cut off blocks others no longer."""

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """See `backend.Backend.get`. A consistent read goes past the filter."""
        keeper = self.keeper
        if keeper is None or call.consistent:
            return (yield from self._below.get(wanted, call))
        now: Instant = yield NOW
        if self._is_due(keeper, now):
            yield from self._spawn(keeper, now)
        known = keeper.filter_at(now, self._oldest)
        if known is None:
            return (yield from self._below.get(wanted, call))
        return (yield from self._get_known(wanted, known, call))

    def _get_known(
        self, wanted: Sequence[GroupKeys], known: KeyFilter, call: Call
    ) -> Operation[list[list[RowOrError]]]:
        pks = wanted[0].pks if len(wanted) == 1 else _entities(wanted)
        present = known.might_contain(pks)
        if False not in present:
            found = yield from self._below.get(wanted, call)
            self._account(len(pks), 0, wanted, found, call)
            return found
        perhaps = [present]
        if len(wanted) > 1:
            verdicts = dict(zip(pks, present, strict=True))
            perhaps = [[verdicts[pk] for pk in want.pks] for want in wanted]
        left = [
            GroupKeys(want.sk, want.shape, list(compress(want.pks, flags)))
            for want, flags in zip(wanted, perhaps, strict=True)
        ]
        asked = [want for want in left if want.pks]
        found = (yield from self._below.get(asked, call)) if asked else []
        call.report.bloom_skips += sum(flags.count(False) for flags in perhaps)
        self._account(len(pks), present.count(False), asked, found, call)
        rows = chain.from_iterable(found)
        absent = self._absent
        return [[next(rows) if flag else absent for flag in flags] for flags in perhaps]

    def _account(
        self,
        checks: int,
        skips: int,
        asked: Sequence[GroupKeys],
        found: Sequence[Sequence[RowOrError]],
        call: Call,
    ) -> None:
        """Count; what was let through and then not found was a false positive."""
        absent = any(rows.count(None) for rows in found)
        false = _count_absent(asked, found) if absent else 0
        call.report.bloom_false_positives += false
        with self._lock:
            stats = self._stats
            stats.checks += checks
            stats.skips += skips
            stats.false_positives += false

    # --- refreshing ------------------------------------------------------------------------

    def _is_due(self, keeper: FilterKeeper, now: Instant) -> bool:
        """Whether to refresh now; at most one does at a time."""
        rested = is_older(keeper.whole_at, now, self._oldest * _REST)
        return rested and now.monotonic >= max(self._not_before, self._refreshing_until)

    def _spawn(self, keeper: FilterKeeper, now: Instant) -> Operation[None]:
        try:
            with self._lock:
                if now.monotonic < self._refreshing_until:  # Another thread was faster.
                    return
                self._refreshing_until = now.monotonic + self._timeout
            yield Spawn(self._refresh(keeper))
        except BaseException:
            self._refreshing_until = 0.0
            raise

    def _refresh(self, keeper: FilterKeeper) -> Operation[None]:
        try:
            yield from self.refresh(keeper)
        finally:
            self._refreshing_until = 0.0

    def refresh(self, keeper: FilterKeeper) -> Operation[None]:
        """Look at the filter now; where that fails, reads go on without it."""
        now: Instant = yield NOW
        self._not_before = now.monotonic + self._oldest * _REST
        report = Report()
        try:
            call = Call(now.monotonic + self._timeout, report=report)
            yield from keeper.look(call, now, 0.0)
        except OnlineStoreError as error:
            degraded_reason = str(error)
        else:
            degraded_reason = keeper.degraded_reason()
        with self._lock:
            self._stats.degraded_reason = degraded_reason
            self._stats.refreshes += 1
            self._stats.rcu += report.rcu

    def stats(self, now: Instant) -> FilterStats:
        """The account at a time; reckoning the bits takes a while."""
        with self._lock:
            stats = replace(self._stats)
        absent = stats.skips + stats.false_positives
        stats.empirical_false_positive_rate = stats.false_positives / absent if absent else 0.0
        followed = self.keeper and self.keeper.followed
        if self.keeper and followed and followed.filter:
            known = followed.filter
            stats.trusted = self.keeper.filter_at(now, self._oldest) is not None
            stats.generation = followed.generation
            stats.entities, stats.layers = known.count, len(known.layers)
            stats.capacity = sum(layer.size.capacity for layer in known.layers)
            stats.bytes = known.nbytes
            stats.bits_set, stats.estimated_false_positive_rate = known.measure()
        return stats


def _entities(wanted: Sequence[GroupKeys]) -> list[str]:
    """The partition keys that are wanted of any group, each once."""
    return list(dict.fromkeys(chain.from_iterable(want.pks for want in wanted)))


def _count_absent(asked: Sequence[GroupKeys], found: Sequence[Sequence[RowOrError]]) -> int:
    """How many entities have no item in any group that was asked for."""
    present = {
        pk
        for want, rows in zip(asked, found, strict=True)
        for pk, row in zip(want.pks, rows, strict=True)
        if row is not None
    }
    return len(_entities(asked)) - len(present)
