"""`chalk-online-store cache`: what a cache and a Bloom filter would save, and what memory buys."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.bar import Bar

from chalk_online_store.cli import WrongUsage, require
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json
from chalk_online_store.cli.plots import check_format, plot_curves
from chalk_online_store.cli.price_files import PRICE, PRICE_OF
from chalk_online_store.cli.terminal import Cell, make_console, print_table, say
from chalk_online_store.planning.caching import Cache, Filter, Item, Outcome, memory_curve, simulate
from chalk_online_store.planning.traffic import READS_PER_SECOND, Workload, read_trace, zipf
from chalk_online_store.schema.durations import seconds

CACHED_SHARE = 0.1
"""The share of all items that the cache holds where its size is not stated."""

BAR_WIDTH = 10

app = typer.Typer(
    help="Simulate a cache and a Bloom filter in front of a table.", no_args_is_help=True
)


@app.callback()
def _options() -> None:
    """Keep `simulate` a command of its own."""


@app.command("simulate")
def simulate_cache(
    trace: Annotated[
        Path | None,
        typer.Option(
            help="Recorded reads: .csv, .jsonl or .parquet with the column key, and "
            "optionally timestamp (seconds or ISO 8601) and present (0 or 1).",
        ),
    ] = None,
    entities: Annotated[
        int | None,
        typer.Option(help="Number of entities to generate reads for, instead of --trace."),
    ] = None,
    exponent: Annotated[
        float,
        typer.Option("--zipf", help="Exponent of the Zipf distribution of generated reads."),
    ] = 1.0,
    absent: Annotated[
        float, typer.Option(help="Share of reads of entities that do not exist, 0 to 1.")
    ] = 0.3,
    reads: Annotated[int, typer.Option(help="Number of reads to generate.")] = 1_000_000,
    reads_per_second: Annotated[
        float, typer.Option(help="Reads per second, if the trace has no timestamps.")
    ] = READS_PER_SECOND,
    item_bytes: Annotated[int, typer.Option(help="Size of an item in bytes.")] = 300,
    groups: Annotated[int, typer.Option(help="Number of items per entity that a read takes.")] = 1,
    consistent: Annotated[
        bool,
        typer.Option(
            "--consistent",
            help="Strongly consistent reads, which cost twice the RCU and bypass cache and filter.",
        ),
    ] = False,
    max_size: Annotated[
        int | None,
        typer.Option(help="Maximum number of cached items. Default: a tenth of all items."),
    ] = None,
    ttl: Annotated[
        str, typer.Option(help="Time for which an item is served, such as 30s or 1h.")
    ] = "infinity",
    store_cache_misses: Annotated[bool, typer.Option(help="Cache absent entities too.")] = False,
    false_positive_rate: Annotated[
        float, typer.Option(help="Target share of absent entities that pass the filter.")
    ] = 0.01,
    expected_entities: Annotated[
        int | None,
        typer.Option(
            help="Number of entities that the filter is built for. Default: the existing entities."
        ),
    ] = None,
    price: Annotated[
        float,
        typer.Option(help=f"Dollars per million read request units ({PRICE_OF})."),
    ] = PRICE,
    plot: Annotated[
        Path | None, typer.Option(help="File for a chart of RCU by memory (.png or .svg).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Simulate reads with a cache and a Bloom filter, and estimate the saved RCU.

    Example: chalk-online-store cache simulate --entities 1000 --reads 20000 --ttl 10m
    """
    if plot is not None:
        require("plots", "matplotlib")
        check_format(plot)
    lasts = seconds(ttl)
    item = Item(item_bytes, groups, consistent=consistent)
    workload = _workload(trace, entities, exponent, absent, reads, reads_per_second)
    size = max_size if max_size is not None else _tenth(workload, item)
    cache = Cache(size, ttl=lasts, store_cache_misses=store_cache_misses)
    expected = expected_entities if expected_entities is not None else max(1, workload.existing)
    bloom = Filter(expected, false_positive_rate)
    with make_console(stderr=True).status("Simulating"):
        outcomes = _four(workload, item, cache, bloom)
        curves = {
            name: memory_curve(workload, item, None, lasts, store_cache_misses, which)
            for name, which in (("cache alone", None), ("cache and filter", bloom))
        }
    if as_json:
        print_json(_plain(workload, cache, outcomes, curves, price))
    else:
        _print_outcomes(workload, cache, outcomes, price)
        _print_curves(curves)
    if plot is not None:
        plot_curves(curves, plot)
        say(f"Drawn: {plot}", err=True)


def _tenth(workload: Workload, item: Item) -> int:
    return max(1, math.ceil(workload.existing * item.groups * CACHED_SHARE))


def _workload(
    trace: Path | None,
    entities: int | None,
    exponent: float,
    absent: float,
    reads: int,
    reads_per_second: float,
) -> Workload:
    if (trace is None) == (entities is None):
        raise WrongUsage("Say what is read: give either --trace or --entities.")
    if trace is not None:
        return read_trace(trace, reads_per_second)
    return zipf(reads, entities or 0, exponent, absent, reads_per_second)


def _four(workload: Workload, item: Item, cache: Cache, bloom: Filter) -> Mapping[str, Outcome]:
    return {
        "neither": simulate(workload, item),
        "cache alone": simulate(workload, item, cache),
        "filter alone": simulate(workload, item, bloom=bloom),
        "both": simulate(workload, item, cache, bloom),
    }


def _plain(
    workload: Workload,
    cache: Cache,
    outcomes: Mapping[str, Outcome],
    curves: Mapping[str, Sequence[Outcome]],
    price: float,
) -> dict[str, Any]:
    """As JSON has it: units, bytes, and dollars for a million reads."""
    return {
        "reads": workload.reads,
        "entities": workload.existing,
        "max_size": cache.max_size,
        "outcomes": {name: _counted(outcome, price) for name, outcome in outcomes.items()},
        "curves": {name: [_counted(o, price) for o in curve] for name, curve in curves.items()},
    }


def _counted(outcome: Outcome, price: float) -> dict[str, Any]:
    return {**asdict(outcome), "dollars_per_million": outcome.dollars_per_million(price)}


_OUTCOMES = (
    "with",
    "RCU",
    "saved",
    "hits",
    "negative hits",
    "Bloom skips",
    "false positives",
    "memory",
    "$ per million reads",
)


def _print_outcomes(
    workload: Workload, cache: Cache, outcomes: Mapping[str, Outcome], price: float
) -> None:
    title = (
        f"{workload.reads:,} reads, {workload.existing:,} entities, "
        f"a cache of {cache.max_size:,} items"
    )
    rows = [_cells(name, outcome, price) for name, outcome in outcomes.items()]
    print_table(_OUTCOMES, rows, title=title, numbers=True)
    origin = f" ({PRICE_OF})" if price == PRICE else ""
    say(f"Dollars: ${price:g} for a million read request units{origin}.", err=True)
    say("Memory of the cache is estimated: store.stats() measures it.", err=True)


def _cells(name: str, outcome: Outcome, price: float) -> list[str]:
    counts = (
        outcome.hits,
        outcome.negative_hits,
        outcome.bloom_skips,
        outcome.false_positives,
    )
    return [
        name,
        _units(outcome.rcu),
        f"{outcome.saved:.1%}",
        *(f"{count:,}" for count in counts),
        _memory(outcome.memory),
        f"{outcome.dollars_per_million(price):.4f}",
    ]


def _print_curves(curves: Mapping[str, Sequence[Outcome]]) -> None:
    head = ["cached items"]
    for name in curves:
        head += [f"memory, {name}", f"RCU, {name}", f"remain, {name}", ""]
    rows = [
        [f"{outcomes[0].max_size:,}", *(cell for outcome in outcomes for cell in _remains(outcome))]
        for outcomes in zip(*curves.values(), strict=True)
    ]
    say()
    print_table(head, rows, title="What memory buys", numbers=True)


def _remains(outcome: Outcome) -> list[Cell]:
    share = outcome.rcu / outcome.rcu_without
    return [
        _memory(outcome.memory),
        _units(outcome.rcu),
        f"{share:.1%}",
        Bar(1, 0, share, width=BAR_WIDTH),
    ]


def _units(rcu: float) -> str:
    """Read units; half of one does not matter where there are thousands."""
    return f"{rcu:,.0f}" if rcu >= 1000 else f"{rcu:g}"


def _memory(size: float) -> str:
    """Bytes for people, in steps of 1,024."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:,.{1 if 0 < size < 100 and unit else 0}f} {_UNITS[unit]}"


_UNITS = ("B", "KiB", "MiB", "GiB")
