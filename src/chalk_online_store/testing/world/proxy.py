"""A proxy in front of one engine, which does to requests and answers what the faults say."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Protocol

from httptools import HttpParserError

from . import forms
from .active import Hits
from .faults import (
    AcceptThenClose,
    Blackhole,
    ClockSkew,
    DamagedCRC,
    LateDuplicates,
    LostAnswer,
    Reset,
    ServerFault,
    Slowdown,
    SlowDrip,
    SwappedResponses,
    Throttling,
    Truncated,
    Unprocessed,
)
from .front import Front, end, latency, reset
from .messages import Answer, Request, RequestReader
from .upstream import EngineGone, Upstream

_DRIP = 0.01
"""Seconds from one piece of a slow body to the next."""


class RequestObserver(Protocol):
    """Whoever is to know of the requests that reach an engine."""

    async def before(self, operation: str) -> None:
        """A request is about to be sent on; hold it as long as need be."""

    def after(self, operation: str) -> None:
        """The engine has answered it."""


class Proxy(Front):
    """One proxy: a listener, the faults in force, and the engine behind."""

    def __init__(self, target: tuple[str, int], port: int, seed: int | None) -> None:
        super().__init__(port, seed, lambda: _Client(self))
        self.upstream = Upstream(*target)
        self.watcher: RequestObserver | None = None
        self._waiting: tuple[Answer, asyncio.Future[Answer]] | None = None
        """A response that waits to be exchanged with the next one."""

    def close(self) -> None:
        """Stop at once."""
        super().close()
        self.upstream.close()

    async def serve(self, request: Request, client: _Client) -> None:
        """One request, from its arrival to whatever comes of it."""
        operation = request.operation
        hits = self.draw(operation)
        if hits.first(Blackhole):
            client.silence()
            return
        try:
            answer = refused(request, hits) or await self._forward(request, hits)
        except EngineGone:
            client.reset()
            return
        if seconds := latency(hits, self.faults):
            await asyncio.sleep(seconds)
        if swapped := hits.first(SwappedResponses):
            answer = await self._swap(answer, swapped.wait)
        if self.faults.swallow(operation):
            client.silence()
        elif not client.is_forgotten:
            await deliver(client, altered(answer, hits), hits)

    async def _swap(self, answer: Answer, seconds: float) -> Answer:
        """Exchange a response with the next one that comes; its own if none does."""
        if self._waiting is not None:
            (other, exchanged), self._waiting = self._waiting, None
            exchanged.set_result(answer)
            return other
        mine: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting = answer, mine
        await asyncio.wait((mine,), timeout=seconds)
        if mine.done():
            return mine.result()
        self._waiting = None
        return answer

    async def _forward(self, request: Request, hits: Hits) -> Answer:
        unprocessed = hits.first(Unprocessed)
        if unprocessed is None or not forms.LeftBatch.concerns(request):
            return await self._ask(request, hits)
        batch = forms.LeftBatch(request, unprocessed.share, self.faults.rng)
        if batch.is_all:
            return forms.signed_by_crc(forms.throttle())
        request.body = batch.body()
        return batch.report(await self._ask(request, hits))

    async def _ask(self, request: Request, hits: Hits) -> Answer:
        if self.watcher is not None:
            await self.watcher.before(request.operation)
        asked_at = time.perf_counter()
        answer = await self.upstream.ask(request.encode())
        if self.watcher is not None:
            self.watcher.after(request.operation)
        for slowdown in hits.every(Slowdown):
            await asyncio.sleep((time.perf_counter() - asked_at) * (slowdown.factor - 1))
        return answer


def refused(request: Request, hits: Hits) -> Answer | None:
    """What the proxy answers by itself, in the order in which DynamoDB would look at a request."""
    for skew in hits.every(ClockSkew):
        if answer := forms.skewed(request, clock(skew)):
            return forms.signed_by_crc(answer)
    if hits.first(Throttling):
        return forms.signed_by_crc(forms.throttle())
    if fault := hits.first(ServerFault):
        return forms.signed_by_crc(forms.server_fault(fault.status))
    return None


def clock(skew: ClockSkew) -> datetime:
    """What an engine's clock shows now."""
    return datetime.now(UTC) + timedelta(seconds=skew.seconds)


def altered(answer: Answer, hits: Hits) -> Answer:
    """The answer as it leaves."""
    if skew := hits.first(ClockSkew):
        answer = forms.dated(answer, clock(skew))
    return forms.damaged(answer) if hits.first(DamagedCRC) else answer


async def deliver(client: _Client, answer: Answer, hits: Hits) -> None:
    """Send an answer, as far as the faults let it come."""
    if hits.first(LostAnswer):
        client.transport.close()
    elif reset := hits.first(Reset):
        client.write(answer.encode()[: reset.after])
        client.reset()
    elif truncated := hits.first(Truncated):
        client.write(answer.head() + answer.body[: int(len(answer.body) * truncated.keep)])
        client.transport.close()
    elif drip := hits.first(SlowDrip):
        await client.drip(answer, drip.bytes_per_second)
    else:
        client.write(answer.encode())
        if duplicate := hits.first(LateDuplicates):
            await asyncio.sleep(duplicate.seconds)
            client.write(answer.encode())


class _Client(asyncio.Protocol):
    """A client's connection; its requests are served one after the other."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._reader = RequestReader(self._take)
        self._waiting: deque[Request] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._silent = self.is_forgotten = False
        self._ending: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._proxy.welcome(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._proxy.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self.is_forgotten or self._ending:
            if not self._silent and not self._ending:
                self.reset()
            return
        try:
            self._reader.feed(data)
        except HttpParserError:
            self.transport.close()

    def _take(self, request: Request) -> None:
        self._waiting.append(request)
        if self._serving is None:
            self._serving = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        try:
            while self._waiting and not self._silent:
                request = self._waiting.popleft()
                await self._proxy.serve(request, self)
                if not request.keep_alive and not self._silent:
                    self.transport.close()
        finally:
            self._serving = None

    def silence(self) -> None:
        """Answer nothing any more, whatever comes: what was swallowed stays so."""
        self._silent = True

    def end(self, fault: AcceptThenClose) -> None:
        """End the connection as the fault says."""
        ending = end(self.transport, fault, self._proxy.faults.rng)
        self._ending = asyncio.get_running_loop().create_task(ending)

    def forget(self, *, silent: bool) -> None:
        """Answer the next bytes by an RST, or if `silent` not at all. Responses are lost."""
        self.is_forgotten, self._silent = True, self._silent or silent

    def write(self, data: bytes) -> None:
        """Send, unless the client has gone, or the connection is forgotten."""
        if not self.transport.is_closing() and not self.is_forgotten:
            self.transport.write(data)

    def reset(self) -> None:
        """End the connection by an RST."""
        reset(self.transport)

    async def drip(self, answer: Answer, bytes_per_second: float) -> None:
        """Send the body in pieces."""
        self.write(answer.head())
        size = max(1, int(bytes_per_second * _DRIP))
        for start in range(0, len(answer.body), size):
            if self.transport.is_closing():
                return
            await asyncio.sleep(size / bytes_per_second)
            self.write(answer.body[start : start + size])
