"""Feature views as groups of features, and entity keys as primary keys.

All feature views of a project that are keyed by the same join keys are one namespace, each view
a group of it (docs/decisions/0018-feast.md says why). A namespace grows as views are met.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from chalk_online_store.backend import Call
from chalk_online_store.effects import NOW, Instant, Operation
from chalk_online_store.errors import InvalidKey, InvalidSchema, TypeConflict, UnknownFeature
from chalk_online_store.integrations.feast.values import Kind, kind_of
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.registry import REFRESH_SECONDS
from chalk_online_store.schema import Feature, Namespace, VectorIndex
from chalk_online_store.schema.vector_index import Distance

T = TypeVar("T")

KEY = "key"
"""What rows call the entity key. Names of features have an "@", so none of them is the same."""

_KEY_TYPES: dict[str, tuple[type, Any]] = {
    "int32_val": (int, None),
    "int64_val": (int, None),
    "unix_timestamp_val": (int, None),
    "string_val": (str, None),
    "bytes_val": (str, bytes.hex),
    "uuid_val": (UUID, UUID),
    "time_uuid_val": (UUID, UUID),
}
_MOST_KEPT = 1024


@lru_cache(_MOST_KEPT)
def escaped(name: str) -> str:
    """A name of Feast's as a part of one of ours: without "@", which divides the parts.

    Ours begin with a letter or "_"; "_--" before another stands for nothing.
    """
    text = re.sub(r"[^A-Za-z0-9_]", lambda found: f"-{ord(found[0]):x}-", name)
    return text if re.match("[A-Za-z_]", text) else f"_--{text}"


@dataclass(frozen=True, slots=True)
class JoinKeys:
    """What identifies the entities of some views: join keys, sorted, and the type of each."""

    names: tuple[str, ...]
    types: tuple[type, ...]

    def namespace_name(self, project: str) -> str:
        """`feast@shop@driver_id@int`."""
        parts = [text for n, t in zip(self.names, self.types, strict=True) for text in (n, t)]
        texts = (escaped(p) if isinstance(p, str) else p.__name__.lower() for p in parts)
        return "@".join(["feast", escaped(project), *texts])

    @property
    def annotation(self) -> Any:
        """The type of the primary key."""
        return self.types[0] if len(self.types) == 1 else tuple[self.types]  # type: ignore[name-defined]


def keys_of(entities: Sequence[Mapping[str, Value]]) -> tuple[JoinKeys, list[Any]]:
    """Join keys, and the primary key of each of at least one entity; raises `InvalidKey`."""
    names = tuple(sorted(entities[0]))
    columns = [_column(name, entities) for name in names]
    keys = columns[0][1] if len(columns) == 1 else list(zip(*(c for _, c in columns), strict=True))
    return JoinKeys(names, tuple(kind for kind, _ in columns)), keys


def _column(name: str, entities: Sequence[Mapping[str, Value]]) -> tuple[type, list[Any]]:
    """The type and the values of one join key."""
    kind, values = None, []
    for entity in entities:
        value = entity[name]
        field = value.WhichOneof("val") or "null_val"
        found, convert = _KEY_TYPES.get(field, (None, None))
        if found is None or kind not in (None, found):
            raise InvalidKey(
                f"The join key {name!r} is in {field}: entities are known by integers, strings, "
                "bytes, UUIDs or timestamps, all those of one request by the same."
            )
        kind = found
        raw = getattr(value, field)
        values.append(convert(raw) if convert else raw)
    assert kind is not None
    return kind, values


def join_keys_of(table: FeatureView) -> JoinKeys | None:
    """What the entities of a view are known by; None where it does not say, or not so."""
    columns = sorted(getattr(table, "entity_columns", ()), key=attrgetter("name"))
    types = [_KEY_TYPES.get(value_field(c.dtype), (None, None))[0] for c in columns]
    known = tuple(kind for kind in types if kind is not None)
    if not columns or len(known) < len(columns):
        return None
    return JoinKeys(tuple(column.name for column in columns), known)


def value_field(dtype: Any) -> str:
    """The field of a `Value` that a type of Feast's is in."""
    return f"{dtype.to_value_type().name.lower()}_val"


_DISTANCES: dict[str, Distance] = {
    "cosine": "cosine",
    "l2": "euclidean",
    "euclidean": "euclidean",
    "dot": "dot_product",
    "ip": "dot_product",
    "inner_product": "dot_product",
    "dot_product": "dot_product",
}

FILTER_TAG = "vector_filter"
"""The tag, with the value "true", of fields that a vector search of their view can compare."""


def distance_of(metric: str | None) -> Distance:
    """The distance that Feast calls `metric`: cosine by default. Raises `InvalidSchema`."""
    found = _DISTANCES.get((metric or "cosine").lower())
    if found is None:
        raise InvalidSchema(
            f"vector_search_metric={metric!r} is not known here. Use COSINE, L2 or DOT."
        )
    return found


def entity_of(key: EntityKey) -> dict[str, Value]:
    """An entity key's values by join key."""
    return dict(zip(key.join_keys, key.entity_values, strict=True))


@dataclass(frozen=True, eq=False)
class View:
    """A feature view as a group: its fields, and which feature each of them is.

    `max_age` (us) is the view's `ttl`, where it is enforced. `expires` is the feature that says
    when a write expires (UTC us), where there is `key_ttl_seconds`. `vectors` are the fields with
    a vector index, each with its distance, and `filters` those that searches can compare.
    """

    group: str
    kinds: Mapping[str, Kind]
    max_age: int | None
    expires: str | None
    vectors: Mapping[str, Distance]
    filters: Collection[str]

    @cached_property
    def names(self) -> dict[str, str]:
        """The name of the feature that each field is."""
        return {field: f"{self.group}@{escaped(field)}" for field in self.kinds}

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The features of the group."""
        age: Any = "infinity" if self.max_age is None else timedelta(microseconds=self.max_age)
        kinds = {self.names[field]: kind.annotation for field, kind in self.kinds.items()}
        if self.expires:
            kinds[self.expires] = int
        filters = [self.names[field] for field in self.filters] if self.vectors else []
        indexes = {
            self.names[field]: VectorIndex(distance, filters)
            for field, distance in self.vectors.items()
        }
        return tuple(
            Feature(
                name,
                annotation | None,
                max_staleness=age,
                group=self.group,
                index=indexes.get(name),
                # DynamoDB refuses a null in an indexed attribute: it removes the value instead.
                cache_nulls="evict_nulls" if name in indexes or name in filters else True,
            )
            for name, annotation in kinds.items()
        )

    def fields(self, wanted: Iterable[str] | None) -> list[str]:
        """The fields that are meant, all of them by None; raises `UnknownFeature`."""
        if wanted is None:
            return list(self.kinds)
        found = list(wanted)
        for field in found:
            if field not in self.kinds:
                raise UnknownFeature(f"The feature view {self.group!r} has no field {field!r}.")
        return found


def view_of(config: RepoConfig, table: FeatureView) -> View:
    """A feature view as `config` has it served; raises `InvalidSchema`."""
    group = _group_of(config, table)
    online = config.online_store
    ttl = getattr(table, "ttl", None) if online.enforce_view_ttl else None
    return View(
        group,
        {field.name: kind_of(field) for field in table.features},
        ttl // timedelta(microseconds=1) if ttl else None,
        f"{group}@@expires" if online.key_ttl_seconds else None,
        {f.name: distance_of(f.vector_search_metric) for f in table.features if f.vector_index},
        tuple(f.name for f in table.features if f.tags.get(FILTER_TAG) == "true"),
    )


def _group_of(config: RepoConfig, table: FeatureView) -> str:
    versions = getattr(config.registry, "enable_online_feature_view_versioning", False)
    return escaped(compute_versioned_name(table, versions))


class Catalogue:
    """The views that one open store has met, and the namespaces they are in.

    It `is_behind` when it meets a view, or an object of it, that it has not seen: then the
    registry is read again, unless it was `looked_at` (monotonic seconds) a moment before.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.is_behind = True
        self.looked_at = -math.inf
        self._lock = threading.Lock()
        self._views: dict[int, tuple[Any, View]] = {}
        self._alike: dict[Any, View] = {}  # Feast has many objects of one view.
        self._members: dict[str, dict[str, View]] = {}
        self._namespaces: dict[str, Namespace] = {}

    def view(self, config: RepoConfig, table: FeatureView) -> View:
        """As `view_of`, which is asked only once for what has not changed."""
        online = config.online_store
        facts = (
            table,
            table.features[:],
            getattr(table, "ttl", None),
            online.enforce_view_ttl,
            not online.key_ttl_seconds,
            _group_of(config, table),
        )
        known = self._views.get(id(table))
        if known is not None and known[0][0] is table and _same_facts(known[0], facts):
            return known[1]
        self.is_behind = True  # Whoever applied it may have dropped what it had before.
        view = view_of(config, table)
        fields = tuple(
            (f.name, str(f.dtype), f.vector_length, view.vectors.get(f.name)) for f in facts[1]
        )
        alike = (view.group, fields, view.filters, view.max_age, view.expires)
        view = self._alike.setdefault(alike, view)
        if len(self._views) >= _MOST_KEPT:
            self._views.clear()
        self._views[id(table)] = (facts, view)
        return view

    def namespace(self, project: str, keys: JoinKeys, views: Iterable[View]) -> Namespace:
        """The namespace of these join keys, with these views in it and those met before."""
        name = keys.namespace_name(project)
        members = self._members.get(name)
        if members and all(members.get(view.group) is view for view in views):
            return self._namespaces[name]
        with self._lock:
            members = self._members.get(name, {}) | {view.group: view for view in views}
            features = [feature for view in members.values() for feature in view.features]
            grown = Namespace(name, keys.annotation, features, key_name=KEY)
            self.core.declare(grown)
            self._namespaces[name] = grown
            self._members[name] = members  # The last, since others look there first.
            return grown

    def look_again(self, groups: Collection[str]) -> None:
        """Notice at once what another store has changed in the features of some views."""
        self.forget(groups)
        self.is_behind, self.looked_at = True, -math.inf

    def forget(self, groups: Collection[str] | None = None) -> None:
        """Leave out views, or all of them, until they are met again."""
        with self._lock:
            for name, members in list(self._members.items()):
                if groups is None or not members.keys().isdisjoint(groups):
                    del self._members[name]


def informed(
    catalogue: Catalogue, attempt: Callable[[], Operation[T]], timeout: float
) -> Operation[T]:
    """Attempt something with a registry that is not too old; and once more with a new one.

    Somebody else may have dropped a field and registered it anew, perhaps with another type. Then
    whoever still has the old definition is refused, but only for the views that they ask for.
    """
    now: Instant = yield NOW
    call = Call(now.monotonic + timeout)
    if catalogue.is_behind and now.monotonic - catalogue.looked_at > REFRESH_SECONDS:
        yield from _look(catalogue, call)
    try:
        return (yield from attempt())
    except TypeConflict:
        catalogue.forget()
        yield from _look(catalogue, call)
    try:
        return (yield from attempt())
    except TypeConflict:
        catalogue.forget()
        raise


def _look(catalogue: Catalogue, call: Call) -> Operation[None]:
    catalogue.is_behind = False
    try:
        yield from catalogue.core.registry.load(call)
    except BaseException:
        catalogue.is_behind = True
        raise
    now: Instant = yield NOW
    catalogue.looked_at = now.monotonic


def _same_facts(known: Sequence[Any], facts: Sequence[Any]) -> bool:
    same_fields = list(map(id, known[1])) == list(map(id, facts[1]))
    return same_fields and known[2:] == facts[2:]
