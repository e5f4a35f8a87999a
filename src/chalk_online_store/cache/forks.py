"""What threads share begins anew in a fork: its locks may be held by threads that are not there."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Something with locks, and perhaps with work under way."""

    def begin_anew(self) -> None:
        """Make new locks, and forget what other threads had under way."""
        ...


_shared: weakref.WeakSet[Renewable] = weakref.WeakSet()


def begin_anew_in_forks(shared: Renewable) -> None:
    """Have `begin_anew` called in every fork of this process, for as long as the object lives."""
    _shared.add(shared)


def _in_a_fork() -> None:
    for shared in list(_shared):
        shared.begin_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_a_fork)
