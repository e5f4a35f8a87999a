"""What only asking tells: permissions, clocks, replication, and the registry."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from chalk_online_store.cli.doctor.checks import Check, Verdict
from chalk_online_store.cli.region_survey import Lag, opened, survey
from chalk_online_store.cli.stores import load_registry
from chalk_online_store.codec.layout import RESERVED, TableLayout
from chalk_online_store.codec.registry import PARTITION, Registry
from chalk_online_store.errors import (
    AccessDenied,
    ConditionFailed,
    OnlineStoreError,
    RegistryError,
    RequestError,
    TableNotFound,
)
from chalk_online_store.provisioning.control_plane import (
    ApiLacking,
    ControlPlane,
    ControlPlaneCall,
    denied_action,
)
from chalk_online_store.provisioning.policies import READS, WRITES
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

_UNKNOWN = "not known"
_LOOK = "dynamodb:DescribeTable"


def of_permissions(
    plane: ControlPlane, table: str, regions: Sequence[str], layout: TableLayout, *, writes: bool
) -> Iterator[Check]:
    """Request each action of the rendered policies once, in a way that changes nothing.

    A missing action of the role is an error; a missing action of an operator is a note, as a
    process that serves features needs none. Actions of an operator that change a table are not
    requested.
    """
    role = "writer" if writes else "reader"
    needed = READS + WRITES if writes else READS
    for region in regions:
        probes = dict(_probes(table, layout))
        found = {action: _probe(plane, region, action, probes[action]) for action in probes}
        yield _role(region, role, {action: found[action] for action in needed})
        serving = READS + WRITES
        yield _operator(region, {name: found[name] for name in found if name not in serving})


def _role(region: str, role: str, found: Mapping[str, str | None]) -> Check:
    denied, unknown = _sorted_out(found)
    if denied == [_LOOK]:
        said = f"those of a {role}, but for {_LOOK}"
        advice = 'Allow it, or do not limit writes by the capacity of the table ("table").'
        return Check("warning", region, "permissions", said, advice)
    if denied:
        advice = f"Attach the policy of a {role} (`terraform` renders it)."
        said = f"not allowed: {', '.join(denied)}"
        return Check("error", region, "permissions", said, advice)
    if unknown:
        return Check("note", region, "permissions", unknown[0])
    return Check("ok", region, "permissions", f"those of a {role}")


def _operator(region: str, found: Mapping[str, str | None]) -> Check:
    denied, unknown = _sorted_out(found)
    if denied:
        said = f"not allowed: {', '.join(denied)}"
        advice = "`doctor`, `provision` and `bloom` need it, and processes that serve do not."
        return Check("note", region, "operator", said, advice)
    if unknown:
        return Check("note", region, "operator", unknown[0])
    said = "may look at all of the table; changes of it were not tried"
    return Check("ok", region, "operator", said)


def _sorted_out(found: Mapping[str, str | None]) -> tuple[list[str], list[str]]:
    """The denied actions, and the reasons why others are not known."""
    reasons = dict.fromkeys(reason for reason in found.values() if reason)
    unknown = [reason for reason in reasons if reason.startswith(_UNKNOWN)]
    return [reason for reason in reasons if reason not in unknown], unknown


def _probes(table: str, layout: TableLayout) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Requests for an item that nobody has, and writes on the condition that it exists."""
    key = {layout.pk: {"S": _NOBODY}, layout.sk: {"S": _NOBODY}}
    yield "GetItem", {"TableName": table, "Key": key}
    yield "BatchGetItem", {"RequestItems": {table: {"Keys": [key]}}}
    names, values = {"#p": layout.pk}, {":p": {"S": _NOBODY}}
    one = {"TableName": table, "ExpressionAttributeNames": names}
    asked = {"KeyConditionExpression": "#p = :p", "ExpressionAttributeValues": values, "Limit": 1}
    yield "Query", {**one, **asked}
    never = {**one, "ConditionExpression": "attribute_exists(#p)"}
    yield "PutItem", {**never, "Item": key}
    yield "UpdateItem", {**never, "Key": key}
    yield "DeleteItem", {**never, "Key": key}
    yield "BatchWriteItem", {"RequestItems": {table: [{"DeleteRequest": {"Key": key}}]}}
    yield "Scan", {"TableName": table, "Limit": 1}
    for action in ("DescribeTable", "DescribeContinuousBackups", "DescribeTimeToLive"):
        yield action, {"TableName": table}


def _probe(
    plane: ControlPlane, region: str, action: str, arguments: Mapping[str, Any]
) -> str | None:
    """The IAM action that is denied, why it is not known, or None if it is allowed.

    Only a response proves that an action is allowed. A missing table proves nothing.
    """
    try:
        plane.call(ControlPlaneCall(region, action, arguments))
    except AccessDenied as error:
        # A request may need another action than its own, such as kms:Decrypt: AWS names it.
        return denied_action(error) or f"dynamodb:{action}"
    except TableNotFound:
        return f"{_UNKNOWN}: there is no table"
    except (ConditionFailed, ApiLacking):
        return None
    except RequestError as error:
        return f"{_UNKNOWN}: {error}"
    return None


def of_clocks(plane: ControlPlane, table: str, regions: Sequence[str]) -> Iterator[Check]:
    """This machine's clock against the one of each region's endpoint, by its Date header."""
    for region in regions:
        asked = time.time()
        try:
            answer = plane.call(ControlPlaneCall(region, "DescribeTable", {"TableName": table}))
        except RequestError as error:
            # A refusal has a date as well.
            answer = getattr(error.__cause__, "response", {})
        if "ResponseMetadata" not in answer:
            yield Check("note", region, "clock", "not known: no response")
            continue
        sent = answer["ResponseMetadata"].get("HTTPHeaders", {}).get("date")
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
            items = plane.call(ControlPlaneCall(region, "Query", arguments)).get("Items", [])
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
