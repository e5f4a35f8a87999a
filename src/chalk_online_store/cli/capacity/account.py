"""All that is reckoned of a mix, as one thing: to print, as JSON, or as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from chalk_online_store.cli import require
from chalk_online_store.cli.schemas import namespace_called
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.bill import Bill
from chalk_online_store.planning.grouping import GroupAdvice, GroupingCost, advise
from chalk_online_store.planning.items import Sample
from chalk_online_store.planning.limits import Finding, findings, partitions
from chalk_online_store.planning.memory import (
    ValkeyCost,
    break_even,
    choose_store,
    in_valkey,
)
from chalk_online_store.planning.mix import Mix, NamespaceMix
from chalk_online_store.planning.modes import MODES, ModeAdvice, compare
from chalk_online_store.planning.prices import Prices, ValkeyPrices, read_prices
from chalk_online_store.planning.sizing import Sizing, size
from chalk_online_store.planning.typical import typical_rows


@dataclass(frozen=True, slots=True)
class SizingReport:
    """What a mix takes, what it comes close to, and what it costs."""

    prices: Prices
    sampled: Mapping[str, int]
    sizing: Sizing
    partitions: int
    findings: Sequence[Finding]
    groups: Sequence[GroupAdvice]
    modes: ModeAdvice
    valkey: ValkeyCost
    target: float

    @property
    def bill(self) -> Bill:
        """The bill of the recommended mode: its components, and what is not counted."""
        return self.modes.bill

    @property
    def store(self) -> tuple[str, str]:
        """DynamoDB or Valkey, and why."""
        if not self.modes.is_priced:
            return "DynamoDB", "no region has prices, so the two cannot be compared"
        return choose_store(self.valkey, self.modes.dollars(self.modes.mode))

    @property
    def break_even(self) -> float:
        """For how many times the load both cost the same."""
        return break_even(self.valkey, self.modes)

    def plain(self) -> dict[str, Any]:
        """As JSON has it; units a second at the peak, bytes, GB and dollars a month."""
        sizing = self.sizing
        return {
            "prices_as_of": self.prices.as_of.isoformat(),
            "prices_source": self.prices.source,
            "confirmed_prices": {
                region: list(ours.two_sources)
                for region in sizing.mix.regions
                if (ours := self.prices.get(region)) is not None
            },
            "items": [asdict(group) for group in sizing.groups],
            "lines": [asdict(line) for line in sizing.lines],
            "regions": [asdict(region) for region in sizing.regions],
            "gb": sizing.gb,
            "gb_later": sizing.gb_later,
            "partitions": self.partitions,
            "findings": [asdict(finding) for finding in self.findings],
            "groups": [_grouped(advice) for advice in self.groups],
            "modes": [
                {
                    "mode": mode,
                    "dollars": self.modes.dollars(mode) if self.modes.is_priced else None,
                }
                for mode in MODES
            ],
            "unpriced_regions": list(self.bill.unpriced),
            "components": [asdict(component) for component in self.bill.components],
            "once": self.bill.once,
            "not_counted": [asdict(each) for each in self.bill.not_counted],
            "alternatives": [
                {
                    "name": each.name,
                    "dollars": each.bill.monthly,
                    "saved": each.saved,
                    "components": [asdict(component) for component in each.bill.components],
                    "not_counted": [asdict(one) for one in each.bill.not_counted],
                }
                for each in self.modes.alternatives
            ],
            "recommended": {"mode": self.modes.mode, "reason": self.modes.reason},
            "notes": list(self.modes.notes),
            "store": dict(zip(("name", "reason"), self.store, strict=True)),
            "valkey": {
                "gib": self.valkey.gib,
                "node": self.valkey.node.name,
                "shards": self.valkey.shards,
                "dollars": self.valkey.dollars,
                "regions_with_assumed_prices": list(self.valkey.assumed),
                "break_even": self.break_even,
            },
        }


def _grouped(advice: GroupAdvice) -> dict[str, Any]:
    return {
        "namespace": advice.namespace,
        "changes": advice.changes,
        "saved": advice.saved,
        "now": _cost(advice.now),
        "best": _cost(advice.best),
    }


def _cost(cost: GroupingCost) -> dict[str, Any]:
    groups = sorted(sorted(group) for group in cost.groups)
    return {"groups": groups, "rcu": cost.rcu, "wcu": cost.wcu, "dollars": cost.dollars}


def estimate(mix: Mix, prices: Prices, target: float) -> SizingReport:
    """Compute the account of a mix; its schemas and samples are looked up.

    A region without prices has units and no dollars. Groups are then compared at the prices of
    another region: prices of reads, writes and storage rise alike. Raises `InvalidSchema` and
    `UnknownFeature`.
    """
    samples = {part.schema: sample_of(part) for part in mix.namespaces}
    sizing = size(mix, samples)
    ours = [prices.get(region) for region in mix.regions]
    typical = next(each for each in (*ours, *prices.regions.values()) if each is not None)
    nodes = _any_nodes(prices)
    advice = compare(sizing, ours, target, services=prices.services, fallback_nodes=nodes)
    return SizingReport(
        prices,
        {sample.namespace.name: len(sample.rows) for sample in samples.values()},
        sizing,
        partitions(sizing, advice.mode, target),
        findings(sizing, samples, advice.mode, target),
        [advise(mix, part, samples[part.schema], typical.standard) for part in mix.namespaces],
        advice,
        in_valkey(sizing, ours, nodes),
        target,
    )


def _any_nodes(prices: Prices) -> ValkeyPrices:
    """Return the node prices of the first region that has some, of the bundled file otherwise."""
    files = (prices, read_prices())
    every = (each.valkey for file in files for each in file.regions.values())
    return next(each for each in every if each is not None)


def sample_of(part: NamespaceMix) -> Sample:
    """Rows of a namespace: those of its sample file, or made up from its schema."""
    given = namespace_called(part.schema) if ":" in part.schema else None
    if not part.sample:
        if given is None:
            raise InvalidValue(
                f"schema = {part.schema!r}: name it module:Class, or give a sample with its key."
            )
        return Sample(given, typical_rows(given))
    require("arrow", "pyarrow")
    from chalk_online_store.cli.loading.inputs import input_files
    from chalk_online_store.cli.loading.source import Source

    name = given.name if given else part.schema
    keys = list(part.key) or ([given.key_name] if given else [])
    source = Source(input_files([part.sample], None), name, keys, None, given)
    first = next(iter(source.read()), None)
    return Sample(source.namespace, first.rows if first else [])
