"""Files of rows: Parquet, Arrow or CSV, read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from chalk_online_store.errors import InvalidSchema, InvalidValue
from chalk_online_store.integrations.arrow import in_zone, moment_type, namespace_of, rows_of
from chalk_online_store.schema import Namespace

ROWS_A_BATCH = 500


class Rows(NamedTuple):
    """Some rows, and their observed-at where a column has them; `first` is their place."""

    first: int
    rows: list[dict[str, Any]]
    observed_at: list[datetime] | None


class Source:
    """A file of one namespace's rows.

    `key` names the columns of the primary key, `observed_at` that of the observed-at, if any.
    Timestamps that have no time zone are in `time_zone`.
    Raises `InvalidValue` where it cannot be read, `InvalidSchema` where it has no such columns.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        key: list[str],
        observed_at: str | None,
        given: Namespace | None = None,
        time_zone: str | None = None,
    ) -> None:
        self.path = path
        self._key = key
        self._observed_at = observed_at
        self._time_zone = time_zone
        try:
            self._format = _FORMATS[path.suffix.lower()]
        except KeyError:
            known = ", ".join(_FORMATS)
            raise InvalidValue(f"{path}: a file to load ends in one of {known}.") from None
        with self._open() as found:
            self.schema: pa.Schema = found.schema
        leave_out = [observed_at] if observed_at else []
        self.namespace = given or namespace_of(name, self.schema, key, leave_out=leave_out)
        self._check()

    def _check(self) -> None:
        if self._observed_at is not None:
            moment_type(self.schema.field(self._observed_at))
        namespace, taken = self.namespace, {*self._key, self._observed_at}
        for column in self.schema.names:
            if column not in taken:
                namespace.feature(column)
        if len(self._key) == 1 and namespace.key_name != self._key[0]:
            raise InvalidSchema(
                f"The primary key of {namespace.name!r} is {namespace.key_name!r}: --key "
                f"{namespace.key_name}."
            )

    def _open(self) -> _Opened:
        try:
            found = self._format(self.path)
        except (OSError, pa.ArrowInvalid) as error:
            raise InvalidValue(f"{self.path} cannot be read: {error}") from None
        return found if self._time_zone is None else found.in_zone(self._time_zone)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What tells this file from another, or from itself after a change."""
        found = self.path.stat()
        columns = [f"{field.name}: {field.type}" for field in self.schema]
        return {"bytes": found.st_size, "modified": found.st_mtime_ns, "columns": columns}

    @cached_property
    def count(self) -> int:
        """How many rows it has."""
        with self._open() as found:
            return found.count if found.count is not None else sum(map(len, found.batches))

    def read(self, start: int = 0) -> Iterator[Rows]:
        """The rows from one on, some at a time."""
        first = 0
        with self._open() as found:
            for batch in found.batches:
                skipped = min(max(0, start - first), batch.num_rows)
                for offset in range(skipped, batch.num_rows, ROWS_A_BATCH):
                    yield self._rows(first + offset, batch.slice(offset, ROWS_A_BATCH))
                first += batch.num_rows

    def _rows(self, first: int, batch: pa.RecordBatch) -> Rows:
        rows = rows_of(batch, self._key, self.namespace.key_name)
        if self._observed_at is None:
            return Rows(first, rows, None)
        return Rows(first, rows, [row.pop(self._observed_at) for row in rows])


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open file; `count` is how many rows it has, where it says so."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    count: int | None
    close: Callable[[], None]

    def in_zone(self, zone: str) -> _Opened:
        """The same, with timestamps that had no time zone in this one."""
        empty = pa.RecordBatch.from_pylist([], schema=self.schema)
        batches = (in_zone(batch, zone) for batch in self.batches)
        return replace(self, schema=in_zone(empty, zone).schema, batches=batches)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parquet(path: Path) -> _Opened:
    file = pyarrow.parquet.ParquetFile(path)
    batches = file.iter_batches(ROWS_A_BATCH)
    return _Opened(file.schema_arrow, batches, file.metadata.num_rows, file.close)


def _arrow(path: Path) -> _Opened:
    source = pa.OSFile(str(path))
    try:
        file = pa.ipc.open_file(source)
    except pa.ArrowInvalid:  # Not the file format, but the stream.
        source.seek(0)
        stream = pa.ipc.open_stream(source)
        return _Opened(stream.schema, iter(stream), None, source.close)
    batches = (file.get_batch(number) for number in range(file.num_record_batches))
    return _Opened(file.schema, batches, None, source.close)


def _csv(path: Path) -> _Opened:
    file = pyarrow.csv.open_csv(path)
    return _Opened(file.schema, iter(file), None, file.close)


_FORMATS: dict[str, Callable[[Path], _Opened]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".feather": _arrow,
    ".csv": _csv,
}
