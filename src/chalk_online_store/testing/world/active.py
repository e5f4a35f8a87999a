"""The faults that are in force, and whom they hit."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from .faults import AcceptThenClose, Blackhole, Fault, Refused

F = TypeVar("F", bound=Fault)


@dataclass(frozen=True, slots=True)
class Injection:
    """A fault, and the part of the requests that it hits."""

    fault: Fault
    share: float
    operations: frozenset[str] | None

    def concerns(self, operation: str) -> bool:
        """Whether it can hit such a request."""
        return self.operations is None or operation in self.operations


class Hits:
    """The faults that hit one request."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._faults = list(faults)

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._faults)

    def every(self, kind: type[F]) -> list[F]:
        """All of one kind."""
        return [fault for fault in self._faults if isinstance(fault, kind)]

    def first(self, kind: type[F]) -> F | None:
        """The first of one kind."""
        return next(iter(self.every(kind)), None)


NO_HITS = Hits(())


class ActiveFaults:
    """What is injected, in that order."""

    def __init__(self, seed: int | None) -> None:
        self.rng = random.Random(seed)
        self.counts: Counter[str] = Counter()
        """How many requests each kind has hit."""
        self._injections: dict[int, Injection] = {}
        self._ids = itertools.count(1)

    def add(self, injection: Injection) -> int:
        """Put a fault in force; gives the id by which it can be removed."""
        key = next(self._ids)
        self._injections[key] = injection
        return key

    def remove(self, key: int) -> None:
        """End one; harmless when it has ended."""
        self._injections.pop(key, None)

    def clear(self) -> None:
        """End all."""
        self._injections.clear()

    def draw(self, operation: str) -> Hits:
        """What hits a request that has just come."""
        if not self._injections:
            return NO_HITS
        hits = Hits(i.fault for i in self._injections.values() if self._hits(i, operation))
        self.counts.update(type(fault).__name__ for fault in hits)
        return hits

    def _hits(self, injection: Injection, operation: str) -> bool:
        return injection.concerns(operation) and self.rng.random() < injection.share

    @property
    def refused(self) -> bool:
        """Whether nobody is to listen."""
        return any(isinstance(i.fault, Refused) for i in self._injections.values())

    @property
    def closing(self) -> AcceptThenClose | None:
        """How connections are ended that have just been accepted, if they are."""
        faults = (i.fault for i in self._injections.values())
        return next((fault for fault in faults if isinstance(fault, AcceptThenClose)), None)

    @property
    def deaf(self) -> bool:
        """Whether connects are not to be answered."""
        faults = [i.fault for i in self._injections.values()]
        return any(isinstance(fault, Blackhole) and fault.connect for fault in faults)

    def swallow(self, operation: str) -> bool:
        """Whether even the answer to a request from before is swallowed."""
        return any(
            isinstance(i.fault, Blackhole) and i.share >= 1 and i.concerns(operation)
            for i in self._injections.values()
        )
