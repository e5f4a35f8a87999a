"""Recorded reads as a workload: from CSV, JSON lines or Parquet.

Messages name file, line and column at fault, and never hold a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.files import FileFormat, read_rows, seconds_of, wrong
from chalk_online_store.planning.traffic import READS_PER_SECOND, Workload, evenly

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
