"""The page, rendered by Jinja from the parts of an account."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chalk_online_store.cli.capacity.account import SizingReport
from chalk_online_store.cli.plots import figure_of
from chalk_online_store.cli.report.charts import cache_chart, data_url
from chalk_online_store.cli.report.summary import (
    bars,
    component_rows,
    multiples,
    savings,
    sentences,
)
from chalk_online_store.errors import InvalidValue
from chalk_online_store.planning.caching import Filter, Item, Outcome, memory_curve
from chalk_online_store.planning.mix import NamespaceMix
from chalk_online_store.planning.modes import MODES, autoscaled
from chalk_online_store.planning.sizing import GroupSize
from chalk_online_store.planning.traffic import zipf

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
