"""The command `doctor`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.capacity import sample_of
from chalk_online_store.cli.doctor.checks import (
    ORDER,
    Check,
    check_alarms,
    check_capacity,
    check_drift,
    check_quotas,
    check_table,
    of_servers,
)
from chalk_online_store.cli.doctor.live import (
    check_legacy_attributes,
    of_clocks,
    of_permissions,
    of_regions,
    of_registry,
)
from chalk_online_store.cli.doctor.vector_indexes import (
    check_search_endpoints,
    check_vector_indexes,
    wanted_indexes,
)
from chalk_online_store.cli.json_output import print_json
from chalk_online_store.cli.options import URL_VARIABLE, Json, namespace_called
from chalk_online_store.cli.planes import opened_plane
from chalk_online_store.cli.stores import load_registry
from chalk_online_store.cli.terminal import print_table, say
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import (
    AccessDenied,
    ConnectionFailed,
    OnlineStoreError,
    RequestError,
    RequestTimeout,
)
from chalk_online_store.planning.mix import read_mix
from chalk_online_store.planning.sizing import size
from chalk_online_store.provisioning.control_plane import ControlPlane
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan
from chalk_online_store.provisioning.spec import TableSpec, read_spec
from chalk_online_store.provisioning.state import RegionTableState, TableState
from chalk_online_store.schema import Namespace
from chalk_online_store.urls import parse_url
from chalk_online_store.valkey.urls import ValkeyTarget


def doctor(
    url: Annotated[
        str,
        typer.Argument(envvar=URL_VARIABLE, help="URL of the store, with all of its regions."),
    ],
    schema: Annotated[
        list[str] | None,
        typer.Option(help="Schema to compare with the registry, as module:Class. Can be repeated."),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Description of the table (TOML), to find differences.")
    ] = None,
    mix: Annotated[
        Path | None, typer.Option(help="Workload file (TOML), to check the capacity.")
    ] = None,
    writes: Annotated[
        bool, typer.Option(help="Check the permissions of a writer; --no-writes for a reader.")
    ] = True,
    beat: Annotated[
        bool, typer.Option(help="Measure replication with a heartbeat in each region.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a store: table or servers, security, capacity, replicas, permissions, registry.

    Changes nothing; only --beat writes a heartbeat. Exits with status 1 if there is an error.

    Example: chalk-online-store doctor "dynamodb:///features?region=us-east-1" --table table.toml
    """
    found = sorted(
        _examine(url, schema or [], table, mix, writes=writes, beat=beat),
        key=lambda check: ORDER.index(check.verdict),
    )
    if as_json:
        print_json([asdict(check) for check in found])
    else:
        _print(found)
    if any(check.verdict == "error" for check in found):
        raise typer.Exit(1)


def _examine(
    url: str,
    schemas: list[str],
    table: Path | None,
    mix: Path | None,
    *,
    writes: bool,
    beat: bool,
) -> Iterator[Check]:
    namespaces = [namespace_called(name) for name in schemas]
    target = parse_url(url)
    if isinstance(target, DynamoDBTarget):
        yield from _of_dynamodb(url, target, table, mix, namespaces, writes=writes, beat=beat)
        if target.shared_cache:
            yield from of_servers(target.shared_cache, caches=True)
    elif table or mix:
        raise WrongUsage("--table and --mix are for a DynamoDB table; this URL is of none.")
    if isinstance(target, ValkeyTarget):
        yield from of_servers(target, caches=False)
    yield from of_registry(url, namespaces)


def _of_dynamodb(
    url: str,
    target: DynamoDBTarget,
    table: Path | None,
    mix: Path | None,
    namespaces: Sequence[Namespace],
    *,
    writes: bool,
    beat: bool,
) -> Iterator[Check]:
    with opened_plane(target) as (plane, stated):
        state, failed, unreachable = _observed(plane, target.table, stated)
        yield from failed
        # Each further request to an unreachable region would wait for its timeouts.
        regions = [region for region in stated if region not in unreachable]
        known = [region for region in regions if region in state.regions]
        yield from check_table(state, known, target.layout)
        if table is not None:
            yield from _drift(_spec(table, target.table), state, stated)
        if mix is not None:
            wanted = read_mix(mix)
            samples = {part.schema: sample_of(part) for part in wanted.namespaces}
            checks = check_capacity(size(wanted, samples), state)
            unseen = set(stated) - set(known)
            yield from (check for check in checks if check.where not in unseen)
        yield from _of_indexes(plane, url, state, known, namespaces)
        yield from check_quotas(plane, state, known)
        yield from check_alarms(plane, state, known)
        # Also in regions that could not be described: the data plane has permissions of its own.
        yield from of_permissions(plane, target.table, regions, target.layout, writes=writes)
        yield from check_legacy_attributes(plane, target.table, known, target.layout)
        yield from of_clocks(plane, target.table, regions)
    if any(feature.index is not None for each in namespaces for feature in each.features):
        yield from check_search_endpoints(url, namespaces, regions)
    if len(target.regions) > 1:
        yield from of_regions(url, beat=beat)


def _of_indexes(
    plane: ControlPlane,
    url: str,
    state: TableState,
    regions: Sequence[str],
    namespaces: Sequence[Namespace],
) -> Iterator[Check]:
    """Vector indexes, if the schemas declare some."""
    declared = [each for each in namespaces if any(f.index is not None for f in each.features)]
    if not declared:
        return
    try:
        registry = load_registry(url)
    except OnlineStoreError:  # The check `registry` reports it.
        return
    wanted, failed = wanted_indexes(declared, registry)
    yield from failed
    yield from check_vector_indexes(plane, state, regions, wanted)


def _observed(
    plane: ControlPlane, table: str, regions: list[str]
) -> tuple[TableState, list[Check], set[str]]:
    """Return the table's state, a check for each region without one, and the unreachable regions.

    Credentials of a reader may not describe a table: that is a note, and other checks continue.
    """
    found: dict[str, RegionTableState] = {}
    failed = []
    unreachable = set()
    for region in regions:
        if region in found:  # As a replica of one before.
            continue
        try:
            seen = observe(plane, table, [region]).regions
        except AccessDenied as error:
            advice = "See `permissions` for what a reader or a writer needs."
            failed.append(Check("note", region, "table", f"not known: {error}", advice))
        except RequestError as error:
            failed.append(Check("error", region, "table", f"not known: {error}", "Try again."))
            if isinstance(error, ConnectionFailed | RequestTimeout):
                unreachable.add(region)
        else:
            found |= {
                name: each for name, each in seen.items() if isinstance(each, RegionTableState)
            }
    return TableState(table, found), failed, unreachable


def _drift(spec: TableSpec, state: TableState, regions: list[str]) -> Iterator[Check]:
    """The drift, unless a region is unknown: its table would be taken for one that is missing."""
    if unseen := [region for region in regions if region not in state.regions]:
        yield Check("note", unseen[0], "drift", "not known, as the table cannot be described")
    else:
        yield from check_drift(plan(spec, state))


def _spec(path: Path, table: str) -> TableSpec:
    spec = read_spec(path)
    if spec.name != table:
        raise WrongUsage(f"{path} describes the table {spec.name!r}, not {table!r} of the URL.")
    return spec


def _print(found: list[Check]) -> None:
    rows = [(check.verdict, check.where, check.what, check.found, check.advice) for check in found]
    print_table(("verdict", "where", "what", "found", "advice"), rows)
    counts = Counter(check.verdict for check in found)
    say(", ".join(f"{counts[each]} {each}" for each in ORDER if counts[each]), err=True)
