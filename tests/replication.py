"""Tables of several regions in virtual time, each with items of its own, and what is between."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import permutations
from typing import Any, NamedTuple

from chalk_online_store.drivers.simulated import Reply
from chalk_online_store.effects import Send
from tests.fakes import FakeTable

Item = dict[str, Any]


class Lag(NamedTuple):
    """What is written in `source` from one time to another takes so long to `target`; seconds.

    Infinitely long is a cut: it arrives when that is over.
    """

    source: str
    target: str
    seconds: float
    begins: float
    ends: float

    def arrives(self, written: float) -> float:
        """When that is which was written at a time; earlier than that where it is not affected."""
        if not self.begins <= written < self.ends:
            return 0.0
        return self.ends if self.seconds == math.inf else written + self.seconds


class Put(NamedTuple):
    """An item on its way to another region."""

    item: Item
    written: float
    arrives: float

    @property
    def key(self) -> tuple[str, str]:
        """What an item is told by."""
        return self.item["pk"]["S"], self.item["sk"]["S"]


class _Replica(FakeTable):
    """One region's table; of two writes of one item the later one stays."""

    def __init__(self) -> None:
        super().__init__()
        self.put_at: dict[tuple[str, str], float] = {}
        self.now = 0.0
        self.puts: list[Put] = []

    def _put(self, item: Item) -> None:
        put = Put(item, self.now, self.now)
        self.puts.append(put)
        self.items[put.key], self.put_at[put.key] = item, self.now

    def arrive(self, put: Put) -> None:
        if not self.has(put):
            self.items[put.key], self.put_at[put.key] = put.item, put.written

    def has(self, put: Put) -> bool:
        """Whether this is here, or what is newer."""
        return self.put_at.get(put.key, -1.0) >= put.written


class Replication:
    """What is put in one region arrives in the others: in order, at once where no lag is stated."""

    def __init__(self, regions: Iterable[str], lags: Sequence[Lag] = ()) -> None:
        self.tables = {name: _Replica() for name in regions}
        self.lags = lags
        self._acknowledged: dict[str, float] = {}
        self._under_way: dict[tuple[str, str], deque[Put]] = {
            pair: deque() for pair in permutations(self.tables, 2)
        }

    def answer(self, send: Send, now: float) -> Reply:
        """Play the engine of the region that is asked."""
        self._deliver(now)
        table = self.tables[send.to]
        table.now, table.puts = now, []
        reply = table(send, now)
        for (source, target), under_way in self._under_way.items():
            if source == send.to:
                under_way += [self._sent(source, target, put) for put in table.puts]
        return reply

    def _sent(self, source: str, target: str, put: Put) -> Put:
        lags = (lag for lag in self.lags if (lag.source, lag.target) == (source, target))
        before = self._under_way[source, target]
        at = [put.written, *(lag.arrives(put.written) for lag in lags)]
        return put._replace(arrives=max(at + [last.arrives for last in [*before][-1:]]))

    def _deliver(self, now: float) -> None:
        for (_, target), under_way in self._under_way.items():
            while under_way and under_way[0].arrives <= now:
                self.tables[target].arrive(under_way.popleft())

    def lacks(self, region: str, source: str, now: float, until: float) -> float | None:
        """Over how many seconds that was written in `source` which is missing; None: nothing is.

        Only what was acknowledged before `until` is missed by anybody.
        """
        self._deliver(now)
        missing = [
            put.written
            for put in self._under_way[source, region]
            if self._acknowledged.get(put.key[0], math.inf) <= until
            and not self.tables[region].has(put)
        ]
        return missing[-1] - missing[0] if missing else None

    def acknowledge(self, region: str, value: int, now: float) -> bool:
        """A region has acknowledged a value, of which there is one: whether it is there."""
        for (pk, _), item in reversed(self.tables[region].items.items()):
            if {"N": str(value)} in item.values():
                self._acknowledged[pk] = now
                return True
        return False


def what(send: Send) -> str:
    """A request's operation, or "keeping" where it looks after the regions themselves."""
    body: bytes = send.request.body
    return "keeping" if b'"!regions"' in body else str(send.request.operation)
