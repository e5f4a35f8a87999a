"""DynamoDB's limits that a mix comes close to, each with its remedy.

Limits are checked on the table that will be created, in its capacity mode: on its provisioned units
and autoscaling maximum, or on the initial throughput of a new on-demand table. Sources: the
developer guide, "Quotas", "Warm throughput", and "DynamoDB burst and adaptive capacity": a
partition serves at most 3,000 read and 1,000 write units per second, and an item is in one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chalk_online_store.planning.items import Sample
from chalk_online_store.planning.mix import NamespaceMix
from chalk_online_store.planning.on_demand import READ_WARM, WRITE_WARM
from chalk_online_store.planning.partitions import READ_LIMIT, WRITE_LIMIT, partition_count
from chalk_online_store.planning.sizing import (
    TARGET,
    GroupSize,
    Mode,
    PlannedRegion,
    Sizing,
    planned_regions,
)
from chalk_online_store.planning.units import read_units, write_units

Severity: TypeAlias = Literal["error", "warning", "note"]

TABLE_UNITS = 40_000
"""Default quota of a table, read or write, in units per second of either mode."""

ACCOUNT_UNITS = 80_000
"""Default quota of an account in a region, for provisioned units of all tables."""

NEW_TABLE_PARTITIONS = 4
"""A new on-demand table serves 12,000 read and 4,000 write units: four partitions."""

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


def partitions(sizing: Sizing, mode: Mode | None = None, target: float = TARGET) -> int:
    """Return the number of partitions that the table needs at least, in its busiest region.

    Storage counts at the end of the mix's months. A provisioned table needs partitions for the
    units that it provisions, an on-demand table, and one without a `mode`, for the load. A new
    on-demand table has four.
    """
    by_load = max(
        partition_count(region.rcu_after_loss, region.wcu, sizing.gb_later)
        for region in sizing.regions
    )
    if mode is None:
        return by_load
    if mode == "on-demand":
        return max(NEW_TABLE_PARTITIONS, by_load)
    return max(
        by_load,
        *(
            partition_count(region.read.units, region.write.units)
            for region in planned_regions(sizing, mode, target)
        ),
    )


def findings(
    sizing: Sizing, samples: Mapping[str, Sample], mode: Mode = "on-demand", target: float = TARGET
) -> list[Finding]:
    """Return what the table of a sized mix comes close to in a mode, the worst first."""
    if mode == "on-demand":
        found = list(_of_on_demand_table(sizing))
    else:
        found = list(_of_provisioned_table(planned_regions(sizing, mode, target)))
    for part in sizing.mix.namespaces:
        found += _of_items(sizing, samples[part.schema].namespace.name)
        found += _of_queries(part, sizing, samples[part.schema])
        found += _of_writes(part, sizing, samples[part.schema])
    order: list[Severity] = ["error", "warning", "note"]
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _of_on_demand_table(sizing: Sizing) -> Iterator[Finding]:
    extras = sizing.mix.extras
    for region in sizing.regions:
        dimensions = (
            ("RCU", region.rcu_after_loss, READ_WARM, extras.warm_reads, "warm_reads"),
            ("WCU", region.wcu, WRITE_WARM, extras.warm_writes, "warm_writes"),
        )
        for unit, needed, initial, warm, name in dimensions:
            yield from _over_quota(region.region, f"{needed:,.0f} {unit}", needed)
            yield from _over_quota(region.region, f"A warm throughput of {warm:,.0f} {unit}", warm)
            served = max(initial, warm)
            if needed > served:
                yield Finding(
                    "warning",
                    region.region,
                    f"{needed:,.0f} {unit} are more than the {served:,.0f} that the new on-demand "
                    "table serves at once; more than a doubling within 30 minutes can throttle.",
                    f"Set extras.{name} to {math.ceil(needed):,} and create the table with that "
                    "warm throughput, or move the load to it step by step.",
                )


def _of_provisioned_table(regions: Iterable[PlannedRegion]) -> Iterator[Finding]:
    for region in regions:
        for unit, planned in (("RCU", region.read), ("WCU", region.write)):
            what = f"{planned.units:,} provisioned {unit}"
            yield from _over_quota(region.region, what, planned.units)
            yield from _over_quota(region.region, what, planned.units, ACCOUNT_UNITS)
            if planned.is_autoscaled and planned.units <= TABLE_UNITS:
                what = f"An autoscaling maximum of {planned.maximum:,} {unit}"
                yield from _over_quota(region.region, what, planned.maximum)


def _over_quota(
    region: str, what: str, units: float, quota: int = TABLE_UNITS
) -> Iterator[Finding]:
    of = "a table" if quota == TABLE_UNITS else "an account"
    if units > quota:
        yield Finding(
            "warning",
            region,
            f"{what}: more than the default quota of {of}, {quota:,}.",
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
