"""Reads to simulate: which entities are asked for, when, and whether they exist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chalk_online_store.errors import InvalidValue

Numbers: TypeAlias = NDArray[np.int64]
Seconds: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

READS_PER_SECOND = 1_000.0
"""How often an entity is read where nothing tells."""


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """Reads of one entity each, in the order of their times.

    `entities` are numbers from 0, `times` are seconds from any start, `present` tells of each
    read whether its entity was there. `existing` is how many entities there are, read or not:
    so many keys a Bloom filter would hold.

    An entity that was absent and then is there counts as another one from then on, as if the
    write that made it had told the cache.
    """

    entities: Numbers
    times: Seconds
    present: Flags
    existing: int

    def __post_init__(self) -> None:
        if not len(self.entities) == len(self.times) == len(self.present) > 0:
            raise InvalidValue(
                "A workload has at least one read, and as many entities, times and flags."
            )
        if self.entities.min() < 0:
            raise InvalidValue("A workload's entities are numbers of 0 or more.")
        if (np.diff(self.times) < 0).any():
            raise InvalidValue("A workload's reads are in the order of their times: sort them.")

    @property
    def reads(self) -> int:
        """How many reads there are."""
        return len(self.entities)

    @property
    def codes(self) -> Numbers:
        """A number for each read: below 0 where the entity was absent."""
        return np.where(self.present, self.entities, ~self.entities)


def zipf(
    reads: int,
    entities: int,
    exponent: float = 1.0,
    absent_share: float = 0.0,
    reads_per_second: float = READS_PER_SECOND,
    seed: int | np.random.Generator = 0,
) -> Workload:
    """Reads by Zipf's law: the entity of rank r is read in proportion to `1 / r ** exponent`.

    With an exponent of 0 all are read alike; the law is finite, so any exponent from there on
    will do. Ranks are entity numbers, 0 the most read. A share `absent_share` of the reads, 0
    to 1, asks for entities that do not exist: as many again, numbered on, by the same law.
    Reads follow each other evenly, `reads_per_second`. The same seed gives the same reads.
    """
    _check(reads, entities, exponent, absent_share, reads_per_second)
    rng = np.random.default_rng(seed)
    heights = np.cumsum(np.arange(1, entities + 1, dtype=np.float64) ** -exponent)
    drawn = np.searchsorted(heights, rng.random(reads) * heights[-1], side="right")
    ranks = np.minimum(drawn, entities - 1)  # A product may be rounded up to the last height.
    present = rng.random(reads) >= absent_share
    return Workload(
        entities=np.where(present, ranks, ranks + entities).astype(np.int64),
        times=evenly(reads, reads_per_second),
        present=present,
        existing=entities,
    )


def evenly(reads: int, reads_per_second: float) -> Seconds:
    """The times of reads that follow each other evenly, in seconds from 0."""
    refuse([("reads_per_second", reads_per_second, 0 < reads_per_second < np.inf, "above 0")])
    return np.arange(reads) / reads_per_second


def refuse(settings: Sequence[tuple[str, Any, bool, str]]) -> None:
    """Raise `InvalidValue` for the first setting (name, value, right, range) that is not right."""
    for name, value, right, allowed in settings:
        if not right:
            raise InvalidValue(f"{name}={value}: it must be {allowed}.")


def _check(reads: int, entities: int, exponent: float, share: float, rate: float) -> None:
    refuse(
        [
            ("reads", reads, reads >= 1, "1 or more"),
            ("entities", entities, entities >= 1, "1 or more"),
            ("exponent", exponent, 0 <= exponent < np.inf, "0 or more"),
            ("absent_share", share, 0 <= share <= 1, "a share from 0 to 1"),
            ("reads_per_second", rate, 0 < rate < np.inf, "above 0"),
        ]
    )
