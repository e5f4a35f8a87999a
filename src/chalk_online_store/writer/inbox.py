"""The bounded queue in front of a writer: rows as they were handed over."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from chalk_online_store.writer.locks import OwnerLock
from chalk_online_store.writer.tickets import Priority, Submission, Ticket

_PLAIN = 28
"""Bytes, about, of a number or its like."""

_ROW = 200
"""Bytes, about, of a row around its values."""


class Inbox:
    """Rows that wait to be encoded, and the bound of all rows under way. Thread-safe.

    `rows` and `bytes` are what was accepted and is not done: here and further on.
    """

    def __init__(self, max_rows: int, max_bytes: int) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self.rows = 0
        self.bytes = 0.0
        self._waiting: dict[Priority, deque[Submission]] = {"live": deque(), "backfill": deque()}
        self.lock = OwnerLock()

    def fits(self, rows: int, size: float) -> bool:
        """Whether so much more is within the bounds; alone, anything is."""
        if not self.rows:
            return True
        return self.rows + rows <= self.max_rows and self.bytes + size <= self.max_bytes

    def put(self, submission: Submission) -> None:
        """Take rows in; called under the lock."""
        self._waiting[submission.priority].append(submission)

    def count(self, ticket: Ticket) -> None:
        """So many rows more are under way; called under the lock."""
        self.rows += ticket.rows
        self.bytes += ticket.row_bytes * ticket.rows

    def take(self, rows: int) -> list[Submission]:
        """The next submissions, of about so many rows; the live ones first."""
        taken: list[Submission] = []
        with self.lock:
            for waiting in self._waiting.values():
                while waiting and rows > 0:
                    taken.append(waiting.popleft())
                    taken[-1].tried += 1
                    rows -= len(taken[-1].rows)
        return taken

    def refill(self, submissions: Iterable[Submission]) -> None:
        """Let these wait, in their order, and no others; called under the lock."""
        for waiting in self._waiting.values():
            waiting.clear()
        for submission in submissions:
            self._waiting[submission.priority].append(submission)

    def shed(self, rows: int, size: float) -> list[Submission]:
        """Let the oldest go until so much fits, backfills first; called under the lock."""
        gone: list[Submission] = []
        for waiting in reversed(self._waiting.values()):
            while waiting and not self.fits(rows, size):
                gone.append(waiting.popleft())
                ticket = gone[-1].ticket
                self.release(ticket.pending, ticket.row_bytes)
        return gone

    def release(self, rows: int, row_bytes: float) -> None:
        """So many rows are done; called under the lock."""
        self.rows -= rows
        self.bytes = max(0.0, self.bytes - rows * row_bytes) if self.rows else 0.0

    @property
    def waiting(self) -> int:
        """How many rows wait to be encoded."""
        with self.lock:
            return sum(len(s.rows) for waiting in self._waiting.values() for s in waiting)

    @property
    def oldest(self) -> float | None:
        """When the oldest of these came, on the monotonic clock."""
        with self.lock:
            return min((w[0].ticket.since for w in self._waiting.values() if w), default=None)


def bytes_of(rows: Sequence[Mapping[str, Any]]) -> int:
    """How much memory rows take, about."""
    return sum(_ROW + sum(map(_bytes, row.values())) for row in rows)


def _bytes(value: Any) -> int:
    kind = type(value)
    if kind is float or kind is int or kind is bool or value is None:
        return _PLAIN
    if kind is str or kind is bytes:
        return _PLAIN + len(value)
    if kind is dict:
        return _ROW + sum(_bytes(k) + _bytes(v) for k, v in value.items())
    if kind in (list, tuple, set, frozenset):
        return _ROW + sum(map(_bytes, value))
    size = getattr(value, "nbytes", None)  # An array.
    return _PLAIN * 3 + (size if isinstance(size, int) else 0)
