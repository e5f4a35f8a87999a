"""Forks of a process that has threads: in the child, only the thread that forked is there.

What our threads share begins anew in the child: its locks may be held by threads that are not
there. What others share cannot (imports, OpenSSL, botocore): forks wait until it is at rest.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

PATIENCE = 5.0
"""Seconds for which a fork waits for other threads."""


class Renewable(Protocol):
    """Something with locks, and perhaps with work under way."""

    def begin_anew(self) -> None:
        """Make new locks, and forget what other threads had under way."""
        ...


_shared: weakref.WeakSet[Renewable] = weakref.WeakSet()


def begin_anew_in_forks(shared: Renewable) -> None:
    """Have `begin_anew` called in every fork of this process, for as long as the object lives."""
    _shared.add(shared)


class _Gate:
    """Keeps forks and what no fork may interrupt apart."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._changed = threading.Condition()
        self._inside: list[int] = []

    @contextmanager
    def closed(self) -> Iterator[None]:
        """See `forks_wait`."""
        me = threading.get_ident()
        with self._changed:
            self._inside.append(me)
        try:
            yield
        finally:
            with self._changed:
                if me in self._inside:  # Not so in a fork that it made itself.
                    self._inside.remove(me)
                self._changed.notify_all()

    def enter(self) -> None:
        """Wait for the threads inside, and keep others out until `leave`."""
        me = threading.get_ident()
        self._changed.acquire()
        self._changed.wait_for(lambda: all(thread == me for thread in self._inside), PATIENCE)

    def leave(self) -> None:
        """The parent goes on."""
        self._changed.release()


_gate = _Gate()


def forks_wait() -> AbstractContextManager[None]:
    """While this is open, forks by other threads wait for its end, `PATIENCE` at most."""
    return _gate.closed()


def _in_a_fork() -> None:
    _gate.renew()
    for shared in list(_shared):
        shared.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_gate.enter, after_in_parent=_gate.leave, after_in_child=_in_a_fork)
