"""How the parts of a writer wait for each other."""

from __future__ import annotations

import atexit
import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Protocol

from chalk_online_store.effects import Await, Operation
from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.logs import event
from chalk_online_store.writer.settings import LOG, log_mistake


class Signal:
    """Wakes operations that wait, from any thread.

    Whoever waits reads `count` first, then looks whether there is something to do, and then
    waits: a ring in between is not lost.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: deque[Future[None]] = deque()

    def notify(self, most: float = math.inf) -> None:
        """Wake so many of those who wait; by default all."""
        self.count += 1
        while self._waiting and most > 0:
            most -= 1
            try:
                self._waiting.popleft().set_result(None)
            except IndexError:  # Another thread was faster.
                return

    def wait(self, seen: int, timeout: float) -> Operation[None]:
        """Wait until it has rung since `count` was `seen`, or for `timeout` seconds."""
        future: Future[None] = Future()
        try:
            self._waiting.append(future)
            if self.count == seen:
                with suppress(TimeoutError):
                    yield Await(future, timeout)
        finally:  # Also if the wait is given up: `notify` would take it for one that still waits.
            with suppress(ValueError):  # It has rung.
                self._waiting.remove(future)


class StopFlag:
    """Tells the parts of a writer that work together to end."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False


# --- A lock for code in which an exception may be raised at any line -----------------------


_RLock: Any = __import__("_thread").RLock
"""Of the interpreter: `threading.RLock` is a function, and cannot be derived from."""


class OwnerLock(_RLock):  # type: ignore[misc]
    """A lock that its owner gets again after it was interrupted.

    An exception that another thread or a signal handler raises may come between the last line of a
    `with` block and the release of its lock. With a plain lock, everybody would wait for ever. Here
    the thread that was interrupted takes over its own lock when it uses it next, and then
    releases it; `free` does so at once. It is not reentrant: an inner block would release it.
    """

    def __enter__(self) -> bool:
        return bool(self._is_owned() or self.acquire())

    def acquire_within(self, seconds: float) -> bool:
        """Acquire it; return False if that takes longer."""
        return bool(self._is_owned() or self.acquire(timeout=seconds))

    def free(self) -> None:
        """Release it if this thread has it."""
        if self._is_owned():
            self.release()


# --- Interpreters that end with writers open: what is pending is given some time -----------


_TIMEOUT = 10.0
"""Seconds for all of them together to write what is pending."""


class Closable(Protocol):
    """A writer."""

    def close_at_exit(self, timeout: float) -> None:
        """Write what is pending, for so many seconds at most, and end."""


_open: set[Closable] = set()


def at_exit(writer: Closable) -> None:
    """Close a writer when the interpreter ends, if nobody has done so before."""
    _open.add(writer)


def not_at_exit(writer: Closable) -> None:
    """It is closed already."""
    _open.discard(writer)


def _close_all() -> None:
    deadline = time.monotonic() + _TIMEOUT
    for writer in list(_open):
        try:
            writer.close_at_exit(max(0.0, deadline - time.monotonic()))
        except OnlineStoreError as error:
            said = event("writer.unfinished", error=error)
            LOG.error("At the end of the interpreter: %s", error, extra=said)
        except BaseException as error:  # noqa: BLE001 - the other writers are to be closed as well.
            log_mistake("A writer could not be closed at the end of the interpreter", error)


# Before the pools of threads are shut down, which is before `atexit`: without them nothing can be
# sent any more. The hook is CPython's own for concurrent.futures, and not promised to others.
getattr(threading, "_register_atexit", atexit.register)(_close_all)
