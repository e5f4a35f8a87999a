"""Vector search through Feast: `retrieve_online_documents_v2` and its predecessor.

A field with `vector_index=True` is indexed. Fields of its view that have the tag
`vector_filter: "true"` are its filters: a search can compare them for equality.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from feast import FeatureStore, FeatureView, Field, RepoConfig
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from chalk_online_store.arguments import MAX_SCANNED
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import InvalidValue
from chalk_online_store.integrations.feast.reads import (
    Ask,
    columns_of,
    feature_names,
    is_present,
    online_rows,
)
from chalk_online_store.integrations.feast.views import (
    KEY,
    Catalogue,
    JoinKeys,
    View,
    distance_of,
    informed,
    join_keys_of,
    value_field,
    view_of,
)
from chalk_online_store.operations.search import SearchRows
from chalk_online_store.schema import Namespace

DISTANCE = "distance"
"""What Feast calls the score, beside the features of a document."""

Filters: TypeAlias = ComparisonFilter | CompoundFilter | None


class Document(NamedTuple):
    """One result: when its values were true, its entity, its values, and how near it is."""

    event_time: datetime | None
    key: EntityKey
    values: dict[str, Value]
    distance: float


class Query(NamedTuple):
    """A search as Feast asks for it. An empty `fields` stands for none but the vector."""

    table: FeatureView
    fields: Sequence[str]
    embedding: Sequence[float]
    top_k: int
    metric: str | None
    filters: Filters = None


def search(
    catalogue: Catalogue, config: RepoConfig, query: Query, timeout: float
) -> Operation[list[Document]]:
    """The nearest documents of a view, best first.

    Raises `InvalidValue` for a view without an indexed vector, another metric than the field's,
    filters other than equality joined by "and", and what `OnlineStore.search` raises.
    """
    view = catalogue.view(config, query.table)
    keys = join_keys_of(query.table)
    if keys is None:
        raise InvalidValue(
            f"The feature view {query.table.name!r} does not say the types of its join keys. Give "
            "its entities a value type."
        )
    field = _vector_field(query)
    where = dict(_conditions(query.filters))
    asked = Ask(view, list(dict.fromkeys([field.name, *view.fields(query.fields)])), ())
    attempt = partial(_search, catalogue, config.project, query, keys, asked, where, timeout)
    return (yield from informed(catalogue, attempt, timeout))


def _search(
    catalogue: Catalogue,
    project: str,
    query: Query,
    keys: JoinKeys,
    asked: Ask,
    where: dict[str, Any],
    timeout: float,
) -> Operation[list[Document]]:
    view = asked.view
    namespace = catalogue.namespace(project, keys, [view])
    rows: SearchRows[Any] = yield from catalogue.core.search(
        namespace,
        view.names[asked.fields[0]],
        query.embedding,
        k=query.top_k,
        where={view.names.get(name, name): value for name, value in where.items()},
        features=feature_names([asked]),
        max_staleness=None,
        max_scanned=MAX_SCANNED,
        timeout=timeout,
        defaults=False,
        raise_failed=True,
    )
    now: Instant = yield NOW
    columns = columns_of(rows, asked, now.wall)
    found = online_rows(columns, len(rows))
    return [
        Document(event_time, _entity_key(query.table, keys, key), values or {}, score)
        for (event_time, values), key, score, status in zip(
            found, rows.keys, rows.scores, columns[0].statuses, strict=True
        )
        if is_present(status)  # The vector may be past its `key_ttl_seconds`.
    ]


def _vector_field(query: Query) -> Field:
    """The indexed field that a search is of."""
    indexed = [field for field in query.table.features if field.vector_index]
    if len(indexed) > 1:
        indexed = [field for field in indexed if field.name in query.fields]
    if len(indexed) != 1:
        raise InvalidValue(
            f"The feature view {query.table.name!r} has {len(indexed)} fields to search. Declare "
            "one Field(vector_index=True, vector_length=...), or request one of several."
        )
    (field,) = indexed
    if query.metric and distance_of(query.metric) != distance_of(field.vector_search_metric):
        raise InvalidValue(
            f"distance_metric={query.metric!r}: the index of {field.name!r} has "
            f"{field.vector_search_metric or 'COSINE'}. An index has one metric: leave it out."
        )
    return field


def _conditions(filters: Filters) -> Iterator[tuple[str, Any]]:
    """The values that fields have to be equal to."""
    if isinstance(filters, ComparisonFilter) and filters.type == "eq":
        yield filters.key, filters.value
    elif isinstance(filters, CompoundFilter) and filters.type == "and":
        for each in filters.filters:
            yield from _conditions(each)
    elif filters is not None:
        raise InvalidValue(
            f"filters: {filters.type!r} is not supported. A vector index compares for equality "
            'only: use "eq", joined by "and".'
        )


def _entity_key(table: FeatureView, keys: JoinKeys, key: Any) -> EntityKey:
    """The entity of a primary key, with values of the types of the view's entities."""
    fields = {column.name: value_field(column.dtype) for column in table.entity_columns}
    parts = key if len(keys.names) > 1 else (key,)
    values = []
    for name, part in zip(keys.names, parts, strict=True):
        field = fields[name]
        plain = bytes.fromhex(part) if field == "bytes_val" else part
        values.append(Value(**{field: str(part) if field.endswith("uuid_val") else plain}))
    return EntityKey(join_keys=list(keys.names), entity_values=values)


def namespaces_of(store: FeatureStore) -> list[Namespace]:
    """Return the namespaces of a feature store's views, for `create_vector_indexes`.

    Views whose entities do not say their types are left out, as they cannot be searched.
    """
    config = store.config
    views: dict[str, tuple[JoinKeys, list[View]]] = {}
    for table in store.list_feature_views():
        keys = join_keys_of(table)
        if keys is not None:
            name = keys.namespace_name(config.project)
            views.setdefault(name, (keys, []))[1].append(view_of(config, table))
    return [
        Namespace(
            name,
            keys.annotation,
            [feature for view in members for feature in view.features],
            key_name=KEY,
        )
        for name, (keys, members) in views.items()
    ]
