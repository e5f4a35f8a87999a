"""Stand-in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Commit:
    append: Sequence[bytes]
    remove: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Fetch:
    ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Left:
    after: int
    limit: int


class Spool:
    newest = 0
    records = 0
    bytes = 0
    damaged = 0

    def __init__(self, path: Any, *, table: str, max_bytes: int = 1 << 30) -> None: ...
    def send(self, request: Any, timeout: float) -> Any: ...
    def warm(self, connections: int, timeout: float) -> int:
        return 0

    def close(self) -> None: ...
