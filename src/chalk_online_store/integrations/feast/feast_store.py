"""`FeastStore`: a Feast online store behind the methods of `OnlineStore`, to migrate from it.

Values from Feast are encoded as an item in memory, and decoded again. So reads have the same rows,
statuses, max staleness and type checks as reads from any other store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from feast import FeatureStore, FeatureView
from feast.errors import FeatureViewNotFoundException
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.arguments import (
    DEFAULT_TIMEOUT,
    check_instance,
    check_mapping,
    key_list,
    list_of,
    row_list,
    text_list,
    timeout_seconds,
    whole_number,
)
from chalk_online_store.backend import RowOrError
from chalk_online_store.codec.changes import Attributes, merge, render_item
from chalk_online_store.codec.namespaces import NamespaceCodec
from chalk_online_store.codec.values import moment
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.drivers.workers import Workers
from chalk_online_store.embedded.backend import EmbeddedBackend
from chalk_online_store.errors import (
    InvalidSchema,
    InvalidStore,
    InvalidValue,
    OnlineStoreError,
    RequestTimeout,
)
from chalk_online_store.integrations.feast.copying import entity_keys, event_time
from chalk_online_store.integrations.feast.values import Kind, kind_of
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.prepared import ReadRequest
from chalk_online_store.operations.read import ReadPlan, distinct_keys, plan_read
from chalk_online_store.operations.rows import Rows
from chalk_online_store.operations.times import ObservedAt, check_not_ahead, times_of_rows
from chalk_online_store.operations.write import changes_of_rows
from chalk_online_store.report import Report
from chalk_online_store.schema import Duration, Namespace, namespace_of
from chalk_online_store.schema.instances import rows_of

T = TypeVar("T")

_READ_AT_ONCE = 100
_READ_AGAIN = 10
"""Keys of a second read: together they stay below the 16 MB that DynamoDB answers at once."""

_MERGING_STORES = frozenset({"RedisOnlineStore", "SqliteOnlineStore"})
"""Stores of Feast's that keep a field which a write does not have. DynamoDB's replaces the row."""

Values = dict[str, Any] | OnlineStoreError
"""Values of one entity by feature, or why one of them cannot be read."""

Items = dict[str, Attributes | OnlineStoreError]
"""Items of one entity by sort key, or why one could not be made."""


@dataclass(frozen=True, slots=True)
class FeastMapping:
    """The Feast references of the features of a namespace.

    `features` has the reference of each feature, such as `{"trips": "driver_stats:trips"}`.
    `join_keys` are the join keys that the primary key consists of, in its order.
    """

    schema: Namespace | type
    features: Mapping[str, str]
    join_keys: Sequence[str]


@dataclass(frozen=True)
class _View:
    """A feature view, and the fields in it by the name of our feature, each with its kind."""

    view: FeatureView
    fields: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)


class FeastStore:
    """A Feast online store with the methods of `OnlineStore` that `DualStore` uses. Thread-safe.

    `mappings` has a `FeastMapping` for each namespace, with every feature of it. Values are
    converted as docs/feast.md says, and refused where the declared type cannot hold them.
    `timeout` bounds each call, in seconds. Feast itself has no timeout, so its requests run in up
    to `max_threads` threads. A request that takes longer continues in its thread.

    Feast has one event timestamp for each row of a view, mostly in seconds, and does not order
    writes by it everywhere. It cannot delete single entities. `close` leaves Feast's store open.

    Raises `InvalidSchema` for a mapping that does not fit, and `InvalidValue`.
    """

    def __init__(
        self,
        store: FeatureStore,
        mappings: Iterable[FeastMapping],
        *,
        timeout: float = DEFAULT_TIMEOUT,
        max_threads: int = 8,
    ) -> None:
        check_instance(store, FeatureStore, "store", InvalidValue, optional=False)
        self._feast = store
        self._timeout = timeout_seconds(timeout)
        self._max_threads = whole_number(max_threads, "max_threads")
        listed = list_of(mappings, "mappings", "FeastMapping objects", "[mapping]")
        for each in listed:
            check_instance(each, FeastMapping, "mappings", InvalidValue, optional=False)
        self.core = Core(
            EmbeddedBackend(), [each.schema for each in listed], timeout=timeout, lru_cache=None
        )
        self._mappings = {namespace_of(each.schema).name: each for each in listed}
        self._views = {
            name: _views_of(store, namespace_of(each.schema), each)
            for name, each in self._mappings.items()
        }
        online_store: Any = store._get_provider().online_store
        self._merges = type(online_store).__name__ in _MERGING_STORES
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """In a forked child: have no threads yet."""
        self._workers = Workers(self._max_threads, "chalk-online-store-feast")

    # --- reading ---------------------------------------------------------------------------

    def read(
        self,
        schema: Namespace | type,
        keys: Iterable[Any],
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        consistent: bool = False,
        timeout: float | None = None,
        defaults: bool = False,
        raise_failed: bool = False,
    ) -> Rows[Any]:
        """Read features of entities: as `OnlineStore.read`.

        With `consistent`, entities without values are read again, a few at a time, because Feast's
        DynamoDB store loses entities that do not fit into one response.

        Raises as `OnlineStore.read` does, and what Feast raises.
        """
        prepared = self.core.prepare(schema, features, max_staleness, defaults)
        self.core.check_open()
        keys, namespace = key_list(keys), prepared.namespace
        codec = self.core.registry.draft(namespace)
        pks, positions = distinct_keys(codec.partition_keys(keys))
        by_pk = dict(zip(codec.partition_keys(keys), keys, strict=True))
        distinct = [by_pk[pk] for pk in pks]
        plan = plan_read(codec, prepared.names, prepared.overrides, True, defaults)
        names = {namespace.feature(name).name for name in prepared.names}
        items: list[Items] = [{} for _ in distinct]
        report = Report()
        deadline = self._deadline(timeout)
        for view in self._views[namespace.name] if keys else ():
            wanted = {name: each for name, each in view.fields.items() if name in names}
            if wanted:
                found = self._read_view(view, namespace, distinct, wanted, consistent, deadline)
                report.requests += 1
                for place, row in enumerate(found):
                    if row is not None:
                        _add(codec, items[place], distinct[place], wanted, *row)
        rows = _rows(plan, keys, positions, items, report)
        if raise_failed:
            rows.raise_failed()
        return rows

    def read_many(
        self, *requests: ReadRequest[Any], timeout: float | None = None, **options: Any
    ) -> tuple[Rows[Any], ...]:
        """Read several namespaces, one after the other: as `OnlineStore.read_many`."""
        deadline = self._deadline(timeout)
        return tuple(
            self.read(
                each.schema,
                each.keys,
                each.features,
                max_staleness=each.max_staleness,
                timeout=max(deadline - read_clocks().monotonic, 0.0),
                **options,
            )
            for each in requests
        )

    def prepare(
        self,
        schema: Namespace | type,
        features: Sequence[Any] | None = None,
        *,
        max_staleness: Mapping[Any, Duration] | None = None,
        defaults: bool = False,
    ) -> None:
        """Raise for arguments that `read` refuses."""
        self.core.prepare(schema, features, max_staleness, defaults)

    def _read_view(
        self,
        view: _View,
        namespace: Namespace,
        keys: Sequence[Any],
        wanted: Mapping[str, str],
        consistent: bool,
        deadline: float,
    ) -> list[tuple[int, Values] | None]:
        """Return the time (UTC us) and the values of each key; None for those without values."""
        feast_keys = self._entity_keys(view, namespace, keys)
        provider, config = self._feast._get_provider(), self._feast.config
        found: list[tuple[int, Values] | None] = [None] * len(keys)
        left = list(range(len(keys)))
        for at_once in (_READ_AT_ONCE, _READ_AGAIN) if consistent else (_READ_AT_ONCE,):
            for start in range(0, len(left), at_once):
                some = left[start : start + at_once]
                ask = [feast_keys[place] for place in some]
                read = partial(provider.online_read, config, view.view, ask, list(wanted.values()))
                for place, (when, values) in zip(some, self._call(read, deadline), strict=True):
                    at = event_time(when)
                    if values and at is not None:
                        row = _values(view, namespace, wanted, values)
                        found[place] = _microseconds(at), row
            left = [place for place in left if found[place] is None]
        return found

    def _entity_keys(
        self, view: _View, namespace: Namespace, keys: Sequence[Any]
    ) -> list[EntityKey]:
        names = self._mappings[namespace.name].join_keys
        parts = [key if namespace.key.composite else (key,) for key in keys]
        rows = [
            {n: str(p) if isinstance(p, UUID) else p for n, p in zip(names, each, strict=True)}
            for each in parts
        ]
        return list(entity_keys(view.view, rows))

    # --- writing ---------------------------------------------------------------------------

    def write(
        self,
        schema: Namespace | type,
        rows: Iterable[Any],
        *,
        observed_at: ObservedAt = None,
        timeout: float | None = None,
    ) -> Report:
        """Write rows to the feature views of their features: as `OnlineStore.write`.

        All rows are checked before anything is sent. A row must have all fields of a view, unless
        Feast's store merges rows, as its Redis and SQLite stores do. An older row can overwrite
        a newer one: that depends on Feast's store.

        Raises as `OnlineStore.write` does, `InvalidValue` for a row with a part of a view, and
        what Feast raises.
        """
        namespace = self.core.namespace(schema)
        found, own = rows_of(namespace, row_list(rows))
        now = read_clocks()
        times = times_of_rows(observed_at, len(found), own, now.wall)
        check_not_ahead(times, self.core.latest_time(namespace, now))
        codec = self.core.registry.draft(namespace)
        changes_of_rows(codec, found, times)  # Refuses bad rows.
        exact = self._exact_rows(codec, found, times)
        batches = [
            (view, [row for row in map(partial(self._feast_row, view), exact) if row is not None])
            for view in self._views[namespace.name]
        ]
        provider, config = self._feast._get_provider(), self._feast.config
        report, deadline = Report(), self._deadline(timeout)
        for view, data in batches:
            if not data:
                continue
            data.sort(key=lambda row: row[2])  # Of rows of one entity, Feast keeps the last one.
            keys = self._entity_keys(view, namespace, [key for key, _, _ in data])
            batch = [
                (key, values, at, None) for key, (_, values, at) in zip(keys, data, strict=True)
            ]
            write = partial(provider.online_write_batch, config, view.view, batch, None)
            self._call(write, deadline)
            report.requests += 1
            report.items_written += len(batch)
        return report

    def _exact_rows(
        self, codec: NamespaceCodec, rows: Sequence[Mapping[str, Any]], times: Sequence[int]
    ) -> list[tuple[Any, dict[str, Any], datetime]]:
        """Return the key, the values and the time of each row, values as a read would have them."""
        namespace = codec.namespace
        items: list[Items] = [{} for _ in rows]
        keys = [row[namespace.key_name] for row in rows]
        for row, item, at in zip(rows, items, times, strict=True):
            _add(codec, item, row[namespace.key_name], row, at, dict(row))
        endless = dict.fromkeys(namespace.by_name, "infinity")
        plan = plan_read(codec, tuple(namespace.by_name), endless, True)
        exact = _rows(plan, keys, None, items, Report())
        return [
            (
                keys[place],
                {name: exact.value(place, name) for name in namespace.by_name if name in row},
                moment(times[place]),
            )
            for place, row in enumerate(rows)
        ]

    def _feast_row(
        self, view: _View, row: tuple[Any, Mapping[str, Any], datetime]
    ) -> tuple[Any, dict[str, Value], datetime] | None:
        """Return the part of a row that belongs to a view; None if it is empty."""
        key, values, at = row
        named = [name for name in view.fields if name in values]
        if not named:
            return None
        absent = {f.name for f in view.view.features} - {view.fields[name] for name in named}
        if absent and not self._merges:
            raise InvalidValue(
                f"The row lacks {', '.join(sorted(absent))} of the feature view "
                f"{view.view.name!r}, and Feast's store would remove them. Write all fields of the "
                "view together, and map all of them."
            )
        found = {}
        for name in named:
            try:
                found[view.fields[name]] = view.kinds[name].dump(values[name])
            except (TypeError, ValueError, AttributeError):
                raise InvalidValue(
                    f"{name!r} cannot be written to {view.view.name}:{view.fields[name]}: that is "
                    f"in {view.kinds[name].field}, which does not hold this value."
                ) from None
        return key, found, at

    def delete(self, *_: Any, **__: Any) -> NoReturn:
        """Raise `InvalidStore`: Feast has no call that deletes entities or features."""
        raise InvalidStore(
            "Feast cannot delete single entities or features. Stop writing to Feast first, and "
            "delete from the new store alone."
        )

    # --- calls -----------------------------------------------------------------------------

    def _deadline(self, timeout: float | None) -> float:
        seconds = self._timeout if timeout is None else timeout_seconds(timeout)
        return read_clocks().monotonic + seconds

    def _call(self, call: Callable[[], T], deadline: float) -> T:
        result = self._workers.submit(call)
        left = max(deadline - read_clocks().monotonic, 0.0)
        try:
            return result.result(left)
        except TimeoutError:
            if result.done():  # Feast's own.
                raise
            result.set_exception(TimeoutError())  # It is not begun, if it has not been yet.
            raise RequestTimeout("Feast did not respond in time.") from None

    def close(self) -> None:
        """End the threads; Feast's store stays open. A second call does nothing."""
        self.core.closed = True
        self._workers.stop()


class AsyncFeastStore:
    """As `FeastStore`, for asyncio: each call runs in a thread. Its arguments are the same."""

    def __init__(
        self, store: FeatureStore, mappings: Iterable[FeastMapping], **options: Any
    ) -> None:
        self._store = FeastStore(store, mappings, **options)
        self.core = self._store.core
        self.prepare = self._store.prepare

    async def read(self, *args: Any, **options: Any) -> Rows[Any]:
        """As `FeastStore.read`."""
        return await asyncio.to_thread(self._store.read, *args, **options)

    async def read_many(self, *args: Any, **options: Any) -> tuple[Rows[Any], ...]:
        """As `FeastStore.read_many`."""
        return await asyncio.to_thread(self._store.read_many, *args, **options)

    async def write(self, *args: Any, **options: Any) -> Report:
        """As `FeastStore.write`."""
        return await asyncio.to_thread(self._store.write, *args, **options)

    async def delete(self, *args: Any, **options: Any) -> NoReturn:
        """As `FeastStore.delete`."""
        self._store.delete(*args, **options)

    async def close(self) -> None:
        """As `FeastStore.close`."""
        await asyncio.to_thread(self._store.close)


def _views_of(store: FeatureStore, namespace: Namespace, mapping: FeastMapping) -> list[_View]:
    """Return the views of a namespace. Raises `InvalidSchema` for what does not fit."""
    check_mapping(mapping.features, "features", '{"trips": "driver_stats:trips"}')
    join_keys = text_list(mapping.join_keys, "join_keys", "names of join keys")
    if len(join_keys) != len(namespace.key.parts):
        raise InvalidSchema(
            f"{namespace.name!r}: the primary key has {len(namespace.key.parts)} parts; got "
            f"{len(join_keys)} join keys. Name one join key for each part."
        )
    unmapped = namespace.by_name.keys() - mapping.features.keys()
    if unmapped:
        raise InvalidSchema(
            f"{namespace.name!r}: no Feast reference for {', '.join(sorted(unmapped))}. Map every "
            "feature, or migrate with a feature class that has the mapped ones only."
        )
    views: dict[str, _View] = {}
    pairs = sorted((reference.partition(":"), name) for name, reference in mapping.features.items())
    for view_name, some in groupby(pairs, key=lambda pair: pair[0][0]):
        view = _View(_view_called(store, view_name))
        columns = {column.name for column in view.view.entity_columns}
        if columns != set(join_keys):
            raise InvalidSchema(
                f"The feature view {view_name!r} has the join keys {', '.join(sorted(columns))}; "
                f"the mapping of {namespace.name!r} has {', '.join(sorted(join_keys))}."
            )
        fields = {each.name: each for each in view.view.features}
        for (_, _, field_name), name in some:
            namespace.feature(name)
            if field_name not in fields:
                raise InvalidSchema(
                    f"The feature view {view_name!r} has no field {field_name!r}. It has: "
                    f"{', '.join(sorted(fields))}."
                )
            view.fields[name] = field_name
            view.kinds[name] = kind_of(fields[field_name])
        views[view_name] = view
    return list(views.values())


def _view_called(store: FeatureStore, name: str) -> FeatureView:
    try:
        return store.get_feature_view(name)
    except FeatureViewNotFoundException:
        raise InvalidSchema(
            f'Feast has no feature view {name!r}. References are "view:field".'
        ) from None


def _microseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND


_MICROSECOND = moment(1) - moment(0)


def _values(
    view: _View, namespace: Namespace, wanted: Mapping[str, str], found: Mapping[str, Value]
) -> Values:
    """Return values of Feast's as ours. A null that the feature cannot be is left out: missing."""
    values = {}
    for name, field_name in wanted.items():
        if field_name in found:
            try:
                value = view.kinds[name].encode(found[field_name], name)
            except InvalidValue as error:
                return error
            if value is not None or namespace.by_name[name].nullable:
                values[name] = value
    return values


def _add(
    codec: NamespaceCodec,
    items: Items,
    key: Any,
    names: Iterable[str],
    at: int,
    values: Values,
) -> None:
    """Merge values of some features at a time (UTC us) into the items of their entity."""
    named, key_name = {*names}, codec.namespace.key_name
    for group in codec.groups.values():
        of_group = {column.feature.name for column in group.columns} & named
        known = items.get(group.sk)
        if not of_group or isinstance(known, OnlineStoreError):
            continue
        if isinstance(values, OnlineStoreError):
            items[group.sk] = values
            continue
        row = {name: value for name, value in values.items() if name in of_group}
        try:
            for change in codec.changes({**row, key_name: key}, at) if row else ():
                known = merge(codec.layout, known, change)
        except OnlineStoreError as error:
            items[group.sk] = error
        else:
            if known is not None:
                items[group.sk] = known


def _rows(
    plan: ReadPlan,
    keys: Sequence[Any],
    positions: Sequence[int] | None,
    items: Sequence[Items],
    report: Report,
) -> Rows[Any]:
    """Return the rows that a read of these items has."""
    found: list[list[RowOrError]] = []
    for group in plan.groups:
        column: list[RowOrError] = []
        for item in (each.get(group.sk) for each in items):
            if item is None or isinstance(item, OnlineStoreError):
                report.failed += item is not None
                column.append(item)
            else:
                column += group.shape.decode_items([render_item(item)])
                report.items_read += 1
        found.append(column)
    return Rows(keys, plan.sources, positions, found, read_clocks().wall, report)
