"""Performs operations on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol, TypeVar

from chalk_online_store.drivers.steps import Crew, read_clocks
from chalk_online_store.drivers.sync import Transport
from chalk_online_store.effects import All, Effect, Now, Operation, Send, Sleep

T = TypeVar("T")


class AsyncTransport(Protocol):
    """What carries requests to an engine; shared by tasks."""

    async def send(self, request: Any, timeout: float) -> Any:
        """The engine's response; raises `errors.RequestError`. `timeout` is in seconds."""
        ...

    async def close(self) -> None:
        """Give everything back; a second call does nothing."""
        ...


class InThread:
    """A transport that blocks, made one that does not: each request runs in a thread."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def send(self, request: Any, timeout: float) -> Any:
        """As the transport's."""
        return await asyncio.to_thread(self._transport.send, request, timeout)

    async def close(self) -> None:
        """As the transport's."""
        await asyncio.to_thread(self._transport.close)


class AsyncDriver:
    """Runs operations for any number of tasks at once. Bound to no event loop."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def run(self, operation: Operation[T]) -> T:
        """Perform an operation to its end; a cancellation is thrown into it."""
        try:
            effect = next(operation)
            while True:
                try:
                    value = await self._perform(effect)
                except BaseException as error:
                    effect = operation.throw(error)
                else:
                    effect = operation.send(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return] # an operation's T

    async def close(self) -> None:
        """Close the transport."""
        await self._transport.close()

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Now():
                return read_clocks()
            case Send(request, timeout):
                return await self._transport.send(request, timeout)
            case All((operation,)):
                return [await self.run(operation)]
            case All(operations, limit):
                crew = Crew(operations)
                workers = min(limit, len(operations))
                await asyncio.gather(*(self._work(crew) for _ in range(workers)))
                return crew.results()
            case Sleep(seconds):
                return await asyncio.sleep(seconds)

    async def _work(self, crew: Crew) -> None:
        while (task := crew.take()) is not None:
            position, operation = task
            try:
                crew.done(position, await self.run(operation))
            except Exception as error:
                crew.failed(position, error)
