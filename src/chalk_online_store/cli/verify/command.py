"""The command `verify`."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Annotated

import typer

from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.bars import bars
from chalk_online_store.cli.bench import on_this_machine
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import URL_VARIABLE, Json, Yes, confirm
from chalk_online_store.cli.planes import opened_plane
from chalk_online_store.cli.signals import terminated_as_interrupted
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.cli.verify.consumption import CONSUMPTION_CHECKS, SIZE_CHECKS
from chalk_online_store.cli.verify.context import (
    VERDICTS,
    Check,
    CheckContext,
    CheckResult,
    Client,
    Scratch,
)
from chalk_online_store.cli.verify.expressions import (
    EXPRESSION_CHECKS,
    RESPONSE_CHECKS,
    TRANSACTION_CHECKS,
    latency_checks,
)
from chalk_online_store.cli.verify.regions import REGION_CHECKS
from chalk_online_store.cli.verify.run import (
    ACCOUNT_CHECKS,
    Price,
    Removal,
    price_of,
    run_checks,
    scratch_items,
    scratch_table,
    write_capacity,
)
from chalk_online_store.cli.verify.values import VALUE_CHECKS
from chalk_online_store.connect import connect
from chalk_online_store.drivers.sync import Transport
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.provisioning.control_plane import ControlPlane
from chalk_online_store.report import Report
from chalk_online_store.urls import parse_url


def all_checks(requests: int) -> list[Check]:
    """Return every check, in the order of the run.

    `requests` is the number of requests per operation whose latency is measured. Regions come
    first, before the large items load their replication; responses come last, since their checks
    cover the responses of all other checks.
    """
    return [
        *REGION_CHECKS,
        *EXPRESSION_CHECKS,
        *SIZE_CHECKS,
        *VALUE_CHECKS,
        *CONSUMPTION_CHECKS,
        *TRANSACTION_CHECKS,
        *ACCOUNT_CHECKS,
        *latency_checks(requests),
        *RESPONSE_CHECKS,
    ]


def verify(
    url: Annotated[
        str,
        typer.Argument(envvar=URL_VARIABLE, help="URL of the table, with all of its regions."),
    ],
    create: Annotated[
        bool, typer.Option("--create", help="Use a temporary table and delete it afterwards.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Name of a check to run alone. Can be repeated.")
    ] = None,
    requests: Annotated[
        int, typer.Option(min=1, help="Number of requests per operation whose latency is measured.")
    ] = 50,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Test in your own account that DynamoDB behaves as the library assumes.

    Writes to a scratch partition of the table and removes everything, however the run ends. Shows
    the price and asks first, unless the engine is on this machine. Exits with status 1 if a check
    differs from the expected text.

    Example: chalk-online-store verify "dynamodb:///features?region=us-east-1"
    """
    target = parse_url(url)
    if not isinstance(target, DynamoDBTarget):
        raise WrongUsage("verify is for a DynamoDB table; this URL names another engine.")
    checks = _chosen(all_checks(requests), only or [])
    with terminated_as_interrupted(), _opened(url, target) as (plane, transports):
        regions = list(transports)
        if create and len(regions) > 1:
            raise WrongUsage(
                "--create takes a URL with one region: AWS keeps the source of a new replica for 24"
                " hours, so a scratch Global Table could not be deleted."
            )
        price = price_of(checks, regions)
        say(price.text, err=True)
        confirm(_question(target, regions, len(checks), create=create), yes or on_this_machine(url))
        token = secrets.token_hex(8)
        removal = Removal()
        try:
            with ExitStack() as ending:
                if create:
                    made = scratch_table(plane, target, regions[0], token, removal)
                    target = ending.enter_context(made)
                clients = [Client(target, region, each) for region, each in transports.items()]
                capacity = write_capacity(plane, target.table, regions[0])
                context = CheckContext(clients, plane, target, Scratch(token), requests, capacity)
                if not create:
                    ending.enter_context(scratch_items(context, removal))
                results = _run(context, checks)
        finally:
            say(removal.text, err=True)
    outcome = _Outcome(target.table, regions, price, results, context.consumed, removal)
    if as_json:
        print_json(outcome.plain())
    else:
        _print(outcome)
    if not outcome.is_as_expected:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The results of a run, and the outcome of its removal."""

    table: str
    regions: Sequence[str]
    price: Price
    results: Sequence[CheckResult]
    consumed: Report
    removal: Removal

    @property
    def is_as_expected(self) -> bool:
        """True if no check differs and nothing is left."""
        return self.removal.is_complete and all(each.verdict != "differs" for each in self.results)

    def plain(self) -> dict[str, object]:
        """Return the outcome as JSON has it."""
        return {
            "version": version("chalk-online-store"),
            "table": self.table,
            "regions": list(self.regions),
            "as_expected": self.is_as_expected,
            "price": asdict(self.price),
            "consumed": {"rcu": self.consumed.rcu, "wcu": self.consumed.wcu},
            "removed": asdict(self.removal),
            "checks": [each.plain() for each in self.results],
        }


def _chosen(checks: Sequence[Check], names: Sequence[str]) -> list[Check]:
    known = {check.name: check for check in checks}
    for name in names:
        if name not in known:
            raise WrongUsage(f"--only {name}: the checks are {', '.join(known)}.")
    return [check for check in checks if not names or check.name in names]


@contextmanager
def _opened(
    url: str, target: DynamoDBTarget
) -> Iterator[tuple[ControlPlane, dict[str, Transport]]]:
    """Open the control plane, and a transport for each region."""
    transports = connect(url, None).transports
    with ExitStack() as closing:
        for transport in transports.values():
            closing.callback(transport.close)
        plane, regions = closing.enter_context(opened_plane(target))
        yield plane, {region: transports.get(region) or transports[""] for region in regions}


def _question(target: DynamoDBTarget, regions: Sequence[str], count: int, *, create: bool) -> str:
    place = "a scratch table" if create else f"a scratch partition of table {target.table!r}"
    return f"Run {count} checks in {place} in {', '.join(regions)}, and remove it again?"


def _run(context: CheckContext, checks: Sequence[Check]) -> list[CheckResult]:
    """Run checks with a progress bar."""
    with bars() as progress:
        task = progress.add_task("", total=len(checks))

        def tell(check: Check) -> None:
            progress.update(task, description=check.name, advance=1)

        return list(run_checks(context, checks, tell))


def _print(outcome: _Outcome) -> None:
    rows = [(each.name, each.expected, each.seen, each.verdict) for each in outcome.results]
    print_table(("check", "expected", "seen", "verdict"), rows)
    for each in outcome.results:
        if each.detail:
            say(f"{each.name}: {each.detail}", err=True)
    counts = Counter(each.verdict for each in outcome.results)
    say(", ".join(f"{counts[each]} {each}" for each in VERDICTS if counts[each]), err=True)
