"""Vector indexes of a table: what has to be done so that it has those of its spec.

AWS's rules: a table with vector indexes is on demand; it has five at most; one is created or
deleted at a time; nothing about one can be changed. So an index is never replaced: one with another
definition has another name, is built beside the old one, and the old one is deleted on request.
The definition holds for all replicas of a Global Table, and each of them builds its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from chalk_online_store.codec.vector_indexes import VectorIndexSpec
from chalk_online_store.provisioning.changes import Change, PlanContext
from chalk_online_store.provisioning.spec import MAX_VECTOR_INDEXES

DELETION = "vector-index"
"""The kind of what `destroy` names to delete indexes that the spec lacks, before the region."""


def at_creation(indexes: Iterable[VectorIndexSpec]) -> dict[str, Any]:
    """What CreateTable takes."""
    found = [request_of(index) for index in indexes]
    return {"VectorIndexes": found} if found else {}


def definitions(indexes: Iterable[VectorIndexSpec]) -> list[dict[str, str]]:
    """The attribute definitions that indexes need besides the table's keys."""
    types = {each.name: each.type for index in indexes for each in index.compared}
    return [{"AttributeName": name, "AttributeType": types[name]} for name in sorted(types)]


def request_of(index: VectorIndexSpec) -> dict[str, Any]:
    """An index as CreateTable and UpdateTable take it."""
    compared = [
        *([(index.partition.name, "HASH")] if index.partition else ()),
        *((each.name, "INLINE_FILTER") for each in index.filters),
    ]
    schema = [{"AttributeName": name, "SearchSchemaElementType": kind} for name, kind in compared]
    projection: dict[str, Any] = {"ProjectionType": "KEYS_ONLY"}
    if index.projected:
        projection = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(index.projected)}
    return {
        "IndexName": index.name,
        "VectorAttribute": {"AttributeName": index.attribute},
        "Dimensions": index.dimensions,
        "DistanceFunction": index.distance.upper(),
        "Projection": projection,
        **({"SearchSchema": schema} if schema else {}),
    }


def of_table(goal: PlanContext) -> Iterator[Change]:
    """Indexes to create, one after the other, and those to delete."""
    now = goal.state.of(goal.home)
    if not now.exists:
        return
    wanted = {index.name: index for index in goal.spec.vector_indexes}
    gone = [name for name, index in now.vector_indexes.items() if index.status == "DELETING"]
    missing = [name for name in wanted if name not in now.vector_indexes]
    extra = [name for name in now.vector_indexes if name not in wanted and name not in gone]
    attributes = dict(now.attributes)
    room = MAX_VECTOR_INDEXES - len(now.vector_indexes)
    for place, name in enumerate(missing):
        if place >= room:
            why = (
                f"AWS: a table has {MAX_VECTOR_INDEXES} vector indexes at most. Delete one that is "
                f"not used any more: destroy={DELETION}:{goal.home}"
            )
            yield Change(goal.home, "vector index", None, name, None, "!", why)
            continue
        attributes |= {each.name: each.type for each in wanted[name].compared}
        yield goal.update(
            "vector index",
            None,
            f"{name} of {wanted[name].feature or wanted[name].attribute}",
            AttributeDefinitions=[
                {"AttributeName": each, "AttributeType": kind} for each, kind in attributes.items()
            ],
            VectorIndexUpdates=[{"Create": request_of(wanted[name])}],
            sign="+",
        )
    for name in extra:
        yield goal.update(
            "vector index",
            name,
            None,
            VectorIndexUpdates=[{"Delete": {"IndexName": name}}],
            sign="-",
            why="searches of processes that use it fail from then on",
            needs=(f"{DELETION}:{goal.home}",),
        )
