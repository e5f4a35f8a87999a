"""The command `bench`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from chalk_online_store.cli import require
from chalk_online_store.cli.bars import bars
from chalk_online_store.cli.bench.calls import Tell
from chalk_online_store.cli.bench.run import Phase, Plan, run
from chalk_online_store.cli.bench.statistics import Measured
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Features, Json, OneSchema, Url, Yes
from chalk_online_store.cli.plots import check_format, plot_latencies
from chalk_online_store.cli.prompts import confirm
from chalk_online_store.cli.schemas import namespace_called
from chalk_online_store.cli.signals import terminated_as_interrupted
from chalk_online_store.cli.tables import print_table
from chalk_online_store.cli.terminal import say
from chalk_online_store.dynamodb.credentials import is_local
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.store import OnlineStore
from chalk_online_store.urls import SqliteTarget, parse_url
from chalk_online_store.valkey.urls import ValkeyTarget


def bench(
    url: Url,
    schema: OneSchema,
    entities: Annotated[int, typer.Option(min=1, help="How many to make up and write.")] = 100,
    feature: Features = None,
    queries: Annotated[int, typer.Option(min=1, help="How many calls to measure.")] = 500,
    batch: Annotated[int, typer.Option(min=1, help="The entities of one call.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, help="Threads that call at once.")] = 8,
    exponent: Annotated[
        float,
        typer.Option("--zipf", min=0, help="The exponent of Zipf's law by which they are drawn."),
    ] = 1.0,
    write: Annotated[bool, typer.Option("--write", help="Measure writes as well.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the latencies into this .png or .svg.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Measure reads, and perhaps writes: latency, rate, CPU and capacity units.

    It makes up rows of the schema under keys of its own, and deletes them in the end. No other
    row is touched. The registry keeps the names of features, and a Bloom filter the keys, until
    it is built anew. A store that is not on this machine is asked for first.

    Exits with status 1 where a row could not be read or written.

    Example: chalk-online-store bench --schema app:User --url sqlite:///features.db --write
    """
    if plot is not None:
        require("plots", "matplotlib")
        check_format(plot)
    namespace = namespace_called(schema)
    plan = Plan(namespace, feature, entities, queries, batch, concurrency, exponent, write)
    confirm(_question(plan), yes or on_this_machine(url))
    with terminated_as_interrupted(), OnlineStore.open(url, [namespace]) as store, _bars() as phase:
        found = run(store, plan, phase)
    if as_json:
        print_json(_plain(plan, found))
    else:
        _print(found)
    if plot is not None:
        plot_latencies({each.what: each.latencies for each in found}, plot)
        say(f"Drawn: {plot}", err=True)
    if any(each.report.failed for each in found):
        raise typer.Exit(1)


def on_this_machine(url: str) -> bool:
    """Whether a URL names an engine that costs nobody anything. Raises `InvalidURL`."""
    match parse_url(url):
        case SqliteTarget():
            return True
        case ValkeyTarget(nodes=nodes):  # A Unix socket has none.
            return all(is_local(f"//{host}") for host, _ in nodes)
        case DynamoDBTarget(endpoint_urls=urls):
            return bool(urls) and all(map(is_local, urls))


def _question(plan: Plan) -> str:
    calls = f"{plan.queries:,} {'reads and as many writes' if plan.write else 'reads'}"
    return (
        f"Write {plan.entities:,} entities of {plan.namespace.name}, make {calls} of {plan.batch:,}"
        ", and delete the entities?"
    )


@contextmanager
def _bars() -> Iterator[Phase]:
    """A progress bar for each phase, on a terminal."""
    with bars() as progress:

        def phase(what: str, calls: int) -> Tell:
            task = progress.add_task(what, total=calls)
            return lambda done: progress.update(task, completed=done)

        yield phase


def _plain(plan: Plan, found: Sequence[Measured]) -> dict[str, object]:
    return {
        "namespace": plan.namespace.name,
        "features": plan.features,
        "entities": plan.entities,
        "batch": plan.batch,
        "concurrency": plan.concurrency,
        "zipf": plan.exponent,
        "measured": [each.plain() for each in found],
    }


def _print(found: Sequence[Measured]) -> None:
    columns = [each.plain() for each in found]
    names = [name for name in columns[0] if name != "what"]
    rows = [
        [name.replace("_", " "), *(_figure(name, column[name]) for column in columns)]
        for name in names
    ]
    print_table(["measured", *(each.what for each in found)], rows, numbers=True)


def _figure(name: str, value: float) -> str:
    if name.endswith("_ms"):
        return f"{value:,.3f}"
    return f"{value:,.1f}" if value < 100 and value % 1 else f"{value:,.0f}"
