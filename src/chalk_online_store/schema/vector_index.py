"""Vector indexes: what a feature declares so that its vectors can be searched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from chalk_online_store.arguments import check_choice, name_list
from chalk_online_store.errors import InvalidSchema
from chalk_online_store.schema.types import ChoiceType, FeatureType, Scalar

if TYPE_CHECKING:
    from chalk_online_store.schema.namespaces import Feature, Namespace

Distance: TypeAlias = Literal["cosine", "euclidean", "dot_product"]
DISTANCES = ("cosine", "euclidean", "dot_product")

MAX_DIMENSIONS = 4096
MAX_FILTERS = 18
MAX_PROJECTED_ATTRIBUTES = 20
MAX_K = 100
"""AWS: limits of a vector index and of `TopK`. They hold on every engine, so that a search that
works in a test works on DynamoDB."""

_ATTRIBUTE_TYPES = {
    "str": "S",
    "bytes": "B",
    "uuid": "B",
    "int": "N",
    "datetime": "N",
    "date": "N",
    "time": "N",
    "timedelta": "N",
}


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """An index of a `Vector` feature, for `store.search`: `feature(index=VectorIndex(...))`.

    `distance` is "cosine" (0 to 2, less is nearer), "euclidean" (less is nearer) or "dot_product"
    (more is nearer). `filters` are features that a search may compare for equality, at most 18.
    `partition` is a feature whose value every search has to name: AWS gives each of its values a
    throughput of its own. Entities that lack it are not found. `project` are features that are
    copied into the index, so that a search for them alone reads nothing else.

    All of these are in the group of the vector. Filters and the partition are str, bytes, int,
    datetime, date, time, timedelta, UUID, or an Enum or Literal of str, bytes or int.

    Raises `InvalidSchema`.
    """

    distance: Distance = "cosine"
    filters: Sequence[str] = ()
    partition: str | None = None
    project: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_choice(self.distance, DISTANCES, "VectorIndex(distance=...)", InvalidSchema)
        for name in ("filters", "project"):
            names = name_list(getattr(self, name), f"VectorIndex({name}=...)")
            if len(set(names)) < len(names):
                raise InvalidSchema(f"VectorIndex({name}=...) names a feature twice.")
            if not all(isinstance(each, str) for each in names):
                raise InvalidSchema(f"VectorIndex({name}=...) must list names of features (str).")
            object.__setattr__(self, name, names)
        if self.partition is not None:
            if not isinstance(self.partition, str):
                raise InvalidSchema(
                    "VectorIndex(partition=...) must be the name of a feature (str); got "
                    f"{type(self.partition).__name__}."
                )
            if self.partition in self.filters:
                raise InvalidSchema(
                    f"VectorIndex: {self.partition!r} is the partition and a filter. The partition "
                    "is compared in every search; leave it out of filters."
                )
        if len(self.filters) > MAX_FILTERS:
            raise InvalidSchema(
                f"VectorIndex(filters=...): {len(self.filters)} features; AWS allows {MAX_FILTERS}."
            )

    @property
    def conditions(self) -> tuple[str, ...]:
        """The features that a search can compare: the partition first."""
        partition = () if self.partition is None else (self.partition,)
        return (*partition, *self.filters)


def attribute_type(kind: FeatureType) -> str | None:
    """Return S, N or B for a type that a filter can have; None for any other type."""
    if isinstance(kind, ChoiceType):
        kind = kind.member
    return _ATTRIBUTE_TYPES.get(kind.name) if isinstance(kind, Scalar) else None


def check_index(namespace: Namespace, feature: Feature) -> None:
    """Raise `InvalidSchema` for an index that the features of its namespace do not allow."""
    index = feature.index
    assert index is not None
    where = f"{namespace.name}.{feature.name}: VectorIndex"
    if feature.name in (*index.conditions, *index.project):
        raise InvalidSchema(
            f"{where} names the vector itself. The index holds it as float32, which may have fewer "
            "digits than the feature: it is read from the table."
        )
    for name in (*index.conditions, *index.project):
        other = namespace.by_name.get(name)
        if other is None:
            raise InvalidSchema(f"{where} names {name!r}, which is not a feature of the namespace.")
        if other.group != feature.group:
            raise InvalidSchema(
                f"{where} names {name!r}, which is in group {other.group!r}. An index covers one "
                f"item: put both into one group."
            )
    for name in index.conditions:
        other = namespace.by_name[name]
        if attribute_type(other.type) is None:
            raise InvalidSchema(
                f"{where}: {name!r} is {other.type.name}, which cannot be compared in a search. "
                "Declare it as str, int, bytes, datetime, date, time, timedelta, UUID, or an Enum "
                "or Literal of str, int or bytes."
            )
        check_no_nulls(f"{where}: {name!r}", other)
    size = projected_attributes(feature)
    if size > MAX_PROJECTED_ATTRIBUTES:
        raise InvalidSchema(
            f"{where}(project=...) takes {size} attributes, two for each feature and three for "
            f"their times; AWS allows {MAX_PROJECTED_ATTRIBUTES}. Project fewer features."
        )


def projected_attributes(feature: Feature) -> int:
    """Return how many attributes an index projects, the times of its features included."""
    index = feature.index
    if index is None or not index.project:
        return 0
    return 3 + sum(1 if name in index.conditions else 2 for name in index.project)


def check_no_nulls(what: str, feature: Feature) -> None:
    """Raise `InvalidSchema` for a feature that would store a null, which an index refuses."""
    if feature.nullable and feature.cache_nulls is True:
        raise InvalidSchema(
            f"{what} may be null, and DynamoDB refuses a null in an indexed attribute. Declare it "
            'without None, or with cache_nulls="evict_nulls", so that None removes the value.'
        )


def indexed_names(features: Sequence[Feature]) -> Iterator[str]:
    """Return the features that indexes cover: vectors, filters, partitions, projected ones."""
    for feature in features:
        if feature.index is not None:
            yield from (feature.name, *feature.index.conditions, *feature.index.project)
