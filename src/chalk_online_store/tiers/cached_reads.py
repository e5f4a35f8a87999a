"""Reading a namespace's items through its cache: from memory, with another's read, or below."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Protocol

from chalk_online_store.backend import Call, GroupKeys, RowOrError
from chalk_online_store.effects import NOW, Instant, Operation, Spawn
from chalk_online_store.errors import OnlineStoreError, RequestError, RequestTimeout
from chalk_online_store.tiers.lru import KNOWN_ABSENT, InFlightRead, ItemCache, Key, Lookup
from chalk_online_store.tiers.waiting import await_shared


class Reads(Protocol):
    """What items can be read through: see `backend.Backend.get`."""

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """Read items."""
        ...


class CachedReads:
    """Reads through a cache. `timeout`, in seconds, bounds what is read in the background.

    What is `filtered` below answers `KNOWN_ABSENT` for what the table was not asked.
    """

    def __init__(
        self, below: Reads, cache: ItemCache, timeout: float, filtered: bool = False
    ) -> None:
        self._below = below
        self._cache = cache
        self._timeout = timeout
        self._filtered = filtered

    def get(self, wanted: Sequence[GroupKeys], call: Call) -> Operation[list[list[RowOrError]]]:
        """See `backend.Backend.get`. A consistent read goes past the cache, and renews it."""
        now: float = (yield NOW).monotonic if call.as_of is None else call.as_of.monotonic
        trip = InFlightRead()
        with trip.owner:
            try:
                return (yield from self._get(trip, wanted, call, now))
            except BaseException:
                self._cache.fail(trip, None)
                raise

    def _get(
        self, trip: InFlightRead, wanted: Sequence[GroupKeys], call: Call, now: float
    ) -> Operation[list[list[RowOrError]]]:
        if call.consistent:
            for want in wanted:
                self._cache.begin_fetch(want.pks, want.sk, want.shape, trip)
            return (yield from self._fetch(trip, wanted, call))
        looks = [self._cache.look(w.pks, w.sk, w.shape, now, trip) for w in wanted]
        for look in looks:
            call.report.cache_hits += len(look.found) - len(look.missed) - len(look.joined)
            call.report.coalesced += len(look.joined)
        if trip.due:
            yield Spawn(self._renew(trip.due))
        if trip.shapes:
            yield from self._fetch_missed(trip, wanted, looks, call)
        for want, look in zip(wanted, looks, strict=True):
            if look.joined:
                yield from self._wait(want, look, call)
        return [look.found for look in looks]

    def _fetch_missed(
        self, trip: InFlightRead, wanted: Sequence[GroupKeys], looks: Sequence[Lookup], call: Call
    ) -> Operation[None]:
        missed = [
            (GroupKeys(want.sk, want.shape, [want.pks[i] for i in look.missed]), look)
            for want, look in zip(wanted, looks, strict=True)
            if look.missed
        ]
        brought = yield from self._fetch(trip, [want for want, _ in missed], call)
        for (_, look), rows in zip(missed, brought, strict=True):
            for position, row in zip(look.missed, rows, strict=True):
                look.found[position] = row

    def _fetch(
        self, trip: InFlightRead, wanted: Sequence[GroupKeys], call: Call
    ) -> Operation[list[list[RowOrError]]]:
        """Read what a trip is to bring, and tell those who wait, whatever happens."""
        try:
            found = yield from self._below.get(wanted, call)
            now: Instant = yield NOW
            keys = [(pk, want.sk) for want in wanted for pk in want.pks]
            self._cache.land(trip, keys, list(chain.from_iterable(found)), now.monotonic)
        except BaseException as error:  # Where time was short, others may have more of it.
            final = isinstance(error, OnlineStoreError) and not _may_succeed(error)
            self._cache.fail(trip, error if final else None)  # type: ignore[arg-type]
            raise
        return [list(map(_plain, items)) for items in found] if self._filtered else found

    def _wait(self, want: GroupKeys, look: Lookup, call: Call) -> Operation[None]:
        """Take what other reads brought, and read again what they could not."""
        left = []
        for trip in dict.fromkeys(look.found[position] for position in look.joined):
            rows = yield from _result_of(trip, call)
            for position in look.joined:
                if look.found[position] is trip:
                    row = _plain(rows.get((want.pks[position], want.sk), _CUT_OFF))
                    look.found[position] = row
                    if _may_succeed(row):
                        left.append(position)
        now: Instant = yield NOW
        if left and now.monotonic < call.deadline:
            again = GroupKeys(want.sk, want.shape, [want.pks[position] for position in left])
            (rows_again,) = yield from self.get([again], call)
            for position, row in zip(left, rows_again, strict=True):
                look.found[position] = row

    def _renew(self, due: Iterable[Key]) -> Operation[None]:
        """Read items anew, in the background."""
        trip = InFlightRead()
        with trip.owner:
            self._cache.renew(due, trip)
            groups: dict[tuple[str, Any], list[str]] = {}
            for (pk, sk), shape in trip.shapes.items():
                groups.setdefault((sk, shape), []).append(pk)
            if groups:
                wanted = [GroupKeys(sk, shape, pks) for (sk, shape), pks in groups.items()]
                now: Instant = yield NOW
                yield from self._fetch(trip, wanted, Call(now.monotonic + self._timeout))


def _may_succeed(error: object) -> bool:
    return isinstance(error, RequestError) and error.retryable


def _plain(row: Any) -> RowOrError:
    return None if row is KNOWN_ABSENT else row


_CUT_OFF = RequestTimeout("A read that this one had joined did not bring the item in time.")


def _result_of(trip: InFlightRead, call: Call) -> Operation[dict[Key, RowOrError]]:
    """What another read brings, within this call's time; nothing where it was cut off."""
    future = trip.future
    assert future is not None
    try:
        return (yield from await_shared(future, call.deadline, lambda: future.is_over))
    except TimeoutError:
        return {}
