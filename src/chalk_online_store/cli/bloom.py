"""`chalk-online-store bloom`: build the Bloom filters of namespaces, and look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Annotated

import typer
from rich.progress import BarColumn, TimeRemainingColumn

from chalk_online_store.cli.bars import Description, bars
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json, Schemas, Url, Yes, confirm, namespace_called
from chalk_online_store.cli.price_files import PRICE, PRICE_OF
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.connect import TableSize, table_size
from chalk_online_store.store import OnlineStore
from chalk_online_store.tiers.filter.build import BuildReport, wait_of
from chalk_online_store.tiers.filter.reads import FilterStats

_SCAN_BYTES_A_UNIT = 8 * 1024
"""AWS: half an RCU for each 4 KB of an eventually consistent Scan."""

app = typer.Typer(help="Build and inspect Bloom filters.", no_args_is_help=True)


@app.command()
def build(
    url: Url,
    schema: Schemas,
    rcu_per_second: Annotated[
        float | None,
        typer.Option(min=0.5, help="Maximum RCU per second. Default: no limit."),
    ] = None,
    segments: Annotated[
        int, typer.Option(min=1, help="Number of segments that are scanned in parallel.")
    ] = 4,
    wait: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds to wait until every writer uses the filter; 0 only if no writer "
            "is running. Default: 70, or 130 with several regions.",
        ),
    ] = None,
    price: Annotated[
        float,
        typer.Option(help=f"Dollars per million read request units ({PRICE_OF})."),
    ] = PRICE,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Rebuild filters with one Scan of the whole table, while reads and writes continue.

    Before you run it, every process that writes to the namespaces must declare the filter and be
    restarted. Otherwise it would write entities that the filter does not contain.

    Example: chalk-online-store bloom build --schema app:User --url sqlite:///features.db
    """
    namespaces = [namespace_called(name) for name in schema]
    size = table_size(url)
    if url.startswith("dynamodb:"):  # Other engines count no units.
        _print_price(size, price, rcu_per_second)
    confirm("Scan it?", yes)
    with OnlineStore.open(url, namespaces) as store:
        if wait is None:
            wait = wait_of(len(store.regions()))
        with _progress(size, wait) as tell:
            report = store.build_bloom_filters(
                namespaces,
                wait=wait,
                segments=segments,
                rcu_per_second=rcu_per_second,
                progress=tell,
            )
    if as_json:
        print_json(asdict(report))
    else:
        _print_report(report)


@app.command()
def status(url: Url, schema: Schemas, as_json: Json = False) -> None:
    """Load filters as a query server does, and show their state.

    Exits with status 1 if a filter cannot be trusted.

    Example: chalk-online-store bloom status --schema app:User --url sqlite:///features.db
    """
    namespaces = [namespace_called(name) for name in schema]
    with OnlineStore.open(url, namespaces) as store:
        store.warm(1)
        stats = store.stats().namespaces
    blooms = {name: stats[name].bloom for name in stats}
    if as_json:
        print_json({name: asdict(bloom) if bloom else None for name, bloom in blooms.items()})
    else:
        _print_filters(blooms)
    if not all(bloom and bloom.trusted for bloom in blooms.values()):
        raise typer.Exit(1)


def _print_filters(blooms: Mapping[str, FilterStats | None]) -> None:
    names = [field.name for field in fields(FilterStats)]
    rows = [
        [name.replace("_", " "), *(_text(getattr(bloom, name, "")) for bloom in blooms.values())]
        for name in names[: names.index("empirical_false_positive_rate")]
    ]
    print_table(["filter", *blooms], rows)


def _print_price(size: TableSize, price: float, rate: float | None) -> None:
    if not size.bytes:  # AWS counts every six hours, and some engines never do.
        say(
            "How large the table is was not counted yet: a Scan takes an RCU for each 8 KB "
            f"of it, at ${price:g} a million.",
            err=True,
        )
        return
    units = size.bytes / _SCAN_BYTES_A_UNIT
    seconds = f", {units / rate:,.0f} seconds at that rate" if rate else ""
    say(
        f"The table has about {size.items:,} items of {size.bytes:,} bytes in all, as its engine "
        f"last counted them. A Scan takes about {units:,.0f} RCU{seconds}: "
        f"${units / 1e6 * price:,.4f} at ${price:g} a million.",
        err=True,
    )


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if type(value) is int else str(value)


@contextmanager
def _progress(size: TableSize, wait: float) -> Iterator[Callable[[int, float], None]]:
    """A progress bar over the items of the table, on a terminal."""
    columns = (Description(), BarColumn(), TimeRemainingColumn())
    with bars(*columns) as progress:
        task = progress.add_task(f"waiting {wait:.0f} s for writers", total=size.items or None)

        def tell(items: int, units: float) -> None:
            text = f"{items:,} items, {units:,.0f} RCU"
            progress.update(task, completed=items, description=text)

        yield tell


def _print_report(report: BuildReport) -> None:
    rows: Sequence[Sequence[str]] = [
        [name, f"{count:,}"] for name, count in report.entities.items()
    ]
    print_table(("namespace", "entities"), rows)
    say(
        f"{report.items_scanned:,} items scanned, {report.rcu:,.1f} RCU, {report.wcu:,.1f} WCU, "
        f"{report.bytes:,} bytes of filters, {report.seconds:.1f} s.",
        err=True,
    )
