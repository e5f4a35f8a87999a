"""`chalk-online-store get`, `put` and `scan`: single rows, for people who look into a table."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from chalk_online_store.backend import Call
from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import (
    Features,
    Json,
    JsonLines,
    OneSchema,
    Url,
    namespace_called,
)
from chalk_online_store.cli.rows.plain import to_plain
from chalk_online_store.cli.rows.registered import registered_namespace
from chalk_online_store.cli.stores import ANSWERS_WITHIN, load_registry
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.codec.keys import parse_key
from chalk_online_store.codec.registry import Registry
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.integrations.json_rows import JsonRows
from chalk_online_store.operations.rows import Row
from chalk_online_store.schema import Namespace
from chalk_online_store.store import OnlineStore

_PAGE = 100
_SCANNED = 1000

Given = Annotated[
    str | None,
    typer.Option(
        "--schema",
        help="Schema, as module:Class. Default: the features in the table's registry, "
        "without staleness.",
    ),
]


class NegativeKeys(TyperCommand):
    """A command whose argument `keys` takes negative numbers, which click takes for options.

    Other words that begin with a dash are options as ever, so that a misspelt one is refused.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Hide the dashes of negative numbers from the parser."""
        end = args.index("--") if "--" in args else len(args)
        hidden = [f"{_HIDDEN}{word}" if _NEGATIVE.match(word) else word for word in args[:end]]
        rest = super().parse_args(ctx, [*hidden, *args[end:]])
        for name, value in ctx.params.items():
            ctx.params[name] = _shown(value)
        return rest


_NEGATIVE = re.compile(r"-[0-9]")
_HIDDEN = "\0"


def _shown(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_shown, value))
    return value.removeprefix(_HIDDEN) if isinstance(value, str) else value


def get(
    namespace: Annotated[str, typer.Argument(help="Namespace, such as user.")],
    keys: Annotated[
        list[str], typer.Argument(help="Primary keys, such as 7, or 7:abc for a tuple.")
    ],
    url: Url,
    schema: Given = None,
    feature: Features = None,
    consistent: Annotated[
        bool, typer.Option("--consistent", help="Request strongly consistent reads.")
    ] = False,
    as_json: JsonLines = False,
) -> None:
    """Show the features of entities with value, status and observed-at.

    Exits with status 1 if a feature could not be read.

    Put a key that begins with a dash and is not a number after two dashes: -- -abc.

    Example: chalk-online-store get user 7 8 --url "dynamodb:///features?region=us-east-1"
    """
    found = _namespace(None if schema else load_registry(url), namespace, schema)
    wanted = [parse_key(text, found) for text in keys]
    with OnlineStore.open(url, [found], timeout=ANSWERS_WITHIN) as store:
        rows = store.read(found, wanted, feature, consistent=consistent)
        names = list(rows.features)
        for row in rows:
            _print(row, names, as_json)
        failed = any(row.status(name) == "failed" for row in rows for name in names)
    if failed:
        raise typer.Exit(1)


def put(
    rows: Annotated[
        list[str],
        typer.Argument(
            metavar="ROW",
            help='Rows in JSON, such as \'{"id": 7, "risk": 0.5}\'; - for standard input.',
        ),
    ],
    url: Url,
    schema: OneSchema,
    observed_at: Annotated[
        str | None, typer.Option(help="Observed-at of the rows, in ISO 8601. Default: now.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write rows, each a JSON object, or a JSON line on standard input.

    Bytes are base64, timestamps ISO 8601.

    Example: chalk-online-store put '{"id": 7, "risk": 0.5}' --schema app:User --url sqlite:///features.db
    """
    namespace = namespace_called(schema)
    moment = None if observed_at is None else _moment(observed_at)
    written = 0
    with OnlineStore.open(url, [namespace], timeout=ANSWERS_WITHIN) as store:
        convert = JsonRows(namespace).convert
        found = (convert(line, row)[0] for row, line in enumerate(_lines(rows)))
        while batch := list(islice(found, _PAGE)):
            store.write(namespace, batch, observed_at=moment)
            written += len(batch)
    if as_json:
        print_json({"written": written})
    else:
        say(f"{written:,} rows are written.")


def scan(
    namespace: Annotated[str, typer.Argument(help="Namespace, such as user.")],
    url: Url,
    schema: Given = None,
    feature: Features = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Maximum number of entities; 0 for no limit.")
    ] = 20,
    keys_only: Annotated[bool, typer.Option("--keys", help="Show only the primary keys.")] = False,
    as_json: JsonLines = False,
) -> None:
    """Show entities of a namespace, in no order.

    Scans the table, including other namespaces, and consumes 0.5 RCU per 4 KB that it passes.

    Example: chalk-online-store scan user --limit 5 --url "dynamodb:///features?region=us-east-1"
    """
    registry = load_registry(url)
    found = _namespace(registry, namespace, schema)
    entry = registry.by_name.get(namespace)
    with OnlineStore.open(url, [found], timeout=ANSWERS_WITHIN) as store:
        every = _keys(store, found, f"{entry.id}:") if entry else iter(())
        keys = islice(every, limit or None)
        while some := list(islice(keys, _PAGE)):
            if keys_only:
                for key in some:
                    print_json(to_plain(key))
                continue
            rows = store.read(found, some, feature)
            for row in rows:
                _print(row, list(rows.features), as_json)


# --- what they share -----------------------------------------------------------------------


def _namespace(registry: Registry | None, name: str, schema: str | None) -> Namespace:
    if schema is None:
        return registered_namespace(registry or Registry(), name)
    found = namespace_called(schema)
    if found.name != name:
        raise WrongUsage(f"--schema {schema} is of {found.name!r}, not {name!r}.")
    return found


def _keys(store: OnlineStore, namespace: Namespace, prefix: str) -> Iterator[Any]:
    """The primary keys of a namespace, as the items of a Scan come."""
    start, last = b"", ""
    while True:
        call = Call(read_clocks().monotonic + ANSWERS_WITHIN)
        page = store.driver.run(store.core.backend.scan_keys(0, 1, start, _SCANNED, call))
        for pk in page.pks:
            if pk.startswith(prefix) and pk != last:  # The items of an entity lie together.
                yield parse_key(pk.removeprefix(prefix), namespace)
            last = pk
        if not page.next:
            return
        start = page.next


def _print(row: Row, names: list[str], as_json: bool) -> None:
    if as_json:
        told = {name: _told(row, name) for name in names}
        print_json({"key": to_plain(row.key), "features": told})
        return
    say(f"{json.dumps(to_plain(row.key))}")
    print_table(
        ("feature", "status", "value", "observed at"),
        [
            (
                name,
                str(told["status"]),
                json.dumps(told["value"]) if told["status"] == "hit" else "",
                told["observed_at"] or "",
            )
            for name in names
            for told in [_told(row, name)]
        ],
    )


def _told(row: Row, name: str) -> dict[str, Any]:
    moment = row.observed_at(name)
    return {
        "status": row.status(name).value,
        "value": to_plain(row.get(name)),
        "observed_at": moment.isoformat() if moment else None,
    }


def _lines(rows: list[str]) -> Iterator[str]:
    for row in rows:
        if row == "-":
            yield from (line for line in sys.stdin if line.strip())
        else:
            yield row


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUsage("--observed-at is ISO 8601, such as 2026-01-02T03:04:05Z.") from None
    if found.tzinfo is None:
        raise WrongUsage("--observed-at has no time zone: end it in Z, or in +01:00.")
    return found
