"""Classes under chalkpy's `@features`, read as namespaces.

They are recognised by what they carry, as attrs and pydantic classes are, so chalkpy is not
imported. What its settings mean is read from chalkpy's own source: `features/feature_field.py`,
`feature_cache_strategy.py`, `stores/lru_cache.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from typing import Any

from chalk_online_store.errors import InvalidSchema, InvalidValue
from chalk_online_store.schema.annotations import Document
from chalk_online_store.schema.config import LRUCache, OnlineStoreConfig
from chalk_online_store.schema.durations import Duration
from chalk_online_store.schema.namespaces import NO_DEFAULT, Feature, Namespace
from chalk_online_store.schema.types import Vector

_VECTOR: Any = Vector  # Type checkers take no subscript of it outside of annotations.
_DTYPES = {"fp16": "f2", "fp32": "f4", "fp64": "f8"}
_FOREVER = timedelta(days=36_500)
"""What chalkpy makes of "infinity": `CHALK_MAX_TIMEDELTA`."""


@cache
def of_class(cls: type) -> Namespace:
    """The namespace of a class, nothing left out that can be stored: always the same one."""
    return read_class(cls)


def read_class(cls: Any, leave_out: Sequence[str] = ()) -> Namespace:
    """The namespace of a class under chalkpy's `@features`.

    Joins, what is computed at other names (a windowed feature, of which the windows are kept) and
    features with `store_online=False` are none of its features, and rows that have them are
    refused. The feature time is what rows call their observed-at. Raises `InvalidSchema` for what
    cannot be stored, naming the feature.
    """
    declared = {feature.name: feature for feature in _declared(cls)}
    unknown = [name for name in leave_out if name not in declared]
    if unknown:
        raise InvalidSchema(f"{cls.__name__} has no feature {', '.join(map(repr, unknown))}.")
    stored = [f for name, f in declared.items() if name not in leave_out and _is_stored(f)]
    names = {feature.name for feature in stored}
    key, time = cls.__chalk_primary__, cls.__chalk_ts__
    return Namespace(
        cls.namespace,
        key.converter.rich_type,
        [_feature(feature) for feature in stored],
        key_name=key.name,
        online_store_config=_config(cls),
        observed_at_name=None if time is None else time.name,
        excluded={
            name: _reason(feature, declared.values())
            for name, feature in declared.items()
            if name not in names and not feature.primary and not feature.is_feature_time
        },
    )


def _reason(feature: Any, declared: Iterable[Any]) -> str:
    """Return why a feature is not stored, and what to do instead."""
    if feature.is_windowed:
        stem = f"{feature.name}__"
        windows = (f.name for f in declared if f.name.startswith(stem) and not f.is_windowed)
        return f"it is windowed. Name one of its windows: {', '.join(windows)}."
    if not feature.is_scalar:
        return (
            "it is a join. Write and read the entities that it joins by their own class, and "
            "leave it unset."
        )
    if not feature.store_online:
        return "it is declared with store_online=False. Leave it unset."
    return "this schema leaves it out. Leave it unset."


def _declared(cls: Any) -> Iterator[Any]:
    """Annotations are resolved when features are first asked for."""
    try:
        features, key = cls.features, cls.__chalk_primary__
    except (TypeError, ValueError) as error:
        raise InvalidSchema(f"{cls.__name__}: {error}") from error
    if key is None or cls.__chalk_is_singleton__:
        raise InvalidSchema(
            f"{cls.__name__} has no primary key, as a singleton has none: what is stored belongs "
            "to an entity. Declare it under @features of chalk_online_store, with a key."
        )
    return iter(features)


def _is_stored(feature: Any) -> bool:
    if not feature.store_online or feature.primary or feature.is_feature_time:
        return False
    if feature.is_has_many and _has_own_staleness(feature):
        raise InvalidSchema(
            f"{feature.fqn} is a has-many with max_staleness, which Chalk caches with its parent; "
            "here each entity is an item of its own. Read the other namespace by its keys, and "
            f"leave this feature out: namespace_of(cls, leave_out=[{feature.name!r}])."
        )
    return bool(feature.is_scalar and not feature.is_windowed and not feature.is_pseudofeature)


def _has_own_staleness(feature: Any) -> bool:
    """The class's does not apply to joins."""
    own = feature.raw_max_staleness not in (..., None)
    return own and feature.max_staleness > timedelta(0)


def _feature(feature: Any) -> Feature:
    nulls, defaults = _caching(feature)
    try:
        return Feature(
            feature.name,
            _annotation(feature),
            max_staleness=_duration(feature.max_staleness),
            default=NO_DEFAULT if feature.default is ... else feature.default,
            cache_nulls=nulls,
            cache_defaults=defaults,
        )
    except (InvalidSchema, TypeError, ValueError) as error:
        raise InvalidSchema(
            f"{feature.fqn}: {error} To store the others, leave it out: "
            f"namespace_of(cls, leave_out=[{feature.name!r}])."
        ) from error


def _caching(feature: Any) -> tuple[Any, Any]:
    """`cache_nulls` and `cache_defaults`; chalkpy says None where neither it nor its class does."""
    strategies: Any = sys.modules["chalk.features.feature_cache_strategy"]
    settings = strategies.get_cache_settings_from_strategy(feature.cache_strategy)
    nulls, defaults = (True if setting is None else setting for setting in settings)
    return nulls, defaults


def _annotation(feature: Any) -> Any:
    vector, found = feature.typ.as_vector(), feature.converter.rich_type
    if feature.typ.parsed_annotation is sys.modules["chalk.utils.json"].JSON:
        return Document
    if vector is not None:
        found = _VECTOR[vector.num_dimensions, _DTYPES[vector.precision]]
    return found | None if feature.typ.is_nullable else found


def _duration(duration: timedelta) -> Duration:
    return "infinity" if duration >= _FOREVER else duration


def _config(cls: Any) -> OnlineStoreConfig:
    """Of the class's `online_store_config`, which chalkpy keeps by its id."""
    if cls.__chalk_online_store_config__ is None:
        return OnlineStoreConfig()
    configs: Any = sys.modules["chalk.stores.online_store_config"]
    lru = configs.ONLINE_STORE_CONFIG_REGISTRY[cls.__chalk_online_store_config__].lru_cache
    if lru is None:
        return OnlineStoreConfig()
    return OnlineStoreConfig(LRUCache(lru.max_size, _duration(lru.ttl), lru.store_cache_misses))


@cache
def attributes_of(cls: type) -> dict[str, str]:
    """Return what features, and the primary key, are called in instances of a class, by name."""
    return {f.name: f.attribute_name for f in _declared(cls) if f.is_scalar and not f.is_windowed}


@cache
def _names_of(cls: type) -> dict[str, str]:
    """Return the names of features by what instances call them: aliases are among these."""
    declared: Any = cls
    names = {feature.attribute_name: feature.name for feature in _declared(cls)}
    for one, other in declared.__chalk_alias_from_to__.items():
        found = names.get(one) or names[other]
        names |= {one: found, other: found}
    time = declared.__chalk_ts__
    return names if time is None else names | {time.attribute_name: time.name}


@cache
def _windowed(cls: type) -> frozenset[str]:
    return frozenset(feature.attribute_name for feature in _declared(cls) if feature.is_windowed)


def row_of(instance: Any) -> dict[str, Any]:
    """Return all that is set on an instance, by feature name; vectors as numpy arrays.

    A windowed feature that is set by its windows is given by them. What is not stored is among
    it: writing the row refuses that. Raises `InvalidValue` for a feature that is set twice.
    """
    cls: type = type(instance)
    names, windowed = _names_of(cls), _windowed(cls)
    found: dict[str, Any] = {}
    for attribute, value in vars(instance).items():
        if attribute in windowed and isinstance(value, Mapping):
            for window, each in value.items():
                _put(found, cls, _window_name(cls, attribute, window), each)
        else:
            _put(found, cls, names.get(attribute, attribute), value)
    vector = sys.modules["chalk.features"].Vector
    return {n: v.to_numpy() if isinstance(v, vector) else v for n, v in found.items()}


def _put(found: dict[str, Any], cls: type, name: str, value: Any) -> None:
    """Add a value; an alias has the same one."""
    if found.setdefault(name, value) is not value:
        raise InvalidValue(f"An instance of {cls.__name__} sets {name} twice. Set it once.")


def _window_name(cls: type, attribute: str, window: Any) -> str:
    try:
        name: str = sys.modules["chalk.streams"].get_name_with_duration(attribute, window)
    except (TypeError, ValueError) as error:
        raise InvalidValue(
            f"{cls.__name__}.{attribute}: a window must be a duration, such as "
            f'"1d"; got {type(window).__name__} that is not.'
        ) from error
    return _names_of(cls).get(name, name)
