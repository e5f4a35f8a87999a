"""The page: what it shows, put into its template by Jinja."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from chalk_online_store.capacity.caching import Filter, Item, Outcome, memory_curve
from chalk_online_store.capacity.mix import NamespaceMix
from chalk_online_store.capacity.modes import MODES, autoscaled
from chalk_online_store.capacity.sizing import GroupSize
from chalk_online_store.capacity.traffic import zipf
from chalk_online_store.cli.capacity.account import Account
from chalk_online_store.cli.capacity.show import group_lines, mode_row
from chalk_online_store.cli.plots import figure_of
from chalk_online_store.cli.report.charts import cache_chart, data_url, modes_chart
from chalk_online_store.errors import InvalidValue

_ENTITIES = 50_000
"""A curve is drawn for so many entities at most: by shares, more of them look the same."""

_READS = 200_000


def write_page(account: Account, path: Path, now: datetime) -> None:
    """Write the page; raises `InvalidValue` where it cannot be written."""
    try:
        path.write_text(render_page(account, now), encoding="utf-8")
    except OSError as error:
        raise InvalidValue(f"--report {path} cannot be written: {error.strerror}.") from None


def render_page(account: Account, now: datetime) -> str:
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


def _shown(account: Account, now: datetime) -> dict[str, Any]:
    return {
        "account": account,
        "sizing": account.sizing,
        "modes": [mode_row(account, mode) for mode in MODES],
        "dollars": account.modes.dollars(account.modes.mode),
        "advice": ["\n".join(group_lines(each)) for each in account.groups if each.changes],
        "modes_chart": data_url(modes_chart(account.modes)),
        "runs": _runs(account),
        "caches": _caches(account),
        "now": now,
        "version": version("chalk-online-store"),
    }


def _runs(account: Account) -> dict[str, str]:
    """Days under autoscaling, reads and writes, in the first region."""
    first, trough = account.sizing.regions[0], account.sizing.mix.trough
    runs = {
        "Reads": autoscaled(first.rcu, trough, account.target, first.rcu_ready),
        "Writes": autoscaled(first.wcu, trough, account.target),
    }
    return {f"{name} in {first.region}": data_url(figure_of(run)) for name, run in runs.items()}


def _caches(account: Account) -> dict[str, str]:
    """What memory buys, by namespace that is read."""
    shown = {}
    for part, name in zip(account.sizing.mix.namespaces, account.sampled, strict=True):
        groups = [group for group in account.sizing.groups if group.namespace == name]
        if part.query and part.entities:
            shown[name] = data_url(_cache(part, groups))
    return shown


def _cache(part: NamespaceMix, groups: Sequence[GroupSize]) -> Any:
    entities = min(part.entities, _ENTITIES)
    asked = sum(query.per_second * query.entities for query in part.query) or 1.0
    absent = sum(q.per_second * q.entities * q.absent for q in part.query) / asked
    workload = zipf(_READS, entities, part.zipf, absent)
    item = Item(max(1, round(groups[0].bytes)), len(groups))
    curves: Mapping[str, Sequence[Outcome]] = {
        "cache alone": memory_curve(workload, item),
        "cache and Bloom filter": memory_curve(workload, item, bloom=Filter(entities)),
    }
    return cache_chart(curves, entities * len(groups))
