"""Forks of a process that has threads: in the child, only the thread that forked is there.

Locks that threads of this package share are made again in the child, because a thread that held
one may not be there. Two kinds of things cannot be made again. State of other libraries (imports,
OpenSSL, botocore): a fork waits until no thread is inside `forks_wait()`. Connections of SQLite:
they are closed, or at rest, during the fork (`pause_for_forks`). Each wait is bounded.

An exception of a signal handler can end a `with` statement between any two Python statements of
an `__enter__` or `__exit__`. So `forks_wait()` gives a lock that is written in C.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import AbstractContextManager
from typing import Any, Protocol

FORK_TIMEOUT_SECONDS = 5.0
"""Seconds for which a fork waits for other threads, at most, in all."""


class ForkAware(Protocol):
    """An object with locks, and perhaps with work in flight."""

    def reset(self) -> None:
        """Make new locks, and forget what other threads had in flight."""
        ...


class Pausing(ForkAware, Protocol):
    """An object that has to be at rest during a fork."""

    def pause(self, timeout: float) -> None:
        """Come to rest within `timeout` seconds, and stay so until `resume` or `reset`."""
        ...

    def resume(self) -> None:
        """Continue in the parent."""
        ...


_shared: weakref.WeakSet[ForkAware] = weakref.WeakSet()
_pausing: weakref.WeakSet[Pausing] = weakref.WeakSet()


def reset_after_fork(shared: ForkAware) -> None:
    """Have `reset` called in every fork of this process, for as long as the object lives."""
    _shared.add(shared)


def pause_for_forks(pausing: Pausing) -> None:
    """Have an object come to rest before every fork, and `reset` called in the child."""
    _pausing.add(pausing)
    reset_after_fork(pausing)


class _Gate:
    """Keeps forks and what no fork may interrupt apart: each thread has a lock, a fork all."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._making = threading.Lock()
        self._locks: weakref.WeakSet[Any] = weakref.WeakSet()
        self._own = threading.local()
        self._taken: list[Any] = []

    def lock(self) -> AbstractContextManager[Any]:
        """Return the calling thread's lock, which it may enter again."""
        own = self._own.__dict__.get("lock")
        if own is None:
            own = threading.RLock()
            with self._making:  # A fork in progress has it.
                self._locks.add(own)
            self._own.lock = own
        return own

    def enter(self, until: float) -> None:
        """Wait for the threads inside, and keep all out until `leave`."""
        self._taken = []
        for lock in (self._making, *list(self._locks)):
            if lock.acquire(timeout=max(until - time.monotonic(), 0)):
                self._taken.append(lock)

    def leave(self) -> None:
        """Let the threads of the parent continue."""
        while self._taken:
            self._taken.pop().release()


_gate = _Gate()


def forks_wait() -> AbstractContextManager[Any]:
    """Return a lock that makes forks by other threads wait, `FORK_TIMEOUT_SECONDS` at most."""
    return _gate.lock()


def _before_a_fork() -> None:
    until = time.monotonic() + FORK_TIMEOUT_SECONDS
    _gate.enter(until)
    for pausing in list(_pausing):
        pausing.pause(max(until - time.monotonic(), 0))


def _in_the_parent() -> None:
    for pausing in list(_pausing):
        pausing.resume()
    _gate.leave()


def _in_a_fork() -> None:
    _gate.renew()
    for shared in list(_shared):
        shared.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_a_fork, after_in_parent=_in_the_parent, after_in_child=_in_a_fork
    )
