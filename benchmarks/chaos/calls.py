"""What is called, when, and what came of it: the words between a load and who measures it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.chaos.settings import A_SECOND, WRITES_OF_AN_ENTITY

READ_MANY, READ_ONE, WRITE = "read many", "read one", "write"
_TURNS = (READ_MANY, READ_ONE, READ_MANY, WRITE)

_FIRST_WRITTEN = {"sync": 1_000_000, "async": 2_000_000}
"""Each load has entities of its own to write."""


class Planned(NamedTuple):
    """A call that is due at a time, in seconds from the start. `number` counts those of a kind."""

    due: float
    kind: str
    number: int


class Call(NamedTuple):
    """A call that was made; times in seconds, 0 being the end of the warming.

    `error` is the class that a failed one ended with, "" for a good one. `regions` are those that
    answered; `behind` is what the report says of replication.
    """

    kind: str
    number: int
    due: float
    began: float
    ended: float
    error: str = ""
    regions: Sequence[str] = ()
    requests: int = 0
    retries: int = 0
    hedges: int = 0
    failovers: int = 0
    behind: float | None = None
    invented: int = 0
    """Entities that were not read as they were written, at any time."""

    @property
    def is_read(self) -> bool:
        return self.kind != WRITE

    @property
    def took(self) -> float:
        """Seconds since it was due: a stall of those before it counts as well."""
        return self.ended - self.due


class Change(NamedTuple):
    """A region's state, as one store saw it from then on."""

    at: float
    region: str
    state: str
    reason: str


class Usage(NamedTuple):
    """Processor time of one load's process up to then, in seconds."""

    at: float
    cpu: float


class Outcome(NamedTuple):
    """All that one load tells."""

    calls: list[Call]
    changes: list[Change]
    usage: list[Usage]

    @classmethod
    def of(cls, content: Any) -> Outcome:
        """From JSON, which knows lists alone."""
        calls, changes, usage = content
        return cls(
            [Call(*call) for call in calls],
            [Change(*change) for change in changes],
            [Usage(*used) for used in usage],
        )


def plan(seconds: float, a_second: int = A_SECOND) -> Iterator[Planned]:
    """The calls of a load, at a steady pace."""
    for tick in range(int(seconds * a_second)):
        lap, turn = divmod(tick, len(_TURNS))
        kind = _TURNS[turn]
        number = lap * 2 + turn // 2 if kind == READ_MANY else lap
        yield Planned(tick / a_second, kind, number)


def entity_of(mode: str, number: int) -> int:
    """The primary key that the `number`-th write of a load goes to."""
    return _FIRST_WRITTEN[mode] + number // WRITES_OF_AN_ENTITY
