"""The command `capacity`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from chalk_online_store.cli import WrongUsage, require
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json, namespace_called
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.bill import Bill
from chalk_online_store.planning.grouping import GroupAdvice, GroupingCost, advise
from chalk_online_store.planning.items import Sample, typical_rows
from chalk_online_store.planning.limits import Finding, findings, partitions
from chalk_online_store.planning.memory import (
    ValkeyCost,
    break_even,
    choose_store,
    in_valkey,
)
from chalk_online_store.planning.mix import Mix, NamespaceMix, read_mix
from chalk_online_store.planning.modes import MODES, TARGET, Mode, ModeAdvice, compare
from chalk_online_store.planning.prices import Prices, ValkeyPrices, read_prices
from chalk_online_store.planning.sizing import Sizing, size
from chalk_online_store.provisioning.spec import render_spec, spec_for

# --- All that is reckoned of a mix, as one thing: to print, as JSON, or as a page ----------


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
    from chalk_online_store.cli.loading.formats import input_files
    from chalk_online_store.cli.loading.source import Source

    name = given.name if given else part.schema
    keys = list(part.key) or ([given.key_name] if given else [])
    source = Source(input_files([part.sample], None), name, keys, None, given)
    first = next(iter(source.read()), None)
    return Sample(source.namespace, first.rows if first else [])


# --- What was reckoned of a mix, as tables for people --------------------------------------


def show(account: SizingReport) -> None:
    """Print it all, each part with its heading."""
    for part in (_items, _lines, _regions, _findings, _groups, _modes, _bill, _valkey):
        part(account)


def _items(account: SizingReport) -> None:
    rows = [
        (
            f"{group.namespace}.{group.group}",
            f"{group.bytes:,.0f}",
            f"{group.largest:,}",
            f"{group.items:,.0f}",
            f"{group.gb:,.1f}",
        )
        for group in account.sizing.groups
    ]
    head = ("items", "bytes", "largest", "how many", "GB")
    print_table(head, rows, title="Items", numbers=True)
    for name, count in account.sampled.items():
        say(f"{name}: by {count} rows.", err=True)


def _lines(account: SizingReport) -> None:
    rows = [
        (
            f"{line.namespace}.{line.group}",
            line.what,
            line.arithmetic,
            f"{line.amount:,.6g} {line.unit}",
            line.rule,
        )
        for line in account.sizing.lines
    ]
    head = ("items", "what", "reckoned", "amount", "rule")
    print_table(head, rows, title="At the busiest time of the day")


def _regions(account: SizingReport) -> None:
    rows = [
        (
            region.region,
            f"{region.rcu:,.0f}",
            f"{region.rcu_after_loss:,.0f}",
            f"{region.wcu:,.0f}",
        )
        for region in account.sizing.regions
    ]
    head = ("region", "RCU", "RCU with another lost", "WCU")
    print_table(head, rows, title="By region", numbers=True)
    later = f"{account.sizing.gb_later:,.1f} GB in {account.sizing.mix.months} months"
    say(f"Stored: {account.sizing.gb:,.1f} GB, {later}; {account.partitions} partitions.")


def _findings(account: SizingReport) -> None:
    rows = [(f.severity, f.where, f.what, f.advice) for f in account.findings]
    if rows:
        print_table(("", "where", "what", "advice"), rows, title="To look at")


def _groups(account: SizingReport) -> None:
    for advice in account.groups:
        if advice.changes:
            say("\n".join(group_lines(advice)))


def group_lines(advice: GroupAdvice) -> Iterator[str]:
    """What to change of the groups of a namespace, and why."""
    now, best = advice.now, advice.best
    yield (
        f"Groups of {advice.namespace}: {len(best.groups)} instead of {len(now.groups)} would save "
        f"{advice.saved:.0%}: {now.rcu:,.0f} RCU become {best.rcu:,.0f}, {now.wcu:,.0f} WCU "
        f"{best.wcu:,.0f}."
    )
    for group in sorted(best.groups, key=lambda group: (len(group), sorted(group))):
        yield f"  {', '.join(sorted(group))}"


def _modes(account: SizingReport) -> None:
    modes = account.modes
    rows = [mode_row(account, mode) for mode in MODES]
    head = ("mode", "RCU", "WCU", "utilisation", "throttled", "$ a month")
    print_table(head, rows, title="Capacity modes, of all regions", numbers=True)
    say(f"Recommended: {modes.mode}: {modes.reason}.")
    for note in modes.notes:
        say(note, err=True)
    prices = account.prices
    say(f"Prices as of {prices.as_of}: {prices.source}. Nothing is looked up.", err=True)
    for region in account.sizing.mix.regions:
        ours = prices.get(region)
        if ours is not None:
            confirmed = ", ".join(ours.two_sources) or "none"
            say(f"Prices of {region} that a second source confirms: {confirmed}.", err=True)


def _bill(account: SizingReport) -> None:
    bill = account.bill
    rows = [
        (each.name, each.region, f"{each.dollars:,.2f}", each.arithmetic, each.rule)
        for each in bill.components
        if not each.is_once
    ]
    if rows:
        head = ("component", "region", "$ a month", "computed", "rule")
        print_table(head, rows, title=f"Bill, {account.modes.mode}")
    for each in bill.components:
        if each.is_once:
            say(f"Once: {each.name}, {each.region}: ${each.dollars:,.2f} ({each.arithmetic}).")
    if account.modes.is_priced:
        others = [
            (each.name, f"{each.bill.monthly:,.0f}", f"{each.saved:,.0f}")
            for each in account.modes.alternatives
        ]
        print_table(("instead", "$ a month", "saved"), others, title="Alternatives", numbers=True)
    left_out = [(each.name, each.reason) for each in bill.not_counted]
    print_table(("not counted", "why"), left_out, title="Not counted")


def mode_row(account: SizingReport, mode: Mode) -> tuple[str, ...]:
    """A mode in all regions: mean units, utilisation, throttles, dollars with storage."""
    costs = [region.of(mode) for region in account.modes.regions]
    total: Callable[[str], float] = lambda name: sum(getattr(cost, name) for cost in costs)  # noqa: E731
    dollars = total("dollars")
    used = sum(cost.utilisation * cost.dollars for cost in costs) / dollars if dollars else 0.0
    return (
        mode,
        f"{total('read_units'):,.0f}",
        f"{total('write_units'):,.0f}",
        f"{used:.0%}",
        f"{max(cost.throttled for cost in costs):.2%}",
        f"{account.modes.dollars(mode):,.0f}" if account.modes.is_priced else "no prices",
    )


def _valkey(account: SizingReport) -> None:
    found = account.valkey
    if found.assumed:
        say(
            f"No node prices for {', '.join(found.assumed)}: those of another region stand in.",
            err=True,
        )
    say(
        f"In Valkey: {found.gib:,.1f} GiB, {found.shards} x {found.node.name} and a replica each"
        f"{' in each region' if found.regions > 1 else ''}: ${found.dollars:,.0f} a month."
    )
    if math.isfinite(account.break_even):
        say(f"Both would cost the same at {account.break_even:,.2f} times this load.")
    name, reason = account.store
    say(f"DynamoDB or Valkey: {name}: {reason}.")


def capacity(
    mix: Annotated[Path, typer.Argument(help="Workload file (TOML).")],
    prices: Annotated[
        Path | None, typer.Option(help="Price file. Default: the bundled prices.")
    ] = None,
    target: Annotated[
        float,
        typer.Option(
            min=20,
            max=90,
            help="Target utilization of provisioned capacity at the peak, in percent.",
        ),
    ] = TARGET,
    table: Annotated[
        Path | None,
        typer.Option(help="File for the recommended table, for `terraform` and `provision`."),
    ] = None,
    name: Annotated[
        str, typer.Option(help="Name of the table in that file.")
    ] = "chalk-online-store",
    mode: Annotated[
        str,
        typer.Option(
            help="Capacity mode of the table in that file. Default: the recommended mode."
        ),
    ] = "",
    report: Annotated[
        Path | None, typer.Option(help="File for an HTML report with charts.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate capacity units, bytes, limits, groups and cost of a workload.

    Exits with status 1 if no table can serve the workload.

    Example: chalk-online-store capacity mix.toml --table table.toml
    """
    if report is not None:
        require("plots", "jinja2", "matplotlib")
    account = estimate(read_mix(mix), read_prices(prices), target)
    if as_json:
        print_json(account.plain())
    else:
        show(account)
    if table is not None:
        _write_table(account, table, name, mode)
    if report is not None:
        from chalk_online_store.cli.report.page import write_page

        write_page(account, report, datetime.now(UTC))
        say(f"Written: {report}.", err=True)
    if any(finding.severity == "error" for finding in account.findings):
        raise typer.Exit(1)


def _write_table(account: SizingReport, path: Path, name: str, mode: str) -> None:
    chosen = _mode(mode) if mode else account.modes.mode
    path.write_text(render_spec(spec_for(name, account.sizing, chosen, account.target)))
    say(f"Written: {path}, {chosen}.", err=True)


def _mode(text: str) -> Mode:
    for mode in MODES:
        if mode == text:
            return mode
    raise WrongUsage(f"--mode is one of {', '.join(MODES)}.")
