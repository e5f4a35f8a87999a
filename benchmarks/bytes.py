"""Bytes and capacity units of one entity in each layout, and how many times ours that is."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.entities import COUNTS, ENTITIES, SEED, entities, namespace
from benchmarks.ideas import Saving
from benchmarks.layouts import Item, layouts
from benchmarks.table import as_table
from chalk_online_store.codec.sizes import item_size
from chalk_online_store.planning.units import read_units, write_units

RESULTS = Path(__file__).parent / "results" / "bytes.json"


class Weight(NamedTuple):
    """Means of all entities: RCU eventually consistent."""

    bytes: float
    wcu: float
    rcu: float


class Line(NamedTuple):
    """One layout of entities with so many features, and the ratios of its bytes and WCU to ours."""

    features: int
    layout: str
    weight: Weight
    times_bytes: float
    times_wcu: float


def weigh(items: Iterable[Item]) -> Weight:
    """What an item weighs on average."""
    sizes = [item_size(item) for item in items]
    units = (map(write_units, sizes), map(read_units, sizes))
    return Weight(statistics.mean(sizes), *(statistics.mean(some) for some in units))


def run() -> list[Line]:
    """Weigh the same entities in every layout."""
    return [line for count in COUNTS for line in _lines(count)]


def _lines(count: int) -> list[Line]:
    rows = entities(count)
    weights = {name: weigh(map(lay, rows)) for name, lay in layouts(namespace(count)).items()}
    ours = weights["ours"]
    return [
        Line(count, name, weight, weight.bytes / ours.bytes, weight.wcu / ours.wcu)
        for name, weight in weights.items()
    ]


def as_text(results: Sequence[Line]) -> str:
    """The lines as a Markdown table that can be read as it stands."""
    head = ["features", "layout", "bytes", "WCU", "RCU", "x bytes", "x WCU"]
    return as_table(head, map(_cells, results), texts=2)


def _cells(line: Line) -> list[str]:
    bytes_, wcu, rcu = line.weight
    return [
        str(line.features),
        line.layout,
        f"{bytes_:,.0f}",
        f"{wcu:.2f}",
        f"{rcu:.2f}",
        f"{line.times_bytes:.2f}",
        f"{line.times_wcu:.2f}",
    ]


def setting() -> str:
    """What was weighed, in one line."""
    return f"Mean of {ENTITIES} entities, seed {SEED}; RCU eventually consistent; x: times ours"


def save(results: Sequence[Line], saved: Sequence[Saving]) -> None:
    """Keep both as JSON, for whoever compares versions."""
    layouts_ = [line._asdict() | {"weight": line.weight._asdict()} for line in results]
    content = {
        "setting": setting(),
        "layouts": layouts_,
        "ideas": [saving._asdict() for saving in saved],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(_rounded(content), indent=1) + "\n")


def _rounded(content: Any) -> Any:
    match content:
        case float():
            return round(content, 3)
        case dict():
            return {name: _rounded(value) for name, value in content.items()}
        case list():
            return [_rounded(value) for value in content]
    return content
