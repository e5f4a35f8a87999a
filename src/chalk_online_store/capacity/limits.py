"""What a mix comes close to of DynamoDB's limits, and what to do about it.

The limits are those of the developer guide, "Quotas", and of "DynamoDB burst and adaptive
capacity": a partition serves at most 3,000 read and 1,000 write units a second, and an item lies
in one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chalk_online_store.capacity.items import Sample
from chalk_online_store.capacity.mix import NamespaceMix
from chalk_online_store.capacity.partitions import READ_LIMIT, WRITE_LIMIT, partition_count
from chalk_online_store.capacity.sizing import GroupSize, Sizing
from chalk_online_store.capacity.units import read_units, write_units

Severity: TypeAlias = Literal["error", "warning", "note"]

TABLE_UNITS = 40_000
ITEM_BYTES = 400 * 1024
BATCH_BYTES = 16 * 1024**2
BATCH_PARTITION_BYTES = 1024**2


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to look at: how bad, where, what it is, and the way out."""

    severity: Severity
    where: str
    what: str
    advice: str


def partitions(sizing: Sizing) -> int:
    """How many partitions the table needs at least, in its busiest region, at the end."""
    return max(
        partition_count(region.rcu_after_loss, region.wcu, sizing.gb_later)
        for region in sizing.regions
    )


def findings(sizing: Sizing, samples: Mapping[str, Sample]) -> list[Finding]:
    """What a sized mix comes close to, the worst first."""
    found = list(_of_table(sizing))
    for part in sizing.mix.namespaces:
        found += _of_items(sizing, samples[part.schema].namespace.name)
        found += _of_queries(part, sizing, samples[part.schema])
        found += _of_writes(part, sizing, samples[part.schema])
    order: list[Severity] = ["error", "warning", "note"]
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _of_table(sizing: Sizing) -> Iterator[Finding]:
    for region in sizing.regions:
        for unit, needed in (("RCU", region.rcu_after_loss), ("WCU", region.wcu)):
            if needed > TABLE_UNITS:
                yield Finding(
                    "warning",
                    region.region,
                    f"{needed:,.0f} {unit} are more than the default quota of {TABLE_UNITS:,}.",
                    "Have AWS raise the quota (Service Quotas) before the table needs it.",
                )


def _of_items(sizing: Sizing, namespace: str) -> Iterator[Finding]:
    for group in sizing.groups:
        where = f"{namespace}.{group.group}"
        if group.namespace == namespace and group.largest > ITEM_BYTES:
            yield Finding(
                "error",
                where,
                f"An item of {group.largest:,} bytes is larger than the 400 KB that AWS takes.",
                "Split the group.",
            )
    whole = sum(group.largest for group in sizing.groups if group.namespace == namespace)
    if whole > BATCH_PARTITION_BYTES:
        yield Finding(
            "warning",
            namespace,
            f"All groups of an entity are {whole:,} bytes; a batch reads 1 MB of a partition.",
            "Read fewer features at once: the rest takes further requests.",
        )


def _of_queries(part: NamespaceMix, sizing: Sizing, sample: Sample) -> Iterator[Finding]:
    for query in part.query:
        read = _touched(sizing, sample, query.features)
        answer = query.entities * sum(group.bytes for group in read)
        if answer > BATCH_BYTES:
            yield Finding(
                "note",
                sample.namespace.name,
                f"A query reads about {answer / 1024**2:,.0f} MB; a batch answers 16 MB.",
                "It takes several requests: leave out features or entities.",
            )
        rate = query.per_second * query.entities * query.hottest * (1 - query.hit_rate)
        units = sum(read_units(round(g.bytes), consistent=query.consistent) for g in read)
        yield from _hot(sample.namespace.name, "read", rate * units, READ_LIMIT, "RCU")


def _of_writes(part: NamespaceMix, sizing: Sizing, sample: Sample) -> Iterator[Finding]:
    for write in part.write:
        written = _touched(sizing, sample, write.features)
        units = write.per_second * write.hottest * sum(write_units(round(g.bytes)) for g in written)
        yield from _hot(sample.namespace.name, "write", units, WRITE_LIMIT, "WCU")


def _touched(sizing: Sizing, sample: Sample, features: Iterable[str]) -> list[GroupSize]:
    touched, name = sample.touched(features), sample.namespace.name
    return [g for g in sizing.groups if g.namespace == name and g.group in touched]


_WAYS_OUT = {
    "read": "Serve it from the LRU cache: no capacity of the table helps.",
    "write": "Write it less often: a persistence writer makes one write of several.",
}


def _hot(where: str, what: str, units: float, limit: float, unit: str) -> Iterator[Finding]:
    if units <= limit / 2:
        return
    yield Finding(
        "error" if units > limit else "warning",
        where,
        f"The hottest entity takes {units:,.0f} {unit} a second; its partition has {limit:,}.",
        _WAYS_OUT[what],
    )
