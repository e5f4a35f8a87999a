"""The command `capacity`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from chalk_online_store.cli import WrongUsage, require
from chalk_online_store.cli.capacity.account import SizingReport, estimate
from chalk_online_store.cli.capacity.show import show
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json
from chalk_online_store.cli.terminal import say
from chalk_online_store.planning.mix import read_mix
from chalk_online_store.planning.modes import MODES, TARGET, Mode
from chalk_online_store.planning.prices import read_prices
from chalk_online_store.provisioning.sizes import spec_for
from chalk_online_store.provisioning.spec import render_spec


def capacity(
    mix: Annotated[Path, typer.Argument(help="What the table is asked to do, as TOML.")],
    prices: Annotated[
        Path | None, typer.Option(help="A file of prices, in place of those that come along.")
    ] = None,
    target: Annotated[
        float,
        typer.Option(min=20, max=90, help="Percent of provisioned capacity that a peak uses."),
    ] = TARGET,
    table: Annotated[
        Path | None,
        typer.Option(help="Write the recommended table here, for `terraform` and `provision`."),
    ] = None,
    name: Annotated[str, typer.Option(help="What that table is called.")] = "chalk-online-store",
    mode: Annotated[
        str, typer.Option(help="Its capacity mode; the recommended one unless stated.")
    ] = "",
    report: Annotated[
        Path | None, typer.Option(help="Write a page with charts here, as HTML.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Size a table: units, bytes, limits, groups, and what each capacity mode costs.

    Exits with status 1 where the mix cannot be served by a table.

    Example: chalk-online-store capacity mix.toml --table table.toml
    """
    if report is not None:
        require("plots", "jinja2", "matplotlib")
    account = estimate(read_mix(mix), read_prices(prices), target)
    if as_json:
        print_json(account.plain())
    else:
        show(account)
    if table is not None:
        _write_table(account, table, name, mode)
    if report is not None:
        from chalk_online_store.cli.report.page import write_page

        write_page(account, report, datetime.now(UTC))
        say(f"Written: {report}.", err=True)
    if any(finding.severity == "error" for finding in account.findings):
        raise typer.Exit(1)


def _write_table(account: SizingReport, path: Path, name: str, mode: str) -> None:
    chosen = _mode(mode) if mode else account.modes.mode
    path.write_text(render_spec(spec_for(name, account.sizing, chosen, account.target)))
    say(f"Written: {path}, {chosen}.", err=True)


def _mode(text: str) -> Mode:
    for mode in MODES:
        if mode == text:
            return mode
    raise WrongUsage(f"--mode is one of {', '.join(MODES)}.")
