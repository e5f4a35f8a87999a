"""Which features should live in one item, given what is read and written together.

A write pays for the whole item, so features that change often should not lie beside large ones
that do not. A read pays for each item by itself, so features that are read together should not
lie apart. Which of the two weighs more is reckoned with prices, not guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

from msgspec import structs

from chalk_online_store.planning.items import Sample
from chalk_online_store.planning.mix import Mix, NamespaceMix
from chalk_online_store.planning.prices import SECONDS_A_MONTH, ClassPrices
from chalk_online_store.planning.sizing import size

Grouping: TypeAlias = tuple[frozenset[str], ...]

MOST_TRIED = 8
"""Sets of features that every partition of is tried: 4,140. With more, two are joined at a time."""


@dataclass(frozen=True, slots=True)
class GroupingCost:
    """What a grouping takes at the busiest time, in all regions, and costs a month on demand."""

    groups: Grouping
    rcu: float
    wcu: float
    dollars: float


@dataclass(frozen=True, slots=True)
class GroupAdvice:
    """A namespace's grouping as it is, and the cheapest that was found."""

    namespace: str
    now: GroupingCost
    best: GroupingCost

    @property
    def saved(self) -> float:
        """The share of the dollars that the best grouping saves."""
        return 1 - self.best.dollars / self.now.dollars if self.now.dollars else 0.0

    @property
    def changes(self) -> bool:
        """Whether it is worth anything to change."""
        return set(self.best.groups) != set(self.now.groups)


def advise(mix: Mix, part: NamespaceMix, sample: Sample, prices: ClassPrices) -> GroupAdvice:
    """The cheapest grouping of a namespace for its queries and writes.

    Features that every query and write treats alike stay together. All partitions of these sets
    are tried, or, where there are many, the two whose union saves most are joined until none
    does. Where two cost the same, the one with fewer groups is better.
    """
    search = _Search(structs.replace(mix, namespaces=(part,)), sample, prices)
    now = search.cost(tuple(sample.groups.values()))
    atoms = _atoms(part, sample)
    best = search.exhaustive(atoms) if len(atoms) <= MOST_TRIED else search.greedy(atoms)
    return GroupAdvice(sample.namespace.name, now, min(now, best, key=_rank))


def _rank(cost: GroupingCost) -> tuple[float, int]:
    return round(cost.dollars, 6), len(cost.groups)


def _atoms(part: NamespaceMix, sample: Sample) -> list[frozenset[str]]:
    """The finest sets of features that no query or write tells apart."""
    orders = [*(q.features for q in part.query), *(w.features for w in part.write)]
    named = [sample.names(features) for features in orders]
    alike: dict[tuple[bool, ...], set[str]] = {}
    for feature in sample.namespace.features:
        mark = tuple(not names or feature.name in names for names in named)
        alike.setdefault(mark, set()).add(feature.name)
    return [frozenset(names) for names in alike.values()]


class _Search:
    """Groupings of one namespace, and what they cost."""

    def __init__(self, mix: Mix, sample: Sample, prices: ClassPrices) -> None:
        self._mix = mix
        self._sample = sample
        self._prices = prices

    def cost(self, groups: Grouping) -> GroupingCost:
        (part,) = self._mix.namespaces
        sizing = size(self._mix, {part.schema: self._sample.regrouped(groups)})
        replicas = len(self._mix.regions)
        rcu, wcu = sizing.total("RCU"), sizing.total("WCU") * replicas
        millions = SECONDS_A_MONTH * self._mix.mean / 1e6
        requests = rcu * self._prices.million_rru + wcu * self._prices.million_wru
        stored = sizing.gb * replicas * self._prices.gb_month
        return GroupingCost(groups, rcu, wcu, requests * millions + stored)

    def exhaustive(self, atoms: Sequence[frozenset[str]]) -> GroupingCost:
        return min(map(self.cost, _groupings(atoms)), key=_rank)

    def greedy(self, atoms: Sequence[frozenset[str]]) -> GroupingCost:
        best = self.cost(tuple(atoms))
        while len(best.groups) > 1:
            joined = min(map(self.cost, _joined(best.groups)), key=_rank)
            if _rank(joined) >= _rank(best):
                return best
            best = joined
        return best


def _groupings(atoms: Sequence[frozenset[str]]) -> Iterator[Grouping]:
    """Every way to put sets together: the partitions of a set of sets."""
    if not atoms:
        yield ()
        return
    first, *rest = atoms
    for grouping in _groupings(rest):
        yield (first, *grouping)
        for place, group in enumerate(grouping):
            yield (*grouping[:place], first | group, *grouping[place + 1 :])


def _joined(groups: Grouping) -> Iterator[Grouping]:
    """Every grouping with two of these groups in one."""
    for one, other in combinations(groups, 2):
        yield (*(group for group in groups if group not in (one, other)), one | other)
