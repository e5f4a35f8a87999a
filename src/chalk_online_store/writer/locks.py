"""A lock for code in which an exception may be raised at any line."""

from __future__ import annotations

from typing import Any

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
