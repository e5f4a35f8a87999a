"""Waiting by poll(2)."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Iterable, Sequence
from typing import Protocol

LONGEST_WAIT = 86400.0
"""Seconds that poll(2) is asked to wait at most: it takes neither infinity nor all of a double."""


class PolledConnection(Protocol):
    """Something in flight on one or several sockets."""

    @property
    def wake_at(self) -> float:
        """When to go on in any case, on the monotonic clock."""

    def sockets(self) -> Iterable[tuple[int, int]]:
        """Return each file descriptor to poll, and the events to poll it for."""


def milliseconds_until(moment: float) -> int:
    """As poll(2) takes them; 0 when there are none."""
    seconds = min(moment - time.monotonic(), LONGEST_WAIT)
    return max(0, math.ceil(seconds * 1000))


def poll_of(watched: Iterable[PolledConnection]) -> select.poll:
    """Return a poll object for all sockets of these."""
    poll = select.poll()
    for each in watched:
        for fd, events in each.sockets():
            poll.register(fd, events)
    return poll


def wait_for_any(watched: Sequence[PolledConnection], until: float = math.inf) -> None:
    """Wait until one of these can go on, has to, or `until`."""
    until = min([until, *(each.wake_at for each in watched)])
    poll_of(watched).poll(milliseconds_until(until))
