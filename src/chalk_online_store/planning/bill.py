"""Monthly bills: one function over mode, table class, commitment, regions and store.

`bill` returns the components of a bill, each with its arithmetic and AWS's rule, and a list of
costs that are not counted, with the reason. Components add up. A saving is a component below 0.
A cost that is paid once, such as the first copy of a new replica, is not part of the month.

Rules, by their source:

- Requests on demand, capacity by the hour, storage, backups, recovery: the region's prices.
- Replicated writes cost what writes cost; all writes of a Global Table are replicated ones
  (developer guide, "Understanding DynamoDB billing for global tables").
- A TTL deletion is free in its own region and a replicated write in the others (guide, "Time to
  Live").
- A new replica is billed like a restore of the table, and for the transfer between the regions
  (prescriptive guidance, "Global tables FAQ").
- Reserved capacity: provisioned, Standard class, not replicated, blocks of 100 units of one region
  (guide, "Reserved capacity"). Reads of a Global Table are not replicated.
- Database Savings Plans also cover replicated writes and on-demand requests (API reference of
  Savings Plans, `SavingsPlanRate`). A commitment is for each hour, so it is made for the trough.
- The free tier has 25 GB, 25 RCU and 25 WCU of provisioned, Standard-class tables.
- Target tracking makes four CloudWatch alarms for each dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.autoscaling import TargetTracking, simulate
from chalk_online_store.planning.demand import diurnal
from chalk_online_store.planning.memory import GIB, cheapest_nodes, memory_gib
from chalk_online_store.planning.mix import Mix
from chalk_online_store.planning.on_demand import READ_WARM, WRITE_WARM
from chalk_online_store.planning.prices import (
    HOURS_A_MONTH,
    SECONDS_A_MONTH,
    ClassPrices,
    Price,
    RegionPrices,
    ServicePrices,
    ValkeyPrices,
)
from chalk_online_store.planning.runs import ProvisionedRun
from chalk_online_store.planning.sizing import (
    TARGET,
    Mode,
    PlannedRegion,
    PlannedUnits,
    RegionUnits,
    Sizing,
    planned_regions,
    provisioned_units,
)

__all__ = [
    "TARGET",
    "Bill",
    "Choice",
    "Commitment",
    "Component",
    "Mode",
    "ModeCost",
    "NotCounted",
    "Store",
    "TableClass",
    "autoscaled",
    "bill",
    "provisioned_units",
]

TableClass: TypeAlias = Literal["standard", "infrequent-access"]
Commitment: TypeAlias = Literal["none", "reserved-1", "reserved-3", "savings-plan"]
Store: TypeAlias = Literal["dynamodb", "valkey-nodes", "valkey-serverless"]

RESERVED_BLOCK = 100
FREE_GB, FREE_UNITS = 25.0, 25
FREE_STREAM_READS = 2.5e6
ALARMS_PER_DIMENSION = 4
SERVERLESS_MIN_GB = 0.1

_DAYS = 3
"""Simulated days; the first one only settles."""

_MINUTES_A_DAY = 1440


@dataclass(frozen=True, slots=True)
class Choice:
    """The mode, class, commitment and store of a bill.

    `target` is the utilisation of provisioned capacity at the peak, in percent.
    """

    mode: Mode = "on-demand"
    table_class: TableClass = "standard"
    commitment: Commitment = "none"
    store: Store = "dynamodb"
    target: float = TARGET


@dataclass(frozen=True, slots=True)
class Component:
    """One line of a bill: dollars per month, or once if `is_once`."""

    name: str
    region: str
    dollars: float
    arithmetic: str
    rule: str
    is_once: bool = False


@dataclass(frozen=True, slots=True)
class NotCounted:
    """Something that a real bill may have and this one does not, with the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModeCost:
    """Requests of a mode in one region; dollars per month before commitments.

    `read_units` and `write_units` are the mean units provisioned, on demand those consumed.
    `utilisation` is the consumed share of provisioned units, by dollars; 1 on demand.
    `throttled` is a share of the load. The floors are the units provisioned at any time.
    """

    mode: Mode
    read_units: float
    write_units: float
    reads: float
    writes: float
    utilisation: float
    throttled: float
    read_floor: float = 0.0
    write_floor: float = 0.0

    @property
    def dollars(self) -> float:
        """Reads and writes together."""
        return self.reads + self.writes


@dataclass(frozen=True, slots=True)
class Bill:
    """All components of a choice. `capacity` has the requests of each region, in order.

    `unpriced` names the regions without prices: their units count, their dollars do not.
    """

    choice: Choice
    components: tuple[Component, ...]
    not_counted: tuple[NotCounted, ...]
    capacity: tuple[ModeCost, ...] = ()
    unpriced: tuple[str, ...] = ()

    @property
    def monthly(self) -> float:
        """Dollars per month."""
        return math.fsum(each.dollars for each in self.components if not each.is_once)

    @property
    def once(self) -> float:
        """Dollars that are paid once."""
        return math.fsum(each.dollars for each in self.components if each.is_once)

    def total(self, name: str, region: str | None = None) -> float:
        """Add up the components of a name, of one region if it is given."""
        return math.fsum(
            each.dollars
            for each in self.components
            if each.name == name and region in (None, each.region)
        )


@dataclass(slots=True)
class _Draft:
    """A bill in the making."""

    components: list[Component] = field(default_factory=list)
    not_counted: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, region: str, dollars: float, arithmetic: str, rule: str) -> None:
        if dollars:
            self.components.append(Component(name, region, dollars, arithmetic, rule))

    def add_once(self, name: str, region: str, dollars: float, arithmetic: str, rule: str) -> None:
        self.components.append(Component(name, region, dollars, arithmetic, rule, True))

    def leave_out(self, name: str, reason: str) -> None:
        self.not_counted.setdefault(name, reason)


def bill(
    sizing: Sizing,
    prices: Sequence[RegionPrices | None],
    choice: Choice,
    services: ServicePrices | None = None,
    fallback_nodes: ValkeyPrices | None = None,
) -> Bill:
    """Compute the bill of a sized mix for one choice.

    `prices` has one entry per region of the mix, in order; None for a region without prices,
    whose units count and whose dollars do not. `services` are the prices of other AWS services,
    `fallback_nodes` the node prices for regions that lack them. Raises `InvalidValue` for a
    target that AWS refuses.
    """
    if not 20 <= choice.target <= 90:
        raise InvalidValue(f"target={choice.target:g}: AWS takes 20 to 90 %.")
    services = services or ServicePrices()
    draft = _Draft()
    if choice.store == "dynamodb":
        capacity = tuple(_table(draft, sizing, prices, choice, services))
    else:
        capacity = ()
        _memory(draft, sizing, prices, choice, services, fallback_nodes)
    _leave_out_always(draft, sizing, choice)
    unpriced = tuple(
        region for region, each in zip(sizing.mix.regions, prices, strict=True) if each is None
    )
    for region in unpriced if choice.store == "dynamodb" else ():
        draft.leave_out(
            f"everything in {region}",
            "the price file has no prices of this region: its capacity units are computed, its "
            "dollars are not. Write a file with `chalk-online-store prices fetch`.",
        )
    left_out = tuple(NotCounted(*each) for each in draft.not_counted.items())
    return Bill(choice, tuple(draft.components), left_out, capacity, unpriced)


# --- requests ------------------------------------------------------------------------------


_FREE = ClassPrices(0.0, 0.0, 0.0, 0.0, 0.0)


def _table(
    draft: _Draft,
    sizing: Sizing,
    prices: Sequence[RegionPrices | None],
    choice: Choice,
    services: ServicePrices,
) -> Iterator[ModeCost]:
    is_global = len(sizing.regions) > 1
    classes = [_FREE if each is None else _class_of(each, choice.table_class) for each in prices]
    capacities = list(_capacities(sizing, classes, choice))
    for place, (units, ours) in enumerate(zip(sizing.regions, prices, strict=True)):
        chosen, capacity = classes[place], capacities[place]
        yield capacity
        if ours is None:
            continue
        _requests(draft, units, capacity, is_global)
        _commit(draft, units, capacity, chosen, ours, services, choice, sizing.mix, is_global)
        _storage(draft, sizing, units.region, chosen, ours)
        _beside(draft, sizing, units.region, ours, services, choice)
        if sizing.mix.extras.free_tier and place == 0:
            _free_tier(draft, sizing, units.region, capacity, chosen, choice, is_global)
        if place:
            _first_copy(draft, sizing, units.region, ours)
    if is_global:
        _transfer(draft, sizing, prices[0])


def _class_of(prices: RegionPrices, table_class: TableClass) -> ClassPrices:
    return prices.standard if table_class == "standard" else prices.infrequent_access


def _capacities(
    sizing: Sizing, prices: Sequence[ClassPrices], choice: Choice
) -> Iterator[ModeCost]:
    """Yield the requests of each region: those of the table that would be created."""
    mix = sizing.mix
    if choice.mode == "on-demand":
        for units, ours in zip(sizing.regions, prices, strict=True):
            yield _on_demand(units, mix.mean, ours)
        return
    planned = planned_regions(sizing, choice.mode, choice.target)
    for units, region, ours in zip(sizing.regions, planned, prices, strict=True):
        yield _provisioned(units, region, mix, ours, choice)


def _on_demand(units: RegionUnits, mean: float, prices: ClassPrices) -> ModeCost:
    millions = SECONDS_A_MONTH / 1e6
    read, write = units.rcu * mean, units.wcu * mean
    return ModeCost(
        "on-demand",
        read,
        write,
        read * millions * prices.million_rru,
        write * millions * prices.million_wru,
        1.0,
        0.0,
    )


def _provisioned(
    units: RegionUnits, planned: PlannedRegion, mix: Mix, prices: ClassPrices, choice: Choice
) -> ModeCost:
    reads = _provided(planned.read, units.rcu, mix.trough, choice.target)
    writes = _provided(planned.write, units.wcu, mix.trough, choice.target)
    hourly = (prices.rcu_hour, prices.wcu_hour)
    paid = reads.mean * hourly[0] * HOURS_A_MONTH, writes.mean * hourly[1] * HOURS_A_MONTH
    used = (reads.used * hourly[0] + writes.used * hourly[1]) * HOURS_A_MONTH
    return ModeCost(
        choice.mode,
        reads.mean,
        writes.mean,
        *paid,
        used / sum(paid) if sum(paid) else 0.0,
        max(reads.throttled, writes.throttled),
        reads.floor,
        writes.floor,
    )


def autoscaled(
    peak: float, trough: float, target: float = TARGET, ready: float = 0.0
) -> ProvisionedRun:
    """Simulate days of a load under autoscaling, from its trough to its peak.

    `trough` is a share of the peak. Capacity may fall to what the trough needs, or `ready` units
    per second if these are more, and rise to twice what the peak needs.
    """
    most = provisioned_units(max(peak, ready), target)
    least = provisioned_units(max(peak * trough, ready), target)
    scaling = TargetTracking(
        least, 2 * most, target, scale_in_cooldown=60.0, scale_out_cooldown=60.0
    )
    return simulate(diurnal(peak * trough, peak, _DAYS), scaling, initial=most)


@dataclass(frozen=True, slots=True)
class _Provided:
    """One dimension after its first day: mean units provided and used, and the least provided."""

    mean: float
    used: float
    floor: float
    throttled: float


@lru_cache(maxsize=64)
def _provided(planned: PlannedUnits, peak: float, trough: float, target: float) -> _Provided:
    if not planned.is_autoscaled:
        return _Provided(planned.units, peak * (1 + trough) / 2, planned.units, 0.0)
    scaling = TargetTracking(
        planned.minimum, planned.maximum, target, scale_in_cooldown=60.0, scale_out_cooldown=60.0
    )
    run = simulate(diurnal(peak * trough, peak, _DAYS), scaling, initial=planned.units)
    rest = slice(_MINUTES_A_DAY, None)
    capacity = run.capacity[rest]
    return _Provided(
        float(capacity.mean()),
        float(run.consumed[rest].mean()),
        float(capacity.min()),
        run.throttled_share,
    )


_REPLICATED = "every write of a Global Table is a replicated write in every region, at its price"
_REFUSED = "AWS bills a refused conditional write like the write"
_EXPIRED = "a TTL deletion is free in its own region and a replicated write in the others"


def _requests(draft: _Draft, units: RegionUnits, capacity: ModeCost, is_global: bool) -> None:
    what = "units consumed" if capacity.mode == "on-demand" else "units provisioned"
    rule = "by request" if capacity.mode == "on-demand" else "by unit and hour, used or not"
    read = f"{capacity.read_units:,.6g} {what} per second, on average"
    draft.add("reads", units.region, capacity.reads, read, rule)
    accepted = units.wcu - units.wcu_refused - units.wcu_expired
    shares = (
        ("replicated writes" if is_global else "writes", accepted, is_global and _REPLICATED),
        ("refused writes", units.wcu_refused, _REFUSED),
        ("replicated TTL deletions", units.wcu_expired, _EXPIRED),
    )
    if not units.wcu:  # A provisioned table has one WCU at least.
        draft.add("writes", units.region, capacity.writes, f"{capacity.write_units:g} {what}", rule)
        return
    for name, wcu, why in shares:
        share = wcu / units.wcu
        arithmetic = f"{capacity.write_units:,.6g} {what} per second x {share:.4g} of them"
        draft.add(name, units.region, capacity.writes * share, arithmetic, why or rule)


# --- commitments ---------------------------------------------------------------------------


def _commit(
    draft: _Draft,
    units: RegionUnits,
    capacity: ModeCost,
    chosen: ClassPrices,
    ours: RegionPrices,
    services: ServicePrices,
    choice: Choice,
    mix: Mix,
    is_global: bool,
) -> None:
    match choice.commitment:
        case "reserved-1" | "reserved-3":
            years = choice.commitment[-1]
            _reserve(draft, units.region, capacity, chosen, ours, choice, years, is_global)
        case "savings-plan":
            _savings_plan(draft, units.region, capacity, chosen, services, mix)


def _reserve(
    draft: _Draft,
    region: str,
    capacity: ModeCost,
    chosen: ClassPrices,
    ours: RegionPrices,
    choice: Choice,
    years: str,
    is_global: bool,
) -> None:
    name = f"reserved capacity, {years} year{'s' if years != '1' else ''}"
    if choice.mode == "on-demand" or choice.table_class != "standard":
        draft.leave_out(name, "sold for provisioned capacity of the Standard class alone")
        return
    saving = ours.reserved_saving.get(years)
    if saving is None:
        draft.leave_out(f"{name}, in {region}", "not sold in this region")
        return
    floors = [("reads", capacity.read_floor, chosen.rcu_hour)]
    if is_global:
        draft.leave_out(f"{name}, of writes", "not sold for replicated writes")
    else:
        floors.append(("writes", capacity.write_floor, chosen.wcu_hour))
    for what, floor, hourly in floors:
        covered = int(floor) // RESERVED_BLOCK * RESERVED_BLOCK
        arithmetic = f"{covered:,} {what} units x 730 h x ${hourly:g} x {saving:g} saved"
        rule = "blocks of 100 units that are provisioned at any time"
        dollars = -covered * hourly * HOURS_A_MONTH * saving
        draft.add(f"{name}, of {what}", region, dollars, arithmetic, rule)


def _savings_plan(
    draft: _Draft,
    region: str,
    capacity: ModeCost,
    chosen: ClassPrices,
    services: ServicePrices,
    mix: Mix,
) -> None:
    is_on_demand = capacity.mode == "on-demand"
    saving = services.savings_plan_on_demand if is_on_demand else services.savings_plan_provisioned
    if saving is None:
        draft.leave_out("Database Savings Plan", "the price file has no discount for it")
        return
    if is_on_demand:
        floor = capacity.dollars * mix.trough / mix.mean
    else:
        hourly = capacity.read_floor * chosen.rcu_hour + capacity.write_floor * chosen.wcu_hour
        floor = hourly * HOURS_A_MONTH
    arithmetic = f"${floor:,.2f} of requests at any hour x {saving.dollars:g} saved"
    rule = f"covers replicated writes; one year, no upfront; {_dated(saving)}"
    draft.add("Database Savings Plan", region, -floor * saving.dollars, arithmetic, rule)


def _dated(price: Price) -> str:
    confirmed = "" if price.confirmed else ", not confirmed by a second source"
    return f"{price.source}, {price.as_of}{confirmed}"


def _free_tier(
    draft: _Draft,
    sizing: Sizing,
    region: str,
    capacity: ModeCost,
    chosen: ClassPrices,
    choice: Choice,
    is_global: bool,
) -> None:
    if choice.table_class != "standard":
        draft.leave_out("free tier", "it is for the Standard class")
        return
    free = min(sizing.gb, FREE_GB) * chosen.gb_month
    parts = [f"{min(sizing.gb, FREE_GB):,.4g} GB"]
    if capacity.mode != "on-demand":
        reads = min(capacity.read_units, FREE_UNITS)
        writes = 0.0 if is_global else min(capacity.write_units, FREE_UNITS)
        free += (reads * chosen.rcu_hour + writes * chosen.wcu_hour) * HOURS_A_MONTH
        parts += [f"{reads:g} RCU", f"{writes:g} WCU"]
    draft.add("free tier", region, -free, ", ".join(parts), "25 GB, 25 RCU, 25 WCU per account")


# --- storage and what is beside the table --------------------------------------------------


def _storage(
    draft: _Draft, sizing: Sizing, region: str, chosen: ClassPrices, ours: RegionPrices
) -> None:
    extras, size = sizing.mix.extras, f"{sizing.gb:,.4g} GB"
    stored = sizing.gb * chosen.gb_month
    draft.add("storage", region, stored, f"{size} x ${chosen.gb_month:g}", "by GB and month")
    if extras.recovery:
        recovery = sizing.gb * ours.recovery_gb_month
        arithmetic = f"{size} x ${ours.recovery_gb_month:g}"
        draft.add("point-in-time recovery", region, recovery, arithmetic, "the table's size")
    else:
        draft.leave_out("point-in-time recovery", "switched off in extras")
    if extras.backups and ours.backup_gb_month is not None:
        arithmetic = f"{extras.backups:g} full backups x {size} x ${ours.backup_gb_month:g}"
        dollars = extras.backups * sizing.gb * ours.backup_gb_month
        draft.add("backups", region, dollars, arithmetic, "each backup is a full copy")
    elif extras.backups:
        draft.leave_out("backups", f"the price file has no price of them in {region}")
    else:
        draft.leave_out("backups", "none in extras")


def _beside(
    draft: _Draft,
    sizing: Sizing,
    region: str,
    ours: RegionPrices,
    services: ServicePrices,
    choice: Choice,
) -> None:
    _streams(draft, sizing, region, ours)
    _key(draft, sizing, region, services)
    _insights(draft, sizing, region, services)
    _alarms(draft, sizing, region, services, choice)


def _streams(draft: _Draft, sizing: Sizing, region: str, ours: RegionPrices) -> None:
    rate = sizing.mix.extras.stream_reads_per_second
    if not rate:
        draft.leave_out(
            "streams", "no reader of your own in extras; replication and Lambda read free"
        )
        return
    if ours.million_stream_reads is None:
        draft.leave_out("streams", f"the price file has no price of stream reads in {region}")
        return
    paid = max(0.0, rate * SECONDS_A_MONTH - FREE_STREAM_READS) / 1e6
    arithmetic = f"{paid:,.6g} million GetRecords x ${ours.million_stream_reads:g}"
    rule = "2.5 million per month are free"
    draft.add("streams", region, paid * ours.million_stream_reads, arithmetic, rule)


def _key(draft: _Draft, sizing: Sizing, region: str, services: ServicePrices) -> None:
    if not sizing.mix.extras.customer_key:
        draft.leave_out(
            "KMS",
            "the key aws/dynamodb has no monthly price; its requests, one per 5 minutes and IAM "
            "principal, cost about $0.03 per month each",
        )
        return
    month, requests = services.kms_key_month, services.kms_10000_requests
    if month is None or requests is None:
        draft.leave_out("KMS", "the price file has no prices of KMS")
        return
    asked = HOURS_A_MONTH * 12
    dollars = month.dollars + asked / 10_000 * requests.dollars
    arithmetic = f"1 key x ${month.dollars:g} + {asked:,.0f} requests"
    rule = f"a request per 5 minutes and IAM principal, of one; {_dated(month)}"
    draft.add("KMS", region, dollars, arithmetic, rule)


def _insights(draft: _Draft, sizing: Sizing, region: str, services: ServicePrices) -> None:
    kind = sizing.mix.extras.insights
    if not kind:
        draft.leave_out("Contributor Insights", "switched off in extras")
        return
    rule_month, million = services.insights_rule_month, services.insights_million_events
    if rule_month is None or million is None:
        draft.leave_out("Contributor Insights", "the price file has no prices of it")
        return
    mix = sizing.mix
    rules = 4 if kind == "accessed" else 2  # Partition keys, and those with sort keys.
    items = sizing.traffic.items_read * mix.share_of(region) + sizing.traffic.items_written
    events = items * mix.mean * SECONDS_A_MONTH / 1e6 if kind == "accessed" else 0.0
    dollars = rules * rule_month.dollars + events * million.dollars
    arithmetic = f"{rules} rules x ${rule_month.dollars:g} + {events:,.6g} million events"
    rule = f"an event is an item read or written; {_dated(million)}"
    draft.add("Contributor Insights", region, dollars, arithmetic, rule)


def _alarms(
    draft: _Draft, sizing: Sizing, region: str, services: ServicePrices, choice: Choice
) -> None:
    planned = planned_regions(sizing, choice.mode, choice.target)
    dimensions = [d for each in planned if each.region == region for d in (each.read, each.write)]
    scaled = sum(dimension.is_autoscaled for dimension in dimensions)
    count = sizing.mix.extras.alarms + scaled * ALARMS_PER_DIMENSION
    if not count:
        draft.leave_out("alarms", "none in extras")
    elif services.alarm_month is None:
        draft.leave_out("alarms", f"{count} alarms per region; the price file has no price of them")
    else:
        price = services.alarm_month
        arithmetic = f"{count} alarms x ${price.dollars:g}"
        rule = f"target tracking makes four per dimension; {_dated(price)}"
        draft.add("alarms", region, count * price.dollars, arithmetic, rule)


def _first_copy(draft: _Draft, sizing: Sizing, region: str, ours: RegionPrices) -> None:
    name = "first copy of a new replica"
    if ours.restore_gb is None:
        draft.leave_out(name, f"the price file has no price of a restore in {region}")
        return
    arithmetic = f"{sizing.gb:,.4g} GB x ${ours.restore_gb:g}"
    rule = "billed like a restore of the table, once, if the table has data already"
    draft.add_once(name, region, sizing.gb * ours.restore_gb, arithmetic, rule)


def _transfer(draft: _Draft, sizing: Sizing, source: RegionPrices | None) -> None:
    name, mix = "transfer between regions", sizing.mix
    copies = len(mix.regions) - 1
    gb = sizing.traffic.bytes_written * mix.mean * SECONDS_A_MONTH / 1e9 * copies
    if source is None or source.transfer_gb is None:
        draft.leave_out(name, f"about {gb:,.4g} GB per month; the price file has no transfer_gb")
        return
    arithmetic = f"{gb:,.4g} GB x ${source.transfer_gb:g}"
    rule = "charged in the region of the write; the size of whole items"
    draft.add(name, mix.regions[0], gb * source.transfer_gb, arithmetic, rule)


def _leave_out_always(draft: _Draft, sizing: Sizing, choice: Choice) -> None:
    extras = sizing.mix.extras
    if choice.store == "dynamodb":
        if not extras.free_tier:
            draft.leave_out("free tier", "one per account; set free_tier if this table has it")
        warm = max(0.0, extras.warm_reads - READ_WARM), max(0.0, extras.warm_writes - WRITE_WARM)
        draft.leave_out(
            "warm throughput",
            f"paid once for {warm[0]:,.0f} read and {warm[1]:,.0f} write units above those of a "
            "new table; the price file has no price of it"
            if any(warm)
            else "no more than a new table has",
        )
        draft.leave_out("restores and exports", "paid by GB when they are made")
        draft.leave_out("vector indexes", "searches and index writes are not part of a mix")
        draft.leave_out("DAX", "no price with a source; the library does not use it")
        draft.leave_out(
            "ElastiCache's cache of DynamoDB",
            "it works inside AWS's SDKs, and this library has its own wire. Prefer it if the same "
            "table is read by programs that use an SDK",
        )
    draft.leave_out("MemoryDB", "no price with a source")
    draft.leave_out("transfer to clients, VPC endpoints, support, tax", "not part of a table")


# --- in memory -----------------------------------------------------------------------------


def _memory(
    draft: _Draft,
    sizing: Sizing,
    prices: Sequence[RegionPrices | None],
    choice: Choice,
    services: ServicePrices,
    fallback: ValkeyPrices | None,
) -> None:
    draft.leave_out("snapshots", "none are counted")
    if choice.store == "valkey-serverless":
        _serverless(draft, sizing, services)
        return
    known = [each.valkey if each is not None else None for each in prices]
    first = next((each for each in known if each is not None), fallback)
    if first is None:
        draft.leave_out("nodes", "the price file has no prices of Valkey nodes")
        return
    nodes = cheapest_nodes(memory_gib(sizing), first)
    for region, each in zip(sizing.mix.regions, known, strict=True):
        hour = (each or first).hour_of(nodes.node.name)
        assumed = "" if each else "; at the node price of another region"
        arithmetic = f"{nodes.count} x {nodes.node.name} x 730 h x ${hour:g}"
        rule = f"memory of all entities, a replica per shard{assumed}"
        draft.add("nodes", region, nodes.count * hour * HOURS_A_MONTH, arithmetic, rule)


def _serverless(draft: _Draft, sizing: Sizing, services: ServicePrices) -> None:
    hour, million = services.serverless_gb_hour, services.serverless_million_ecpu
    if hour is None or million is None:
        draft.leave_out("ElastiCache Serverless", "the price file has no prices of it")
        return
    mix = sizing.mix
    gb = max(SERVERLESS_MIN_GB, memory_gib(sizing) * GIB / 1e9)
    ecpus = sizing.traffic.entity_kilobytes * mix.mean * SECONDS_A_MONTH / 1e6
    for region in mix.regions:
        stored = gb * hour.dollars * HOURS_A_MONTH
        arithmetic = f"{gb:,.4g} GB x 730 h x ${hour.dollars:g}"
        draft.add("data stored", region, stored, arithmetic, f"0.1 GB at least; {_dated(hour)}")
    arithmetic = f"{ecpus:,.6g} million ECPU x ${million.dollars:g}"
    rule = f"one per KB read or written, at least; scripts can take more; {_dated(million)}"
    draft.add("ECPU", mix.regions[0], ecpus * million.dollars, arithmetic, rule)
