"""Prints the account of a demo: measured numbers only."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from chalk_online_store.cli.demo.account import Account, Phase, Sizes
from chalk_online_store.cli.demo.steps import READERS
from chalk_online_store.cli.terminal import print_table, visible_text
from chalk_online_store.cli.visible import visible_lines
from chalk_online_store.report import Report
from chalk_online_store.schema import namespace_of

_SIZES = ("entity", "features", "entities", "items", "bytes", "JSON bytes", "WCU", "JSON WCU")
_PHASES = ("phase", "calls", "p50 ms", "p99 ms", "rows/s", "requests")
_CAPACITY = ("RCU", "WCU")


def print_account(account: Account, console: Console) -> None:
    """Print all of it; the last line is the verdict."""
    title = f"{account.flights:,} real flights were read; features on {account.engine}\n"
    console.print(visible_lines(title))
    sizes = [_size_cells(schema, sizes) for schema, sizes in account.sizes.items()]
    title = "Mean of an entity, stored and as JSON under full names"
    print_table(_SIZES, sizes, title=title, numbers=True)
    console.print()
    headings = _PHASES + _CAPACITY * account.counts_capacity
    phases = [_phase_cells(phase)[: len(headings)] for phase in account.phases]
    print_table(headings, phases, title="Calls, as they were made", numbers=True)
    for remark in _remarks(account):
        console.print(remark)
    for line in _verdict(account):
        console.print(line)


def _size_cells(schema: type, sizes: Sizes) -> list[str]:
    n = sizes.entities
    return [
        schema.__name__,
        f"{len(namespace_of(schema).features)}",
        f"{n:,}",
        f"{sizes.items:,}",
        f"{sizes.stored_bytes / n:,.0f}",
        f"{sizes.json_bytes / n:,.0f}",
        f"{sizes.stored_wcu / n:.2f}",
        f"{sizes.json_wcu / n:.2f}",
    ]


def _phase_cells(phase: Phase) -> list[str]:
    report = phase.report
    return [
        phase.title,
        f"{len(phase.seconds):,}",
        f"{phase.percentile(50) * 1000:,.1f}",
        f"{phase.percentile(99) * 1000:,.1f}",
        f"{phase.rate:,.0f}",
        f"{report.requests:,}",
        f"{report.rcu:,.0f}",
        f"{report.wcu:,.0f}",
    ]


def _remarks(account: Account) -> Iterator[str]:
    yield f"\nThe async reads were {READERS} at once, the others one after the other."
    yield from _capacity(account)
    yield f"Late writes that newer values superseded: {_of(account.superseded, account.late_items)}"
    yield f"Hot items that the cache served: {_of(account.cache_hits, account.hot_items)}"
    if not account.temporary:
        yield "The rows are deleted again; the table's registry keeps the names."
    yield f"It all took {account.seconds:.0f} seconds."


def _of(some: int, all_of_them: int) -> str:
    return f"{some:,} of {all_of_them:,}"


def _capacity(account: Account) -> Iterator[str]:
    if not account.counts_capacity:
        yield "Capacity consumed: none, SQLite has no capacity units"
        return
    total = Report()
    for phase in account.phases:
        total.add(phase.report)
    yield f"Capacity consumed, as the engine reports: {total.rcu:,.1f} RCU, {total.wcu:,.1f} WCU"
    yield "(AWS bills superseded writes as well, but reports no units for what it refuses.)"


def _verdict(account: Account) -> Iterator[Text]:
    verdict = account.verdict
    if account.right:
        yield Text(f"All {verdict.checked:,} values were verified, bit for bit.", "bold green")
        return
    for example in verdict.examples:
        yield visible_text(example)
    if account.superseded != account.late_items:
        yield Text("Not every late write was superseded.", "bold red")
    yield Text(f"{verdict.wrong:,} of {verdict.checked:,} values are wrong.", "bold red")
