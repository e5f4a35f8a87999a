"""`chalk-online-store regions`: how they are, how far apart, and which of them are asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live

from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import URL_VARIABLE, Json, Yes, confirm
from chalk_online_store.cli.region_survey import Regions, RegionSurvey, opened, survey
from chalk_online_store.cli.terminal import draw_table, make_console, print_table, say
from chalk_online_store.drivers.steps import read_clocks
from chalk_online_store.errors import OnlineStoreError, RegionUnavailable
from chalk_online_store.operations.registry import RegistryKeeper
from chalk_online_store.routing.commands import RegionCommands
from chalk_online_store.schema import microseconds

TIMEOUT = 3.0
"""Seconds that each region has to hear of an order, or to tell of the registry."""

WITHIN = 10.0
"""Seconds in which a heartbeat has to arrive to be measured."""

_HOME = ("region", "home", "entries", "error")
_KINDS = ("pinned", "drained", "evacuated")

app = typer.Typer(
    help="Show and control the regions of a Global Table.",
    no_args_is_help=True,
)

Url = Annotated[
    str,
    typer.Option(envvar=URL_VARIABLE, help="URL of the store, with all of its regions."),
]
Some = Annotated[
    list[str], typer.Argument(metavar="REGION", help="Region, such as us-east-1. Can be repeated.")
]


# --- how they are --------------------------------------------------------------------------


@app.command()
def status(
    url: Url,
    watch: Annotated[bool, typer.Option(help="Repeat until Ctrl-C.")] = False,
    every: Annotated[str, typer.Option(help="Interval of --watch.")] = "2s",
    beat: Annotated[
        bool,
        typer.Option(
            help="Measure replication with a heartbeat in each region. --no-beat writes "
            "nothing and uses the heartbeats of other processes."
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Show the health of every region and the replication lag between them.

    Exits with status 1 if the preferred region, the first one in the URL, does not respond.

    Example: chalk-online-store regions status --url "dynamodb:///t1?region=us-east-1,us-west-2"
    """
    seconds = _seconds(every)
    with opened(url) as regions:
        if watch:
            within = min(WITHIN, max(1.0, seconds))
            _watch(lambda: survey(regions, beat, within), seconds, as_json)
            return
        found = survey(regions, beat, WITHIN)
    _print(found, as_json)
    if not found.health.preferred_ok:
        raise typer.Exit(1)


def _seconds(every: str) -> float:
    exact = microseconds(every)
    if not exact:
        raise WrongUsage('--every takes a time such as "2s".')
    return exact / 1e6


def _watch(look: Callable[[], RegionSurvey], seconds: float, as_json: bool) -> None:
    """Look until Ctrl-C: redrawn on a terminal, else one after the other."""
    console = make_console()
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            found = look()
            if console.is_terminal and not as_json:
                drawn = (draw_table(head, rows) for head, rows in found.tables())
                live.update(Group(*drawn), refresh=True)
            else:
                _print(found, as_json)
            time.sleep(seconds)


def _print(found: RegionSurvey, as_json: bool) -> None:
    if as_json:
        print_json(found.plain())
        return
    for head, rows in found.tables():
        print_table(head, rows)


# --- orders --------------------------------------------------------------------------------


@app.command()
def pin(
    region: Annotated[str, typer.Argument(help="Region, such as us-east-1.")],
    url: Url,
    as_json: Json = False,
) -> None:
    """Send all requests of all processes to this region, regardless of its health.

    Example: chalk-online-store regions pin us-west-2 --url "$URL"
    """
    _order(url, lambda held: held.pin(region), as_json)


@app.command()
def drain(names: Some, url: Url, as_json: Json = False) -> None:
    """Move traffic away from regions gradually; they serve only if the others are down.

    Regions that are already drained stay drained.

    Example: chalk-online-store regions drain us-east-1 --url "$URL"
    """
    _order(url, lambda held: held.drain(names), as_json)


@app.command()
def evacuate(names: Some, url: Url, yes: Yes = False, as_json: Json = False) -> None:
    """Stop all requests to regions at once, even if all other regions are down.

    Regions that are already evacuated stay evacuated.

    Example: chalk-online-store regions evacuate us-east-1 --url "$URL" --yes
    """
    confirm(f"Have the whole fleet leave {', '.join(names)} at once?", yes)
    _order(url, lambda held: held.evacuate(names), as_json)


@app.command()
def release(
    url: Url,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="REGION", help="Region to release. Can be repeated. Default: all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Cancel the commands pin, drain and evacuate; routers decide again.

    Example: chalk-online-store regions release us-east-1 --url "$URL"
    """

    def change(held: RegionCommands) -> RegionCommands:
        return held.release(names) if names else RegionCommands(held.at)

    _order(url, change, as_json, named=names or ())


def _order(
    url: str,
    change: Callable[[RegionCommands], RegionCommands],
    as_json: bool,
    named: Sequence[str] = (),
) -> None:
    """Change what holds, and say what did, what does now, and who has heard of it."""
    with opened(url) as regions:
        held = _held(regions)
        RegionCommands(drained=tuple(named)).check(regions.router.regions)
        wanted = change(held)
        regions.router.check(wanted)
        if wanted != held:
            wanted = wanted.given(read_clocks().wall, held)
        # What holds already is carried to those who have not heard of it.
        heard = regions.store.run(regions.keeper.order(wanted, regions.store.call(TIMEOUT)))
    if as_json:
        plain = {"before": _plain(held), "now": _plain(wanted)}
        print_json({**plain, "not_heard": {n: why for n, why in heard.items() if why}})
        return
    print_table(("orders", *_KINDS), [_row("before", held), _row("now", wanted)])
    print_table(("region", "heard"), [(name, why or "yes") for name, why in heard.items()])


def _held(regions: Regions) -> RegionCommands:
    """The latest orders that any region shows: all are read, and their router hears of them."""
    health = regions.store.run(regions.keeper.health(regions.store.call(TIMEOUT)))
    if not any(check.ok for check in health.regions):
        # Orders state all that holds: without knowing what does, none can be added.
        raise RegionUnavailable(f"No region answers: {health.regions[0].error}")
    return regions.router.orders


def _plain(orders: RegionCommands) -> dict[str, list[str]]:
    pinned = [orders.pinned] if orders.pinned else []
    return dict(zip(_KINDS, (pinned, [*orders.drained], [*orders.evacuated]), strict=True))


def _row(when: str, orders: RegionCommands) -> list[str]:
    return [when, *(", ".join(names) or "-" for names in _plain(orders).values())]


# --- the registry's home -------------------------------------------------------------------


@app.command()
def home(
    url: Url,
    region: Annotated[
        str | None, typer.Argument(help="New home region. Default: only show the current one.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Show the registry's home region as each region has it, or move it.

    Move it only if the home region is lost for good, or if the table moves. First stop all
    processes that register features in the old home region: two home regions would assign one
    id to two features.

    Example: chalk-online-store regions home us-west-2 --url "$URL" --yes
    """
    with opened(url) as regions:
        if region is not None:
            _move_home(regions, region, yes)
        found = [_home_in(regions, name) for name in regions.router.regions]
    if as_json:
        print_json([dict(zip(_HOME, row, strict=True)) for row in found])
    else:
        print_table(_HOME, [["" if cell is None else str(cell) for cell in row] for row in found])


def _home_in(regions: Regions, name: str) -> tuple[str, str | None, int | None, str]:
    """What a region says of the registry: its home ("" before the first entry), and its size."""
    try:
        call = regions.store.call(TIMEOUT, name)
        registry = regions.store.run(RegistryKeeper(regions.store.backend).load(call))
    except OnlineStoreError as error:
        return name, None, None, type(error).__name__
    return name, registry.home, len(registry.entries), ""


def _move_home(regions: Regions, region: str, yes: bool) -> None:
    names = regions.router.regions
    RegionCommands(pinned=region).check(names)
    if regions.router.single_writer:
        raise WrongUsage("Valkey's registry is with the primary: it moves when sentinels do that.")
    confirm(
        "Does no process register features through the old home any more? Otherwise one id will "
        f"stand for two features. Move the registry's home to {region}?",
        yes,
    )
    keeper = RegistryKeeper(regions.store.backend)
    if not regions.store.run(keeper.move_home(region, names, regions.store.call(4 * TIMEOUT))):
        say("The old home did not answer: what was registered there last may be lost.", err=True)
    say(f"Put home={region} into the URL of every process.", err=True)
