"""DynamoDB's vector indexes of a schema: their names, and the attributes that they cover.

An index cannot be changed. Its name therefore includes a digest of its definition: a changed
declaration has another index, which is built beside the one that is in use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import msgspec

from chalk_online_store.codec.layout import BASE, INDEXED, LATEST, indexed_id, own
from chalk_online_store.codec.registry import Registry
from chalk_online_store.errors import InvalidSchema
from chalk_online_store.schema import Feature, Namespace, VectorType
from chalk_online_store.schema.vector_index import attribute_type

_DIGEST_BYTES = 4


class IndexAttribute(msgspec.Struct, frozen=True, forbid_unknown_fields=True, cache_hash=True):
    """An attribute that searches compare: `type` is S, N or B."""

    name: str
    type: str


class VectorIndexSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A vector index of a table, as DynamoDB has it.

    `attribute` holds the vectors. `projected` are further attributes that the index copies.
    `feature` is the full name of the feature, for people.
    """

    name: str
    attribute: str
    dimensions: int
    distance: str
    feature: str = ""
    partition: IndexAttribute | None = None
    filters: tuple[IndexAttribute, ...] = ()
    projected: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[IndexAttribute, ...]:
        """The attributes that searches compare, the partition first."""
        return (*(() if self.partition is None else (self.partition,)), *self.filters)


IdOf = Callable[[str], str]
"""The id of a feature by its full name."""


def index_spec(namespace: Namespace, feature: Feature, id_of: IdOf) -> VectorIndexSpec:
    """The index of a feature. Raises `InvalidSchema` if one of its filters cannot be indexed."""
    index, kind = feature.index, feature.type
    assert index is not None
    assert isinstance(kind, VectorType)

    def compared(name: str) -> IndexAttribute:
        other = namespace.by_name[name]
        id_ = id_of(namespace.full_name(other))
        if not id_.startswith(INDEXED):
            raise InvalidSchema(
                f"{namespace.full_name(other)} was registered before it became a filter, under an "
                "attribute name that other namespaces share. DynamoDB would refuse their writes. "
                "Declare the filter under a new name, and write it beside the old feature."
            )
        return IndexAttribute(id_, attribute_type(other.type) or "")

    attribute = id_of(namespace.full_name(feature))
    partition = None if index.partition is None else compared(index.partition)
    filters = tuple(sorted(map(compared, index.filters), key=lambda each: each.name))
    projected: tuple[str, ...] = ()
    if index.project:
        ids = [id_of(f"{namespace.name}.{name}") for name in index.project]
        times = [own(each) for each in dict.fromkeys((attribute, *ids))]
        # What is compared is in the index anyway.
        copied = {*ids, *times} - {each.name for each in (*filters, partition) if each}
        projected = (LATEST, BASE, *sorted(copied))
    definition = (kind.size, index.distance, partition, filters, projected)
    digest = hashlib.blake2b(msgspec.json.encode(definition), digest_size=_DIGEST_BYTES)
    return VectorIndexSpec(
        name=f"{attribute}.{digest.hexdigest()}",
        attribute=attribute,
        dimensions=kind.size,
        distance=index.distance,
        feature=namespace.full_name(feature),
        partition=partition,
        filters=filters,
        projected=projected,
    )


def index_specs(
    namespaces: Iterable[Namespace], registry: Registry | None = None
) -> Iterator[VectorIndexSpec]:
    """The vector indexes of a schema; `registry` is that of the table, once it has one.

    Without a registry, or for a feature that it lacks, the ids are those that a first registration
    gives. Raises `InvalidSchema` as `index_spec` does.
    """
    known = {} if registry is None else registry.by_name

    def id_of(full_name: str) -> str:
        return known[full_name].id if full_name in known else indexed_id(full_name)

    for namespace in namespaces:
        for feature in namespace.features:
            if feature.index is not None:
                yield index_spec(namespace, feature, id_of)
