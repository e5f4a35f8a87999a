"""The command `copy`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.bars import Description, bars
from chalk_online_store.cli.copying.run import (
    Progress,
    compare_stores,
    copy_items,
    copy_registry,
    take_up,
)
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json, Yes, confirm
from chalk_online_store.cli.signals import terminated_as_interrupted
from chalk_online_store.cli.stores import OpenedStore, opened_store
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.connect import table_size
from chalk_online_store.errors import InvalidValue
from chalk_online_store.operations.copying import Comparison


def copy(
    source: Annotated[str, typer.Argument(help="URL of the source store.")],
    target: Annotated[str, typer.Argument(help="URL of the target store.")],
    items_per_second: Annotated[
        float, typer.Option(min=0.1, help="Maximum number of items per second.")
    ] = math.inf,
    progress: Annotated[
        Path, typer.Option(help="Checkpoint file, used to resume after an interruption.")
    ] = Path("copy.progress"),
    verify: Annotated[
        bool, typer.Option(help="Compare both stores at the end, item by item.")
    ] = True,
    only_verify: Annotated[
        bool, typer.Option("--only-verify", help="Compare the stores without copying.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Copy a store to another store on any engine.

    Items are merged by event time. Both stores can be written during the copy, and newer values in
    the target remain. You can then switch query servers one by one. Bloom filters are rebuilt.
    Exits with status 1 if the stores differ at the end.

    Example: chalk-online-store copy sqlite:///features.db "dynamodb:///features?region=us-east-1"
    """
    if source == target:
        raise WrongUsage("Source and target are one store.")
    state = take_up(progress, source, target)
    found = None
    with opened_store(source) as ours, opened_store(target) as theirs, terminated_as_interrupted():
        if not only_verify:
            count = _count(source)
            confirm(f"Copy about {count:,} items?", yes)
            _copy(ours, theirs, state, progress, items_per_second, count)
        if verify or only_verify:
            found = _compared(ours, theirs)
    _tell(state, found, as_json)
    if found is not None and not found.same:
        raise typer.Exit(1)


def _copy(
    source: OpenedStore,
    target: OpenedStore,
    state: Progress,
    path: Path,
    per_second: float,
    count: int,
) -> None:
    registry = copy_registry(source, target)
    with _bar("Copying", count) as tell:
        try:
            copy_items(source, target, state, path, per_second, lambda each: tell(each.items))
        except KeyboardInterrupt:
            say("Interrupted: the same command goes on where it was.", err=True)
            raise
    path.unlink(missing_ok=True)
    for namespace in sorted(registry.filtered):
        say(f"{namespace} has a Bloom filter: build it anew in the target.", err=True)


def _compared(source: OpenedStore, target: OpenedStore) -> Comparison:
    with _bar("Comparing", 0) as tell:
        return compare_stores(source, target, tell)


def _count(url: str) -> int:
    """How many items there are about; 0 where nobody knows."""
    try:
        return table_size(url).items
    except InvalidValue:
        return 0


@contextmanager
def _bar(what: str, count: int) -> Iterator[Callable[[int], None]]:
    columns = (Description(), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with bars(*columns) as shown:
        task = shown.add_task(what, total=count or None)
        yield lambda items: shown.update(task, completed=items)


def _tell(state: Progress, found: Comparison | None, as_json: bool) -> None:
    told: dict[str, Any] = {
        "items": state.items,
        "expired": state.expired,
        "rcu": state.rcu,
        "wcu": state.wcu,
    }
    if found is not None:
        told["compared"] = {**asdict(found), "same": found.same}
    if as_json:
        print_json(told)
        return
    compared = told.pop("compared", {})
    rows = [(name.replace("_", " "), f"{value:,}") for name, value in (told | compared).items()]
    print_table(("what", "how many"), [row for row in rows if row[0] != "same"])
    if found is not None:
        say("The stores are the same." if found.same else "The stores differ.", err=True)
