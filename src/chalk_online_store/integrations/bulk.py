"""Bulk writes, scans and lookups by the tasks of a distributed engine: see docs/bulk.md.

Problem. Users who load or read back a billion rows have an engine for that: Spark, Ray, Dask,
Daft, Beam. Each has its own form of a task, and each runs a task again when a worker is lost.

Approach. A `Sink`, a `Scan` and a `Lookup` are small values that pickle: a URL, a namespace and
options, but no store, lock or file. They take Arrow batches and return Arrow batches, so an
adapter for an engine is a few lines. What has to be decided once is decided by `Sink.prepare`
where the job is planned: the ids of features are registered, the observed-at is fixed, and the
write rate is divided by the number of writers.

Invariants.
- A task that runs twice, one after the other or at once, leaves what one run leaves, because its
  rows have the same observed-ats. Only the capacity is spent twice. That is why a sink without a
  fixed observed-at refuses to write.
- Each row that a task was given is counted once: as written, as superseded, or as dead.
- A task either returns its counts or raises. After an error some of its rows may be written.

Scheduling, retries and checkpoints are the engine's. See decision 45.
"""

from __future__ import annotations

import gzip
import importlib
import os
import re
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from chalk_online_store.arguments import (
    check_flag,
    check_text,
    finite_number,
    name_list,
    whole_number,
)
from chalk_online_store.errors import (
    InvalidSchema,
    InvalidValue,
    LoadIncomplete,
    MissingDependency,
    OnlineStoreError,
)

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.fs
    import pyarrow.types as kinds
except ImportError as error:
    raise MissingDependency(
        "Bulk work needs pyarrow: pip install 'chalk-online-store[arrow]'."
    ) from error

from chalk_online_store.backend import Call, GroupKeys, RowOrError
from chalk_online_store.codec.changes import Attributes, key_of, render_item
from chalk_online_store.codec.columns import Stored
from chalk_online_store.codec.keys import parse_key
from chalk_online_store.codec.layout import ItemKey, segment_of
from chalk_online_store.connect import provisioned_wcu
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.integrations.conversion import Column, TableConverter, original_row
from chalk_online_store.integrations.frames import CHUNK, read_table
from chalk_online_store.integrations.stores import close_shared_stores, shared_store
from chalk_online_store.integrations.tables import Table, key_columns, table_of
from chalk_online_store.operations.arrow_types import arrow_type
from chalk_online_store.operations.read import ReadPlan, plan_read
from chalk_online_store.operations.rows import Rows, Status
from chalk_online_store.operations.times import time_of
from chalk_online_store.operations.write import Ordering, check_ordering
from chalk_online_store.report import Report
from chalk_online_store.schema import Duration, Namespace, namespace_of
from chalk_online_store.schema.types import SCALARS
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.bulk import BulkWriter
from chalk_online_store.writer.ledger import DeadLetter, letter_line

__all__ = ["Lookup", "Scan", "ScanPart", "Sink", "Written", "close_shared_stores"]

MAX_REASONS = 20
"""Distinct reasons of dead rows that are counted; the others are counted together."""

_PAGE_ITEMS = 1_000
_PAGE_SECONDS = 120.0
_MIN_ROWS_PER_CHUNK = 25
_MAX_SEGMENTS = 1_000_000
"""AWS: Scan takes from 1 to 1,000,000 as TotalSegments."""

_POSITION = re.compile(r"\s*\(row [\d,]+\)|\brow [\d,]+")
_OTHER_REASONS = "other reasons"


def schema_named(schema: Namespace | type | str) -> Namespace:
    """Return the namespace of a feature class, or of its name, `module:Class`.

    Raises `InvalidSchema` if there is none of this name.
    """
    if not isinstance(schema, str):
        return namespace_of(schema)
    module, _, attribute = schema.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSchema(
            f"schema {schema!r} cannot be imported ({error}). Write module:Class, and install the "
            "module where the job is planned."
        ) from error
    return namespace_of(found)


# --- writing -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Written:
    """What a task did, or all tasks of a job: `rows` = `written` + `superseded` + `dead`.

    `superseded` rows changed nothing, because the table or another row of their batch has newer
    values. `dead` rows can never be written. `reasons` counts them by error, without their values.
    `wcu` are the write capacity units that the engine reported. `seconds` are those of the tasks,
    added up. `dead_letters` are the files that dead rows were written to.
    """

    rows: int = 0
    written: int = 0
    superseded: int = 0
    dead: int = 0
    wcu: float = 0.0
    requests: int = 0
    retries: int = 0
    throttles: int = 0
    seconds: float = 0.0
    reasons: Mapping[str, int] = field(default_factory=dict)
    dead_letters: tuple[str, ...] = ()

    def __add__(self, other: Written) -> Written:
        """Return the counts of both."""
        both = {
            each.name: getattr(self, each.name) + getattr(other, each.name)
            for each in fields(self)
            if each.name != "reasons"
        }
        reasons: Counter[str] = Counter()
        for some in (self.reasons, other.reasons):
            for reason, count in some.items():
                known = reason in reasons or len(reasons) < MAX_REASONS
                reasons[reason if known else _OTHER_REASONS] += count
        return Written(**both, reasons=dict(reasons))


@dataclass(frozen=True)
class Sink:
    """Writes Arrow batches of one namespace in the tasks of a job. It pickles, and has no state.

    `schema` is a feature class, a `Namespace`, or a name, `module:Class`. `key` names the columns
    of the primary key (default: the one of its name). `observed_at` is the column of the
    observed-at, or one datetime for all rows (default: the moment of `prepare`). Timestamps
    without a time zone are in `time_zone`. `ordering` is as for `OnlineStore.write`.

    `wcu_per_second` bounds the write rate of the whole job; "table" is the provisioned capacity of
    the table. `max_dead` is how many rows of the job may be dead (default: 0; None for any
    number). `dead_letters` is a directory, or a URL of one such as `s3://bucket/path`, in which
    each task that has dead rows writes a file of them. Use another directory for each job.

    Raises `InvalidSchema` and `InvalidValue`, before anything is opened.
    """

    url: str = field(repr=False)  # It may hold a password.
    schema: Namespace | type | str
    _: KW_ONLY
    key: Sequence[str] | None = None
    observed_at: str | datetime | None = None
    time_zone: str | None = None
    ordering: Ordering = "event"
    wcu_per_second: float | str | None = None
    max_dead: int | None = 0
    dead_letters: str | None = None
    is_prepared: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        check_text(self.url, "url")
        namespace = schema_named(self.schema)
        object.__setattr__(self, "schema", namespace)
        object.__setattr__(self, "key", tuple(key_columns(namespace, self.key)))
        if isinstance(self.observed_at, datetime):
            time_of(self.observed_at)
        elif self.observed_at is not None:
            check_text(self.observed_at, "observed_at (a datetime, or the name of a column)")
        if self.time_zone is not None:
            check_text(self.time_zone, "time_zone")
        check_ordering(self.ordering)
        if self.wcu_per_second not in (None, "table"):
            finite_number(self.wcu_per_second, "wcu_per_second", least=0.001)
        if self.max_dead is not None:
            whole_number(self.max_dead, "max_dead", least=0)
        if self.dead_letters is not None:
            check_text(self.dead_letters, "dead_letters")

    @property
    def namespace(self) -> Namespace:
        """The namespace that rows are written to."""
        return self.schema  # type: ignore[return-value] # __post_init__ makes it one.

    def prepare(self, *, writers: int, columns: pa.Schema | None = None) -> Sink:
        """Decide what all tasks share; call it once, where the job is planned.

        Checks `columns`, those of the batches, against the schema, registers the ids of features,
        fixes the observed-at to this moment if no other is given, and divides the write rate by
        `writers`: how many tasks write at once, which is the number of slots of the workers if
        there are more tasks than slots. Returns the sink to send to the tasks.

        Raises `InvalidValue`, `InvalidSchema`, `UnknownFeature` and `TypeConflict` for what each
        task would fail with, `RegistryUnavailable`, and `RequestError` if the engine is
        unreachable.
        """
        writers = whole_number(writers, "writers")
        if columns is not None:
            self._check_columns(columns)
        rate = self.wcu_per_second
        if rate is not None:
            rate = provisioned_wcu(self.url) if rate == "table" else float(rate)
            rate /= writers
        store, namespace = shared_store(self.url, self.namespace)
        store.write(namespace, [])
        codec = store.core.registry.present(namespace)
        written = namespace.by_name if columns is None else self._converter(columns.names).names
        codec.check_features(written)
        observed_at = datetime.now(UTC) if self.observed_at is None else self.observed_at
        prepared = replace(self, observed_at=observed_at, wcu_per_second=rate)
        object.__setattr__(prepared, "is_prepared", True)
        return prepared

    def write(self, batches: Iterable[Any] | Any, *, partition: int | str | None = None) -> Written:
        """Write the batches of one task, and return their counts.

        Batches are Arrow batches or tables, or data frames; one of them may stand for all.
        `partition` names the file of dead letters: an engine that runs the task again replaces
        the file (default: a random name). Waits for an engine that becomes unreachable.

        Raises `InvalidValue` if the sink is not prepared, or a batch has other columns than the
        schema, `LoadIncomplete` if the write region was lost, so that this task has to run again,
        and `OnlineStoreError` if no retry can succeed.
        """
        if not self.is_prepared:
            raise InvalidValue(
                "This sink is not prepared. Call prepare(writers=N) once, where the job is "
                "planned, and send the sink that it returns to the tasks."
            )
        with _Task(self, partition) as task:
            for batch in _each(batches):
                task.write(table_of(batch))
            return task.finish()

    def total(self, parts: Iterable[Written | None]) -> Written:
        """Add up what the tasks returned; call it once, where the job ends.

        Raises `LoadIncomplete` if more than `max_dead` rows are dead. All others are written then.
        """
        total = sum((part for part in parts if part is not None), Written())
        if self.max_dead is not None and total.dead > self.max_dead:
            reasons = "; ".join(f"{count:,} x {why}" for why, count in total.reasons.items())
            where = "dead_letters= names a directory for them"
            if total.dead_letters:
                where = f"They are in {len(total.dead_letters)} files in {self.dead_letters}"
            raise LoadIncomplete(
                f"{total.dead:,} of {total.rows:,} rows of {self.namespace.name!r} can never be "
                f"written; max_dead allows {self.max_dead:,}. All others are written. Reasons: "
                f"{reasons}. {where}.",
                total,
            )
        return total

    def _converter(self, names: Sequence[str]) -> TableConverter:
        column = self.observed_at if isinstance(self.observed_at, str) else None
        assert self.key is not None
        return TableConverter(self.namespace, names, self.key, column, self.time_zone)

    def _check_columns(self, columns: pa.Schema) -> None:
        """Refuse columns that no value of the schema's types can be in."""
        converter = self._converter(columns.names)
        converter.convert({each.name: pa.nulls(0, each.type) for each in columns}, 0)
        assert self.key is not None
        parts = zip(self.key, self.namespace.key.parts, strict=True)
        expected = {name: SCALARS[part].name for name, part in parts}
        for name in columns.names:
            if name not in expected and name != self.observed_at:
                expected[name] = self.namespace.feature(name).type.name
        for name, kind in expected.items():
            found = columns.field(name).type
            if not _may_hold(found, kind):
                raise InvalidValue(
                    f"Column {name!r} is {found}; expected a column of {kind}. Cast it to one of "
                    "the types in docs/frames.md."
                )


_NUMBERS = (kinds.is_integer, kinds.is_floating, kinds.is_decimal)
_HOLD: dict[str, tuple[Any, ...]] = {
    "int": _NUMBERS,
    "float": _NUMBERS,
    "bool": (kinds.is_boolean,),
    "str": (kinds.is_string, kinds.is_large_string, kinds.is_string_view),
    "bytes": (
        kinds.is_binary,
        kinds.is_large_binary,
        kinds.is_binary_view,
        kinds.is_fixed_size_binary,
    ),
}


def _may_hold(found: pa.DataType, kind: str) -> bool:
    """Return False if no value of an Arrow type is of this feature type."""
    while kinds.is_dictionary(found) or kinds.is_run_end_encoded(found):
        found = found.value_type
    plain = [test for tests in _HOLD.values() for test in tests]
    if kind not in _HOLD or isinstance(found, pa.BaseExtensionType) or kinds.is_null(found):
        return True
    is_plain = any(test(found) for test in plain)
    nested = kinds.is_nested(found) or kinds.is_temporal(found)
    return any(test(found) for test in _HOLD[kind]) or not (is_plain or nested)


def _each(batches: Any) -> Iterable[Any]:
    """Return batches one by one; a table or data frame is one batch."""
    is_one = hasattr(batches, "__arrow_c_stream__") or hasattr(batches, "__arrow_c_array__")
    return [batches] if is_one or hasattr(batches, "columns") else batches


class _Task:
    """One run of `Sink.write`."""

    def __init__(self, sink: Sink, partition: int | str | None) -> None:
        self._sink = sink
        self._started = time.monotonic()
        self._store, self._namespace = shared_store(sink.url, sink.namespace)
        # A load waits for an engine that stops. An engine that is unreachable from the start is
        # an error, which this read raises.
        self._store.read(self._namespace, [])
        rate = sink.wcu_per_second
        assert not isinstance(rate, str)
        self._chunk = CHUNK
        if rate is not None:
            self._chunk = int(max(_MIN_ROWS_PER_CHUNK, min(CHUNK, rate)))
        core = self._store.core
        self._writer = BulkWriter(core, self._namespace, sink.ordering, rate)
        self._letters = _Letters(sink.dead_letters, partition)
        self._reasons: Counter[str] = Counter()
        self._rows = self._dead = 0
        self._converters: dict[tuple[str, ...], TableConverter] = {}
        self._router = core.router
        self._region = "" if self._router is None else self._router.written

    def __enter__(self) -> _Task:
        return self

    def __exit__(self, *_: object) -> None:
        self._letters.discard()

    def write(self, table: Table) -> None:
        names = tuple(table.names)
        converter = self._converters.get(names)
        if converter is None:
            converter = self._converters[names] = self._sink._converter(names)
        for start in range(0, table.num_rows, self._chunk):
            self._write(converter, table.slice(start, self._chunk))

    def _write(self, converter: TableConverter, columns: Mapping[str, Column]) -> None:
        first = self._rows
        converted = converter.convert_rows(columns, first)
        self._rows += len(converted.rows) + len(converted.refused)
        for row, fault in converted.refused.items():
            self._bury(original_row(columns, row), None, fault)
        given = self._sink.observed_at
        times: Any = given if converted.observed_at is None else converted.observed_at
        if len(converted.rows):
            writing = self._writer.write(converted.rows, times)
            refused = self._store.driver.run(writing)
            moments = times.values() if refused and isinstance(times, Stored) else times
            for position, error in sorted(refused.items()):
                at = moments if isinstance(moments, datetime) else moments[position]
                self._bury(converted.rows[position], at, error)
        self._check_region()

    def _bury(self, row: Mapping[str, Any], at: datetime | None, error: OnlineStoreError) -> None:
        self._dead += 1
        reason = f"{type(error).__name__}: {_POSITION.sub('', str(error)).strip()}"
        known = reason in self._reasons or len(self._reasons) < MAX_REASONS
        self._reasons[reason if known else _OTHER_REASONS] += 1
        fixed = self._sink.observed_at
        at = fixed if at is None and isinstance(fixed, datetime) else at
        at = datetime.now(UTC) if at is None else at
        self._letters.add(DeadLetter(self._namespace.name, row, at, error))

    def _check_region(self) -> None:
        """Raise if rows of this task were acknowledged by a region that is lost now.

        They may be missing in the other regions. The engine runs the task again, which writes them
        there. A sink cannot do that itself, because its batches come only once.
        """
        router = self._router
        if router is None or router.written == self._region:
            return
        left, self._region = self._region, router.written
        if router.may_have_lost_writes(left):
            raise LoadIncomplete(
                f"The write region moved from {left} to {self._region} during this task. Rows "
                f"that {left} acknowledged may be missing in {self._region}. Run the task again: "
                "rows that are there are not changed.",
                self._counts(),
            )

    def _counts(self) -> Written:
        report, superseded = self._writer.report, self._writer.superseded_rows
        return Written(
            self._rows,
            self._rows - superseded - self._dead,
            superseded,
            self._dead,
            report.wcu,
            report.requests,
            report.retries,
            report.throttles,
            time.monotonic() - self._started,
            dict(self._reasons),
            (self._letters.path,) if self._dead and self._letters.path else (),
        )

    def finish(self) -> Written:
        self._store.driver.run(self._writer.finish())
        self._letters.close()
        return self._counts()


class _Letters:
    """The dead letters of one task: a file that is there as a whole or not at all.

    A task that runs again writes the same file, and two runs at once do not mix their lines.
    """

    def __init__(self, directory: str | None, partition: int | str | None) -> None:
        self.path = ""
        self._stream: Any = None
        self._finish: Any = None
        if directory is None:
            return
        name = uuid.uuid4().hex if partition is None else partition
        name = f"{name:05}" if isinstance(name, int) else re.sub(r"[^\w.-]", "_", name)
        self.path = f"{directory.rstrip('/')}/dead-{name}.jsonl"
        self._is_local = "://" not in directory

    def add(self, letter: DeadLetter) -> None:
        if not self.path:
            return
        if self._stream is None:
            self._stream = self._open_local() if self._is_local else self._open_remote()
        self._stream.write(letter_line(letter).encode())

    def _open_local(self) -> Any:
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        self._draft = Path(f"{self.path}.{uuid.uuid4().hex}.tmp")
        # The letters hold values: only their owner may read them.
        fd = os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return os.fdopen(fd, "wb")

    def _open_remote(self) -> Any:
        # Object stores show a file once it is closed.
        system, path = pyarrow.fs.FileSystem.from_uri(self.path)
        return system.open_output_stream(path)

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self._is_local:
            stream.flush()
            os.fsync(stream.fileno())
        stream.close()
        if self._is_local:
            self._draft.replace(self.path)

    def discard(self) -> None:
        """Remove what a task that failed has begun to write."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self._is_local:
            stream.close()
            self._draft.unlink(missing_ok=True)
        else:
            with suppress(OSError):
                stream.close()


# --- reading -------------------------------------------------------------------------------


class ScanPart(NamedTuple):
    """One of `segments` parts of a scan, for one task."""

    segment: int
    segments: int


@dataclass(frozen=True)
class _Reader:
    """What a scan and a lookup have in common."""

    url: str = field(repr=False)  # It may hold a password.
    schema: Namespace | type | str
    features: Sequence[Any] | None = None
    _: KW_ONLY
    key: Sequence[str] | None = None
    statuses: bool = False
    observed_at: bool = False
    max_staleness: Mapping[str, Duration] | None = None

    def __post_init__(self) -> None:
        check_text(self.url, "url")
        namespace = schema_named(self.schema)
        object.__setattr__(self, "schema", namespace)
        names = namespace.by_name if self.features is None else name_list(self.features)
        names = tuple(namespace.feature(name).name for name in names)
        object.__setattr__(self, "features", names)
        check_flag(self.statuses, "statuses")
        check_flag(self.observed_at, "observed_at")
        for name in names:
            self._type(name)

    @property
    def namespace(self) -> Namespace:
        """The namespace that is read."""
        return self.schema  # type: ignore[return-value] # __post_init__ makes it one.

    def _type(self, name: str) -> pa.DataType:
        found = arrow_type(pa, self.namespace.feature(name).type)
        if found is None:
            raise InvalidSchema(
                f"{self.namespace.name}.{name} holds a Document, which has no Arrow type that is "
                "the same for all rows. Name the other features: features=[...]."
            )
        return found

    def _feature_fields(self, prefix: str = "") -> list[pa.Field]:
        found = []
        assert self.features is not None
        for name in self.features:
            found.append(pa.field(f"{prefix}{name}", self._type(name)))
            if self.statuses:
                found.append(pa.field(f"{prefix}{name}.status", pa.string()))
            if self.observed_at:
                kind = pa.timestamp("us", "UTC")
                found.append(pa.field(f"{prefix}{name}.observed_at", kind))
        return found


@dataclass(frozen=True)
class Scan(_Reader):
    """Reads all entities of a namespace in the tasks of a job. It pickles, and has no state.

    `schema` is as for `Sink`, `features` are those to read (default: all). `key` names the columns
    of the primary key in the result (default: those of `Rows.to_arrow`). `segments` is the number
    of parts. `rcu_per_second` bounds the read rate of the whole job, of which `readers` tasks read
    at once (default: `segments`). `statuses`, `observed_at` and `max_staleness` are as for
    `read_table`.

    A scan is eventually consistent, and it reads the whole table, other namespaces included. Each
    entity with a value that can be served comes once. Writes during a scan may be in it or not.

    `export` reads an export of the table to S3 instead, which takes no RCU: the directory or URL of
    the export, such as `s3://bucket/prefix/AWSDynamoDB/01234567890123-abcdef`. The registry is
    still that of the store. The features have to be of one group, because an export has the
    groups of an entity in any of its files. Values are stale by the time of the reading.

    Raises `InvalidSchema`, `InvalidValue` and `UnknownFeature`, before anything is opened.
    """

    _: KW_ONLY
    segments: int = 1
    rcu_per_second: float | None = None
    readers: int | None = None
    export: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.key is None and self.namespace.key.composite:
            names = [f"{self.namespace.key_name}.{n}" for n in range(len(self.namespace.key.parts))]
            object.__setattr__(self, "key", names)
        object.__setattr__(self, "key", tuple(key_columns(self.namespace, self.key)))
        whole_number(self.segments, "segments", most=_MAX_SEGMENTS)
        if self.rcu_per_second is not None:
            finite_number(self.rcu_per_second, "rcu_per_second", least=0.001)
        if self.readers is not None:
            whole_number(self.readers, "readers")
        if self.export is not None:
            check_text(self.export, "export")
            assert self.features is not None
            groups = sorted({self.namespace.feature(name).group for name in self.features})
            if len(groups) > 1:
                raise InvalidValue(
                    f"A scan of an export reads one group; these features are of "
                    f"{', '.join(map(repr, groups))}. Scan each group: features=[...]."
                )

    @property
    def arrow_schema(self) -> pa.Schema:
        """The columns of every batch. An int is int64, a UUID is text."""
        assert self.key is not None
        parts = zip(self.key, self.namespace.key.parts, strict=True)
        keys = [pa.field(name, pa.int64() if part is int else pa.string()) for name, part in parts]
        return pa.schema([*keys, *self._feature_fields()])

    def parts(self) -> list[ScanPart]:
        """Return the parts of the scan, one for each task."""
        return [ScanPart(segment, self.segments) for segment in range(self.segments)]

    def read(self, part: ScanPart) -> Iterator[pa.RecordBatch]:
        """Yield the entities of a part. Raises `InvalidValue` for an int of more than 64 bits.

        Raises `ReadFailed` for a damaged value, and as `OnlineStore.read` does. Raises
        `InvalidValue` for an export that is incomplete, or incremental.
        """
        store, namespace = shared_store(self.url, self.namespace)
        schema = self.arrow_schema
        scanner = _Scanner(store, namespace, self, part)
        for rows in scanner.all_rows(store.driver.run):
            for batch in _table_of_rows(rows, self, schema).to_batches():
                if batch.num_rows:
                    yield batch

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Yield all entities, in this process."""
        for part in self.parts():
            yield from self.read(part)


class _Scanner:
    """One run of `Scan.read`, as operations."""

    def __init__(
        self, store: OnlineStore, namespace: Namespace, scan: Scan, part: ScanPart
    ) -> None:
        self._core = store.core
        self._backend = store.core.backend
        self._namespace = namespace
        self._scan = scan
        self._part = part
        readers = scan.readers or scan.segments
        self._rate = None if scan.rcu_per_second is None else scan.rcu_per_second / readers
        self._start = b""
        self._may_start_at = 0.0
        self._pending: dict[str, dict[str, Attributes]] = {}
        self._seen: set[str] = set()
        self.ended = False

    def all_rows(self, run: Callable[[Operation[Any]], Any]) -> Iterator[Rows]:
        """Yield the entities of the part, page by page."""
        run(self.start())
        if not self._has_more():
            return
        if self._scan.export is None:
            while self._has_more():
                yield run(self.next_rows())
            return
        layout = self._backend.layout
        for items in _exported_items(self._scan.export, self._part):
            entities: dict[str, dict[str, Attributes]] = {}
            for item in items:
                self._add(entities, key_of(layout, item), item)
            yield run(self._rows(list(entities), self._decoded(entities), Report()))

    def _has_more(self) -> bool:
        return not self.ended

    def start(self) -> Operation[None]:
        """Read the registry."""
        call = yield from self._call()
        codec = yield from self._core.registry.for_read(self._namespace, call)
        features, ages = self._scan.features, self._scan.max_staleness or {}
        assert features is not None
        self._plan: ReadPlan = plan_read(codec, features, ages, cached=False)
        self._groups = {group.sk for group in self._plan.groups}
        self._prefix = codec.prefix
        self.ended = codec.prefix is None or not self._plan.groups

    def _call(self) -> Operation[Call]:
        now: Instant = yield NOW
        return Call(now.monotonic + _PAGE_SECONDS)

    def next_rows(self) -> Operation[Rows]:
        """Read a page, and return the entities that are complete."""
        now: Instant = yield NOW
        if self._may_start_at > now.monotonic:
            yield Sleep(self._may_start_at - now.monotonic)
            now = yield NOW
        call = yield from self._call()
        if self._backend.scans_in_order:
            pks, found, units = yield from self._items(call)
        else:
            pks, found, units = yield from self._keys(call)
        if self._rate is not None:
            self._may_start_at = max(now.monotonic, self._may_start_at) + units / self._rate
        return (yield from self._rows(pks, found, call.report))

    def _rows(
        self, pks: Sequence[str], found: Sequence[Sequence[RowOrError]], report: Report
    ) -> Operation[Rows]:
        now: Instant = yield NOW
        prefix = self._prefix or ""
        keys = [parse_key(pk.removeprefix(prefix), self._namespace) for pk in pks]
        return Rows(keys, self._plan.sources, None, found, now.wall, report)

    def _add(
        self, entities: dict[str, dict[str, Attributes]], key: ItemKey, item: Attributes
    ) -> None:
        """Add an item to its entity, if it is of the namespace and of a group that is read."""
        if key.pk.startswith(self._prefix or "") and key.sk in self._groups:
            entities.setdefault(key.pk, {})[key.sk] = item

    def _decoded(self, entities: Mapping[str, Mapping[str, Attributes]]) -> list[list[RowOrError]]:
        found: list[list[RowOrError]] = []
        for group in self._plan.groups:
            items = [each.get(group.sk) for each in entities.values()]
            rendered = [render_item(item) for item in items if item is not None]
            decoded = iter(group.shape.decode_each(rendered))
            found.append([None if item is None else next(decoded) for item in items])
        return found

    def _items(self, call: Call) -> Operation[tuple[list[str], list[list[RowOrError]], float]]:
        """Decode the items of a page. The items of an entity come together, on one or two pages."""
        page = yield from self._backend.scan_items(*self._part, self._start, _PAGE_ITEMS, call)
        self._start, self.ended = page.next, not page.next
        entities, self._pending = self._pending, {}
        last = ItemKey("", "")
        for item in page.items:
            last = key_of(self._backend.layout, item)
            self._add(entities, last, item)
        if not self.ended and last.pk in entities:  # More of its items may be on the next page.
            self._pending = {last.pk: entities.pop(last.pk)}
        return list(entities), self._decoded(entities), page.units

    def _keys(self, call: Call) -> Operation[tuple[list[str], list[list[RowOrError]], float]]:
        """Read the entities of a page of keys, which come in any order and may repeat."""
        page = yield from self._backend.scan_keys(0, 1, self._start, _PAGE_ITEMS, call)
        self._start, self.ended = page.next, not page.next
        segment, segments = self._part
        prefix = self._prefix or ""
        pks = [
            pk
            for pk in dict.fromkeys(page.pks)
            if pk.startswith(prefix)
            and pk not in self._seen
            and segment_of(pk, segments) == segment
        ]
        self._seen.update(pks)
        wanted = [GroupKeys(group.sk, group.shape, pks) for group in self._plan.groups]
        found: list[list[RowOrError]] = [[] for _ in wanted]
        if pks:
            found = yield from self._backend.get(wanted, call)
        return pks, found, page.units


class _ExportedFile(msgspec.Struct, rename={"key": "dataFileS3Key", "items": "itemCount"}):
    """A line of the manifest of an export."""

    key: str
    items: int


class _ExportedLine(msgspec.Struct):
    """A line of a file of a full export."""

    Item: dict[str, msgspec.Raw]


def _exported_items(export: str, part: ScanPart) -> Iterator[list[Attributes]]:
    """Yield the items of the files of a part. Raises `InvalidValue` if one of them lacks items.

    The developer guide, "DynamoDB table export output format": `manifest-files.json` has a line for
    each file of `data`, with the number of its items.
    """
    if "://" in export:
        system, directory = pyarrow.fs.FileSystem.from_uri(export.rstrip("/"))
    else:
        system, directory = pyarrow.fs.LocalFileSystem(), str(Path(export).absolute())
    try:
        with system.open_input_stream(f"{directory}/manifest-files.json") as stream:
            lines = stream.read().splitlines()
        files = [msgspec.json.decode(line, type=_ExportedFile) for line in lines if line]
    except (OSError, msgspec.MsgspecError) as error:
        raise InvalidValue(
            f"export: there is no manifest-files.json in this directory that can be read "
            f"({type(error).__name__}). Give the directory whose name is the id of the export."
        ) from None
    decode = msgspec.json.Decoder(_ExportedLine).decode
    for file in files[part.segment :: part.segments]:
        name, count = file.key.rpartition("/")[2], 0
        items: list[Attributes] = []
        try:
            with (
                system.open_input_stream(f"{directory}/data/{name}", compression=None) as stream,
                gzip.GzipFile(fileobj=stream) as unpacked,
            ):
                for line in unpacked:
                    items.append({n: bytes(raw) for n, raw in decode(line).Item.items()})
                    if len(items) == _PAGE_ITEMS:
                        count += len(items)
                        yield items
                        items = []
        except (OSError, EOFError, zlib.error, msgspec.MsgspecError) as error:
            raise InvalidValue(
                f"export: data/{name} cannot be read ({type(error).__name__}). The export has to "
                "be a full one in DynamoDB's JSON, and complete."
            ) from None
        count += len(items)
        if items:
            yield items
        if count != file.items:
            raise InvalidValue(
                f"export: data/{name} has {count:,} items; its manifest says {file.items:,}. Copy "
                "the export again."
            )


def _table_of_rows(rows: Rows, scan: Scan, schema: pa.Schema) -> pa.Table:
    """Return the rows that have something to serve, in the columns of a schema."""
    nothing = {Status.MISSING, Status.STALE}
    statuses = [rows.statuses(name) for name in rows.features]
    served = [not nothing.issuperset(each) for each in zip(*statuses, strict=True)]
    table = rows.to_arrow(with_key=True, statuses=scan.statuses, observed_at=scan.observed_at)
    if not all(served):
        table = table.filter(pa.array(served, pa.bool_()))
    return _in_schema(table, schema)


def _in_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the columns of a table, in their order, under the names and types of a schema."""
    columns = []
    for column, wanted in zip(table.columns, schema, strict=True):
        try:
            columns.append(column if column.type == wanted.type else column.cast(wanted.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            # pyarrow quotes the value, and `from None` keeps it out of tracebacks.
            raise InvalidValue(
                f"Column {wanted.name!r} is {column.type}, and not all of it fits into "
                f"{wanted.type}. Leave it out: features=[...]."
            ) from None
    return pa.table(columns, schema=schema)


@dataclass(frozen=True)
class Lookup(_Reader):
    """Adds features to batches by their keys, in the tasks of a job: a join by point reads.

    It pickles, and has no state. `schema`, `features`, `statuses`, `observed_at` and
    `max_staleness` are as for `Scan`. `key` names the columns of the primary key in the batches
    (default: the one of its name). The new columns are named `prefix` + feature. A row without
    a key, or without a value, gets nulls. `consistent` asks for strong reads. `timeout`, in
    seconds, bounds the reads of 5,000 rows (default: the store's).

    Raises `InvalidSchema`, `InvalidValue` and `UnknownFeature`, before anything is opened.
    """

    _: KW_ONLY
    prefix: str = ""
    consistent: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "key", tuple(key_columns(self.namespace, self.key)))
        check_flag(self.consistent, "consistent")

    def arrow_schema(self, columns: pa.Schema) -> pa.Schema:
        """Return the columns of the result for batches of these columns."""
        added = self._feature_fields(self.prefix)
        for each in added:
            if each.name in columns.names:
                raise InvalidValue(
                    f"The batch has a column {each.name!r} already. Give the new columns other "
                    "names by prefix=, or leave out the feature by features=[...]."
                )
        return pa.schema([*columns, *added])

    def __call__(self, batch: Any) -> pa.Table:
        """Return a table with the columns of a batch, or of a data frame, and the features.

        Raises as `read_table` does; `ReadFailed` if a key could not be read in time.
        """
        table = batch if isinstance(batch, pa.Table) else pa.table(batch)
        schema = self.arrow_schema(table.schema)
        assert self.key is not None
        missing = [name for name in self.key if name not in table.column_names]
        if missing:
            raise InvalidValue(
                f"The batch has no column {missing[0]!r}; it has {', '.join(table.column_names)}. "
                "Name the columns of the primary key: key=[...]."
            )
        store, namespace = shared_store(self.url, self.namespace)
        keys, places = table.select(list(self.key)), None
        present = pc.is_valid(keys.column(0))
        for other in keys.columns[1:]:
            present = pc.and_(present, pc.is_valid(other))
        if not pc.all(present).as_py():
            keys = keys.filter(present)
            counted = pc.cumulative_sum(present.cast(pa.int64()))
            places = pc.if_else(present, pc.subtract(counted, 1), None)
        found = read_table(
            store,
            namespace,
            keys,
            self.features,
            key=self.key,
            statuses=self.statuses,
            observed_at=self.observed_at,
            max_staleness=self.max_staleness,
            consistent=self.consistent,
            timeout=self.timeout,
        ).drop_columns(list(self.key))
        found = found if places is None else found.take(places)
        added = _in_schema(found, pa.schema(list(schema)[len(table.schema) :]))
        return pa.table([*table.columns, *added.columns], schema=schema)

    def batches(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield each batch with the features: for `mapInArrow` of Spark."""
        for batch in batches:
            yield from self(pa.Table.from_batches([batch])).to_batches()
