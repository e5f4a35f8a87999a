"""Performs operations on asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Protocol, TypeVar

from chalk_online_store.drivers.async_race import AsyncRace
from chalk_online_store.drivers.loops import DeadlineTimer, PerLoop, Wait
from chalk_online_store.drivers.steps import WorkQueue, idle_in_all, read_clocks, warmed
from chalk_online_store.drivers.sync import Transport
from chalk_online_store.effects import (
    NOW,
    All,
    Await,
    Effect,
    Operation,
    Race,
    Send,
    Settling,
    Sleep,
    Spawn,
)
from chalk_online_store.errors import RequestError, RequestTimeout

T = TypeVar("T")


class AsyncTransport(Protocol):
    """What carries requests to an engine; shared by tasks."""

    async def send(self, request: Any, timeout: float) -> Any:
        """The engine's response; raises `errors.RequestError`. `timeout` is in seconds."""
        ...

    async def warm(self, connections: int, timeout: float) -> int:
        """Open so many connections within `timeout` seconds; how many are idle then."""
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
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.to_thread(self._transport.send, request, timeout)
        except TimeoutError:
            raise RequestTimeout("the engine did not answer in time") from None

    async def warm(self, connections: int, timeout: float) -> int:
        """As the transport's."""
        return await asyncio.to_thread(self._transport.warm, connections, timeout)

    async def close(self) -> None:
        """As the transport's."""
        await asyncio.to_thread(self._transport.close)


class AsyncDriver:
    """Runs operations for any number of tasks at once. Bound to no event loop."""

    def __init__(self, transports: Mapping[str, AsyncTransport]) -> None:
        """As `SyncDriver`."""
        self.transports = transports
        self._alarms = PerLoop(DeadlineTimer)
        self._apart: set[asyncio.Task[None]] = set()

    async def run(self, operation: Operation[T]) -> T:
        """Perform an operation to its end; a cancellation closes it."""
        try:
            effect = next(operation)
            while True:
                try:
                    value = read_clocks() if effect is NOW else await self._perform(effect)
                except asyncio.CancelledError:
                    operation.close()
                    raise
                except BaseException as error:
                    effect = operation.throw(error)
                else:
                    effect = operation.send(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return] # an operation's T
        finally:  # As in `SyncDriver.run`.
            operation.close()

    async def warm(self, connections: int, timeout: float) -> int:
        """As `SyncDriver.warm`."""
        warming = (_warm(each, connections, timeout) for each in warmed(self.transports))
        return idle_in_all(await asyncio.gather(*warming))

    async def close(self) -> None:
        """End what runs apart on this event loop, and close the transports as `SyncDriver`."""
        async with AsyncExitStack() as closing:
            for transport in self.transports.values():
                closing.push_async_callback(transport.close)
            await self.stop()

    async def stop(self) -> None:
        """End what runs apart alone, where the transports are others' as well."""
        loop = asyncio.get_running_loop()
        apart = [task for task in self._apart if task.get_loop() is loop]
        for task in apart:
            task.cancel()
        await asyncio.gather(*apart, return_exceptions=True)

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send(request, timeout, to):
                return await self.transports[to].send(request, timeout)
            case Race((operation,)):
                return await self.run(operation)
            case Race():
                return await AsyncRace(effect, self.run, self._alarms.here()).result()
            case All((operation,)):
                return [await self.run(operation)]
            case All(operations, limit):
                crew = WorkQueue(operations)
                workers = min(limit, len(operations))
                await asyncio.gather(*(self._work(crew) for _ in range(workers)))
                return crew.results()
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Await(future, timeout):
                return await _settled(future, timeout, self._alarms.here())
            case Spawn(operation):
                task = asyncio.get_running_loop().create_task(self._run_apart(operation))
                self._apart.add(task)  # Else it might be collected before its end.
                task.add_done_callback(self._apart.discard)
                return None

    async def _work(self, crew: WorkQueue) -> None:
        while (task := crew.take()) is not None:
            position, operation = task
            try:
                crew.done(position, await self.run(operation))
            except Exception as error:
                crew.failed(position, error)

    async def _run_apart(self, operation: Operation[None]) -> None:
        with suppress(Exception):  # It has told those who wait.
            await self.run(operation)


async def _warm(transport: AsyncTransport, connections: int, timeout: float) -> int | RequestError:
    try:
        return await transport.warm(connections, timeout)
    except RequestError as error:
        return error


async def _settled(future: Settling, timeout: float, alarm: DeadlineTimer) -> Any:
    """A future's result; it may be settled in another thread. Not cancelled with who waits."""
    loop = alarm.loop
    wait = Wait(alarm, time.monotonic() + timeout)

    def wake(_: Any) -> None:
        if asyncio._get_running_loop() is loop:
            wait.end()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(wait.end)

    future.add_done_callback(wake)
    try:
        await wait.ended()
    except TimeoutError:
        if not future.done():
            raise
    return future.result(0)
