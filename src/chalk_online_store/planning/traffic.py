"""Reads to simulate: which entities are asked for, when, and whether they exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.files import FileFormat, read_rows, seconds_of, wrong

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


# --- Recorded reads as a workload: from CSV, JSON lines or Parquet -------------------------
#
# Messages name file, line and column at fault, and never hold a key.


_FORM = FileFormat(
    kind="trace",
    needed=("key",),
    columns=("key", "timestamp", "present"),
    moments="timestamp",
    rule="a trace has key, and may have timestamp and present",
)
_FLAGS = {"1": True, "true": True, "0": False, "false": False}


def read_trace(path: str | Path, reads_per_second: float = READS_PER_SECOND) -> Workload:
    """The reads that a file recorded, in the order of their times.

    The suffix tells the format: `.csv` with a head, `.jsonl` (or `.ndjson`, `.json`) with an
    object a line, or `.parquet`, which needs pyarrow. Columns: `key`; `timestamp`, in seconds or
    ISO 8601 (UTC unless it says otherwise); `present`, 0 or 1, true or false: whether the entity
    existed. The last two may be left out: then reads follow each other evenly,
    `reads_per_second`, and all entities exist. Raises `InvalidValue`, `MissingDependency`.
    """
    trace = _Trace(Path(path))
    for place, row in read_rows(trace.path, _FORM):
        trace.add(place, row)
    return trace.workload(reads_per_second)


@dataclass(slots=True)
class _Trace:
    """What was read so far."""

    path: Path
    numbers: dict[str, int] = field(default_factory=dict)
    entities: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    present: list[bool] = field(default_factory=list)

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        key, moment = row.get("key"), row.get("timestamp")
        if key in (None, ""):
            raise wrong(self.path, place, "key", "is empty: every read needs a key")
        dated = moment not in (None, "")
        if self.entities and dated != bool(self.times):
            told = "is given for some reads: give all or none"
            raise wrong(self.path, place, "timestamp", told)
        if dated:
            self.times.append(seconds_of(self.path, place, "timestamp", moment))
        self.entities.append(self.numbers.setdefault(repr(key), len(self.numbers)))
        self.present.append(self._flag(place, row.get("present")))

    def workload(self, reads_per_second: float) -> Workload:
        if not self.entities:
            raise InvalidValue(f"{self.path} has no reads: give a line for each.")
        entities, present = np.array(self.entities, np.int64), np.array(self.present)
        existing = len(np.unique(entities[present]))
        if not self.times:
            times = evenly(len(entities), reads_per_second)
            return Workload(entities, times, present, existing)
        times = np.array(self.times)
        order = np.argsort(times, kind="stable")
        return Workload(entities[order], times[order], present[order], existing)

    def _flag(self, place: str, present: Any) -> bool:
        if present in (None, ""):
            return True
        flag = _FLAGS.get(str(present).strip().lower())
        if flag is None:
            raise wrong(self.path, place, "present", "is not one of 0, 1, true and false")
        return flag
