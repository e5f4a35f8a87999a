"""The answers of the page, from an account: sentences, savings, components and sensitivity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from msgspec import structs

from chalk_online_store.cli.capacity.account import SizingReport, estimate
from chalk_online_store.cli.capacity.show import group_lines
from chalk_online_store.planning.bill import Component, Mode
from chalk_online_store.planning.mix import Mix, NamespaceMix
from chalk_online_store.planning.modes import MODES, Alternative

FACTORS = (0.5, 1.0, 2.0, 4.0)
"""The multiples of the traffic in the sensitivity table."""


@dataclass(frozen=True, slots=True)
class Saving:
    """A change that costs less: dollars per month, and how they were computed.

    `arithmetic` is one line per step. `components` belong to the other bill. A change of groups
    has no other bill.
    """

    name: str
    dollars: float
    share: float
    arithmetic: Sequence[str]
    components: Sequence[Component] = ()


@dataclass(frozen=True, slots=True)
class ComponentRow:
    """A component of the bill in each mode, over all regions; dollars per month by mode."""

    name: str
    by_mode: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Multiple:
    """The account at a multiple of the traffic."""

    factor: float
    account: SizingReport


def sentences(account: SizingReport, found: Sequence[Saving]) -> Iterator[str]:
    """Yield the answer: what the table takes, what to choose, and the largest saving."""
    sizing, modes = account.sizing, account.modes
    count = len(sizing.regions)
    where = f" in each of {count} regions" if count > 1 else f" in {sizing.regions[0].region}"
    yield (
        f"At the peak the table takes {sizing.total('RCU'):,.0f} RCU, and "
        f"{sizing.total('WCU'):,.0f} WCU{where}, and it stores {sizing.gb:,.1f} GB now and "
        f"{sizing.gb_later:,.1f} GB in {sizing.mix.months} months."
    )
    if not modes.is_priced:
        yield "No region has prices, so this page has capacity units and no dollars."
        yield "Pass a price file with --prices to compare modes and savings."
        return
    yield (
        f"Choose {modes.mode} capacity for ${modes.dollars(modes.mode):,.0f} per month: "
        f"{modes.reason}."
    )
    if not found:
        yield "None of the alternatives that were compared costs less."
        return
    best = found[0]
    yield (
        f"The largest saving is {best.name}: ${best.dollars:,.0f} per month, or {best.share:.0%} "
        "of the bill."
    )


def savings(account: SizingReport) -> list[Saving]:
    """Return the changes that cost less, the largest saving first."""
    if not account.modes.is_priced:
        return []
    now = account.bill.monthly
    found = [
        Saving(
            _name(each),
            each.saved,
            each.saved / now,
            [f"${now:,.2f} - ${each.bill.monthly:,.2f} = ${each.saved:,.2f} per month"],
            [one for one in each.bill.components if not one.is_once],
        )
        for each in account.modes.alternatives
        if each.saved > 0
    ]
    for advice in account.groups:
        saved = advice.now.dollars - advice.best.dollars
        if advice.changes and saved > 0:
            now_dollars, best = advice.now.dollars, advice.best.dollars
            step = f"${now_dollars:,.2f} - ${best:,.2f} = ${saved:,.2f} per month, on demand"
            name = f"other groups of {advice.namespace}"
            found.append(Saving(name, saved, saved / now, [step, *group_lines(advice)]))
    return sorted(found, key=lambda each: -each.dollars)


def _name(alternative: Alternative) -> str:
    """Another store is more than another price: say that it is a move."""
    is_table = alternative.bill.choice.store == "dynamodb"
    return alternative.name if is_table else f"moving to {alternative.name}"


def component_rows(account: SizingReport) -> list[ComponentRow]:
    """Return the components of all modes. The recommended mode's come first."""
    bills = [account.modes.bills[mode] for mode in MODES]
    ordered = (account.bill, *bills)
    names = dict.fromkeys(
        one.name for each in ordered for one in each.components if not one.is_once
    )
    return [ComponentRow(name, tuple(each.total(name) for each in bills)) for name in names]


def multiples(account: SizingReport) -> list[Multiple]:
    """Return the account at each of `FACTORS` times the traffic; entities stay as they are."""
    return [
        Multiple(factor, account if factor == 1.0 else _scaled(account, factor))
        for factor in FACTORS
    ]


def _scaled(account: SizingReport, factor: float) -> SizingReport:
    return estimate(scale_traffic(account.sizing.mix, factor), account.prices, account.target)


def scale_traffic(mix: Mix, factor: float) -> Mix:
    """Return a mix with `factor` times the queries, writes and expiries per second."""
    return structs.replace(
        mix, namespaces=tuple(_scale_namespace(part, factor) for part in mix.namespaces)
    )


def _scale_namespace(part: NamespaceMix, factor: float) -> NamespaceMix:
    return structs.replace(
        part,
        expiring=part.expiring * factor,
        query=tuple(structs.replace(q, per_second=q.per_second * factor) for q in part.query),
        write=tuple(structs.replace(w, per_second=w.per_second * factor) for w in part.write),
    )


@dataclass(frozen=True, slots=True)
class Bar:
    """A mode as a bar: its segments as (component, dollars, percent of the longest bar)."""

    mode: Mode
    dollars: float
    segments: tuple[tuple[str, float, float], ...]


def bars(account: SizingReport) -> list[Bar]:
    """Return one bar per mode; none without prices, or if nothing costs anything."""
    totals = {mode: account.modes.dollars(mode) for mode in MODES}
    longest = max(totals.values()) if account.modes.is_priced else 0.0
    if longest <= 0:
        return []
    return [Bar(mode, totals[mode], tuple(_segments(account, mode, longest))) for mode in MODES]


def _segments(
    account: SizingReport, mode: Mode, longest: float
) -> Iterator[tuple[str, float, float]]:
    parts = {"reads": 0.0, "writes": 0.0, "storage": 0.0, "other": 0.0}
    for each in account.modes.bills[mode].components:
        if not each.is_once:
            parts[_part(each.name)] += each.dollars
    for name, dollars in parts.items():
        if dollars > 0:
            yield name, dollars, 100 * dollars / longest


def _part(name: str) -> str:
    for part in ("reads", "writes"):
        if name.endswith(part):
            return part
    return "storage" if name in ("storage", "point-in-time recovery", "backups") else "other"
