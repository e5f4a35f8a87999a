"""Performs operations in threads: the caller's, and helpers for what runs at once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Protocol, TypeVar

from chalk_online_store.drivers.poll_loop import NonBlockingTransport, PendingRequest, PollLoop
from chalk_online_store.drivers.steps import idle_in_all, read_clocks, warmed
from chalk_online_store.drivers.tasks import Loop, RaceRun, StartedEffect, Task, resumed
from chalk_online_store.drivers.workers import Workers
from chalk_online_store.effects import (
    NOW,
    All,
    Await,
    Effect,
    Operation,
    Race,
    Send,
    SharedResult,
    Sleep,
    Spawn,
)
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
        self.transports = transports
        self._pollable = {
            to: each for to, each in transports.items() if isinstance(each, NonBlockingTransport)
        }
        self._max_threads = max_threads
        self._threads = _Pools(max_threads)

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
        finally:  # Else what it has registered stays until the exception's traceback is gone.
            operation.close()

    def warm(self, connections: int, timeout: float) -> int:
        """As a transport's, for every region; how many idle in all.

        Fails where no region can be reached.
        """
        transports = warmed(self.transports)
        if len(transports) == 1:
            return transports[0].warm(connections, timeout)
        pool = self._pools().sending
        warming = [pool.submit(partial(_warm, each, connections, timeout)) for each in transports]
        return idle_in_all([each.result(math.inf) for each in warming])

    def close(self) -> None:
        """Stop the helpers and close the transports, all of them even where one fails."""
        with ExitStack() as closing:
            for transport in self.transports.values():
                closing.callback(transport.close)
            closing.callback(self.stop)

    def stop(self) -> None:
        """Stop the helpers alone, where the transports are others' as well."""
        self._pools().shutdown()

    # --- what runs in other threads ---

    def send_in_thread(self, effect: Send) -> SharedResult[Any]:
        """Send a request in a thread of its own, for those who must not wait."""
        return self._pools().sending.submit(partial(self._send, effect))

    def run_in_thread(self, operation: Operation[None]) -> None:
        """Run an operation beside the caller."""
        self._pools().running.submit(partial(self.run, operation))

    def pollable(self, to: str) -> NonBlockingTransport | None:
        """The transport of a region, if it can do without waiting."""
        return self._pollable.get(to)

    def _pools(self) -> _Pools:
        if self._threads.pid != os.getpid():  # The parent's threads are not in this fork of it.
            self._threads = _Pools(self._max_threads)
        return self._threads

    def _send(self, effect: Send) -> Any:
        return self.transports[effect.to].send(effect.request, effect.timeout)

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Send(request, timeout, to):
                return self.transports[to].send(request, timeout)
            case Race((operation,)):
                return self.run(operation)
            case Race():
                return self._race(effect)
            case All((operation,)):
                return [self.run(operation)]
            case All():
                return PollLoop(self).run(effect)
            case Sleep(seconds):
                return time.sleep(seconds)
            case Await(future, timeout):
                return future.result(max(timeout, 0))
            case Spawn(operation):
                return self.run_in_thread(operation)

    # --- races ---

    def _race(self, race: Race) -> Any:
        """Run the first leg alone at first: most races are over before another one begins."""
        try:
            return self._run_race(race)
        finally:
            for operation in race.operations:
                operation.close()

    def _run_race(self, race: Race) -> Any:
        began = time.monotonic()
        leg, *others = race.operations
        try:
            waits_for = self._run_alone(leg, began + race.stagger)
        except StopIteration as stop:
            return stop.value
        except Exception as error:
            waits_for = StartedEffect(partial(_fail, error))
        whole = Race([resumed(leg, waits_for), *others], race.stagger)
        return PollLoop(self).run(StartedEffect(partial(_race_on, whole, began)))

    def _run_alone(self, operation: Operation[Any], until: float) -> Effect | StartedEffect:
        """Run an operation at most until then; what it waits for. Raises as its steps do."""
        effect = next(operation)
        while True:
            try:
                if effect is NOW:
                    value: Any = read_clocks()
                elif (exchange := self._begin(effect)) is None:
                    return effect
                elif (value := _answer_by(exchange, until)) is None:
                    return StartedEffect(partial(_watch, exchange))
            except Exception as error:
                effect = operation.throw(error)
            else:
                effect = operation.send(value)

    def _begin(self, effect: Effect) -> PendingRequest | None:
        if not isinstance(effect, Send):
            return None
        transport = self.pollable(effect.to)
        return None if transport is None else transport.begin(effect.request, effect.timeout)


def _answer_by(exchange: PendingRequest, until: float) -> Any:
    """The answer; None where it is not there by then."""
    while (answer := exchange.advance()) is None and time.monotonic() < until:
        exchange.wait(until)
    return answer


def _fail(error: Exception, loop: Loop, task: Task) -> None:
    loop.resume(task, error=error)


def _watch(exchange: PendingRequest, loop: PollLoop, task: Task) -> None:
    loop.watch(task, exchange)


def _race_on(race: Race, began: float, loop: Loop, task: Task) -> None:
    RaceRun(loop, task, race, time.monotonic() - began)


class _Pools:
    """The threads of one process. Nothing that is sent waits for an operation's thread."""

    def __init__(self, max_threads: int) -> None:
        self.pid = os.getpid()
        self.running = Workers(max_threads, "chalk-online-store")
        self.sending = Workers(max_threads, "chalk-online-store-send")

    def shutdown(self) -> None:
        """Wait for what is under way."""
        self.running.stop()
        self.sending.stop()


def _warm(transport: Transport, connections: int, timeout: float) -> int | RequestError:
    try:
        return transport.warm(connections, timeout)
    except RequestError as error:
        return error
