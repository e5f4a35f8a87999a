"""Checks of vector indexes: whether they are there, can be searched, and hold every item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chalk_online_store.cli.doctor.checks import Check
from chalk_online_store.codec.registry import Registry
from chalk_online_store.codec.vector_indexes import VectorIndexSpec, index_specs
from chalk_online_store.errors import InvalidSchema, RequestError
from chalk_online_store.provisioning.control_plane import ControlPlane, ControlPlaneCall
from chalk_online_store.provisioning.state import TableState
from chalk_online_store.schema import Namespace
from chalk_online_store.store import OnlineStore

_LOOKED_AT = 1000
"""Items of one Scan. AWS: it reads 1 MB at most, which takes 128 RCU."""


def wanted_indexes(
    namespaces: Sequence[Namespace], registry: Registry
) -> tuple[list[VectorIndexSpec], list[Check]]:
    """Return the indexes that schemas declare, and a check for each that cannot be created."""
    found: list[VectorIndexSpec] = []
    failed: list[Check] = []
    for namespace in namespaces:
        try:
            found += index_specs([namespace], registry)
        except InvalidSchema as error:
            failed.append(Check("error", namespace.name, "vector index", str(error)))
    return found, failed


def check_vector_indexes(
    plane: ControlPlane,
    state: TableState,
    regions: Sequence[str],
    wanted: Sequence[VectorIndexSpec],
) -> Iterator[Check]:
    """Compare the indexes of a table with those of the schemas, in each region."""
    names = {index.name for index in wanted}
    for region in regions:
        there = state.of(region).vector_indexes
        for index in wanted:
            yield _state(region, index, state)
            if index.partition is not None and index.name in there:
                yield from _without_partition(plane, region, state.name, index)
        for name in sorted(set(there) - names) if wanted else ():
            yield Check(
                "note",
                region,
                "vector index",
                f"{name} is of none of the schemas given",
                "If no process uses it, delete it by `provision apply --destroy vector-index:"
                f"{region}`: writes and storage are billed for each index.",
            )


def _state(region: str, index: VectorIndexSpec, state: TableState) -> Check:
    found = state.of(region).vector_indexes.get(index.name)
    if found is None:
        return Check(
            "error",
            region,
            "vector index",
            f"{index.feature} has none: {index.name}",
            "Create it by create_vector_indexes, or add it to the table's description.",
        )
    said = f"{index.feature}: {found.status}, {found.items:,} items, {found.bytes:,} bytes"
    if found.ready:
        return Check("ok", region, "vector index", said)
    filling = ", backfilling" if found.backfilling else ""
    advice = "Searches fail until it is built. Each replica builds its own."
    return Check("warning", region, "vector index", f"{said}{filling}", advice)


def _without_partition(
    plane: ControlPlane, region: str, table: str, index: VectorIndexSpec
) -> Iterator[Check]:
    """Look for items with a vector and no partition: DynamoDB leaves them out, silently."""
    assert index.partition is not None
    arguments = {
        "TableName": table,
        "Select": "COUNT",
        "Limit": _LOOKED_AT,
        "FilterExpression": "attribute_exists(#v) AND attribute_not_exists(#p)",
        "ExpressionAttributeNames": {"#v": index.attribute, "#p": index.partition.name},
    }
    try:
        answer = plane.call(ControlPlaneCall(region, "Scan", arguments))
    except RequestError as error:
        yield Check("note", region, "vector partition", f"not known: {error}")
        return
    lacking, looked_at = answer.get("Count", 0), answer.get("ScannedCount", 0)
    said = (
        f"{lacking:,} of the first {looked_at:,} items have a vector of {index.feature} without it"
    )
    if lacking:
        advice = "No search finds them. Write the partition's feature of these entities."
        yield Check("warning", region, "vector partition", said, advice)
    else:
        yield Check("ok", region, "vector partition", said)


def check_search_endpoints(
    url: str, namespaces: Sequence[Namespace], regions: Sequence[str]
) -> Iterator[Check]:
    """Ask the endpoint for searches of each region, which is another host than the region's."""
    with OnlineStore.open(url, namespaces) as store:
        found = store.health()
    for region, check in zip(regions, found.regions, strict=False):
        if check.search_error:
            advice = "Searches need a second host per region: open it in firewalls and proxies."
            yield Check("error", region, "search endpoint", check.search_error, advice)
        else:
            yield Check("ok", region, "search endpoint", "answers")
