"""`ChalkOnlineStore`: what Feast calls. See docs/feast.md."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from feast import Entity, FeatureView, RepoConfig, StreamFeatureView, utils
from feast.infra.infra_object import InfraObject
from feast.infra.online_stores.online_store import OnlineStore as FeastOnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.metrics import track_feature_statuses
from feast.protos.feast.core.Registry_pb2 import Registry
from feast.protos.feast.serving.ServingService_pb2 import GetOnlineFeaturesResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from pydantic import PositiveFloat, PositiveInt

from chalk_online_store.arguments import MAX_FUTURE_SKEW
from chalk_online_store.async_store import AsyncOnlineStore
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.effects import Operation
from chalk_online_store.errors import InvalidValue
from chalk_online_store.integrations.feast import reads, searches, writes
from chalk_online_store.integrations.feast.reads import Ask, Column, OnlineRow
from chalk_online_store.integrations.feast.views import Catalogue, View, entity_of, view_of
from chalk_online_store.integrations.feast.writes import FeastRow
from chalk_online_store.integrations.stores import SharedObjects
from chalk_online_store.operations.write import Ordering
from chalk_online_store.schema import LRUCache
from chalk_online_store.schema.durations import microseconds
from chalk_online_store.store import OnlineStore
from chalk_online_store.urls import parse_url

Progress = Callable[[int], Any] | None

_ROWS_A_WRITE = 1000
"""Rows that share one `timeout`; Feast hands over as many as a materialisation has."""


class ChalkOnlineStoreConfig(FeastConfigBaseModel):
    """The `online_store` of a `feature_store.yaml`."""

    type: Literal["chalk_online_store.integrations.feast.ChalkOnlineStore"] = (
        "chalk_online_store.integrations.feast.ChalkOnlineStore"
    )

    url: str
    """Any store URL, such as `dynamodb:///TABLE?region=us-east-1`."""

    timeout: PositiveFloat = 10.0
    """Seconds that a read may take, and a write for each thousand rows."""

    key_ttl_seconds: PositiveInt | None = None
    """Seconds after its write for which a row of a feature view is served; None for ever."""

    enforce_view_ttl: bool = False
    """Whether a value is served only for its feature view's `ttl` after its event timestamp."""

    ordering: Ordering = "event"
    """As of `OnlineStore.write`: "arrival" is for loads into views that nobody else writes to."""

    consistent: bool = False
    """Whether reads are strongly consistent; twice the RCU."""

    lru_cache_size: PositiveInt | None = None
    """Items to keep in this process; None for none."""

    lru_cache_ttl: str = "1m"
    """How long such an item is served."""

    max_future_skew: str = MAX_FUTURE_SKEW
    """How far ahead of this process's clock an event timestamp may be; `infinity` for no limit."""

    def options(self) -> dict[str, Any]:
        """The options that a store is opened with."""
        return {
            "timeout": self.timeout,
            "lru_cache": self.lru_cache(),
            "max_future_skew": self.max_future_skew,
        }

    def lru_cache(self) -> LRUCache | None:
        """The cache that a store is opened with."""
        size = self.lru_cache_size
        return LRUCache(size, self.lru_cache_ttl, store_cache_misses=True) if size else None


class _Work(NamedTuple):
    """One view of a request: what is asked for, and which entity each answered row is."""

    table: FeatureView
    ask: Ask
    places: Sequence[int]


class _Opened(NamedTuple):
    """An open store, and the views that it has met."""

    store: OnlineStore
    catalogue: Catalogue

    def close(self) -> None:
        self.store.close()


# Feast's engines for Spark and Ray make a new ChalkOnlineStore for each batch, and never close it.
_opened: SharedObjects[_Opened] = SharedObjects()


def _open(online: ChalkOnlineStoreConfig) -> _Opened:
    store = OnlineStore.open(online.url, [], **online.options())
    return _Opened(store, Catalogue(store.core))


class ChalkOnlineStore(FeastOnlineStore):
    """A Feast online store on any engine of this library, sync and async.

    Sync calls of one configuration share one open store in a process.
    """

    _versioned_read_supported = True

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._key = ""
        self._opened_async: tuple[AsyncOnlineStore, Catalogue] | None = None

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Both."""
        return SupportedAsyncMethods(read=True, write=True)

    # --- reading ---------------------------------------------------------------------------

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[OnlineRow]:
        """The event time and the values of each entity; neither where nothing is served.

        Raises `ReadFailed` where an entity could not be read in time, and as `reads.read` does.
        """
        store, catalogue = self._sync(config)
        ask = _ask(catalogue, config, table, requested_features, entity_keys)
        (columns,) = store.driver.run(_read(catalogue, config, [ask]))
        return reads.online_rows(columns, len(entity_keys))

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[OnlineRow]:
        """As `online_read`."""
        store, catalogue = self._async(config)
        ask = _ask(catalogue, config, table, requested_features, entity_keys)
        (columns,) = await store.driver.run(_read(catalogue, config, [ask]))
        return reads.online_rows(columns, len(entity_keys))

    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: searches.Filters = None,
        include_feature_view_version_metadata: bool = False,
    ) -> list[tuple[datetime | None, EntityKey | None, dict[str, Value] | None]]:
        """The nearest entities to an embedding, best first, each with its `distance`.

        `top_k` is at most 100. `filters` are "eq", joined by "and", on fields with the tag
        `vector_filter: "true"`. Raises as `searches.search` does, and `InvalidValue` for a
        `query_string`: there is no search for words.
        """
        if query_string is not None or embedding is None:
            raise InvalidValue(
                "query_string: this store has no search for words. Pass an embedding."
            )
        query = searches.Query(
            table, requested_features or (), embedding, top_k, distance_metric, filters
        )
        return [
            (
                found.event_time,
                found.key,
                found.values | {searches.DISTANCE: Value(float_val=found.distance)},
            )
            for found in self._search(config, query)
        ]

    def retrieve_online_documents(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float],
        top_k: int,
        distance_metric: str | None = None,
    ) -> list[tuple[datetime | None, EntityKey | None, Value | None, Value | None, Value | None]]:
        """The nearest entities to an embedding: event time, entity, feature, vector, distance.

        The feature is the first of `requested_features`. Raises as `searches.search` does.
        """
        if not requested_features:
            raise InvalidValue("requested_features must name the feature to retrieve.")
        query = searches.Query(table, requested_features, embedding, top_k, distance_metric)
        vector = next(field.name for field in table.features if field.vector_index)
        return [
            (
                found.event_time,
                found.key,
                found.values.get(requested_features[0]),
                found.values.get(vector),
                Value(float_val=found.distance),
            )
            for found in self._search(config, query)
        ]

    def _search(self, config: RepoConfig, query: searches.Query) -> list[searches.Document]:
        store, catalogue = self._sync(config)
        operation = searches.search(catalogue, config, query, config.online_store.timeout)
        return store.driver.run(operation)

    def _read_features_per_fv(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """All feature views of a request, in one trip."""
        store, catalogue = self._sync(config)
        works = list(
            _works(catalogue, config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        )
        found = store.driver.run(_read(catalogue, config, [work.ask for work in works]))
        _answer_all(online_features_response, works, found, full_feature_names)
        if include_feature_view_version_metadata:
            _name_versions(online_features_response, works)

    async def _read_features_per_fv_async(
        self,
        config: RepoConfig,
        grouped_refs: list[Any],
        join_key_values: dict[str, Any],
        entity_name_to_join_key_map: dict[str, str],
        online_features_response: GetOnlineFeaturesResponse,
        full_feature_names: bool,
        include_feature_view_version_metadata: bool,
    ) -> None:
        """As `_read_features_per_fv`."""
        store, catalogue = self._async(config)
        works = list(
            _works(catalogue, config, grouped_refs, join_key_values, entity_name_to_join_key_map)
        )
        found = await store.driver.run(_read(catalogue, config, [work.ask for work in works]))
        _answer_all(online_features_response, works, found, full_feature_names)
        if include_feature_view_version_metadata:
            _name_versions(online_features_response, works)

    # --- writing ---------------------------------------------------------------------------

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Progress,
    ) -> None:
        """Write rows in the order of their event times, then of their created times.

        What is older than what is there changes nothing, unless `ordering` is "arrival". Raises
        as `writes.write` does: then some rows may be written, and writing all again is safe. Raises
        `WriteFailed` for rows whose event time is null, before 1970 or too far ahead, after all
        other rows are written.
        """
        store, catalogue = self._sync(config)
        view = catalogue.view(config, table)
        valid, refused = writes.split_by_event_time(data, _latest_event_time(config))
        for some in _chunks(valid):
            store.driver.run(_write(catalogue, config, view, some))
            if progress:
                progress(len(some))
        writes.raise_refused(view, refused)

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Progress,
    ) -> None:
        """As `online_write_batch`."""
        store, catalogue = self._async(config)
        view = catalogue.view(config, table)
        valid, refused = writes.split_by_event_time(data, _latest_event_time(config))
        for some in _chunks(valid):
            await store.driver.run(_write(catalogue, config, view, some))
            if progress:
                progress(len(some))
        writes.raise_refused(view, refused)

    # --- the infrastructure ----------------------------------------------------------------

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Register the features of views, and drop those of deleted views and fields.

        The table is there: nothing is created. What was dropped is never read again; it goes
        from the table when its item is written whole again, or expires.
        """
        kept = [(view_of(config, table), table) for table in tables_to_keep if _is_kept(table)]
        self._change(config, kept, [view_of(config, table).group for table in tables_to_delete])

    def teardown(
        self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]
    ) -> None:
        """Drop the features of these views; the table stays."""
        self._change(config, [], [view_of(config, table).group for table in tables])

    def _change(
        self, config: RepoConfig, kept: list[tuple[View, FeatureView]], deleted: list[str]
    ) -> None:
        store, catalogue = self._sync(config)
        online = config.online_store
        store.driver.run(writes.update(catalogue, config.project, kept, deleted, online.timeout))
        if self._opened_async:
            groups = [*deleted, *(view.group for view, _ in kept)]
            self._opened_async[1].look_again(groups)

    def plan(self, config: RepoConfig, desired_registry_proto: Registry) -> list[InfraObject]:
        """Nothing: the table is not Feast's. But what `apply` would refuse is refused here.

        Raises `InvalidURL`, and `InvalidSchema` for a type that is unknown here or a name that
        is too long. Sends nothing.
        """
        parse_url(config.online_store.url)
        views = [FeatureView.from_proto(proto) for proto in desired_registry_proto.feature_views]
        for proto in desired_registry_proto.stream_feature_views:
            views.append(StreamFeatureView.from_proto(proto))
        for table in views:
            _ = view_of(config, table).features
        return []

    # --- what is open ----------------------------------------------------------------------

    def _sync(self, config: RepoConfig) -> tuple[OnlineStore, Catalogue]:
        opened = self._opened
        if opened is None:
            with self._lock:
                if self._opened is None:
                    online: ChalkOnlineStoreConfig = config.online_store
                    self._key = online.model_dump_json()
                    self._opened = _opened.acquire(self._key, lambda: _open(online))
                opened = self._opened
        return opened.store, opened.catalogue

    def _async(self, config: RepoConfig) -> tuple[AsyncOnlineStore, Catalogue]:
        opened = self._opened_async
        if opened is None:
            with self._lock:
                if self._opened_async is None:
                    online = config.online_store
                    store = AsyncOnlineStore.open(online.url, [], **online.options())
                    self._opened_async = store, Catalogue(store.core)
                opened = self._opened_async
        return opened

    async def initialize(self, config: RepoConfig) -> None:
        """Open connections before a server takes traffic."""
        store, _ = self._async(config)
        await store.warm(timeout=config.online_store.timeout)

    async def close(self) -> None:
        """Close every connection, unless other stores of this configuration use it as well."""
        with self._lock:
            opened, self._opened = self._opened, None
            opened_async, self._opened_async = self._opened_async, None
        if opened:
            _opened.release(self._key)
        if opened_async:
            await opened_async[0].close()


def _is_kept(table: Any) -> bool:
    """Whether a view is stored at all: on-demand views are so only where they say it."""
    return bool(getattr(table, "write_to_online_store", True))


def _latest_event_time(config: RepoConfig) -> int | None:
    """Return the newest event time that a row may have now (UTC us); None for any."""
    skew = microseconds(config.online_store.max_future_skew)
    return None if skew is None else read_clocks().wall + skew


def _chunks(data: Sequence[FeastRow]) -> Iterator[Sequence[FeastRow]]:
    return (data[start : start + _ROWS_A_WRITE] for start in range(0, len(data), _ROWS_A_WRITE))


def _ask(
    catalogue: Catalogue,
    config: RepoConfig,
    table: FeatureView,
    wanted: list[str] | None,
    keys: Sequence[EntityKey],
) -> Ask:
    view = catalogue.view(config, table)
    return Ask(view, view.fields(wanted), [entity_of(key) for key in keys])


def _read(
    catalogue: Catalogue, config: RepoConfig, asked: Sequence[Ask]
) -> Operation[list[list[Column]]]:
    online = config.online_store
    return reads.read(catalogue, config.project, asked, online.consistent, online.timeout)


def _write(
    catalogue: Catalogue, config: RepoConfig, view: View, data: Sequence[FeastRow]
) -> Operation[None]:
    online = config.online_store
    return writes.write(
        catalogue,
        config.project,
        view,
        data,
        ordering=online.ordering,
        key_ttl=online.key_ttl_seconds,
        timeout=online.timeout,
    )


def _works(
    catalogue: Catalogue,
    config: RepoConfig,
    grouped_refs: Sequence[tuple[FeatureView, list[str]]],
    join_key_values: Mapping[str, Sequence[Value]],
    join_keys: Mapping[str, str],
) -> Iterator[_Work]:
    for table, wanted in grouped_refs:
        entities, indexes, count = utils._get_unique_entities(table, join_key_values, join_keys)
        places = [0] * count
        for place, rows in enumerate(indexes):
            for row in rows:
                places[row] = place
        view = catalogue.view(config, table)
        yield _Work(table, Ask(view, view.fields(wanted), entities), places)


def _answer_all(
    response: GetOnlineFeaturesResponse,
    works: Sequence[_Work],
    found: Sequence[Sequence[Column]],
    full: bool,
) -> None:
    for work, columns in zip(works, found, strict=True):
        _answer(response, work, columns, full)


def _answer(
    response: GetOnlineFeaturesResponse, work: _Work, columns: Sequence[Column], full: bool
) -> None:
    prefix = f"{work.table.projection.name_to_use()}__" if full else ""
    columns = columns or reads.absent(work.ask)
    found = reads.respond(response, columns, work.places, prefix)
    asked = len(columns) * len(work.places)
    track_feature_statuses(work.table.name, found, asked - found)


def _name_versions(response: GetOnlineFeaturesResponse, works: Sequence[_Work]) -> None:
    """Say which version of each view was read, once a view."""
    metadata = response.metadata.feature_view_metadata
    for table in (work.table for work in works):
        name = table.projection.name_alias or table.projection.name
        if all(known.name != name for known in metadata):
            metadata.add(name=name, version=getattr(table, "current_version_number", 0) or 0)
