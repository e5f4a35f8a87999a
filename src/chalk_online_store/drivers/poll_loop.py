"""Operations at once in one thread: their requests go out together, and poll(2) tells of answers.

Threads would cost several times the CPU of a small request, and would gain nothing: while one
waits the others can go on, and while one computes the others could not. They only carry what a
transport cannot do without waiting.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, runtime_checkable

from chalk_online_store.drivers.polling import PolledConnection, milliseconds_until, poll_of
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.tasks import Ended, Loop, StartedEffect, Task
from chalk_online_store.effects import (
    All,
    Instant,
    Operation,
    Race,
    Send,
    Settling,
    SharedResult,
)
from chalk_online_store.errors import RequestTimeout


class PendingRequest(PolledConnection, Protocol):
    """A request under way: see `dynamodb.http.blocking.Exchange`."""

    def advance(self) -> Any:
        """Go on without waiting; the answer, once it is whole. Raises `errors.RequestError`."""

    def wait(self, until: float) -> None:
        """Wait until the connection is ready, until its deadline, or `until`."""

    def abort(self) -> None:
        """Give up."""


@runtime_checkable
class NonBlockingTransport(Protocol):
    """A transport that can have several requests under way in one thread."""

    def begin(self, request: Any, timeout: float) -> PendingRequest:
        """A request under way, of which nothing is sent yet; `timeout` is in seconds."""


class BlockingDriver(Protocol):
    """What a loop needs of its driver: see `drivers.sync.SyncDriver`."""

    def pollable(self, to: str) -> NonBlockingTransport | None:
        """The transport of a region, if it can do without waiting."""

    def send_in_thread(self, effect: Send) -> SharedResult[Any]:
        """Send a request in another thread."""

    def run_in_thread(self, operation: Operation[None]) -> None:
        """Run an operation in another thread."""


class PollLoop(Loop):
    """Performs one `All` or `Race`, and whatever that leads to, in the calling thread."""

    def __init__(self, driver: BlockingDriver) -> None:
        super().__init__()
        self._driver = driver
        self._under_way: dict[Task, PendingRequest] = {}
        self._operations: list[Operation[Any]] = []
        self._waker: Waker | None = None

    def run(self, effect: All | Race | StartedEffect) -> Any:
        """The effect's result."""
        ended: list[tuple[Any, Exception | None]] = []
        try:
            self.start(_ask(effect), lambda *outcome: ended.append(outcome))
            self.step_all()
            while not ended:
                self._wait()
                self.step_all()
        finally:
            try:
                if not ended:  # This thread was interrupted.
                    self._give_up_all()
            finally:
                # What a second interruption has left here closes now: tasks refer to this object,
                # which would keep connections until garbage is collected.
                self._under_way = {}
                self._ready.clear()
                if self._waker is not None:
                    self._waker.close()
        value, error = ended.pop()
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback refers to this frame. With a cycle, what it holds, such as a
                # connection, would stay until garbage is collected.
                del error
        return value

    def _give_up_all(self) -> None:
        """End all requests and operations.

        An interruption can come after an operation was begun and before its task is known to the
        task that waits for it. So this goes by what was begun, not by which task waits for which.
        """
        while self._under_way:
            self._under_way.popitem()[1].abort()
        while self._operations:
            with suppress(Exception):
                self._operations.pop().close()

    # --- what `Loop` asks for ---

    def start(self, operation: Operation[Any], ended: Ended) -> Task:
        """Begin an operation."""
        self._operations.append(operation)
        return super().start(operation, ended)

    def time(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def instant(self) -> Instant:
        """Both clocks of this machine."""
        return read_clocks()

    def send(self, task: Task, effect: Send) -> None:
        """Send without waiting, in another thread where the transport knows no other way."""
        transport = self._driver.pollable(effect.to)
        if transport is None:
            self._send_apart(task, effect)
            return
        exchange = transport.begin(effect.request, effect.timeout)
        answer = exchange.advance()
        if answer is None:
            self.watch(task, exchange)
        else:
            self.resume(task, answer)

    def watch(self, task: Task, exchange: PendingRequest) -> None:
        """Go on with a task once an exchange is over."""
        self._under_way[task] = exchange
        task.give_up = partial(self._abort, task)

    def spawn(self, operation: Operation[None]) -> None:
        """Run it in another thread: it may outlast this loop."""
        self._driver.run_in_thread(operation)

    def wait_for(
        self,
        task: Task,
        future: Settling,
        timeout: float,
        too_late: Callable[[], Exception] = TimeoutError,
    ) -> None:
        """As `Loop.wait_for`, while sockets are watched too."""
        if self._waker is None and not future.done():
            self._waker = Waker()
        super().wait_for(task, future, timeout, too_late)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Call at the next turn."""
        assert self._waker is not None
        self._waker.call(call)

    # --- waiting ---

    def _send_apart(self, task: Task, effect: Send) -> None:
        future = self._driver.send_in_thread(effect)
        self.wait_for(task, future, effect.timeout, partial(_too_late, future))

    def _abort(self, task: Task) -> None:
        exchange = self._under_way.pop(task, None)
        if exchange is not None:  # Else its answer is here, and another leg's came before.
            exchange.abort()

    def _wait(self) -> None:
        """Wait for what is next: an answer, a deadline, a timer, or another thread's call."""
        under_way = self._under_way
        if len(under_way) == 1 and self._waker is None:
            ((task, exchange),) = under_way.items()
            exchange.wait(self.next_time())
            self._advance(task)
        else:
            for task in self._ready_tasks():
                self._advance(task)
        self.ring()

    def _ready_tasks(self) -> list[Task]:
        """Wait until some tasks can go on, or have to."""
        watched = list(self._under_way.items())
        until = min([self.next_time(), *(each.wake_at for _, each in watched)])
        poll = poll_of(each for _, each in watched)
        if self._waker is not None:
            poll.register(self._waker, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(milliseconds_until(until))}
        if self._waker is not None and self._waker.fileno() in ready:
            self._waker.answer()
        now = time.monotonic()  # Deadlines pass also while others are ready all the time.
        return [
            task
            for task, each in watched
            if each.wake_at <= now or any(fd in ready for fd, _ in each.sockets())
        ]

    def _advance(self, task: Task) -> None:
        exchange = self._under_way.pop(task, None)
        if exchange is None:  # Cancelled by another that was ready at the same time.
            return
        try:
            answer = exchange.advance()
        except Exception as error:
            self.resume(task, error=error)
            return
        if answer is None:
            self._under_way[task] = exchange
        else:
            self.resume(task, answer)


class Waker:
    """Ends a wait in poll(2) from any thread, and has something done then."""

    def __init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._there.setblocking(False)
        self._calls: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """What to wait for."""
        return self._here.fileno()

    def call(self, call: Callable[[], None]) -> None:
        """Have this called by `answer`; nobody hears of it after `close`."""
        self._calls.append(call)
        with self._lock, suppress(OSError):  # Closed, or so full that it wakes anyway.
            self._there.send(b"!")

    def answer(self) -> None:
        """Do what others have asked for."""
        self._here.recv(4096)
        while self._calls:
            self._calls.popleft()()

    def close(self) -> None:
        """Give the sockets back."""
        with self._lock:  # Else another thread might write to whatever has this number next.
            self._there.close()
        self._here.close()


def _too_late(result: SharedResult[Any]) -> RequestTimeout:
    error = RequestTimeout("the engine did not answer in time")
    result.set_exception(error)  # If no thread has begun with it, none needs to.
    return error


def _ask(effect: Any) -> Operation[Any]:
    return (yield effect)
