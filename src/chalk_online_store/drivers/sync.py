"""Performs operations in threads: the caller's, and helpers for what runs at once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

from chalk_online_store.drivers.steps import Crew, idle_in_all, read_clocks
from chalk_online_store.drivers.together import Pollable, Together
from chalk_online_store.effects import NOW, All, Await, Effect, Operation, Send, Sleep, Spawn
from chalk_online_store.errors import RequestError

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

    def __init__(self, transports: Mapping[str, Transport], max_threads: int = 32) -> None:
        """Take the transport of each region: those that a `Send` may name."""
        self._transports = transports
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
        """As a transport's, for every region; how many idle in all.

        Fails where no region can be reached.
        """
        transports = self._transports.values()
        if len(transports) == 1:
            return next(iter(transports)).warm(connections, timeout)
        pool = self._pool()
        warming = [pool.submit(_warm, each, connections, timeout) for each in transports]
        return idle_in_all([each.result() for each in warming])

    def close(self) -> None:
        """Stop the helpers and close the transports, all of them even where one fails."""
        with ExitStack() as closing:
            for transport in self._transports.values():
                closing.callback(transport.close)
            closing.callback(self._pool().shutdown)

    def _open_pool(self) -> None:
        self._threads = ThreadPoolExecutor(self._max_threads, "chalk-online-store")
        self._pid = os.getpid()

    def _pool(self) -> ThreadPoolExecutor:
        if self._pid != os.getpid():  # The parent's threads are not in this fork of it.
            self._open_pool()
        return self._threads

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send(request, timeout, to):
                return self._transports[to].send(request, timeout)
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
        pollable: object = self._transports.get("")
        if isinstance(pollable, Pollable) and pollable.idle >= workers:
            Together(pollable, self._perform, crew).run(workers)
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


def _warm(transport: Transport, connections: int, timeout: float) -> int | RequestError:
    try:
        return transport.warm(connections, timeout)
    except RequestError as error:
        return error
