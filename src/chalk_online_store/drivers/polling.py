"""Waiting by poll(2)."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Iterable
from typing import Protocol

LONGEST_WAIT = 86400.0
"""Seconds that poll(2) is asked to wait at most: it takes neither infinity nor all of a double."""


class Watched(Protocol):
    """A socket with something under way."""

    @property
    def deadline(self) -> float:
        """When to go on in any case, on the monotonic clock."""

    @property
    def waits_for(self) -> int:
        """What it has to be ready for before it is worth while to go on."""

    def fileno(self) -> int:
        """Its number."""


def milliseconds_until(moment: float) -> int:
    """As poll(2) takes them; 0 when there are none."""
    seconds = min(moment - time.monotonic(), LONGEST_WAIT)
    return max(0, math.ceil(seconds * 1000))


def poll_of(sockets: Iterable[Watched]) -> select.poll:
    """What waits for any of these to be ready."""
    poll = select.poll()
    for each in sockets:
        poll.register(each.fileno(), each.waits_for)
    return poll
