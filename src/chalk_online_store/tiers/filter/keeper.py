"""One process's part in a namespace's Bloom filter: follow it, and announce new entities.

Whoever writes an entity that the filter does not have appends it to the log before the item is
sent: so there is no item, whatever crashes, whose entity was not announced. Readers look into the
log every few seconds, and trust what they know no longer than that.

How a filter is built anew beside writers: the builder says so in the head, and waits for
`SETTLE_SECONDS`. A writer whose look at the head is older than `LOOK_SECONDS` looks again before
it writes, and its write ends within `SETTLE_SECONDS` of the look. So after the wait, each item is
either there to be scanned, or its writer knows of the build and announces every entity that was
not announced since it began. Clocks need to run at the same rate for that, not to agree.
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.backend import Call
from chalk_online_store.codec.changes import ConditionalWrite
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.codec.registry import filter_mark
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.errors import DamagedItem
from chalk_online_store.schema import Namespace
from chalk_online_store.tiers.filter.bloom import Hashes, KeyFilter, different, hash_keys
from chalk_online_store.tiers.filter.log import Control, FilterLog, Followed
from chalk_online_store.tiers.filter.segments import (
    FilterKeys,
    Head,
    Segment,
    empty_head,
    seal_struct,
)
from chalk_online_store.tiers.mutex import OperationMutex

LOOK_SECONDS = 30.0
"""How old a writer's view of the head may be when it begins to write."""

SETTLE_SECONDS = 60.0
"""Within which of its look at the head a write ends."""

_NOT_WHOLE = "A Bloom filter's snapshot is not whole: build the filter anew."
_FIRST_WAIT = 0.002
_LONGEST_WAIT = 0.1
"""Seconds for which whoever was overtaken in the log lets others go on, at random."""


NEVER = Instant(-math.inf, 0)


def is_older(then: Instant, now: Instant, oldest: float) -> bool:
    """Whether more than `oldest` seconds lie between, by either clock.

    The monotonic one stands still while a machine is suspended.
    """
    return now.monotonic - then.monotonic > oldest or abs(now.wall - then.wall) > oldest * 1e6


@dataclass(eq=False)
class _Batch:
    """New entities of several writes, which go into one segment."""

    hashes: list[Hashes] = field(default_factory=list)
    announced: bool = False


class FilterKeeper:
    """What this process knows of a namespace's filter, and how old that is. Thread-safe."""

    def __init__(self, log: FilterLog, rng: random.Random | None = None) -> None:
        self.log = log
        self.control = Control()
        self.followed: Followed | None = None
        self.looked_at = NEVER
        """When the last look began."""
        self.whole_at = NEVER
        """When the last look began after which nothing was missing."""
        self.merging = False
        """Whether this process is making a snapshot."""
        self._rng = rng or random.Random()
        self._turns = OperationMutex()
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Leave what a parent was about to announce to the parent."""
        self._lock = threading.Lock()
        self._batch = _Batch()
        self.merging = False

    # --- looking ---------------------------------------------------------------------------

    def look(self, call: Call, now: Instant, oldest: float) -> Operation[bool]:
        """Follow the filter, unless that was begun `oldest` seconds before `now`, or later.

        Raises `RequestError`, and `DamagedItem` where the head cannot be read.
        """

        def done() -> bool | None:
            return None if is_older(self.looked_at, now, oldest) else True

        return (yield from self._turns.take(self._look, call, unless=done))

    def _look(self, call: Call) -> Operation[bool]:
        now: Instant = yield NOW
        followed, streams = self.followed, self.control.streams
        gone: Head | None = None
        while True:
            whole = yield from self._follow(followed, streams, call)
            # Only now: if something was removed before it was followed, the floors say so.
            control = yield from self.log.control(call)
            if control.damaged:
                raise DamagedItem("A Bloom filter's head cannot be read: build the filter anew.")
            if (control.head is None) if followed is None else followed.continues(control.head):
                break
            followed, streams = None, control.streams
            if control.head and control.head == gone:  # No merge has removed them.
                followed = Followed(gone.generation, None, dict(gone.positions), damaged=_NOT_WHOLE)
            elif control.head:
                followed = yield from self.log.load(control.head, call)
                gone = None if followed else control.head
        if followed and control.head:
            if followed is self.followed and control.head != self.control.head:
                followed.log_bytes = 0  # Others have merged it.
            whole &= yield from self._follow(followed, control.streams - streams, call)
            followed.note(control.head.building)
        self.followed, self.control = followed, control
        self.looked_at = now
        if whole:
            self.whole_at = now
        return whole

    def _follow(
        self, followed: Followed | None, streams: Iterable[str], call: Call
    ) -> Operation[bool]:
        whole = True
        if followed is not None:
            for stream in streams:
                whole &= yield from self.log.follow(stream, followed, call)
        return whole

    def degraded_reason(self) -> str:
        """Why the filter cannot be used, if so."""
        if self.followed is None:
            return "There is no filter yet: build it."
        if self.followed.filter is None and not self.followed.damaged:
            return "The filter is being built."
        if self.whole_at is not self.looked_at:
            return "A part of the filter's log has not arrived yet."
        return self.followed.damaged

    def filter_at(self, now: Instant, oldest: float) -> KeyFilter | None:
        """The filter, if at `now` all is known that is `oldest` seconds old."""
        whole_at, followed = self.whole_at, self.followed
        if followed is None or followed.damaged or is_older(whole_at, now, oldest):
            return None
        return followed.filter

    # --- announcing ------------------------------------------------------------------------

    def announce(self, pks: Sequence[str], call: Call) -> Operation[None]:
        """Announce entities that are about to be written, as far as they are new.

        Brings the call's deadline forward, where it is too late for those who build filters.
        Raises `RequestError`: then nothing may be written.
        """
        now: Instant = yield NOW
        if is_older(self.looked_at, now, LOOK_SECONDS):
            try:
                yield from self.look(call, now, LOOK_SECONDS)
            except DamagedItem:  # Nobody can use the filter, until it is built anew.
                call.deadline = min(call.deadline, now.monotonic + SETTLE_SECONDS)
                return
        looked_at, followed = self.looked_at, self.followed
        call.deadline = min(call.deadline, looked_at.monotonic + SETTLE_SECONDS)
        if followed is None:
            return
        hashes = followed.unannounced(hash_keys(pks))
        if len(hashes):
            batch = self._join_batch(hashes)
            publish = partial(self._publish, batch)
            yield from self._turns.take(publish, call, unless=lambda: batch.announced or None)

    def _join_batch(self, hashes: Hashes) -> _Batch:
        with self._lock:
            self._batch.hashes.append(hashes)
            return self._batch

    def _publish(self, batch: _Batch, call: Call) -> Operation[bool]:
        with self._lock:
            if self._batch is batch:  # Nobody joins it any more.
                self._batch = _Batch()
        followed = self.followed
        if followed is not None:  # Else it is gone since this began.
            hashes = different(np.concatenate(batch.hashes))
            for segment in list(followed.segments(hashes)):
                yield from self._append(followed, segment, call)
        batch.announced = True
        return True

    def _append(self, followed: Followed, segment: Segment, call: Call) -> Operation[None]:
        wait = 0.0
        while True:
            stream = yield from self._choose_stream(call)
            number = followed.positions.get(stream, 0) + 1
            # Only there is it known whose turn this number is.
            call = call.within(stream.partition("/")[0])
            if (yield from self.log.append(stream, number, segment, call)):
                break
            yield Sleep(self._rng.uniform(0, wait))
            wait = min(2 * wait or _FIRST_WAIT, _LONGEST_WAIT)
            yield from self.log.follow(stream, followed, call)
        followed.learn(stream, number, segment)  # First, so that no merge lacks it.
        followed.positions[stream] = number

    def _choose_stream(self, call: Call) -> Operation[str]:
        partitions = self.control.head.partitions if self.control.head else 1
        stream = f"{self.log.backend.origin}/{self._rng.randrange(partitions)}"
        if stream not in self.control.streams:
            yield from self.log.open_stream(stream, call)
            self.control.streams |= {stream}
        return stream


def initial_items(
    namespace: Namespace, namespace_id: str, now: int, layout: TableLayout
) -> list[ConditionalWrite]:
    """What gives a namespace an empty filter, as it is registered; nothing unless it has one.

    `now` in UTC microseconds. Nothing was ever written then, so the filter has everything.
    """
    config = namespace.online_store_config.bloom_filter
    if config is None:
        return []
    head = empty_head(
        config.expected_entities, config.target_false_positive_rate, config.partitions, now
    )
    item = seal_struct(layout, FilterKeys(namespace_id).head(), head)
    return [
        ConditionalWrite(None, item),
        ConditionalWrite(None, filter_mark(namespace.name, layout)),
    ]
