"""`chalk-online-store registry`: what short ids stand for, and how that changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from chalk_online_store.backend import Call
from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import URL_VARIABLE, Json, Url, given, namespace_called
from chalk_online_store.cli.stores import load_registry, opened_store
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.codec.lockfile import Difference, differences, parse_lock, render_lock
from chalk_online_store.codec.registry import Entry, Registry, entries_of
from chalk_online_store.effects import Operation
from chalk_online_store.errors import RegistryError
from chalk_online_store.operations.registry import RegistryKeeper

T = TypeVar("T")

TIMEOUT = 60.0
"""Seconds that a change of the registry may take."""

app = typer.Typer(help="List and change the feature ids of a table.", no_args_is_help=True)

LockFile = Annotated[Path, typer.Argument(help="Lock file.")]


@app.command("list")
def list_entries(
    url: Url,
    prefix: Annotated[str, typer.Option(help="Prefix of the names to list.")] = "",
    as_json: Json = False,
) -> None:
    """List the registered features, including retired ids.

    Example: chalk-online-store registry list --prefix user. --url sqlite:///features.db
    """
    entries = [entry for entry in load_registry(url).entries if entry.name.startswith(prefix)]
    _print(
        ("name", "id", "type", "group", "state"),
        [(entry.name, entry.id, entry.type, entry.group, entry.state) for entry in entries],
        as_json,
    )


@app.command()
def rename(
    old: Annotated[str, typer.Argument(help="Full name, such as user.risk.")],
    new: Annotated[str, typer.Argument(help="New full name, such as user.risk_score.")],
    url: Url,
    as_json: Json = False,
) -> None:
    """Rename a feature. It keeps its id and values; the old name remains an alias.

    Example: chalk-online-store registry rename user.risk user.score --url sqlite:///features.db
    """
    _change(url, lambda keeper, call: keeper.rename(old, new, call))
    _say(f"{old} is now {new}.", {"renamed": {old: new}}, as_json)


@app.command()
def drop(
    names: Annotated[list[str], typer.Argument(help="Full names, such as user.risk.")],
    url: Url,
    as_json: Json = False,
) -> None:
    """Drop features. Their names can be used again, with any type; their ids cannot.

    Example: chalk-online-store registry drop user.risk --url sqlite:///features.db
    """
    _change(url, lambda keeper, call: keeper.drop(names, call))
    _say(f"Dropped {', '.join(names)}.", {"dropped": names}, as_json)


@app.command()
def export(
    url: Url,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: standard output.")
    ] = None,
) -> None:
    """Write the registry as a lock file (JSON) for version control.

    Example: chalk-online-store registry export --output registry.lock --url sqlite:///features.db
    """
    registry = load_registry(url)
    registry.check()
    text = render_lock(registry.entries)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


@app.command("import")
def import_lock(lock: LockFile, url: Url, as_json: Json = False) -> None:
    """Register the features of a lock file, with their ids, if nothing contradicts them.

    Example: chalk-online-store registry import registry.lock --url sqlite:///features.db
    """
    entries = _read_lock(lock)
    _change(url, lambda keeper, call: keeper.adopt(entries, call))
    _say(f"The table has all {len(entries)} entries.", {"entries": len(entries)}, as_json)


@app.command()
def check(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            envvar=URL_VARIABLE,
            help="URL of the store. The environment variable is used only if fewer than "
            "two of --url, --lock and --schema are given.",
        ),
    ] = None,
    lock: Annotated[Path | None, typer.Option(help="Lock file.")] = None,
    schema: Annotated[
        list[str] | None, typer.Option(help="Schema, as module:Class. Can be repeated.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare a lock file with the table, or schemas with either. Writes nothing.

    Exits with status 1 if something is missing or differs.

    Example: chalk-online-store registry check --lock registry.lock --schema app:User
    """
    wanted = [entry for name in schema or () for entry in entries_of(namespace_called(name))]
    if lock is not None and wanted and not given(context, "url"):
        url = None
    if (lock is None) + (url is None) + (not wanted) > 1:
        raise WrongUsage("check compares two things: give two of --url, --lock and --schema.")
    registries = {}
    if lock is not None:
        registries["the lock file"] = Registry(_read_lock(lock))
    if url is not None:
        registries["the table"] = load_registry(url)
        registries["the table"].check()
    found = [
        (where, difference)
        for where, registry in registries.items()
        for difference in differences(wanted, registry)
    ]
    if len(registries) == 2:
        locked, table = registries.values()
        found += [("the table", d) for d in differences(locked.entries, table)]
    _conclude(found, as_json)


def _conclude(found: Sequence[tuple[str, Difference]], as_json: bool) -> None:
    if not (found or as_json):
        say("Nothing differs.")
        return
    _print(
        ("name", "in", "is", "should be", "but is"),
        [(d.name, where, d.what, d.wanted, d.found) for where, d in dict.fromkeys(found)],
        as_json,
    )
    if found:
        raise typer.Exit(1)


def _print(head: Sequence[str], rows: Sequence[Sequence[str]], as_json: bool) -> None:
    if as_json:
        names = [name.replace(" ", "_") for name in head]
        print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        print_table(head, rows)


def _say(text: str, plain: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(plain)
    else:
        say(text)


def _read_lock(path: Path) -> tuple[Entry, ...]:
    try:
        return parse_lock(path.read_bytes())
    except OSError as error:
        raise RegistryError(f"The lock file cannot be read: {error}.") from error


def _change(url: str, operation: Callable[[RegistryKeeper, Call], Operation[T]]) -> T:
    load_registry(url)  # Whether the engine is there is known soon.
    with opened_store(url) as store:
        return store.run(operation(RegistryKeeper(store.backend), store.call(TIMEOUT)))
