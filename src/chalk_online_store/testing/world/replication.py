"""Replication as DynamoDB's Global Tables have it: asynchronous, and the last writer wins.

Each region's stream tells what its clients wrote. A version arrives in every other region after
the lag of the way there, and is applied if it is newer than what that region holds. What was
applied comes back in the stream of its target, which alone says whether it took effect: so an
engine may be killed at any moment, and nothing is replicated twice.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import json
import time
from collections.abc import Iterable
from typing import Any

from .applying import request
from .engine import LIMIT, TABLES, Engine, EngineRefused, Stream
from .upstream import EngineGone
from .versions import Item, Link, Links, Sent, Version, image_of

WRITES = frozenset(
    (
        "PutItem",
        "UpdateItem",
        "DeleteItem",
        "BatchWriteItem",
        "TransactWriteItems",
        "ExecuteStatement",
        "BatchExecuteStatement",
        "ExecuteTransaction",
    )
)

IDLE = 0.02
"""Seconds between two looks at a stream of which nothing is known to be new."""

BUSY = 0.002
"""Seconds between two looks at a stream that is written to."""

PATIENCE = 0.5
"""Seconds without an answer from which an engine counts as away."""

AWAY = 0.05
"""Seconds between two attempts to reach an engine that is away."""

_LOOKS = 3
"""Looks that fail until an engine is gone: the first may be over a connection of before."""

AT_ONCE = 8
"""Items that are applied to a region at the same time."""


class Region:
    """One region: its stream, and what is on its way to it."""

    def __init__(self, name: str, port: int, table: str, replicator: Replicator) -> None:
        self.name = name
        self._table = table
        self._engine = Engine(port)
        self._stream = Stream(self._engine, table)
        self._replicator = replicator
        self._inbox: list[tuple[float, int, Item, Version]] = []
        self._numbers = itertools.count()  # so that a heap never compares items
        self._ready: dict[int, Item] = {}
        self._told: list[tuple[Item, Sent]] = []  # answered, one way or another
        self._written = self._seen = 0
        self._reachable = False
        self._alive_at = 0  # nanoseconds since 1970
        self._looked = asyncio.Event()
        self._news = asyncio.Event()  # for the reader: something was written
        self._haste = asyncio.Event()  # for the reader: somebody waits for it
        self._work = asyncio.Event()  # for the writer

    # --- looking ---

    def answered_write(self) -> None:
        """A write has come through: its record can be read."""
        self._alive_at = time.time_ns()
        self._written += 1
        self._news.set()

    @property
    def is_away(self) -> bool:
        """Whether the engine did not answer when it was last looked at, or never was."""
        return not self._reachable

    @property
    def is_behind(self) -> bool:
        """Whether there are writes to be seen, and an engine to show them."""
        return self._reachable and self._seen < self._written

    async def come_back(self) -> None:
        """Wait as long as the engine hangs; one that is gone is not waited for."""
        for _ in range(_LOOKS):
            if self._reachable:
                return
            await self._next_look()

    async def look(self) -> bool:
        """Have everything seen that was written up to now; False if the engine is away."""
        self._written += 1
        return await self.catch_up()

    async def catch_up(self) -> bool:
        """Wait until all writes that are known of were seen; False if the engine is away."""
        try:
            return await asyncio.wait_for(self._catch_up(), PATIENCE)
        except TimeoutError:
            self._reachable = False  # until it answers: nobody else is to wait
            return False

    async def _catch_up(self) -> bool:
        goal = self._written
        while self._seen < goal:
            await self._next_look()
            if not self._reachable:
                return False
        return True

    async def _next_look(self) -> None:
        self._news.set()
        self._haste.set()
        await self._looked.wait()

    async def read_forever(self) -> None:
        """Look at the stream, again and again."""
        while True:
            await _wait(self._news, IDLE)
            self._news.clear()
            self._haste.clear()
            began = time.monotonic()
            while await self._read():
                pass
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
            # Looking takes longer the longer the stream is: clients are to get most of the engine.
            pause = max(BUSY, 4 * (time.monotonic() - began))
            await _wait(self._haste, pause if self._reachable else AWAY)

    async def _read(self) -> bool:
        """One look; whether there may be more."""
        written, began = self._written, time.time_ns()
        told, self._told = self._told, []
        try:
            records = await self._stream.read()
        except (EngineGone, EngineRefused):
            self._reachable = False
            self._told = told + self._told
            return False
        # What an engine brings back that was away is from before it went.
        self._take(records, time.time_ns() if self._reachable else self._alive_at)
        if len(records) >= LIMIT:
            self._told = told + self._told
            return True
        self._reachable, self._alive_at = True, max(self._alive_at, began)
        self._seen = written
        for item, sent in told:
            item.forget(self.name, sent)
            self._replicator.consider(item, self)
        return False

    def _take(self, records: list[dict[str, Any]], latest: int) -> None:
        for record in records:
            change = record["dynamodb"]
            # The engine tells whole seconds.
            second = int(change["ApproximateCreationDateTime"]) * 10**9
            made = min(max(second, latest), second + 10**9 - 1)
            item = self._replicator.item(change["Keys"])
            version = item.note(self.name, image_of(change.get("NewImage")), made)
            self._replicator.noted(item, version, self)

    # --- applying ---

    def expect(self, item: Item, version: Version, lag: float) -> None:
        """A version is on its way here, and arrives in `lag` seconds."""
        due = asyncio.get_running_loop().time() + lag
        heapq.heappush(self._inbox, (due, next(self._numbers), item, version))
        self._work.set()

    def ready(self, item: Item) -> None:
        """Something newer than this region has can be applied now."""
        self._ready[id(item)] = item
        self._work.set()

    async def write_forever(self) -> None:
        """Let versions arrive when it is their time, and apply them."""
        while True:
            while not self._reachable:  # What it has is to be seen before anything is applied.
                await self._looked.wait()
            self._receive()
            batch = [self._ready.pop(key) for key in list(self._ready)[:AT_ONCE]]
            if batch:
                await asyncio.gather(*map(self._apply, batch))
                self._written += 1
                self._news.set()
            else:
                await self._until_next()

    def _receive(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._inbox and self._inbox[0][0] <= now:
            _, _, item, version = heapq.heappop(self._inbox)
            if self._replicator.links.is_open(version.region, self.name):
                item.arrive(self.name, version)
                self._replicator.consider(item, self)

    async def _until_next(self) -> None:
        self._work.clear()
        if not self._inbox:
            await self._work.wait()
            return
        await _wait(self._work, self._inbox[0][0] - asyncio.get_running_loop().time())

    async def _apply(self, item: Item) -> None:
        old = item.holds[self.name].image
        sent = item.send(self.name)
        if sent is None:
            return
        new = sent.version.image
        try:
            await self._engine.call(TABLES, *request(self._table, item.key, old, new))
        except EngineRefused:
            version = item.refuse(self.name, sent)
            self._replicator.noted(item, version, self)
        except EngineGone:
            pass  # Perhaps it took effect, perhaps not.
        self._told.append((item, sent))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not longer: it is set then."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    await event.wait()
    timer.cancel()


class Replicator:
    """Keeps the regions of one table together."""

    def __init__(self, table: str, engines: dict[str, int], lag: float) -> None:
        self.links = Links(list(engines), lag)
        self._regions = {name: Region(name, port, table, self) for name, port in engines.items()}
        self._items: dict[str, Item] = {}
        self._unsettled: dict[int, Item] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        for region in self._regions.values():
            for work in (region.read_forever(), region.write_forever()):
                self._tasks.append(asyncio.get_running_loop().create_task(work))

    def item(self, key: dict[str, Any]) -> Item:
        """What is known of the item of a key."""
        name = json.dumps(key, sort_keys=True)
        if name not in self._items:
            self._items[name] = Item(key, list(self._regions))
        return self._items[name]

    def noted(self, item: Item, version: Version | None, source: Region) -> None:
        """A region's stream has told of an item; of a new version, if a client wrote."""
        self._unsettled[id(item)] = item
        if version is not None:
            for target, lag in self.links.targets(source.name):
                self._regions[target].expect(item, version, lag)
        self.consider(item, source)

    def consider(self, item: Item, target: Region) -> None:
        """See whether something is to be done about an item."""
        if item.due(target.name) is not None:
            target.ready(item)
        elif item.settle():
            self._unsettled.pop(id(item), None)

    def cut(self, links: set[Link]) -> None:
        """Cut these links and no others; over those that were cut before, send what is missing."""
        mended = self.links.cut - links
        self.links.cut = links
        for item in list(self._unsettled.values()):
            for origin, target in mended:
                self._send_missing(item, origin, target)

    def _send_missing(self, item: Item, origin: str, target: str) -> None:
        for version in item.missing(target, self.links):
            if version.region == origin:
                lag = self.links.lag[origin, target]
                self._regions[target].expect(item, version, lag)

    async def pending(self) -> dict[str, int | None]:
        """How many items each region lacks that it can get, all streams having been read.

        None for a region whose engine is away, or hangs.
        """
        for task in self._tasks:
            if task.done():
                task.result()  # raises what ended it
        regions = self._regions.values()
        there = await asyncio.gather(*(region.look() for region in regions))
        items = list(self._unsettled.values())
        return {
            region.name: sum(item.lacks(region.name, self.links) for item in items)
            if is_there
            else None
            for region, is_there in zip(regions, there, strict=True)
        }

    def watcher(self, name: str) -> WriteObserver:
        """What the proxy of a region is to tell."""
        others = [region for region in self._regions.values() if region.name != name]
        return WriteObserver(self._regions[name], others)


class WriteObserver:
    """Makes the order of writes in different regions certain.

    A write is sent on only when all writes that were answered elsewhere before have been seen:
    then what is seen later was written later.
    """

    def __init__(self, region: Region, others: Iterable[Region]) -> None:
        self._region = region
        self._others = list(others)

    async def before(self, operation: str) -> None:
        """Hold a write until it is certain to be the later one."""
        if operation not in WRITES:
            return
        if self._region.is_away:  # What it brings back is to be seen before anything new.
            await self._region.come_back()
        behind = [other.catch_up() for other in self._others if other.is_behind]
        if behind:
            await asyncio.gather(*behind)

    def after(self, operation: str) -> None:
        """A write has been answered."""
        if operation in WRITES:
            self._region.answered_write()
