"""Namespaces and their features: what a schema is made of.

A class under `@features` and a hand-built `Namespace` are the same thing; `namespace_of` takes
either, and a class of chalkpy's.
"""

from __future__ import annotations

import dataclasses
import enum
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from inspect import getattr_static
from typing import Any, Literal, TypeAlias, TypeVar, dataclass_transform, overload
from uuid import UUID

from chalk_online_store.arguments import (
    check_flag,
    check_instance,
    check_mapping,
    list_of,
    plain_name,
)
from chalk_online_store.errors import InvalidSchema, UnknownFeature
from chalk_online_store.schema.annotations import read_annotation
from chalk_online_store.schema.config import OnlineStoreConfig
from chalk_online_store.schema.durations import Duration, microseconds
from chalk_online_store.schema.references import ReferenceAttribute, set_references, was_redefined
from chalk_online_store.schema.structs import (
    hints_of,
    inherited_defaults,
    is_plain,
    make_dataclass,
    read_class,
)
from chalk_online_store.schema.types import FeatureType, VectorType
from chalk_online_store.schema.vector_index import (
    MAX_DIMENSIONS,
    VectorIndex,
    check_index,
    check_no_nulls,
    indexed_names,
)

C = TypeVar("C")

DEFAULT_GROUP = "default"


class _NoDefault(enum.Enum):
    """A member stays the same object when it is pickled."""

    NO_DEFAULT = enum.auto()


NO_DEFAULT: Any = _NoDefault.NO_DEFAULT
"""What stands for a feature without a default: None is one."""

CacheNulls: TypeAlias = Literal[True, False, "evict_nulls"]
CacheDefaults: TypeAlias = Literal[True, False, "evict_defaults"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_@-]{0,254}")
_KEY_TYPES = (int, str, UUID)


class _Declaration:
    """A declaration that is pickled without its cached properties."""

    def __getstate__(self) -> dict[str, Any]:
        names = self.__dataclass_fields__  # type: ignore[attr-defined]
        return {name: value for name, value in vars(self).items() if name in names}


@dataclass(frozen=True)
class Feature(_Declaration):
    """One named, typed value of an entity.

    `annotation` is what one would write in a class: `float`, `str | None`, `Vector[32]`.
    `max_staleness` is how old a value may be and still be served (default: any age).
    Features with the same `group` live in one item, because they are written together.

    `cache_nulls` and `cache_defaults` are Chalk's: whether a write of None, or of `default`, is
    stored (True), leaves what is there (False), or removes it ("evict_nulls",
    "evict_defaults"). Raises `InvalidSchema` for the pairs that Chalk refuses.

    With an `index`, a `Vector` feature can be searched by `store.search`. It is then stored as a
    list of numbers: see docs/vector-search.md.
    """

    name: str
    annotation: Any
    _: KW_ONLY
    max_staleness: Duration = "infinity"
    group: str = DEFAULT_GROUP
    default: Any = NO_DEFAULT
    cache_nulls: CacheNulls = True
    cache_defaults: CacheDefaults = True
    index: VectorIndex | None = None

    def __post_init__(self) -> None:
        _check_caching(self.name, self.cache_nulls, self.cache_defaults)
        _check_name("feature", self.name)
        _check_name("group", self.group)
        self.type, self.staleness  # noqa: B018 - both refuse what cannot be read, at once.

    @cached_property
    def type(self) -> FeatureType:
        """What the annotation means."""
        kind = read_annotation(self.annotation).type
        check_instance(self.index, VectorIndex, f"{self.name}: index", InvalidSchema)
        if self.index is None:
            return kind
        if not isinstance(kind, VectorType) or kind.size > MAX_DIMENSIONS:
            raise InvalidSchema(
                f"{self.name}: index=VectorIndex(...) is for a Vector of at most {MAX_DIMENSIONS} "
                f"dimensions; it is {kind.name}."
            )
        check_no_nulls(self.name, self)
        return dataclasses.replace(kind, listed=True)

    @cached_property
    def nullable(self) -> bool:
        """Whether None is a value of this feature."""
        return read_annotation(self.annotation).nullable

    @cached_property
    def staleness(self) -> int | None:
        """`max_staleness` in microseconds; None where a value never goes stale."""
        return microseconds(self.max_staleness, f"max_staleness of {self.name}")


@dataclass(frozen=True)
class PrimaryKey(_Declaration):
    """What identifies one entity: an int, str or UUID, or a tuple of them."""

    name: str
    annotation: Any

    def __post_init__(self) -> None:
        if not self.parts or any(part not in _KEY_TYPES for part in self.parts):
            raise InvalidSchema(
                f"Primary key {self.name!r} is {self.annotation!r}: "
                "it must be int, str, UUID, or a tuple of them such as tuple[int, str]."
            )

    @cached_property
    def composite(self) -> bool:
        """Whether the key is a tuple."""
        return typing.get_origin(self.annotation) is tuple

    @cached_property
    def parts(self) -> tuple[type, ...]:
        """The type of each part; one where the key is no tuple."""
        return typing.get_args(self.annotation) if self.composite else (self.annotation,)


@dataclass(frozen=True)
class Namespace(_Declaration):
    """An entity type and its features. It survives `pickle`, and is equal to its copy.

    `primary_key` is an annotation (`int`, `tuple[int, str]`); `key_name` is what rows call it.
    `observed_at_name` is what rows call their observed-at (default: rows do not state it).
    `excluded` are names that are not features, with the reason, for the message of
    `UnknownFeature`. Raises `InvalidSchema` if two features share a name or a name cannot be
    stored.
    """

    name: str
    primary_key: Any
    features: Sequence[Feature]
    _: KW_ONLY
    key_name: str = "id"
    online_store_config: OnlineStoreConfig = field(default_factory=OnlineStoreConfig)
    observed_at_name: str | None = None
    excluded: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        listed = list_of(self.features, "features", "Feature objects", "[feature]", InvalidSchema)
        for each in listed:
            if not isinstance(each, Feature):
                raise InvalidSchema(
                    f"Namespace {self.name!r}: features must be Feature objects; got "
                    f"{type(each).__name__}. Write Feature(name, annotation)."
                )
        object.__setattr__(self, "features", tuple(listed))
        _check_name("namespace", self.name)
        _check_name("primary key", self.key_name)
        config = self.online_store_config
        check_instance(config, OnlineStoreConfig, "online_store_config", optional=False)
        check_mapping(self.excluded, "excluded", '{"notes": "It is not stored."}', InvalidSchema)
        self.key  # noqa: B018 - refuses what cannot be a key, at once.
        if len(self.by_name) != len(self.features) or self.key_name in self.by_name:
            raise InvalidSchema(f"Namespace {self.name!r} has two features of one name.")
        for each in self.features:
            if each.index is not None:
                check_index(self, each)
        if self.observed_at_name is not None:
            _check_name("row's observed-at", self.observed_at_name)
            if self.observed_at_name in self.row_names:
                raise InvalidSchema(
                    f"Namespace {self.name!r}: observed_at_name is the name of a feature or of "
                    "the primary key. Choose another."
                )

    @cached_property
    def key(self) -> PrimaryKey:
        """The primary key."""
        return PrimaryKey(self.key_name, self.primary_key)

    @cached_property
    def by_name(self) -> dict[str, Feature]:
        """The features by their name within the namespace."""
        return {feature.name: feature for feature in self.features}

    @cached_property
    def groups(self) -> dict[str, tuple[Feature, ...]]:
        """The features of each group, in the schema's order."""
        names = dict.fromkeys(feature.group for feature in self.features)
        return {name: tuple(f for f in self.features if f.group == name) for name in names}

    @cached_property
    def indexed(self) -> frozenset[str]:
        """The names of the features that vector indexes cover, filters and projected ones too."""
        return frozenset(indexed_names(self.features))

    @cached_property
    def row_names(self) -> frozenset[str]:
        """The short names of the primary key and of all features: the names of a stored row."""
        return frozenset((self.key_name, *self.by_name))

    def short_name(self, name: Any) -> Any:
        """Return `risk` for `risk`, `user.risk`, or a reference of chalkpy, `User.risk`.

        Names of other namespaces, and anything that is not a name, are returned as they are.
        """
        name = plain_name(name)
        return name.removeprefix(f"{self.name}.") if isinstance(name, str) else name

    def feature(self, name: Any) -> Feature:
        """Return the feature called `risk`, `user.risk` or, in classes of chalkpy, `User.risk`.

        Raises `UnknownFeature`.
        """
        if type(name) is str and name in self.by_name:
            return self.by_name[name]
        short = self.short_name(name)
        if not isinstance(short, str):
            raise UnknownFeature(
                f"features must be names of features (str); got {type(name).__name__}."
            )
        found = self.by_name.get(short)
        if found is None:
            raise self._unknown(short)
        return found

    def _unknown(self, name: str) -> UnknownFeature:
        """Return the error for a name that is not a feature."""
        reason = self.excluded.get(name.partition(".")[0])
        if reason is not None:
            return UnknownFeature(f"{self.name!r} does not store {name!r}: {reason}")
        if name == self.observed_at_name:
            return UnknownFeature(
                f"{name!r} is the observed-at of rows of {self.name!r}, not a feature. Reads give "
                "the observed-at of each value: row.observed_at(name)."
            )
        known = ", ".join(sorted(self.by_name))
        return UnknownFeature(f"{self.name!r} has no feature {name!r}. It has: {known}.")

    def full_name(self, feature: Feature) -> str:
        """`user.risk`."""
        return f"{self.name}.{feature.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Declared:
    """What `feature(...)` leaves in a class body, or an annotation, for `@features` to read."""

    primary: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


def feature(
    *,
    primary: bool = False,
    max_staleness: Duration | None = None,
    group: str = DEFAULT_GROUP,
    default: Any = NO_DEFAULT,
    cache_nulls: CacheNulls = True,
    cache_defaults: CacheDefaults = True,
    index: VectorIndex | None = None,
) -> Any:
    """Say more about a feature than its annotation does.

    As a value in the class, or in the annotation, `Annotated[float, feature(max_staleness="1h")]`:
    there in classes that have instances of their own, such as dataclasses.

    `primary` makes it the primary key (else the field named `id` is). `max_staleness`
    overrides the class's. `group` names the group it is written with. The others are as for
    `Feature`.
    """
    check_flag(primary, "primary", InvalidSchema)
    options: dict[str, Any] = {
        "group": group,
        "default": default,
        "cache_nulls": cache_nulls,
        "cache_defaults": cache_defaults,
        "index": index,
    }
    if max_staleness is not None:
        options["max_staleness"] = max_staleness
    return Declared(primary, options)


@overload
@dataclass_transform(field_specifiers=(feature,))
def features(cls: type[C], /) -> type[C]: ...
@overload
@dataclass_transform(field_specifiers=(feature,))
def features(
    *,
    name: str | None = None,
    max_staleness: Duration = "infinity",
    online_store_config: OnlineStoreConfig | None = None,
) -> Callable[[type[C]], type[C]]: ...
def features(
    cls: type[Any] | None = None,
    /,
    *,
    name: str | None = None,
    max_staleness: Duration = "infinity",
    online_store_config: OnlineStoreConfig | None = None,
) -> Any:
    """Make a class a namespace: its annotations are its features.

    The namespace is called `name`, or the class's name in snake_case. `max_staleness` holds
    for each feature that does not state its own. Pass the class to
    `OnlineStore.open(schema=[...])` and to `read` and `write`. `@features` alone will do.

    A plain class becomes a dataclass, unless it has an `__init__`. Dataclasses, attrs classes,
    pydantic models, NamedTuples and msgspec Structs are not changed. Rows may be instances of
    any of them. `User.risk` is a reference to the feature, which can be passed wherever its name
    can.

    Raises `InvalidSchema` for what cannot be declared.
    """

    def declare(cls: type[Any]) -> type[Any]:
        config = OnlineStoreConfig() if online_store_config is None else online_store_config
        return _declare(cls, name or _snake_case(cls.__name__), max_staleness, config)

    return declare if cls is None else declare(cls)


def namespace_of(schema: Namespace | type) -> Namespace:
    """The namespace that a class or a hand-built `Namespace` stands for.

    The class may be one under chalkpy's `@features`: see docs/chalkpy.md.
    """
    if isinstance(schema, Namespace):
        return schema
    found = getattr(schema, "__chalk_namespace__", None)
    if isinstance(found, Namespace):
        return found
    if isinstance(found, str) and getattr(schema, "__chalk_feature_set__", False):
        from chalk_online_store.schema.chalkpy import of_class  # It needs this module.

        return of_class(schema)
    # An instance is not shown: it holds values.
    given: Any = schema
    plain = isinstance(given, type | str)
    shown = repr(given) if plain else f"An object of {type(given).__name__}"
    raise InvalidSchema(
        f"{shown} is not a feature class: pass the class itself, decorated with @features, or a "
        "Namespace."
    )


def _declare(
    cls: type[Any], name: str, max_staleness: Duration, config: OnlineStoreConfig
) -> type[Any]:
    """Make a class a namespace, and give a plain one instances."""
    struct = None if is_plain(cls) else read_class(cls)
    if struct is None:
        hints, defaults = hints_of(cls), inherited_defaults(cls)
        declared = {field: _declared(cls, field, hint, defaults) for field, hint in hints.items()}
    else:
        hints = {field.name: field.annotation for field in struct.fields}
        defaults = {f.name: f.default() for f in struct.fields if f.default is not None}
        declared = {
            field: _of_instances(cls, field, _noted(hint), defaults)
            for field, hint in hints.items()
        }
    key = _primary_of(cls, declared)
    namespace = Namespace(
        name,
        _plain(hints[key]),
        tuple(
            Feature(n, _without_notes(hints[n]), **{"max_staleness": max_staleness, **d.options})
            for n, d in declared.items()
            if n != key
        ),
        key_name=key,
        online_store_config=config,
    )
    if struct is None:
        given = {n: d.options.get("default", NO_DEFAULT) for n, d in declared.items()}
        make_dataclass(cls, hints, {n: d for n, d in given.items() if d is not NO_DEFAULT})
    cls.__chalk_namespace__ = namespace
    set_references(cls, name, declared)
    return cls


def _plain(annotation: Any) -> Any:
    noted = typing.get_origin(annotation) is typing.Annotated
    return typing.get_args(annotation)[0] if noted else annotation


def _without_notes(annotation: Any) -> Any:
    """An annotation without `feature(...)`, so that equal declarations are equal features."""
    if typing.get_origin(annotation) is not typing.Annotated:
        return annotation
    plain, *notes = typing.get_args(annotation)
    kept = [note for note in notes if not isinstance(note, Declared)]
    return typing.Annotated[plain, *kept] if kept else plain


def _noted(hint: Any) -> Declared:
    notes = typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()
    return next((note for note in notes if isinstance(note, Declared)), Declared())


def _declared(cls: type, field: str, hint: Any, inherited: Mapping[str, Any]) -> Declared:
    """Return the declaration of a plain class's field; `inherited` has a base class's defaults."""
    if typing.get_origin(hint) is typing.ClassVar or hint is typing.ClassVar:
        raise InvalidSchema(
            f"{cls.__name__}.{field} is a ClassVar, which is not a feature. Move it out of the "
            "class."
        )
    found = getattr_static(cls, field, NO_DEFAULT)
    if isinstance(found, ReferenceAttribute):  # Of a feature class that this one derives from.
        found = found.declared
    if isinstance(found, Declared):
        return found
    if isinstance(found, dataclasses.Field):
        raise InvalidSchema(
            f"{cls.__name__}.{field} is a dataclasses.field() of a class that is no dataclass. Use "
            "feature(default=...), or put @dataclass below @features."
        )
    given = inherited if found is NO_DEFAULT or field in inherited else {field: found}
    return _of_instances(cls, field, _noted(hint), given)


def _of_instances(cls: type, field: str, noted: Declared, given: Mapping[str, Any]) -> Declared:
    """Where values in the class are those of its instances, they are the features' defaults."""
    if field not in given:
        return noted
    if isinstance(given[field], Declared):
        raise InvalidSchema(
            f"{cls.__name__}.{field}: instances would have feature(...) for a value. Say it in the "
            "annotation: Annotated[float, feature(...)]."
        )
    options = dict(noted.options)
    if options.get("default", NO_DEFAULT) is NO_DEFAULT:
        options["default"] = given[field]
    return Declared(noted.primary, options)


def _primary_of(cls: type, declared: dict[str, Declared]) -> str:
    marked = [field for field, d in declared.items() if d.primary]
    if len(marked) > 1:
        raise InvalidSchema(f"{cls.__name__} has two primary keys; use one tuple[...] instead.")
    if not marked and "id" not in declared:
        raise InvalidSchema(
            f"{cls.__name__} has no primary key: name a field `id`, or feature(primary=True)."
        )
    return marked[0] if marked else "id"


def _check_caching(name: str, nulls: CacheNulls, defaults: CacheDefaults) -> None:
    if nulls not in (True, False, "evict_nulls"):
        raise InvalidSchema(f'{name}: cache_nulls is True, False or "evict_nulls".')
    if defaults not in (True, False, "evict_defaults"):
        raise InvalidSchema(f'{name}: cache_defaults is True, False or "evict_defaults".')
    if (nulls, defaults) in (("evict_nulls", False), (False, "evict_defaults")):
        raise InvalidSchema(
            f"{name}: cache_nulls={nulls!r} does not go with cache_defaults={defaults!r}."
        )


def _check_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidSchema(
            f"{name!r} cannot name a {what}: start with a letter or _, "
            "go on with letters, digits, _, @ or -, at most 255 in all."
        )


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def namespaces(schema: Iterable[Namespace | type]) -> dict[str, Namespace]:
    """The namespaces of a whole schema by name; `InvalidSchema` where two share one."""
    found: dict[str, Namespace] = {}
    classes = list_of(schema, "schema", "feature classes", "[schema]", InvalidSchema)
    for each in classes:
        namespace = namespace_of(each)
        if was_redefined(each):
            raise InvalidSchema(
                f"{each.__name__} was made a dataclass after @features had read it. Put @features "
                "above @dataclass."
            )
        if found.setdefault(namespace.name, namespace) is not namespace:
            raise InvalidSchema(f"Two namespaces are called {namespace.name!r}.")
    return found
