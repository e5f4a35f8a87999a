"""What the benchmark asks of every client that takes part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from benchmarks.data import Call


class Client(ABC):
    """One way to reach the table. Its reads give columns of values of the declared types."""

    name: str
    at_once = 1
    """How many calls it has under way; it can only make a multiple of that."""

    @abstractmethod
    def repeat(self, call: Call, times: int) -> Any:
        """Make a call so many times, and give the last result."""

    @abstractmethod
    def close(self) -> None:
        """Give back what it holds open."""
