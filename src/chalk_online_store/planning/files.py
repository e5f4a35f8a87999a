"""Rows of recorded files: CSV, JSON lines or Parquet, each with the place that it stands at.

Messages name file, line and column at fault, and never hold what stands there.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec

from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.arrays import import_arrow

Row: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where in the file a row stands, and its columns."""

_LATEST = 1e11
"""No time in seconds is as late as this: the year 5138. Milliseconds are."""


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What a kind of file has: a name such as "trace", the columns it needs, and others.

    `moments` is the column that holds times; `rule` says in words which columns there are.
    """

    kind: str
    needed: tuple[str, ...]
    columns: tuple[str, ...]
    moments: str
    rule: str


def read_rows(path: Path, form: FileFormat) -> Iterator[Row]:
    """The rows of a file. Raises `InvalidValue`, and `MissingDependency` without pyarrow.

    The suffix tells the format: `.csv` with a head, `.jsonl` (or `.ndjson`, `.json`) with an
    object a line, or `.parquet`.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InvalidValue(f"{path} is no {form.kind}: its name must end in {', '.join(_READERS)}.")
    try:
        yield from reader(path, form)
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror or 'damaged'}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidValue(f"{path} is not {path.suffix[1:]} in UTF-8: convert it.") from error


def wrong(path: Path, place: str, column: str, what: str) -> InvalidValue:
    """The error of a column: "it is empty"."""
    return InvalidValue(f"{path}, {place}, column {column}: it {what}.")


def seconds_of(path: Path, place: str, column: str, moment: Any) -> float:
    """A moment in seconds since 1970 or from any start, given so or in ISO 8601, else UTC."""
    try:
        seconds = _seconds(moment)
    except (TypeError, ValueError, OverflowError):
        raise wrong(path, place, column, "is neither seconds nor ISO 8601") from None
    if not abs(seconds) < _LATEST:
        raise wrong(path, place, column, "is not seconds: divide milliseconds by 1,000")
    return seconds


def _seconds(moment: Any) -> float:
    if isinstance(moment, str):
        try:
            return float(moment)
        except ValueError:
            moment = datetime.fromisoformat(moment)
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return float(moment)


def _csv(path: Path, form: FileFormat) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _check_columns(path, form, reader.fieldnames or ())
        for row in reader:
            yield f"line {reader.line_num}", row


def _json_lines(path: Path, form: FileFormat) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"line {number}", _json_object(path, form, number, line)


def _json_object(path: Path, form: FileFormat, number: int, line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        example = json.dumps({form.needed[0]: 1})
        raise InvalidValue(f"{path}, line {number}: write an object a line, as {example}.")
    return row


def _parquet(path: Path, form: FileFormat) -> Iterator[Row]:
    pa = import_arrow(f"A {form.kind} in Parquet")
    from pyarrow import parquet

    try:
        names = parquet.read_schema(path).names
        _check_columns(path, form, names)
        table = parquet.read_table(path, columns=[name for name in form.columns if name in names])
    except pa.ArrowInvalid as error:
        raise InvalidValue(f"{path} is not Parquet, or damaged: write it again.") from error
    number = 0
    for batch in _in_microseconds(pa, table, form.moments).to_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"row {number}", row


def _in_microseconds(pa: Any, table: Any, column: str) -> Any:
    """Its moments as Python has them: of nanoseconds pandas alone has a type."""
    place = table.schema.get_field_index(column)
    if place < 0 or not pa.types.is_timestamp(table.schema.field(place).type):
        return table
    moments = table.column(place)
    exact = moments.cast(pa.timestamp("us", moments.type.tz), safe=False)
    return table.set_column(place, column, exact)


def _check_columns(path: Path, form: FileFormat, names: Any) -> None:
    for name in form.needed:
        if name not in names:
            raise InvalidValue(f"{path} has no column {name}: {form.rule}.")


_READERS: dict[str, Callable[[Path, FileFormat], Iterator[Row]]] = {
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_lines,
    ".parquet": _parquet,
}


# --- Descriptions in TOML files, checked as they are read ----------------------------------


T = TypeVar("T")


def read_toml(path: Path, kind: type[T]) -> T:
    """What a TOML file says, as a struct; raises `InvalidValue` naming the file and the place."""
    try:
        return msgspec.convert(tomllib.loads(path.read_text()), kind)
    except OSError as error:
        raise InvalidValue(f"{path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise InvalidValue(f"{path}: {error}") from None
