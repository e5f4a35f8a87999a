"""The commands `provision plan` and `provision apply`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import Json, Url, Yes, confirm, namespace_called
from chalk_online_store.cli.terminal import say
from chalk_online_store.dynamodb.sessions import session_of
from chalk_online_store.provisioning.applying import Progress
from chalk_online_store.provisioning.applying import apply as apply_plan
from chalk_online_store.provisioning.changes import Plan
from chalk_online_store.provisioning.control_plane import ControlPlane
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan as make_plan
from chalk_online_store.provisioning.schema_indexes import create_vector_indexes
from chalk_online_store.provisioning.spec import TableSpec, read_spec

DIFFERENCES = 2

app = typer.Typer(
    help="Create or change a table through AWS's API. Nothing is destroyed without --destroy.",
    no_args_is_help=True,
)

TablePath = Annotated[
    Path, typer.Argument(metavar="TABLE", help="Description of the table (TOML).")
]
Destroy = Annotated[
    list[str] | None,
    typer.Option(
        help="Resource that may be destroyed, such as replica:us-west-2. Can be repeated."
    ),
]
Profile = Annotated[str | None, typer.Option(help="AWS profile. Default: boto3's.")]
Endpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--endpoint-url",
        help="Endpoint of an engine: REGION=URL, or one URL for all regions. Can be repeated.",
    ),
]
ScalingEndpoints = Annotated[
    list[str] | None,
    typer.Option(
        "--autoscaling-url", help="Endpoint of Application Auto Scaling, as for --endpoint-url."
    ),
]


@app.command("plan")
def show_plan(
    table: TablePath,
    destroy: Destroy = None,
    profile: Profile = None,
    endpoint_url: Endpoints = None,
    autoscaling_url: ScalingEndpoints = None,
    as_json: Json = False,
) -> None:
    """Show how the table differs from its description, and change nothing.

    Exits with status 2 if it differs.

    Example: chalk-online-store provision plan table.toml
    """
    spec = read_spec(table)
    with _control_plane(spec, profile, endpoint_url, autoscaling_url) as plane:
        found = _planned(spec, plane, destroy)
    _print_plan(found, as_json)
    raise typer.Exit(found.exit_code)


@app.command("apply")
def apply_changes(
    table: TablePath,
    destroy: Destroy = None,
    profile: Profile = None,
    endpoint_url: Endpoints = None,
    autoscaling_url: ScalingEndpoints = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Create or change the table to match its description, after showing the plan.

    Run the same command to resume after an interruption. Exits with status 2 if differences remain.

    Example: chalk-online-store provision apply table.toml
    """
    spec = read_spec(table)
    with _control_plane(spec, profile, endpoint_url, autoscaling_url) as plane:
        wanted = _planned(spec, plane, destroy)
        if not as_json:
            _print_plan(wanted, as_json=False)
        left = wanted
        if wanted.changes:
            confirm(f"Make {len(wanted.changes)} changes?", yes)
            left = apply_plan(wanted, plane, progress=_tell)
    if as_json:
        print_json({"applied": wanted.plain(), "left": left.plain()})
    elif wanted.changes:
        say("What remains:" if not left.empty else "The table is as it should be.")
        _print_lines(left)
    raise typer.Exit(left.exit_code)


@app.command("vector-indexes")
def create_indexes(
    schema: Annotated[
        list[str], typer.Option(help="A schema with vector indexes, as module:Class. Repeatable.")
    ],
    url: Url,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Create the vector indexes that schemas declare and the table lacks, and wait for them.

    None is deleted, and nothing else is changed. AWS takes minutes for each. The schemas that are
    given have to be all that the table serves: a table has five indexes at most.

    Example: chalk-online-store provision vector-indexes --schema app:User --url dynamodb:///features
    """
    namespaces = [namespace_called(name) for name in schema]
    confirm(f"Create the missing vector indexes of {', '.join(schema)}?", yes)
    created = create_vector_indexes(url, namespaces)
    if as_json:
        print_json({"created": created})
        return
    for name in created:
        say(f"created {name}")
    if not created:
        say("The table has every vector index.")


def _planned(spec: TableSpec, plane: ControlPlane, destroy: list[str] | None) -> Plan:
    state = observe(plane, spec.name, spec.regions)
    return make_plan(spec, state, frozenset(destroy or ()))


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(plan.plain())
        return
    _print_lines(plan)
    if plan.empty:
        say("The table is as it should be.")


def _print_lines(plan: Plan) -> None:
    for line in plan.lines():
        say(line)


def _tell(progress: Progress) -> None:
    if progress.stage != "done":
        waits = f": {progress.status}" if progress.status else ""
        place = f"{progress.number}/{progress.total}"
        say(f"{place} {progress.change.region} {progress.change.what}{waits}", err=True)


@contextmanager
def _control_plane(
    spec: TableSpec,
    profile: str | None,
    endpoints: Sequence[str] | None,
    scaling: Sequence[str] | None,
) -> Iterator[ControlPlane]:
    urls = _by_region("--endpoint-url", endpoints or (), spec)
    scaling_urls = _by_region("--autoscaling-url", scaling or (), spec)
    session = session_of(profile)
    with ControlPlane(session, endpoint_urls=urls, autoscaling_urls=scaling_urls) as plane:
        yield plane


def _by_region(option: str, given: Sequence[str], spec: TableSpec) -> Mapping[str, str]:
    """`REGION=URL`s, or one URL that holds for all regions."""
    found: dict[str, str] = {}
    for text in given:
        region, equals, url = text.partition("=")
        if not equals or "://" in region:
            found |= dict.fromkeys(spec.regions, text)
        elif region in spec.regions:
            found[region] = url
        else:
            raise WrongUsage(f"{option} {region}=...: the table has no region {region!r}.")
    return found
