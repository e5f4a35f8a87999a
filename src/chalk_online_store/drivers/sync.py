"""Performs operations in threads: the caller's, and helpers for what runs at once."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from chalk_online_store.drivers.steps import Crew, read_clocks
from chalk_online_store.drivers.together import Pollable, Together
from chalk_online_store.effects import NOW, All, Await, Effect, Operation, Send, Sleep, Spawn

T = TypeVar("T")


class Transport(Protocol):
    """What carries requests to an engine; shared by threads."""

    def send(self, request: Any, timeout: float) -> Any:
        """The engine's response; raises `errors.RequestError`. `timeout` is in seconds."""
        ...

    def warm(self, connections: int, timeout: float) -> int:
        """Open so many connections within `timeout` seconds; how many are idle then."""
        ...

    def close(self) -> None:
        """Give everything back; a second call does nothing."""
        ...


class SyncDriver:
    """Runs operations for any number of threads at once."""

    def __init__(self, transport: Transport, max_threads: int = 32) -> None:
        self._transport = transport
        self._pollable = transport if isinstance(transport, Pollable) else None
        self._max_threads = max_threads
        self._open_pool()

    def run(self, operation: Operation[T]) -> T:
        """Perform an operation to its end, in the calling thread."""
        try:
            effect = next(operation)
            while True:
                try:
                    value = read_clocks() if effect is NOW else self._perform(effect)
                except BaseException as error:
                    effect = operation.throw(error)
                else:
                    effect = operation.send(value)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return] # an operation's T

    def warm(self, connections: int, timeout: float) -> int:
        """As the transport's."""
        return self._transport.warm(connections, timeout)

    def close(self) -> None:
        """Stop the helpers and close the transport."""
        self._pool().shutdown()
        self._transport.close()

    def _open_pool(self) -> None:
        self._threads = ThreadPoolExecutor(self._max_threads, "chalk-online-store")
        self._pid = os.getpid()

    def _pool(self) -> ThreadPoolExecutor:
        if self._pid != os.getpid():  # The parent's threads are not in this fork of it.
            self._open_pool()
        return self._threads

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send(request, timeout):
                return self._transport.send(request, timeout)
            case All((operation,)):
                return [self.run(operation)]
            case All(operations, limit):
                return self._perform_all(Crew(operations), min(limit, len(operations)))
            case Sleep(seconds):
                return time.sleep(seconds)
            case Await(future, timeout):
                return future.result(max(timeout, 0))
            case Spawn(operation):
                self._pool().submit(self.run, operation)
                return None

    def _perform_all(self, crew: Crew, workers: int) -> list[Any]:
        if self._pollable is not None and self._pollable.idle >= workers:
            Together(self._pollable, self._perform, crew).run(workers)
        else:  # Connections are opened sooner by many.
            self._share(crew, workers)
        return crew.results()

    def _share(self, crew: Crew, workers: int) -> None:
        """The caller works too, so that even a busy pool, or a nested call, gets on."""
        pool = self._pool()
        helpers = [pool.submit(self._work, crew) for _ in range(workers - 1)]
        self._work(crew)
        for helper in helpers:
            if not helper.cancel():
                helper.result()

    def _work(self, crew: Crew) -> None:
        while (task := crew.take()) is not None:
            position, operation = task
            try:
                crew.done(position, self.run(operation))
            except Exception as error:
                crew.failed(position, error)
