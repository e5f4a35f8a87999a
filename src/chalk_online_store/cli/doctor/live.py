"""What only asking tells: permissions, clocks, replication, and the registry."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from chalk_online_store.cli.doctor.checks import Check, Verdict
from chalk_online_store.cli.stores import load_registry
from chalk_online_store.cli.surveys import Lag, opened, survey
from chalk_online_store.codec.layout import RESERVED, TableLayout
from chalk_online_store.codec.registry import PARTITION, Registry
from chalk_online_store.errors import (
    AccessDenied,
    OnlineStoreError,
    RegistryError,
    RequestError,
)
from chalk_online_store.provision.control_plane import Call, ControlPlane
from chalk_online_store.routing.replication import STOPPED_AFTER_SECONDS
from chalk_online_store.schema import Namespace

SKEW = 2.0
"""Seconds by which clocks may differ. A Date header has whole seconds, and was some time on its
way; AWS refuses signatures from 5 minutes on, but a writer's observed-at counts to the
microsecond."""

LAG = 5.0

LEGACY_ATTRIBUTES = "aws:rep:"

_NOBODY = f"{RESERVED}doctor"
"""No item."""


def of_permissions(
    plane: ControlPlane, table: str, regions: Sequence[str], layout: TableLayout, *, writes: bool
) -> Iterator[Check]:
    """Ask once for each action of a reader, or of a writer, in a way that changes nothing."""
    for region in regions:
        refused = [
            operation
            for operation, arguments in _questions(table, layout, writes=writes)
            if _is_refused(plane, Call(region, operation, arguments))
        ]
        role = "writer" if writes else "reader"
        if not refused:
            yield Check("ok", region, "permissions", f"those of a {role}")
            continue
        actions = ", ".join(f"dynamodb:{operation}" for operation in refused)
        advice = f"Attach the policy of a {role} (`terraform` renders it)."
        yield Check("error", region, "permissions", f"not allowed: {actions}", advice)


def _questions(
    table: str, layout: TableLayout, *, writes: bool
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Reads of an item that is none, and writes on the condition that it is one."""
    key = {layout.pk: {"S": _NOBODY}, layout.sk: {"S": _NOBODY}}
    yield "GetItem", {"TableName": table, "Key": key}
    yield "BatchGetItem", {"RequestItems": {table: {"Keys": [key]}}}
    names, values = {"#p": layout.pk}, {":p": {"S": _NOBODY}}
    one = {"TableName": table, "ExpressionAttributeNames": names}
    asked = {"KeyConditionExpression": "#p = :p", "ExpressionAttributeValues": values, "Limit": 1}
    yield "Query", {**one, **asked}
    if writes:
        never = {**one, "ConditionExpression": "attribute_exists(#p)"}
        yield "PutItem", {**never, "Item": key}
        yield "UpdateItem", {**never, "Key": key}
        yield "DeleteItem", {**never, "Key": key}
        yield "BatchWriteItem", {"RequestItems": {table: [{"DeleteRequest": {"Key": key}}]}}


def _is_refused(plane: ControlPlane, call: Call) -> bool:
    try:
        plane.call(call)
    except AccessDenied:
        return True
    except RequestError:  # There is no table, or a condition did not hold: it may be asked.
        return False
    return False


def of_clocks(plane: ControlPlane, table: str, regions: Sequence[str]) -> Iterator[Check]:
    """This machine's clock against the one of each region's endpoint, by its Date header."""
    for region in regions:
        asked = time.time()
        try:
            answer = plane.call(Call(region, "DescribeTable", {"TableName": table}))
        except RequestError as error:
            yield Check("note", region, "clock", f"not known: {type(error).__name__}")
            continue
        sent = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if sent is None:
            yield Check("note", region, "clock", "not known: the engine says no date")
            continue
        theirs = parsedate_to_datetime(sent).timestamp()
        yield _clock(region, max(asked - theirs - 1.0, theirs - time.time(), 0.0))


def _clock(region: str, apart: float) -> Check:
    verdict: Verdict = "ok" if apart < SKEW else "warning" if apart < 240 else "error"
    advice = "" if verdict == "ok" else "Set this machine's clock by NTP: observed-at relies on it."
    return Check(verdict, region, "clock", f"{apart:.0f} s apart or less", advice)


def of_regions(url: str, *, beat: bool) -> Iterator[Check]:
    """Whether each region answers, and how far replication is."""
    with opened(url) as regions:
        found = survey(regions, beat, LAG)
    for check in found.health.regions:
        said = f"answered in {check.seconds * 1000:.0f} ms" if check.ok else check.error
        advice = "" if check.ok else "Reads go elsewhere meanwhile; see `regions status`."
        yield Check("ok" if check.ok else "error", check.name, "reads", said, advice)
    for lag in found.lag:
        yield _lag_check(lag, beat=beat)


def _lag_check(lag: Lag, *, beat: bool) -> Check:
    where = f"{lag.source} to {lag.target}"
    if lag.measured is None and lag.behind is not None and lag.behind > STOPPED_AFTER_SECONDS:
        # A replica that was disassociated, archived or not authorised answers without an error.
        advice = (
            f"Replication has stopped: {lag.target} answers with old values, and a failover to it "
            "would split the data. Remove it from region= until `replica` is ok and this is low."
        )
        return Check("error", where, "lag", lag.text, advice)
    if beat and (lag.measured is None or lag.measured > LAG):
        advice = "Global Tables usually take below a second: see AWS's ReplicationLatency."
        return Check("warning", where, "lag", lag.text, advice)
    return Check("ok", where, "lag", lag.text)


def check_legacy_attributes(
    plane: ControlPlane, table: str, regions: Sequence[str], layout: TableLayout
) -> Iterator[Check]:
    """Look for attributes of Global Tables 2017.11.29 in some items of the registry.

    A legacy table has them in every item, and an upgraded one in items from before. Costs one RCU.
    """
    for region in regions[:1]:
        arguments = {
            "TableName": table,
            "KeyConditionExpression": "#p = :p",
            "ExpressionAttributeNames": {"#p": layout.pk},
            "ExpressionAttributeValues": {":p": {"S": PARTITION}},
            "Limit": 10,
        }
        try:
            items = plane.call(Call(region, "Query", arguments)).get("Items", [])
        except RequestError:  # The checks `permissions` and `registry` report it.
            return
        if any(name.startswith(LEGACY_ATTRIBUTES) for item in items for name in item):
            yield Check(
                "note",
                region,
                "attributes",
                f"items have attributes named {LEGACY_ATTRIBUTES}* of Global Tables 2017.11.29",
                "They count in an item's size, and are otherwise ignored.",
            )


def of_registry(url: str, namespaces: Iterable[Namespace]) -> Iterator[Check]:
    """What the schemas need of the registry, and whether it can be read at all."""
    try:
        registry = load_registry(url)
        registry.check()
    except OnlineStoreError as error:
        yield Check("error", "", "registry", f"{type(error).__name__}: {error}", "See above.")
        return
    yield Check("ok", "", "registry", f"{len(registry.entries)} entries")
    for namespace in namespaces:
        yield _schema(registry, namespace)


def _schema(registry: Registry, namespace: Namespace) -> Check:
    try:
        missing = registry.missing(namespace)
    except RegistryError as error:
        return Check("error", namespace.name, "schema", str(error), "See Changing a schema.")
    if missing:
        names = ", ".join(entry.name for entry in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        said = f"not registered yet: {names}{more}"
        return Check("note", namespace.name, "schema", said, "The first write registers them.")
    return Check("ok", namespace.name, "schema", "as registered")
