"""The same entities in Valkey: how much memory, which nodes, what they cost beside the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.prices import HOURS_A_MONTH, Node, RegionPrices, ValkeyPrices
from chalk_online_store.planning.sizing import Sizing

if TYPE_CHECKING:
    from chalk_online_store.planning.modes import ModeAdvice

GIB = 1024**3

KEY_OVERHEAD = 100
"""Bytes that an entity takes in Valkey beside what its item counts in DynamoDB.

They are the key, an entry of the dictionary, the expiry, what the allocator rounds up, and what
msgpack takes more than the item. Measured on Valkey 9.1: 50 for an item of one short text, 70 to
110 for most, 170 for one of 100 floats. A test holds a server to it."""

REPLICAS = 1

_CLEARLY = 0.7
"""The share of DynamoDB's price below which Valkey is advised."""


@dataclass(frozen=True, slots=True)
class ValkeyCost:
    """What a mix takes in Valkey, in each region; dollars a month of all regions.

    `gib` is what the data takes at the end of the mix's months. Each of `shards` is `node` with
    `REPLICAS` beside it. `assumed` names the regions without node prices. They are counted
    at the prices of the first region that has some.
    """

    gib: float
    node: Node
    shards: int
    regions: int
    dollars: float
    assumed: tuple[str, ...] = ()


def in_valkey(
    sizing: Sizing, prices: Sequence[RegionPrices | None], fallback: ValkeyPrices | None = None
) -> ValkeyCost:
    """Return the cheapest nodes of one kind that hold all entities in memory.

    `prices` has one entry per region of the mix, in order. A region without node prices is
    counted at the prices of the first region that has some, or at `fallback`. Raises
    `InvalidValue` if no node prices are known.
    """
    gib = memory_gib(sizing)
    known = [each.valkey if each is not None else None for each in prices]
    first = next((each for each in known if each is not None), fallback)
    if first is None:
        raise InvalidValue("No prices of Valkey nodes. Add `valkey` to a region of the price file.")
    nodes = cheapest_nodes(gib, first)
    hourly = sum(nodes.count * (each or first).hour_of(nodes.node.name) for each in known)
    assumed = [n for n, each in zip(sizing.mix.regions, known, strict=True) if each is None]
    dollars = hourly * HOURS_A_MONTH
    return ValkeyCost(gib, nodes.node, nodes.shards, len(known), dollars, tuple(assumed))


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of one region: `shards` of `node`, each with `REPLICAS` beside it."""

    node: Node
    shards: int

    @property
    def count(self) -> int:
        """All nodes, replicas included."""
        return self.shards * (1 + REPLICAS)


def cheapest_nodes(gib: float, prices: ValkeyPrices) -> Nodes:
    """Return the cheapest nodes of one kind that hold so much in memory."""
    usable = 1 - prices.reserved_memory

    def shards(node: Node) -> int:
        return max(1, math.ceil(gib / (node.gib * usable)))

    node = min(prices.nodes, key=lambda node: (shards(node) * node.hour, shards(node)))
    return Nodes(node, shards(node))


def memory_gib(sizing: Sizing) -> float:
    """Return the memory of a mix's entities in Valkey at the end of its months, in GiB."""
    return _bytes(sizing) * (sizing.gb_later / sizing.gb if sizing.gb else 1.0) / GIB


def break_even(valkey: ValkeyCost, modes: ModeAdvice) -> float:
    """For how many times the mix's load the table, in its recommended mode, costs as much.

    Memory costs the same however often it is read and written. 0 where storage alone costs as
    much, infinity where nothing is asked of the table.
    """
    requests = sum(region.of(modes.mode).dollars for region in modes.regions)
    kept = modes.dollars(modes.mode) - requests
    return max(0.0, valkey.dollars - kept) / requests if requests else math.inf


def choose_store(valkey: ValkeyCost, dollars: float) -> tuple[str, str]:
    """Give DynamoDB or Valkey, and why, where the former costs so many dollars a month.

    Valkey answers in less than a millisecond, but everything has to fit in memory, and what a
    node had not yet replicated is lost with it. So it is advised where it is clearly cheaper;
    where latency decides, it may be worth its price.
    """
    share = valkey.dollars / dollars if dollars else math.inf
    size = f"{valkey.gib:,.1f} GiB in memory"
    if share < _CLEARLY:
        return (
            "Valkey",
            f"{size} cost {share:.0%} of DynamoDB; what is lost with a node is its price",
        )
    if share <= 1:
        return (
            "DynamoDB",
            f"Valkey would cost {share:.0%} of it: too little less for what it can lose",
        )
    return "DynamoDB", f"{size} would cost {share:,.1f} times as much; it buys latency alone"


def _bytes(sizing: Sizing) -> float:
    return sum(group.items * (group.bytes + KEY_OVERHEAD) for group in sizing.groups)
