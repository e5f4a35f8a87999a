"""Clusters: each command goes to the node that has its key, one round trip for each node."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from chalk_online_store.drivers.loops import PerLoop
from chalk_online_store.errors import RequestError, RequestRefused, ServerError
from chalk_online_store.network.sockets import store_closed
from chalk_online_store.valkey.commands import SIZE, Reply, Request, key_of_command
from chalk_online_store.valkey.resp import Command
from chalk_online_store.valkey.transport.aio import AsyncPool, close_all
from chalk_online_store.valkey.transport.blocking import InFlight, Pool, size_of
from chalk_online_store.valkey.transport.shared import (
    ASKING,
    REDIRECTS,
    SLOTS,
    Address,
    KeyMoved,
    Server,
    SlotMap,
    share_of_time,
)
from chalk_online_store.valkey.urls import ValkeyTarget

P = TypeVar("P", Pool, AsyncPool)


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands for one node. With `asking`, it is told that it is about to get their keys."""

    address: Address
    places: Sequence[int]
    asked: Sequence[Command]
    asking: bool = False

    @property
    def commands(self) -> list[Command]:
        """What is sent."""
        if not self.asking:
            return list(self.asked)
        return [each for command in self.asked for each in (ASKING, command)]


class Routed:
    """The commands of a request on their way, and the replies so far."""

    def __init__(self, commands: Sequence[Command], slots: SlotMap) -> None:
        self.replies: list[Reply] = [None] * len(commands)
        self.lost = False
        """Whether some key was not where the map says, or some node not there."""
        self._commands = commands
        self._left = dict(enumerate((owner, False) for owner in _owners(commands, slots)))
        self._rounds = 1 + REDIRECTS

    def batches(self) -> list[Batch]:
        """What to send next, nothing where all is done."""
        self._rounds -= 1
        places: dict[tuple[Address, bool], list[int]] = {}
        for place, where in self._left.items():
            places.setdefault(where, []).append(place)
        self._left = {}
        return [
            Batch(address, some, [self._commands[place] for place in some], asking)
            for (address, asking), some in places.items()
        ]

    def answered(self, batch: Batch, replies: Sequence[Reply] | RequestError) -> None:
        """What came of a batch: the replies to its commands, or why there are none."""
        if isinstance(replies, RequestError):
            self.lost = True
            replies = [replies] * len(batch.commands)
        found = replies[1::2] if batch.asking else replies
        for place, reply in zip(batch.places, found, strict=True):
            self.replies[place] = reply
            if isinstance(reply, KeyMoved):
                self.lost = self.lost or not reply.asking
                if self._rounds:
                    host, port = reply.address  # Without a host, it is that of who says so.
                    self._left[place] = ((host or batch.address[0], port), reply.asking)


def _owners(commands: Sequence[Command], slots: SlotMap) -> Iterator[Address]:
    owner = slots.nodes[0]
    for command in commands:
        key = key_of_command(command)
        owner = owner if key is None else slots.owner(key)
        yield owner


class _Nodes(Generic[P]):
    """The pools of the nodes that are known, and who has which keys."""

    def __init__(self, server: Server, make: Callable[[Server, Address], P]) -> None:
        self.slots: SlotMap | None = None
        self._server = server
        self._make: Callable[[Server, Address], P] = make
        self.pools: dict[Address, P] = {}

    def pool(self, address: Address) -> P:
        """The connections to a node."""
        found = self.pools.get(address)
        if found is None:
            found = self.pools.setdefault(address, self._make(self._server, address))
        return found

    def known(self, deadline: float) -> Iterator[tuple[Address, float]]:
        """Whom to ask for the map, and until when: nodes that were there, and those of the URL."""
        known = dict.fromkeys([*self.pools, *self._server.target.nodes])
        for untried, address in zip(range(len(known), 0, -1), known, strict=True):
            yield address, share_of_time(deadline, untried)

    def mapped(self, reply: Reply, address: Address) -> SlotMap | None:
        """The map that a node gave, which holds from now on; None where it gave none."""
        if isinstance(reply, RequestError) or not reply:
            return None
        self.slots = SlotMap(reply, address)
        return self.slots


class ClusterTransport:
    """Sends each command to the node that has its key, for threads."""

    def __init__(self, target: ValkeyTarget) -> None:
        self._nodes = _Nodes(Server(target), Pool)
        self._closed = False

    def send(self, request: Request, timeout: float) -> list[Reply]:
        """The reply to each command; raises `errors.RequestError` where no node answers."""
        deadline = time.monotonic() + timeout
        slots = self._slots(deadline)
        if request.node is not None:
            if request.node >= len(slots.nodes):
                return [None] * len(request.commands)
            return self._nodes.pool(slots.nodes[request.node]).exchange(request.commands, deadline)
        routed = Routed(request.commands, slots)
        while batches := routed.batches():
            self._exchange(routed, batches, deadline)
        if routed.lost:
            self._nodes.slots = None
        return routed.replies

    def warm(self, connections: int, timeout: float) -> int:
        """Open so many connections to each node; how many are idle then."""
        deadline = time.monotonic() + timeout
        nodes = self._slots(deadline).nodes
        return sum(self._nodes.pool(node).warm(connections, deadline) for node in nodes)

    def size(self, timeout: float) -> tuple[int, int]:
        """How many keys all nodes have, and the bytes of their data."""
        deadline = time.monotonic() + timeout
        nodes = self._slots(deadline).nodes
        sizes = [size_of(self._nodes.pool(node).exchange(SIZE, deadline)) for node in nodes]
        return sum(keys for keys, _ in sizes), sum(found for _, found in sizes)

    def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._closed = True
        for pool in list(self._nodes.pools.values()):
            pool.close()

    def _slots(self, deadline: float) -> SlotMap:
        """The map, from the first node that gives one; raises why the last did not."""
        if self._closed:
            raise store_closed()
        if self._nodes.slots is not None:
            return self._nodes.slots
        for address, until in self._nodes.known(deadline):
            try:
                (reply,) = self._nodes.pool(address).exchange([SLOTS], until)
            except RequestError as error:
                reply = error
            if found := self._nodes.mapped(reply, address):
                return found
        raise _unmapped(reply)

    def _exchange(self, routed: Routed, batches: Sequence[Batch], deadline: float) -> None:
        """Send all batches, then read what comes of them."""
        begun: deque[tuple[Batch, InFlight | RequestError]] = deque()
        try:
            for batch in batches:
                begun.append((batch, self._begin(batch, deadline)))
            while begun:
                batch, sent = begun.popleft()
                routed.answered(batch, self._finish(batch, sent))
        finally:
            for _, sent in begun:  # After an interruption alone.
                if isinstance(sent, InFlight):
                    sent.connection.close()

    def _begin(self, batch: Batch, deadline: float) -> InFlight | RequestError:
        try:
            return self._nodes.pool(batch.address).begin(batch.commands, deadline)
        except RequestError as error:
            return error

    def _finish(self, batch: Batch, sent: InFlight | RequestError) -> list[Reply] | RequestError:
        if isinstance(sent, RequestError):
            return sent
        try:
            return self._nodes.pool(batch.address).finish(sent)
        except RequestError as error:
            return error


class AsyncClusterTransport:
    """Sends each command to the node that has its key, for asyncio."""

    def __init__(self, target: ValkeyTarget) -> None:
        server = Server(target)
        self._clusters = PerLoop(lambda loop: _AsyncCluster(loop, server))
        self._closed = False

    async def send(self, request: Request, timeout: float) -> list[Reply]:
        """The reply to each command; raises `errors.RequestError` where no node answers."""
        return await self._here().send(request, time.monotonic() + timeout)

    async def warm(self, connections: int, timeout: float) -> int:
        """Open so many connections to each node; how many are idle then."""
        return await self._here().warm(connections, time.monotonic() + timeout)

    async def close(self) -> None:
        """Close the connections; a second call does nothing."""
        self._closed = True
        await close_all(self._clusters)

    def _here(self) -> _AsyncCluster:
        if self._closed:
            raise store_closed()
        return self._clusters.here()


class _AsyncCluster:
    """A cluster as one event loop knows it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, server: Server) -> None:
        self._nodes = _Nodes(server, partial(AsyncPool, loop))

    async def send(self, request: Request, deadline: float) -> list[Reply]:
        """As `ClusterTransport.send`."""
        slots = await self._slots(deadline)
        if request.node is not None:
            if request.node >= len(slots.nodes):
                return [None] * len(request.commands)
            pool = self._nodes.pool(slots.nodes[request.node])
            return await pool.exchange(request.commands, deadline)
        routed = Routed(request.commands, slots)
        while batches := routed.batches():
            asked = (self._ask(batch, deadline) for batch in batches)
            for batch, replies in zip(batches, await asyncio.gather(*asked), strict=True):
                routed.answered(batch, replies)
        if routed.lost:
            self._nodes.slots = None
        return routed.replies

    async def warm(self, connections: int, deadline: float) -> int:
        """As `ClusterTransport.warm`."""
        nodes = (await self._slots(deadline)).nodes
        warming = (self._nodes.pool(node).warm(connections, deadline) for node in nodes)
        return sum(await asyncio.gather(*warming))

    async def close(self) -> None:
        """Close the connections to every node."""
        for pool in list(self._nodes.pools.values()):
            await pool.close()

    async def _slots(self, deadline: float) -> SlotMap:
        if self._nodes.slots is not None:
            return self._nodes.slots
        for address, until in self._nodes.known(deadline):
            try:
                (reply,) = await self._nodes.pool(address).exchange([SLOTS], until)
            except RequestError as error:
                reply = error
            if found := self._nodes.mapped(reply, address):
                return found
        raise _unmapped(reply)

    async def _ask(self, batch: Batch, deadline: float) -> list[Reply] | RequestError:
        try:
            return await self._nodes.pool(batch.address).exchange(batch.commands, deadline)
        except RequestError as error:
            return error


def _unmapped(reply: Reply) -> RequestError:
    """Why there is no map."""
    if isinstance(reply, RequestRefused):
        return RequestRefused("The server is not in a cluster: open it by valkey://host:port.")
    if isinstance(reply, RequestError):
        return reply
    return ServerError("Valkey: no node of the cluster has keys.")
