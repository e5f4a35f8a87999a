"""From a mix of queries and writes to capacity units and bytes, each step a line to check."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from chalk_online_store.dynamodb.expectations import COUNTER_LIMIT, OWN_TIMES_SHARE
from chalk_online_store.dynamodb.read_planner import MOST_QUERIES
from chalk_online_store.planning.items import Sample
from chalk_online_store.planning.mix import Mix, NamespaceMix, Query, Write
from chalk_online_store.planning.units import query_units, read_units, write_units

Unit: TypeAlias = Literal["RCU", "WCU", "GB"]

GB = 1e9
ITEM_OVERHEAD = 100
REPLICA_OVERHEAD = 48

_BY_ITEM = "BatchGetItem: each item is rounded up to 4 KB by itself, 0.5 RCU for each (1 if strong)"
_BY_QUERY = "Query: the items of an entity are added up first, then rounded up to 4 KB"
_ABSENT = "An item that does not exist costs the least there is: 0.5 RCU (1 if strong)"
_WRITTEN = "1 WCU for each KB begun of the larger of the item before and after"
_REFUSED = "A refused conditional write costs what it would have written; it is not replicated"
_EXPIRED = "TTL deletes are free where they happen; each replica pays a WCU for each KB"
_STORED = "100 bytes for each item come on top, 48 more in a Global Table"


@dataclass(frozen=True, slots=True)
class Line:
    """One step: what of it, how it is reckoned, what it comes to, and AWS's rule.

    `amount` is at the busiest time of the day, in `unit`.
    """

    namespace: str
    group: str
    what: str
    arithmetic: str
    amount: float
    unit: Unit
    rule: str


@dataclass(frozen=True, slots=True)
class GroupSize:
    """The items of one group: how many, mean and largest bytes, and what is stored, in GB.

    `share` is the share of entities that have such an item.
    """

    namespace: str
    group: str
    bytes: float
    largest: int
    share: float
    items: float
    gb: float


@dataclass(frozen=True, slots=True)
class RegionUnits:
    """What a region has to serve at the busiest time of the day, in units a second.

    `rcu_after_loss` is what it has to serve when another one is lost, `rcu_ready` what of that
    its provisioned capacity is to be ready for at any time. Of `wcu`, `wcu_refused` are refused
    conditional writes, and `wcu_expired` TTL deletions that are replicated from another region.
    """

    region: str
    rcu: float
    wcu: float
    rcu_after_loss: float
    rcu_ready: float
    wcu_refused: float = 0.0
    wcu_expired: float = 0.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is read and written per second at the busiest time of the day, of all regions.

    Items and bytes of items are those of the table. Kilobytes of an entity count at least one
    per read or write, as ElastiCache Serverless does.
    """

    items_read: float = 0.0
    items_written: float = 0.0
    bytes_written: float = 0.0
    entity_kilobytes: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.items_read + other.items_read,
            self.items_written + other.items_written,
            self.bytes_written + other.bytes_written,
            self.entity_kilobytes + other.entity_kilobytes,
        )


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a mix takes. `lines` add up to all that is in it; `gb_later` is after its months."""

    mix: Mix
    lines: tuple[Line, ...]
    groups: tuple[GroupSize, ...]
    regions: tuple[RegionUnits, ...]
    gb: float
    gb_later: float
    traffic: Traffic = Traffic()

    def total(self, unit: Unit, namespace: str | None = None, group: str | None = None) -> float:
        """What lines add up to, of one namespace or group where that is named."""
        return sum(
            line.amount
            for line in self.lines
            if line.unit == unit
            and namespace in (None, line.namespace)
            and group in (None, line.group)
        )


def size(mix: Mix, samples: Mapping[str, Sample]) -> Sizing:
    """Size a table; `samples` has rows of each namespace, by the mix's `schema`.

    Raises `UnknownFeature` for a query or a write of a feature that there is not.
    """
    parts = [_Part(mix, each, samples[each.schema]) for each in mix.namespaces]
    lines = tuple(line for part in parts for line in part.lines())
    groups = tuple(group for part in parts for group in part.group_sizes())
    return Sizing(
        mix,
        lines,
        groups,
        tuple(_regions(mix, lines)),
        sum(part.gb for part in parts),
        sum(part.gb_later for part in parts),
        sum((part.traffic() for part in parts), start=Traffic()),
    )


def _regions(mix: Mix, lines: Sequence[Line]) -> Iterator[RegionUnits]:
    rcu = sum(line.amount for line in lines if line.unit == "RCU")
    written = sum(line.amount for line in lines if line.rule == _WRITTEN)
    expired = sum(line.amount for line in lines if line.rule == _EXPIRED)
    refused = sum(line.amount for line in lines if line.rule == _REFUSED)
    for place, region in enumerate(mix.regions):
        wcu_refused, wcu_expired = (0.0, expired) if place else (refused, 0.0)
        wcu = written + wcu_refused + wcu_expired
        after_loss = rcu * mix.share_without(region)
        ready = after_loss * mix.standby if len(mix.regions) > 1 else 0.0
        served = rcu * mix.share_of(region)
        yield RegionUnits(region, served, wcu, after_loss, ready, wcu_refused, wcu_expired)


class _Part:
    """One namespace of a mix."""

    def __init__(self, mix: Mix, part: NamespaceMix, sample: Sample) -> None:
        self._mix = mix
        self._part = part
        self._sample = sample
        self.name = sample.namespace.name
        writes = [sample.names(write.features) for write in part.write]
        everything = frozenset(sample.namespace.by_name)
        if all(writes) and everything - frozenset().union(*writes):
            writes.append(everything)  # What no write names was loaded otherwise.
        self._sizes = sample.sizes(writes)

    def _touched(self, features: Sequence[str]) -> list[str]:
        """The groups in which these features are, and some row has an item."""
        return [group for group in self._sample.touched(features) if group in self._sizes]

    def lines(self) -> Iterator[Line]:
        for query in self._part.query:
            yield from self._reads(query)
        for write in self._part.write:
            yield from self._writes(write)
        if self._part.expiring and len(self._mix.regions) > 1:
            yield from self._expiries()
        for group in self.group_sizes():
            yield self._stored(group)

    # --- reads -----------------------------------------------------------------------------

    def _reads(self, query: Query) -> Iterator[Line]:
        groups, strong = self._touched(query.features), query.consistent
        by_item = {
            group: _mean(read_units(size, consistent=strong) for size in self._sizes[group])
            for group in groups
        }
        together = zip(*(self._sizes[group] for group in groups), strict=True)
        by_query = _mean(query_units(sizes, consistent=strong) for sizes in together)
        if len(groups) > 1 and query.entities <= MOST_QUERIES and by_query < sum(by_item.values()):
            yield from self._read_lines(query, ", ".join(groups), by_query, _BY_QUERY)
            return
        for group, units in by_item.items():
            yield from self._read_lines(query, group, units, _BY_ITEM)

    def _read_lines(self, query: Query, group: str, units: float, rule: str) -> Iterator[Line]:
        asked = [(query.per_second, "/s"), (query.entities, " entities")]
        present = [
            *asked,
            (1 - query.absent, " present"),
            (1 - query.hit_rate, " missed by the cache"),
            (units, " RCU"),
        ]
        yield Line(self.name, group, "read", *_product(present), "RCU", rule)
        if query.absent:
            least = read_units(0, consistent=query.consistent)
            absent = [
                *asked,
                (query.absent, " absent"),
                (1 - query.bloom, " passed by the filter"),
                (least, " RCU"),
            ]
            yield Line(self.name, group, "read, absent", *_product(absent), "RCU", _ABSENT)

    # --- writes ----------------------------------------------------------------------------

    def _writes(self, write: Write) -> Iterator[Line]:
        for group in self._touched(write.features):
            units = _mean(write_units(size) for size in self._sizes[group] if size)
            factors = [(write.per_second, "/s"), (units, " WCU")]
            yield Line(self.name, group, "write", *_product(factors), "WCU", _WRITTEN)
            refused = self._refused_share(write, group)
            if refused:
                factors = [(write.per_second, "/s"), (refused, " refused"), (units, " WCU")]
                yield Line(self.name, group, "write, refused", *_product(factors), "WCU", _REFUSED)

    def _refused_share(self, write: Write, group: str) -> float:
        """The share of a write's requests to a group that are refused, and sent again."""
        # A group of one feature has no other feature that could be newer: a late write is refused
        # once, and nothing follows.
        if write.ordering != "event" or len(self._sample.groups[group]) == 1:
            return 0.0
        if not self._is_whole(write, group):
            return refused_share(write.late)
        writes = [w for w in self._part.write if group in self._touched(w.features)]
        total = sum(w.per_second for w in writes)
        partial = sum(w.per_second for w in writes if not self._is_whole(w, group))
        found = partial / total if total else 0.0
        return write.late + (found * (1 - write.late) if found <= OWN_TIMES_SHARE else 0.0)

    def _is_whole(self, write: Write, group: str) -> bool:
        names = self._sample.names(write.features)
        return not names or names >= self._sample.groups[group]

    def _expiries(self) -> Iterator[Line]:
        """`expiring` items a second, of each group alike."""
        for group, sizes in self._sizes.items():
            rate = self._part.expiring / len(self._sizes)
            units = _mean(write_units(size) for size in sizes if size)
            factors = [(rate, "/s"), (units, " WCU in each other region")]
            yield Line(self.name, group, "expiry", *_product(factors), "WCU", _EXPIRED)

    # --- traffic ---------------------------------------------------------------------------

    def traffic(self) -> Traffic:
        """What this namespace reads and writes per second."""
        means = {size.group: size.bytes for size in self.group_sizes()}
        found = Traffic()
        for query in self._part.query:
            rate = query.per_second * query.entities
            asked = rate * ((1 - query.absent) * (1 - query.hit_rate))
            asked += rate * query.absent * (1 - query.bloom)
            groups = self._touched(query.features)
            kilobytes = _kilobytes(sum(means[group] for group in groups))
            found += Traffic(asked * len(groups), entity_kilobytes=asked * kilobytes)
        for write in self._part.write:
            groups = self._touched(write.features)
            written = sum(means[group] for group in groups)
            found += Traffic(
                items_written=write.per_second * len(groups),
                bytes_written=write.per_second * written,
                entity_kilobytes=write.per_second * _kilobytes(written),
            )
        return found

    # --- storage ---------------------------------------------------------------------------

    @property
    def _overhead(self) -> int:
        return ITEM_OVERHEAD + (REPLICA_OVERHEAD if len(self._mix.regions) > 1 else 0)

    def group_sizes(self) -> Iterator[GroupSize]:
        for group, sizes in self._sizes.items():
            there = [size for size in sizes if size]
            mean, share = _mean(there), len(there) / len(sizes)
            items = self._part.entities * share
            stored = items * (mean + self._overhead) / GB
            yield GroupSize(self.name, group, mean, max(sizes), share, items, stored)

    def _stored(self, group: GroupSize) -> Line:
        factors = [
            (self._part.entities, " entities"),
            (group.share, " have it"),
            (group.bytes + self._overhead, " bytes"),
        ]
        arithmetic, stored = _product(factors)
        return Line(self.name, group.group, "stored", arithmetic, stored / GB, "GB", _STORED)

    @property
    def gb(self) -> float:
        return sum(group.gb for group in self.group_sizes())

    @property
    def gb_later(self) -> float:
        return self.gb * (1 + self._part.growth) ** self._mix.months


def refused_share(late: float) -> float:
    """Return the share of partial writes that are refused if a share arrives `late`.

    The expectation of a partial write is a saturating counter (`dynamodb.expectations`): late
    writes move it up, others down, and above 0 the next write is expected to be late. Its
    states have the weights of a random walk between its bounds.
    """
    if late in (0.0, 1.0):
        return 0.0
    steps = range(-COUNTER_LIMIT, COUNTER_LIMIT + 1)
    weights = {step: (late / (1 - late)) ** step for step in steps}
    expected = sum(weight for step, weight in weights.items() if step > 0) / sum(weights.values())
    return late * (1 - expected) + (1 - late) * expected


def _product(factors: Sequence[tuple[float, str]]) -> tuple[str, float]:
    """Factors that do something, as text, and their product."""
    said = [f"{_plain(value)}{name}" for value, name in factors if value != 1 or name == " RCU"]
    return " x ".join(said), math.prod(value for value, _ in factors)


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.6g}"


def _kilobytes(size: float) -> float:
    return max(1.0, size / 1024)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


# --- The capacity of the table that a sizing asks for: provisioned units, and their bound ---


Mode: TypeAlias = Literal["on-demand", "provisioned", "autoscaled"]

TARGET = 70.0

MAXIMUM_FACTOR = 2
"""The autoscaling maximum, as a multiple of what the peak needs."""


@dataclass(frozen=True, slots=True)
class PlannedUnits:
    """Units per second of one dimension; both bounds equal `units` if it is not autoscaled."""

    units: int
    minimum: int
    maximum: int

    @property
    def is_autoscaled(self) -> bool:
        """True if the bounds differ."""
        return self.minimum < self.maximum


@dataclass(frozen=True, slots=True)
class PlannedRegion:
    """The provisioned capacity of one region."""

    region: str
    read: PlannedUnits
    write: PlannedUnits


def planned_regions(
    sizing: Sizing, mode: Mode, target: float = TARGET
) -> tuple[PlannedRegion, ...]:
    """Return the provisioned capacity and its bounds in each region.

    Capacity is for the peak, and for what the mix wants of it when another region is lost, at
    `target` percent. In several regions, AWS demands autoscaled writes in both modes. Reads of a
    replica that differ from the first region are autoscaled as well, since Terraform cannot fix
    them. Empty on demand.
    """
    if mode == "on-demand":
        return ()
    is_scaled, trough = mode == "autoscaled", sizing.mix.trough
    wcu = max(region.wcu for region in sizing.regions)
    writes = _units(wcu, wcu * trough, target, is_scaled or len(sizing.regions) > 1)
    first = _reads(sizing.regions[0], trough, target, is_scaled)
    regions = [PlannedRegion(sizing.regions[0].region, first, writes)]
    for region in sizing.regions[1:]:
        reads = _reads(region, trough, target, is_scaled)
        if reads != first:
            reads = _reads(region, trough, target, is_scaled=True)
        regions.append(PlannedRegion(region.region, reads, writes))
    return tuple(regions)


def provisioned_units(peak: float, target: float = TARGET) -> int:
    """Return what to provision so that a peak is `target` percent of it; at least 1 (AWS)."""
    return max(1, math.ceil(round(peak * 100 / target, 6)))


def _reads(region: RegionUnits, trough: float, target: float, is_scaled: bool) -> PlannedUnits:
    peak = max(region.rcu, region.rcu_ready)
    least = max(region.rcu * trough, region.rcu_ready)
    wanted = max(peak, region.rcu_after_loss) if is_scaled else peak
    return _units(wanted, least, target, is_scaled)


def _units(peak: float, least: float, target: float, is_scaled: bool) -> PlannedUnits:
    units = provisioned_units(peak, target)
    if not is_scaled:
        return PlannedUnits(units, units, units)
    return PlannedUnits(units, provisioned_units(least, target), MAXIMUM_FACTOR * units)
