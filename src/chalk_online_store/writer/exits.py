"""Interpreters that end with writers open: what is pending is given some time."""

from __future__ import annotations

import atexit
import threading
import time
from typing import Protocol

from chalk_online_store.errors import OnlineStoreError
from chalk_online_store.logs import event
from chalk_online_store.writer.logs import LOG, log_mistake

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
