"""What was reckoned of a mix, as tables for people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from chalk_online_store.cli.capacity.account import SizingReport
from chalk_online_store.cli.tables import print_table
from chalk_online_store.cli.terminal import say
from chalk_online_store.planning.grouping import GroupAdvice
from chalk_online_store.planning.modes import MODES, Mode


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
