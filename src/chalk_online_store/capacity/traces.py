"""Recorded reads as a workload: from CSV, JSON lines or Parquet.

Messages name file, line and column at fault, and never hold a key.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from chalk_online_store.capacity.traffic import READS_PER_SECOND, Workload, evenly
from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.arrays import import_arrow

Row: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where in the file a read stands, and its columns."""

_COLUMNS = ("key", "timestamp", "present")
_FLAGS = {"1": True, "true": True, "0": False, "false": False}
_LATEST = 1e11
"""No time in seconds is as late as this: the year 5138. Milliseconds are."""


def read_trace(path: str | Path, reads_per_second: float = READS_PER_SECOND) -> Workload:
    """The reads that a file recorded, in the order of their times.

    The suffix tells the format: `.csv` with a head, `.jsonl` (or `.ndjson`, `.json`) with an
    object a line, or `.parquet`, which needs pyarrow. Columns: `key`; `timestamp`, in seconds or
    ISO 8601 (UTC unless it says otherwise); `present`, 0 or 1, true or false: whether the entity
    existed. The last two may be left out: then reads follow each other evenly,
    `reads_per_second`, and all entities exist. Raises `InvalidValue`, `MissingDependency`.
    """
    path = Path(path)
    trace = _Trace(path)
    try:
        for place, row in _reader(path)(path):
            trace.add(place, row)
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror or 'damaged'}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidValue(f"{path} is not {path.suffix[1:]} in UTF-8: convert it.") from error
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
            raise self._wrong(place, "key", "is empty: every read needs a key")
        dated = moment not in (None, "")
        if self.entities and dated != bool(self.times):
            raise self._wrong(place, "timestamp", "is given for some reads: give all or none")
        if dated:
            self.times.append(self._seconds(place, moment))
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

    def _seconds(self, place: str, moment: Any) -> float:
        try:
            seconds = _seconds(moment)
        except (TypeError, ValueError, OverflowError):
            raise self._wrong(place, "timestamp", "is neither seconds nor ISO 8601") from None
        if not abs(seconds) < _LATEST:
            raise self._wrong(place, "timestamp", "is not seconds: divide milliseconds by 1,000")
        return seconds

    def _flag(self, place: str, present: Any) -> bool:
        if present in (None, ""):
            return True
        flag = _FLAGS.get(str(present).strip().lower())
        if flag is None:
            raise self._wrong(place, "present", "is not one of 0, 1, true and false")
        return flag

    def _wrong(self, place: str, column: str, what: str) -> InvalidValue:
        return InvalidValue(f"{self.path}, {place}, column {column}: it {what}.")


def _seconds(moment: Any) -> float:
    if isinstance(moment, str):
        try:
            return float(moment)
        except ValueError:
            moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return float(moment)


def _reader(path: Path) -> Callable[[Path], Iterator[Row]]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidValue(f"{path} is no trace: its name must end in {', '.join(_READERS)}.")
    return reader


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _check_columns(path, reader.fieldnames or ())
        for row in reader:
            yield f"line {reader.line_num}", row


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _json_object(path, number, line)


def _json_object(path: Path, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise InvalidValue(f'{path}, line {number}: write an object a line, as {{"key": 1}}.')
    return row


def _parquet(path: Path) -> Iterator[Row]:
    pa = import_arrow("A trace in Parquet")
    from pyarrow import parquet

    try:
        names = parquet.read_schema(path).names
        _check_columns(path, names)
        table = parquet.read_table(path, columns=[name for name in _COLUMNS if name in names])
    except pa.ArrowInvalid as error:
        raise InvalidValue(f"{path} is not Parquet, or damaged: write it again.") from error
    number = 0
    for batch in _in_microseconds(pa, table).to_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", row


def _in_microseconds(pa: Any, table: Any) -> Any:
    """Its moments as Python has them: of nanoseconds pandas alone has a type."""
    place = table.schema.get_field_index("timestamp")
    if place < 0 or not pa.types.is_timestamp(table.schema.field(place).type):
        return table
    moments = table.column(place)
    exact = moments.cast(pa.timestamp("us", moments.type.tz), safe=False)
    return table.set_column(place, "timestamp", exact)


def _check_columns(path: Path, names: Any) -> None:
    if "key" not in names:
        raise InvalidValue(
            f"{path} has no column key: a trace has key, and may have timestamp and present."
        )


_READERS = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}
