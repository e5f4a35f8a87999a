"""`chalk-online-store load`."""

from __future__ import annotations

import codecs
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from chalk_online_store.cli import INTERRUPTED, WrongUsage, require
from chalk_online_store.cli.bars import Description, bars
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json, Url, Yes, confirm, given, namespace_called
from chalk_online_store.cli.price_files import IMPORT_PRICE, PRICE_OF, WRITE_PRICE
from chalk_online_store.cli.signals import terminated_as_interrupted
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.connect import provisioned_wcu
from chalk_online_store.report import Report

if TYPE_CHECKING:
    from chalk_online_store.cli.loading import run as kept
    from chalk_online_store.cli.loading.export import Exported
    from chalk_online_store.cli.loading.formats import TextOptions
    from chalk_online_store.cli.loading.run import Estimate, Order, Tell
    from chalk_online_store.cli.loading.source import Source


class Ordering(StrEnum):
    """How rows meet what is in the table."""

    event = "event"
    arrival = "arrival"


class Format(StrEnum):
    """What files to load are written in."""

    parquet = "parquet"
    arrow = "arrow"
    csv = "csv"
    jsonl = "jsonl"


def load(
    context: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="Parquet, Arrow, CSV or JSON Lines: files, globs, directories, URLs such "
            "as s3://bucket/path, or - for standard input.",
        ),
    ],
    url: Url = "",
    namespace: Annotated[str, typer.Option(help="Namespace to write to, with --key.")] = "",
    key: Annotated[
        list[str] | None, typer.Option(help="Column of the primary key. Can be repeated.")
    ] = None,
    schema: Annotated[
        str, typer.Option(help="Schema, as module:Class, instead of --namespace and --key.")
    ] = "",
    observed_at: Annotated[
        str | None,
        typer.Option(
            help="Column with the observed-at of each row. Default: the time of the load."
        ),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(help="Time zone of timestamps without one, such as UTC."),
    ] = None,
    file_format: Annotated[
        Format | None,
        typer.Option("--format", help="Format of the files. Default: from their names."),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Encoding of CSV and JSON Lines.")] = "utf8",
    delimiter: Annotated[str, typer.Option(help="Separator of CSV cells.")] = ",",
    null: Annotated[
        list[str] | None,
        typer.Option(
            help="Text of an unquoted CSV cell that means null. Can be repeated. Default: "
            "the empty cell."
        ),
    ] = None,
    ordering: Annotated[
        Ordering,
        typer.Option(
            help="event: the newest observed-at wins. arrival: replace stored values "
            "regardless of it, which takes a third of the CPU."
        ),
    ] = Ordering.event,
    wcu_per_second: Annotated[
        str,
        typer.Option(help='Maximum WCU per second, or "table" for the provisioned capacity.'),
    ] = "",
    progress: Annotated[
        Path | None, typer.Option(help="Checkpoint file. Default: next to the input file.")
    ] = None,
    dead_letters: Annotated[
        Path | None,
        typer.Option(help="File for rows that cannot be written. Default: next to the input file."),
    ] = None,
    import_format: Annotated[
        Path | None,
        typer.Option(
            help="Write the files of a DynamoDB import from S3 to this directory, instead "
            "of loading."
        ),
    ] = None,
    table: Annotated[
        str, typer.Option(help="Name of the table that the import creates.")
    ] = "features",
    s3_bucket: Annotated[str, typer.Option(help="S3 bucket of the import.")] = "BUCKET",
    s3_prefix: Annotated[str, typer.Option(help="Key prefix in the S3 bucket.")] = "data/",
    write_price: Annotated[
        float,
        typer.Option(help=f"Dollars per million write request units ({PRICE_OF})."),
    ] = WRITE_PRICE,
    import_price: Annotated[
        float, typer.Option(help=f"Dollars per imported GB ({PRICE_OF}).")
    ] = IMPORT_PRICE,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Load files of rows into a table, after showing the cost.

    Types come from --schema. Without it they come from the file; a text column becomes numbers,
    bools or times only if every cell has that type.

    Run the same command to resume an interrupted load. Rows that cannot be written go to a file of
    dead letters with the reason, and the exit status is 1.

    Example: chalk-online-store load users.csv --schema app:User --url sqlite:///features.db
    """
    with _interruptible("Interrupted before anything was written: give the same command again."):
        require("arrow", "pyarrow")
        from chalk_online_store.cli.loading.formats import TextOptions, beside, input_files
        from chalk_online_store.cli.loading.run import Order, estimate
        from chalk_online_store.cli.loading.source import Source

        if import_format and not given(context, "url"):
            url = ""
        if bool(url) == bool(import_format):
            raise WrongUsage("Load into a table (--url), or write files (--import-format DIR).")
        if bool(schema) == bool(namespace):
            raise WrongUsage("Name the namespace (--namespace, with --key), or a --schema.")
        if namespace and not key:
            raise WrongUsage("Name the columns of the primary key: --key, for each one.")
        declared = namespace_called(schema) if schema else None
        keys = key or ([declared.key_name] if declared else [])
        options = _text_options(TextOptions, encoding, delimiter, null)
        rate = _rate(wcu_per_second, url)
        found = input_files(files, file_format.value if file_format else None)
        source = Source(found, namespace, keys, observed_at, declared, time_zone, options)
        _print_price(estimate(source), rate, write_price, import_price)
        confirm("Go on?", yes)
    if import_format:
        with _interruptible(
            f"Interrupted: remove {import_format} and give the same command again."
        ):
            _export(source, import_format, table, s3_bucket, s3_prefix, as_json)
        return
    order = Order(
        url,
        source,
        ordering.value,
        rate,
        dead_letters or beside(files[0], ".dead-letters.jsonl"),
        progress or beside(files[0], ".load-progress.json"),
    )
    for path in (order.dead_letters, order.progress):
        if not path.parent.is_dir():
            raise WrongUsage(f"{path} cannot be written: there is no directory {path.parent}.")
    _load(order, as_json)


def _text_options(
    make: type[TextOptions], encoding: str, delimiter: str, null: list[str] | None
) -> TextOptions:
    try:
        # Codecs such as base64 are not encodings of text. Python has no public attribute for that.
        is_text = codecs.lookup(encoding)._is_text_encoding
    except LookupError:
        is_text = False
    if not is_text:
        raise WrongUsage(f"--encoding {encoding}: Python has no text encoding of this name.")
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n':
        raise WrongUsage("--delimiter is one character of ASCII, not a quote or a line end.")
    return make(encoding, ("",) if null is None else tuple(null), delimiter)


def _rate(text: str, url: str) -> float | None:
    """WCU a second; None for no bound."""
    if text == "table":
        return provisioned_wcu(url)
    try:
        rate = float(text) if text else None
    except ValueError:
        rate = 0.0
    if rate is not None and not 1 <= rate < math.inf:
        raise WrongUsage(f"--wcu-per-second {text}: it is a number of 1 or more, or table.")
    return rate


def _load(order: Order, as_json: bool) -> None:
    from chalk_online_store.cli.loading.run import load as run
    from chalk_online_store.cli.loading.run import take_up

    source = order.source
    target = f"{source.namespace.name} in {_table_of(order.url)}"
    state = take_up(order.progress, source.fingerprint, target, datetime.now(UTC))
    if state.rows:
        say(f"Going on after {state.rows:,} rows that were loaded before.", err=True)
    with (
        _interruptible(
            lambda: (
                f"Interrupted after {state.rows:,} of {source.count:,} rows. The same command "
                f"goes on from there, by {order.progress}."
            )
        ),
        _bar(source) as tell,
    ):
        report = run(order, state, tell)
    order.progress.unlink(missing_ok=True)
    if as_json:
        print_json(_plain(state, report, order))
    else:
        _print_summary(state, report, order)
    if state.dead:
        raise typer.Exit(1)


def _table_of(url: str) -> str:
    """A URL's table, without the rest, which may change from one load to the next."""
    parts = urlsplit(url)
    return f"{parts.scheme}:{parts.path}"


def _print_price(found: Estimate, rate: float | None, write: float, imported: float) -> None:
    seconds = f", {found.wcu / rate:,.0f} s at {rate:g} WCU a second" if rate else ""
    head = ("way", "takes about", "costs about")
    rows = [
        (
            "writing",
            f"{found.wcu:,.0f} WCU{seconds}",
            f"${found.price_of_writes(write):,.4f} at ${write:g} a million",
        ),
        (
            "importing from S3",
            f"{found.bytes / 1e6:,.1f} MB",
            f"${found.price_of_import(imported):,.4f} at ${imported:g} a GB, and S3's own",
        ),
    ]
    say(
        f"{found.rows:,} rows, by the first {found.sample:,} of them {found.items:,.0f} items:",
        err=True,
    )
    print_table(head, rows, err=True)


@contextmanager
def _interruptible(message: str | Callable[[], str]) -> Iterator[None]:
    """Exit with the status of an interruption, and a message, on Ctrl-C and SIGTERM."""
    try:
        with terminated_as_interrupted():
            yield
    except KeyboardInterrupt:
        say(message if isinstance(message, str) else message(), err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _bar(source: Source) -> Iterator[Tell]:
    columns = (Description(), BarColumn(), TimeRemainingColumn())
    with bars(*columns) as progress:
        task = progress.add_task("", total=source.count)
        megabytes = source.fingerprint["bytes"] / 1e6 / (source.count or 1)

        def tell(state: kept.Progress, report: Report) -> None:
            done = f"{state.rows:,} rows, {state.rows * megabytes:,.1f} MB"
            text = f"{done}, {report.wcu:,.0f} WCU, {state.dead:,} dead"
            progress.update(task, completed=state.rows, description=text)

        yield tell


def _print_summary(state: kept.Progress, report: Report, order: Order) -> None:
    rows = [
        ("rows", f"{state.rows:,}"),
        ("written", f"{state.rows - state.dead:,}"),
        ("dead letters", f"{state.dead:,}" + (f", in {order.dead_letters}" if state.dead else "")),
        ("WCU", f"{report.wcu:,.0f}"),
        ("requests", f"{report.requests:,}"),
        ("tried again", f"{report.retries:,}"),
        ("throttles", f"{report.throttles:,}"),
    ]
    print_table(("load", order.source.namespace.name), rows)


def _plain(state: kept.Progress, report: Report, order: Order) -> dict[str, Any]:
    return {
        "namespace": order.source.namespace.name,
        "rows": state.rows,
        "written": state.rows - state.dead,
        "dead_letters": state.dead,
        "dead_letters_file": str(order.dead_letters) if state.dead else None,
        "wcu": report.wcu,
        "requests": report.requests,
        "retries": report.retries,
        "throttles": report.throttles,
    }


def _export(
    source: Source, directory: Path, table: str, bucket: str, prefix: str, as_json: bool
) -> None:
    from chalk_online_store.cli.loading.export import export

    columns = (TextColumn("{task.completed:,.0f} rows"), BarColumn(), TimeRemainingColumn())
    with bars(*columns) as progress:
        task = progress.add_task("", total=source.count)

        def tell(rows: int) -> None:
            progress.update(task, completed=rows)

        found = export(source, directory, table, bucket, prefix, datetime.now(UTC), tell)
    if as_json:
        print_json({"directory": str(directory), **asdict(found)})
    else:
        _print_exported(found, directory)
    _print_next(directory, bucket, prefix)
    if found.refused:
        raise typer.Exit(1)


def _print_exported(found: Exported, directory: Path) -> None:
    rows = [
        ("files", f"{found.files:,}"),
        ("items", f"{found.items:,}"),
        ("bytes", f"{found.bytes:,}"),
        ("refused", f"{found.refused:,}"),
        ("older rows of a key", f"{found.older:,}"),
    ]
    print_table(("import", str(directory)), rows)


def _print_next(directory: Path, bucket: str, prefix: str) -> None:
    say(
        f"Next: aws s3 cp --recursive {directory / 'data'} s3://{bucket}/{prefix}\n"
        f"then: aws dynamodb import-table --cli-input-json file://{directory}/import-table.json\n"
        "and turn on expiry by the attribute ttl. The import makes a new table.",
        err=True,
    )
