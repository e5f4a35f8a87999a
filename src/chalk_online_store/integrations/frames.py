"""Tables and data frames, written and read: `pip install 'chalk-online-store[arrow]'`.

A table is a `pyarrow.Table` or `RecordBatch`, a data frame of pandas or polars, or whatever else
has Arrow's `__arrow_c_stream__`. None of these libraries but pyarrow is imported. Columns go to
the table, and come from it, without a dictionary for each row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from chalk_online_store.arguments import check_text, whole_number
from chalk_online_store.async_store import AsyncOnlineStore
from chalk_online_store.codec.columns import ColumnBatch
from chalk_online_store.errors import (
    InvalidValue,
    MissingDependency,
    OnlineStoreError,
    WriteFailed,
    write_advice,
)

try:
    import pyarrow as pa
    import pyarrow.types as kinds
except ImportError as error:
    raise MissingDependency(
        "Tables and data frames need pyarrow: pip install 'chalk-online-store[arrow]'."
    ) from error

from chalk_online_store.integrations.conversion import TableConverter
from chalk_online_store.integrations.tables import Keys, index_names, key_columns, keys_of, table_of
from chalk_online_store.operations.arrays import integers_array
from chalk_online_store.operations.rows import Rows
from chalk_online_store.operations.times import ObservedAt
from chalk_online_store.operations.write import Ordering
from chalk_online_store.report import Report
from chalk_online_store.schema import Duration, Namespace, namespace_of
from chalk_online_store.schema.types import SCALARS, FeatureType
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.async_writer import AsyncPersistenceWriter
from chalk_online_store.writer.tickets import AsyncTicket, Priority, Ticket
from chalk_online_store.writer.writer import PersistenceWriter

CHUNK = 5_000
"""Rows that are written, or read, by one call of the store."""


class _Chunk(NamedTuple):
    """Some rows of a table, the first of which is at `first`."""

    first: int
    rows: ColumnBatch
    observed_at: ObservedAt


class _Source:
    """A table, and what its columns are to a namespace."""

    def __init__(
        self,
        schema: Namespace | type,
        table: Any,
        key: Sequence[str] | None,
        observed_at: str | datetime | None,
        time_zone: str | None,
        chunk: int,
    ) -> None:
        namespace = namespace_of(schema)
        if key is None and namespace.key.composite:
            key = index_names(table)
        if observed_at is not None and not isinstance(observed_at, datetime):
            check_text(observed_at, "observed_at (a datetime, or the name of a column)")
        if time_zone is not None:
            check_text(time_zone, "time_zone")
        self._observed_at = observed_at
        self._size = whole_number(chunk, "chunk")
        self._table = table_of(table)
        column = observed_at if isinstance(observed_at, str) else None
        names = self._table.names
        key = key_columns(namespace, key)
        self._converter = TableConverter(namespace, names, key, column, time_zone)

    def __len__(self) -> int:
        return self._table.num_rows

    def chunks(self) -> Iterator[_Chunk]:
        for first in range(0, len(self), self._size):
            found = self._converter.convert(self._table.slice(first, self._size), first)
            times: Any = self._observed_at if found.observed_at is None else found.observed_at
            yield _Chunk(first, found.rows, times)


# --- writing -------------------------------------------------------------------------------


def batches_of(
    schema: Namespace | type,
    table: Any,
    *,
    key: Sequence[str] | None = None,
    time_zone: str | None = None,
    chunk: int = CHUNK,
) -> Iterator[Sequence[Mapping[str, Any]]]:
    """The rows of a table, `chunk` at a time: what `write` of any store takes, by columns.

    Columns are as for `write_table`. Raises `InvalidValue`, `UnknownFeature`.
    """
    source = _Source(schema, table, key, None, time_zone, chunk)
    return (found.rows for found in source.chunks())


def write_table(
    store: OnlineStore,
    schema: Namespace | type,
    table: Any,
    *,
    key: Sequence[str] | None = None,
    observed_at: str | datetime | None = None,
    time_zone: str | None = None,
    ordering: Ordering = "event",
    chunk: int = CHUNK,
    timeout: float | None = None,
) -> Report:
    """Write a table: a row for each entity, a column for each feature, nulls as nulls.

    `key` names the columns of the primary key, unless that is one of its own name.
    `observed_at` is a moment for all rows, or the name of a column of them; timestamps without a
    time zone are in `time_zone`, and refused where that is not stated. `ordering` is as in
    `OnlineStore.write`. `chunk` rows are written by each call, which may take `timeout` seconds.

    A chunk is checked before it is sent; the chunks before it are written by then, which the
    error tells. Raises `InvalidValue` naming a column that is of no use here, and as
    `OnlineStore.write` does; `WriteFailed` has the positions of all rows of the table that are
    not written, those that were not tried included.
    """
    source, report = _Source(schema, table, key, observed_at, time_zone, chunk), Report()
    for found in _told(source):
        try:
            written = store.write(
                schema,
                found.rows,
                observed_at=found.observed_at,
                ordering=ordering,
                timeout=timeout,
            )
        except OnlineStoreError as error:
            _stop(source, found, error, report)
        report.add(written)
    return report


async def write_table_async(
    store: AsyncOnlineStore,
    schema: Namespace | type,
    table: Any,
    *,
    key: Sequence[str] | None = None,
    observed_at: str | datetime | None = None,
    time_zone: str | None = None,
    ordering: Ordering = "event",
    chunk: int = CHUNK,
    timeout: float | None = None,
) -> Report:
    """As `write_table`, for an `AsyncOnlineStore`."""
    source, report = _Source(schema, table, key, observed_at, time_zone, chunk), Report()
    for found in _told(source):
        try:
            written = await store.write(
                schema,
                found.rows,
                observed_at=found.observed_at,
                ordering=ordering,
                timeout=timeout,
            )
        except OnlineStoreError as error:
            _stop(source, found, error, report)
        report.add(written)
    return report


def submit_table(
    writer: PersistenceWriter,
    schema: Namespace | type,
    table: Any,
    *,
    key: Sequence[str] | None = None,
    observed_at: str | datetime | None = None,
    time_zone: str | None = None,
    priority: Priority = "live",
    chunk: int = CHUNK,
) -> list[Ticket]:
    """Hand a table over to a persistence writer, a ticket for each `chunk` rows.

    Columns are as for `write_table`. Raises `InvalidValue`, and as `PersistenceWriter.submit`.
    """
    source = _Source(schema, table, key, observed_at, time_zone, chunk)
    return [
        writer.submit(schema, found.rows, found.observed_at, priority=priority)
        for found in _told(source)
    ]


async def submit_table_async(
    writer: AsyncPersistenceWriter,
    schema: Namespace | type,
    table: Any,
    *,
    key: Sequence[str] | None = None,
    observed_at: str | datetime | None = None,
    time_zone: str | None = None,
    priority: Priority = "live",
    chunk: int = CHUNK,
) -> list[AsyncTicket]:
    """As `submit_table`, for an `AsyncPersistenceWriter`."""
    source = _Source(schema, table, key, observed_at, time_zone, chunk)
    return [
        await writer.submit(schema, found.rows, found.observed_at, priority=priority)
        for found in _told(source)
    ]


def _told(source: _Source) -> Iterator[_Chunk]:
    """The chunks; what is wrong with one says where it begins."""
    first = 0
    try:
        for chunk in source.chunks():
            yield chunk
            first = chunk.first + len(chunk.rows)
    except InvalidValue as error:
        error.add_note(_where(first))
        raise


def _where(first: int) -> str:
    return f"In the chunk of the table that begins at row {first}; those before it went through."


def _stop(source: _Source, chunk: _Chunk, error: OnlineStoreError, before: Report) -> NoReturn:
    """Raise what ended a write, in terms of the table."""
    if not isinstance(error, WriteFailed):
        error.add_note(_where(chunk.first))
        raise error
    failed = {chunk.first + position: cause for position, cause in error.failed.items()}
    after = range(chunk.first + len(chunk.rows), len(source))
    cause = next(iter(failed.values()))
    before.add(error.report)
    raise WriteFailed(
        f"{len(failed)} rows of the table were not written, and {len(after)} after them not tried: "
        f"{cause} {write_advice(error.failed.values())}",
        failed | dict.fromkeys(after, cause),
        before,
    ) from error


# --- reading -------------------------------------------------------------------------------


def read_table(
    store: OnlineStore,
    schema: Namespace | type,
    keys: Any,
    features: Sequence[str] | None = None,
    *,
    key: Sequence[str] | None = None,
    types: pa.Schema | None = None,
    statuses: bool = False,
    observed_at: bool = False,
    max_staleness: Mapping[str, Duration] | None = None,
    consistent: bool = False,
    skip_failed: bool = False,
    chunk: int = CHUNK,
    timeout: float | None = None,
) -> pa.Table:
    """Read features (all, unless named) into a table that begins with the columns of the key.

    `keys` is a list of primary keys, or a column of them (Arrow, pandas, polars, numpy). It can be
    a table or data frame if `key` names the columns of the key; other columns are ignored. `key`
    also names the columns of the result. Keys are converted as `write_table` converts them, and
    integer columns are returned in their types. Other types are those of docs/frames.md; columns
    that `types` has come in its types. `statuses`, `observed_at` and `skip_failed` are as for
    `Rows.to_arrow`: with `skip_failed` a value that could not be read is null. `chunk` keys are
    read by each call, which may take `timeout` seconds.

    Raises as `OnlineStore.read` does, `ReadFailed` where a key could not be read in time, and
    `InvalidValue` for what is no value of one of the `types`, and a bad column of keys.
    """
    given = keys_of(namespace_of(schema), keys, key)
    frame = _Frame(schema, given, types, statuses, observed_at, skip_failed)
    for some in _chunks_of(given, chunk):
        frame.add(
            store.read(
                schema,
                some,
                features,
                max_staleness=max_staleness,
                consistent=consistent,
                timeout=timeout,
            )
        )
    return frame.table()


async def read_table_async(
    store: AsyncOnlineStore,
    schema: Namespace | type,
    keys: Any,
    features: Sequence[str] | None = None,
    *,
    key: Sequence[str] | None = None,
    types: pa.Schema | None = None,
    statuses: bool = False,
    observed_at: bool = False,
    max_staleness: Mapping[str, Duration] | None = None,
    consistent: bool = False,
    skip_failed: bool = False,
    chunk: int = CHUNK,
    timeout: float | None = None,
) -> pa.Table:
    """As `read_table`, for an `AsyncOnlineStore`."""
    given = keys_of(namespace_of(schema), keys, key)
    frame = _Frame(schema, given, types, statuses, observed_at, skip_failed)
    for some in _chunks_of(given, chunk):
        frame.add(
            await store.read(
                schema,
                some,
                features,
                max_staleness=max_staleness,
                consistent=consistent,
                timeout=timeout,
            )
        )
    return frame.table()


def _chunks_of(given: Keys, chunk: int) -> Iterator[list[Any]]:
    """Yield at least one chunk, which is empty if there are no keys."""
    found = given.values
    for first in range(0, max(1, len(found)), whole_number(chunk, "chunk")):
        yield found[first : first + chunk]


class _Frame:
    """A table that is read chunk by chunk."""

    def __init__(
        self,
        schema: Namespace | type,
        keys: Keys,
        types: pa.Schema | None,
        statuses: bool,
        observed_at: bool,
        skip_failed: bool,
    ) -> None:
        self._namespace = namespace_of(schema)
        self._skip_failed = skip_failed
        self._key = keys.names
        self._types = dict(keys.types)
        if types is not None:
            self._types |= {field.name: field.type for field in types}
        self._statuses = statuses
        self._observed_at = observed_at
        self._parts: list[pa.Table] = []

    def add(self, rows: Rows) -> None:
        table = rows.to_arrow(
            statuses=self._statuses,
            observed_at=self._observed_at,
            skip_failed=self._skip_failed,
        )
        for place, name in enumerate(self._key):
            table = table.add_column(place, name, self._keys(rows.keys, place))
        self._parts.append(table)

    def _keys(self, keys: Sequence[Any], place: int) -> pa.Array:
        key = self._namespace.key
        values = [part[place] for part in keys] if key.composite else keys
        kind: FeatureType = SCALARS[key.parts[place]]
        if kind.name == "int":
            return integers_array(values)
        return pa.array(map(str, values), pa.string())

    def table(self) -> pa.Table:
        """All of it; an integer of more than 64 bits in one chunk is a decimal in all."""
        table = pa.concat_tables(self._parts, promote_options="permissive")
        for place, field in enumerate(table.schema):
            wanted = self._types.get(field.name)
            if wanted is not None and wanted != field.type:
                column = self._cast(table.column(place), wanted, field.name)
                table = table.set_column(place, field.with_type(wanted), column)
        return table

    def _cast(self, column: pa.ChunkedArray, wanted: pa.DataType, name: str) -> Any:
        try:
            if kinds.is_dictionary(wanted):
                return column.cast(wanted.value_type).dictionary_encode().cast(wanted)
            return column.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidValue(
                f"Column {name!r} is {column.type}, and not all of it {wanted}."
            ) from error
