"""The page, rendered by Jinja from the parts of an account."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from chalk_online_store.cli.capacity import SizingReport, estimate, group_lines
from chalk_online_store.cli.plots import figure_of
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.bill import Component, Mode
from chalk_online_store.planning.caching import Filter, Item, Outcome, memory_curve
from chalk_online_store.planning.mix import Mix, NamespaceMix
from chalk_online_store.planning.modes import MODES, Alternative, autoscaled
from chalk_online_store.planning.sizing import GroupSize
from chalk_online_store.planning.traffic import zipf

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# --- The charts of the page, by matplotlib, as SVG -----------------------------------------


# Okabe and Ito's colours, which people tell apart however they see colours.
_BLUE, _ORANGE = "#0072B2", "#E69F00"


def cache_chart(curves: Mapping[str, Sequence[Outcome]], items: int) -> Figure:
    """The read units that remain, in percent, over the share of items that a cache holds.

    Two curves: without a Bloom filter, and with one.
    """
    figure = _figure(3.2)
    axes = figure.subplots()
    styles = ((_BLUE, "-"), (_ORANGE, "--"))
    for (name, outcomes), (colour, style) in zip(curves.items(), styles, strict=True):
        held = [100 * outcome.max_size / items for outcome in outcomes]
        remain = [100 * outcome.rcu / outcome.rcu_without for outcome in outcomes]
        axes.plot(held, remain, style, marker="o", label=name, color=colour)
    axes.set_xscale("log")
    axes.set_ylim(0, 100)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("items that the cache holds, percent of all (logarithmic)")
    axes.set_ylabel("RCUs that remain, percent")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(8, height), layout="constrained")


def data_url(figure: Figure) -> str:
    """A figure as an image that lies in its own address."""
    import matplotlib as mpl

    # Text stays text, and the same figure gives the same bytes.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "chalk"}):
        drawn = io.BytesIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(drawn.getvalue()).decode()


# --- The answers of the page, from an account: sentences, savings, components and sensiti ---


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


_ENTITIES = 50_000
"""A curve is drawn for so many entities at most: by shares, more of them look the same."""

_READS = 200_000


def write_page(account: SizingReport, path: Path, now: datetime) -> None:
    """Write the page; raises `InvalidValue` where it cannot be written."""
    try:
        path.write_text(render_page(account, now), encoding="utf-8")
    except OSError as error:
        raise InvalidValue(f"--report {path} cannot be written: {error.strerror}.") from None


def render_page(account: SizingReport, now: datetime) -> str:
    """The page as HTML: no script, no style, no image that is not in it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("chalk_online_store.cli.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["units"] = lambda value: f"{value:,.0f}"
    return environment.get_template("page.html").render(_shown(account, now))


def _shown(account: SizingReport, now: datetime) -> dict[str, Any]:
    sizing, found = account.sizing, savings(account)
    return {
        "account": account,
        "sizing": sizing,
        "modes": MODES,
        "sentences": list(sentences(account, found)),
        "inputs": list(zip(sizing.mix.namespaces, account.sampled, strict=True)),
        "savings": found,
        "bars": bars(account),
        "components": component_rows(account),
        "multiples": multiples(account),
        "stored": list(_stored(account)),
        "items": sum(group.items for group in sizing.groups),
        "runs": _runs(account),
        "caches": _caches(account),
        "now": now,
        "version": version("chalk-online-store"),
    }


def _stored(account: SizingReport) -> Iterator[tuple[str, str, str, str]]:
    """Yield the dollars per month of storage and recovery per region, and of one restore."""
    for region in account.sizing.mix.regions:
        prices = account.prices.get(region)
        if prices is None:
            yield region, "no prices", "no prices", "no prices"
            continue
        storage = account.bill.total("storage", region)
        recovery = account.bill.total("point-in-time recovery", region)
        restore = prices.restore_gb
        once = "no price" if restore is None else f"${account.sizing.gb * restore:,.2f} once"
        yield region, f"${storage:,.2f}", f"${recovery:,.2f}", once


def _runs(account: SizingReport) -> dict[str, str]:
    """Draw days under autoscaling in the first region, of each dimension that has a load."""
    first, trough = account.sizing.regions[0], account.sizing.mix.trough
    loads = {"Reads": (first.rcu, first.rcu_ready), "Writes": (first.wcu, 0.0)}
    return {
        f"{name} in {first.region}": data_url(
            figure_of(autoscaled(peak, trough, account.target, ready))
        )
        for name, (peak, ready) in loads.items()
        if peak > 0
    }


def _caches(account: SizingReport) -> dict[str, str]:
    """Draw the RCU that a cache saves, for each namespace that is read."""
    shown = {}
    for part, name in zip(account.sizing.mix.namespaces, account.sampled, strict=True):
        groups = [group for group in account.sizing.groups if group.namespace == name]
        if part.entities and any(query.per_second > 0 for query in part.query):
            shown[name] = data_url(_cache(part, groups))
    return shown


def _cache(part: NamespaceMix, groups: Sequence[GroupSize]) -> Any:
    entities = min(part.entities, _ENTITIES)
    asked = sum(query.per_second * query.entities for query in part.query)
    absent = sum(q.per_second * q.entities * q.absent for q in part.query) / asked
    workload = zipf(_READS, entities, part.zipf, absent)
    item = Item(max(1, round(groups[0].bytes)), len(groups))
    curves: Mapping[str, Sequence[Outcome]] = {
        "cache alone": memory_curve(workload, item),
        "cache and Bloom filter": memory_curve(workload, item, bloom=Filter(entities)),
    }
    return cache_chart(curves, entities * len(groups))
