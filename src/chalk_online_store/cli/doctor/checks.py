"""What the control plane tells of a table, judged. Pure: state in, checks out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal, TypeAlias

from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.connect import valkey_server
from chalk_online_store.errors import RequestError
from chalk_online_store.planning.modes import TARGET, provisioned_units
from chalk_online_store.planning.sizing import RegionUnits, Sizing
from chalk_online_store.provisioning.changes import Plan
from chalk_online_store.provisioning.control_plane import ControlPlane, ControlPlaneCall
from chalk_online_store.provisioning.state import (
    DIMENSIONS,
    ON_DEMAND,
    Dimension,
    RegionTableState,
    TableState,
    Unknown,
)
from chalk_online_store.provisioning.terraform import NAMESPACE
from chalk_online_store.valkey.commands import Request
from chalk_online_store.valkey.urls import ValkeyTarget

Verdict: TypeAlias = Literal["ok", "note", "warning", "error"]

ORDER: list[Verdict] = ["error", "warning", "note", "ok"]


LEGACY = "2017.11.29"
"""The version of Global Tables that keeps attributes named aws:rep:* in every item."""

STALE = {
    "REPLICATION_NOT_AUTHORIZED": "It answers with old values: allow the replication in the "
    "resource policy of each replica. Until then, remove it from region=.",
    "INACCESSIBLE_ENCRYPTION_CREDENTIALS": "Its KMS key cannot be used: enable the key or grant "
    "its use. After 20 hours DynamoDB removes the replica from the Global Table.",
    "REGION_DISABLED": "Enable the region for the account. After 20 hours DynamoDB removes the "
    "replica from the Global Table.",
    "ARCHIVING": "DynamoDB archives it, as its KMS key could not be used: remove it from region=.",
    "ARCHIVED": "DynamoDB archived it, as its KMS key could not be used: remove it from region=, "
    "and restore its backup to a new table.",
}
"""Statuses of a replica that receives no writes, each with its remedy. It may still serve reads."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: where, what was found, and, where it is wrong, the way out."""

    verdict: Verdict
    where: str
    what: str
    found: str
    advice: str = ""


def check_table(state: TableState, regions: Sequence[str], layout: TableLayout) -> Iterator[Check]:
    """The table's shape and safety in each region, and its replicas."""
    for region in regions:
        found = state.of(region)
        if not found.exists and (refused := _elsewhere(state, region)) is not None:
            yield refused
            continue
        if not found.exists:
            yield Check(
                "error",
                region,
                "table",
                f"there is no table {state.name!r}",
                "Make it: `terraform` or `provision apply`; or correct the URL.",
            )
            continue
        yield _status(region, found)
        yield _keys(region, found, layout)
        yield _expiry(region, found, layout)
        yield _recovery(region, found)
        yield _protection(region, found)
        yield _encryption(region, found)
    yield from _consistency(state, regions)
    yield from _legacy(state, regions)
    if len(regions) > 1:
        yield from _replicas(state, regions)


def _status(region: str, found: RegionTableState) -> Check:
    if found.status == "ACTIVE":
        return Check("ok", region, "table", "ACTIVE")
    serves = found.status == "UPDATING"
    if found.status in STALE:
        return Check("error", region, "table", str(found.status), STALE[found.status])
    return Check(
        "note" if serves else "error",
        region,
        "table",
        str(found.status),
        "It serves meanwhile." if serves else "Wait until it is ACTIVE.",
    )


def _keys(region: str, found: RegionTableState, layout: TableLayout) -> Check:
    wanted = [(layout.pk, "HASH", "S"), (layout.sk, "RANGE", "S")]
    there = [(key.name, key.kind, key.type) for key in found.keys]
    text = ", ".join(f"{name} ({kind}, {of})" for name, kind, of in there)
    if there == wanted:
        return Check("ok", region, "keys", text)
    return Check(
        "error",
        region,
        "keys",
        text,
        f"The URL says {layout.pk} and {layout.sk}, both strings: name the table's own by pk= "
        "and sk=, or make another table.",
    )


def _expiry(region: str, found: RegionTableState, layout: TableLayout) -> Check:
    if isinstance(found.ttl, Unknown):
        return _unknown(region, "expiry", found.ttl)
    if found.ttl == layout.ttl:
        return Check("ok", region, "expiry", f"TTL on {found.ttl}")
    said = f"TTL on {found.ttl}" if found.ttl else "TTL is off"
    return Check(
        "error" if found.ttl else "warning",
        region,
        "expiry",
        said,
        f"Enable TTL on {layout.ttl!r}: else what nobody may read any more is stored for ever.",
    )


def _recovery(region: str, found: RegionTableState) -> Check:
    if isinstance(found.recovery, Unknown):
        return _unknown(region, "recovery", found.recovery)
    if found.recovery.enabled:
        days = f", {found.recovery.days} days" if found.recovery.days else ""
        return Check("ok", region, "recovery", f"point-in-time recovery is on{days}")
    return Check(
        "warning",
        region,
        "recovery",
        "point-in-time recovery is off",
        "Turn it on: a wrong write of a pipeline cannot be undone otherwise.",
    )


def _protection(region: str, found: RegionTableState) -> Check:
    if found.deletion_protection:
        return Check("ok", region, "deletion", "protected")
    return Check(
        "warning", region, "deletion", "not protected", "Turn deletion protection on: it is free."
    )


def _encryption(region: str, found: RegionTableState) -> Check:
    """AWS encrypts every table at rest; the question is whose key it is."""
    return Check("ok", region, "encryption", found.kms_key_arn or "a key of AWS")


def _elsewhere(state: TableState, region: str) -> Check | None:
    """Explain a missing table by another region that names this one as a replica or a witness."""
    for other in state.regions.values():
        if not isinstance(other, RegionTableState):
            continue
        if region in other.witnesses:
            return Check(
                "error",
                region,
                "table",
                "a witness of a table with multi-Region strong consistency",
                "A witness has no endpoint for data: remove it from region=.",
            )
        if other.replicas.get(region) == "ACTIVE":
            account = other.replica_accounts.get(region, "another account")
            return Check(
                "error",
                region,
                "table",
                f"not found, though it is a replica (in {account}): these credentials are of "
                "another account, or lack a permission",
                "Name a profile for each region, in its order: profile=A,B in the URL.",
            )
    return None


def _consistency(state: TableState, regions: Sequence[str]) -> Iterator[Check]:
    strong = [region for region in regions if state.of(region).consistency == "STRONG"]
    if strong:
        yield Check(
            "error",
            strong[0],
            "consistency",
            "multi-Region strong consistency (MRSC)",
            "Not supported, as such a table has no transactions and no TTL: create a Global Table "
            "with eventual consistency. See One region or several.",
        )


def _legacy(state: TableState, regions: Sequence[str]) -> Iterator[Check]:
    legacy = [region for region in regions if state.of(region).global_table_version == LEGACY]
    if legacy:
        yield Check(
            "warning",
            legacy[0],
            "version",
            f"a legacy Global Table ({LEGACY})",
            "It works, and takes more write capacity than 2019.11.21: upgrade it.",
        )


def _replicas(state: TableState, regions: Sequence[str]) -> Iterator[Check]:
    first = state.of(regions[0])
    for region in regions[1:]:
        yield from _replica(region, regions[0], state)
    for region in sorted(set(first.replicas) - set(regions)):
        yield Check(
            "note",
            region,
            "replica",
            "is there, but not in the URL",
            "It is paid for, and never asked: add it to region=, or remove it.",
        )


def _replica(region: str, first: str, state: TableState) -> Iterator[Check]:
    """Compare two regions' descriptions. They replicate only if each names the other."""
    preferred, found = state.of(first), state.of(region)
    status = preferred.replicas.get(region)
    if status is None:
        if found.exists:
            yield Check(
                "error",
                region,
                "replica",
                f"a table of its own, no replica of {first}: never one, or disassociated",
                "Both take writes that the other never sees. Remove it from region= now; then "
                "delete it, and add the region as a replica.",
            )
    elif found.exists and preferred.replica_accounts.get(region) not in (None, found.account):
        yield Check(
            "error",
            region,
            "replica",
            f"another table of this name: the replica is in account "
            f"{preferred.replica_accounts[region]}",
            "Name a profile for each region, in its order: profile=A,B in the URL.",
        )
    elif status in STALE or found.status in STALE:
        worst = str(status if status in STALE else found.status)
        yield Check("error", region, "replica", worst, STALE[worst])
    elif found.exists and first not in found.replicas:
        yield Check(
            "error",
            region,
            "replica",
            f"does not name {first} as a replica: it is being disassociated, or was",
            "It answers with old values, and its writes stay there: remove it from region=.",
        )
    elif found.account != preferred.account:
        said = f"{status}, in account {found.account}"
        yield Check("ok" if status == "ACTIVE" else "error", region, "replica", said)
    else:
        verdict: Verdict = "ok" if status == "ACTIVE" else "error"
        yield Check(verdict, region, "replica", status, "" if verdict == "ok" else "See AWS.")


def _unknown(region: str, what: str, why: Unknown) -> Check:
    return Check("note", region, what, f"not known: {why.because}")


def check_drift(plan: Plan) -> Iterator[Check]:
    """The differences between a table and its description."""
    for change in (*plan.impossible, *plan.changes, *plan.held):
        yield Check("warning", change.region, "drift", change.line(), "`provision apply` it.")
    if plan.empty:
        yield Check("ok", plan.spec.regions[0], "drift", "none: as its description wants it")


def check_capacity(sizing: Sizing, state: TableState, target: float = TARGET) -> Iterator[Check]:
    """Whether provisioned capacity, as far as it may rise, is enough for a mix."""
    for units in sizing.regions:
        found = state.of(units.region)
        if not found.exists:
            said = "the mix names this region, and no table is there"
            yield Check("warning", units.region, "capacity", said, "Add it to region= in the URL.")
        elif found.billing_mode == "PAY_PER_REQUEST":
            yield from _on_demand(units, found)
        else:
            yield _provisioned(units.region, "read", found, _needed(units), target)
            yield _provisioned(units.region, "write", found, units.wcu, target)


def _needed(units: RegionUnits) -> float:
    return max(units.rcu, units.rcu_ready)


def _on_demand(units: RegionUnits, found: RegionTableState) -> Iterator[Check]:
    for what, most, needed in (
        ("read", found.max_read, units.rcu_after_loss),
        ("write", found.max_write, units.wcu),
    ):
        if most is not None and most < needed:
            yield Check(
                "error",
                units.region,
                f"{what} capacity",
                f"on demand up to {most:,}; the mix takes {needed:,.0f}",
                "Raise the maximum.",
            )
        else:
            yield Check("ok", units.region, f"{what} capacity", "on demand")


def _provisioned(
    region: str,
    what: Literal["read", "write"],
    found: RegionTableState,
    needed: float,
    target: float,
) -> Check:
    units = found.read_units if what == "read" else found.write_units
    scaling = {} if isinstance(found.scaling, Unknown) else found.scaling
    scaled = scaling.get(what)
    most = max(units, scaled.max) if scaled and not scaled.suspended else units
    wanted = provisioned_units(needed, scaled.policy.target if scaled and scaled.policy else target)
    said = f"{units:,} provisioned, up to {most:,}" if most > units else f"{units:,} provisioned"
    if most < needed:
        advice = f"The mix takes {needed:,.0f}: it will be throttled. Provision {wanted:,}."
        return Check("error", region, f"{what} capacity", said, advice)
    if most < wanted:
        advice = f"The mix takes {needed:,.0f}: with no room to speak of. Provision {wanted:,}."
        return Check("warning", region, f"{what} capacity", said, advice)
    return Check("ok", region, f"{what} capacity", f"{said}; the mix takes {needed:,.0f}")


# --- Checks of the account around a table: quotas, and CloudWatch alarms on its metrics ----


NEARLY_FULL = 0.8
"""The used share of a quota above which the headroom is small."""

_WATCHED = {
    "throttles": ("ReadThrottleEvents", "WriteThrottleEvents", "ThrottledRequests"),
    "system errors": ("SystemErrors",),
}
_REPLICATION = {"replication": ("ReplicationLatency",)}

_TITLES: dict[Dimension, str] = {"read": "Read", "write": "Write"}


def check_quotas(plane: ControlPlane, state: TableState, regions: Sequence[str]) -> Iterator[Check]:
    """Compare the provisioned capacity, as far as it may rise, with the account's quotas.

    A table on demand has no quota that DynamoDB tells.
    """
    for region in regions:
        found = state.of(region)
        if not found.exists or found.billing_mode == ON_DEMAND:
            continue
        try:
            limits = plane.call(ControlPlaneCall(region, "DescribeLimits", {}))
        except RequestError as error:
            yield Check("note", region, "quotas", f"not known: {error}")
            continue
        for dimension in DIMENSIONS:
            yield _quota(region, dimension, found, limits)


def _quota(
    region: str, dimension: Dimension, found: RegionTableState, limits: Mapping[str, Any]
) -> Check:
    what = f"{dimension} quota"
    most = _most(found, dimension)
    of_table = limits[f"TableMax{_TITLES[dimension]}CapacityUnits"]
    of_account = limits[f"AccountMax{_TITLES[dimension]}CapacityUnits"]
    said = f"up to {most:,} of {of_table:,} units per table, {of_account:,} per account"
    lowest = min(of_table, of_account)
    verdict: Verdict = "ok"
    advice = ""
    if most > lowest:
        verdict = "error"
        advice = f"Autoscaling stops at {lowest:,}: request a higher quota from Service Quotas."
    elif most > NEARLY_FULL * lowest:
        verdict = "warning"
        advice = "Request a higher quota before the load grows: it can take days."
    return Check(verdict, region, what, said, advice)


def _most(found: RegionTableState, dimension: Dimension) -> int:
    units = found.read_units if dimension == "read" else found.write_units
    scaling = {} if isinstance(found.scaling, Unknown) else found.scaling
    return max(units, scaling[dimension].max) if dimension in scaling else units


def check_alarms(plane: ControlPlane, state: TableState, regions: Sequence[str]) -> Iterator[Check]:
    """Look for alarms on the metrics of the table. Their names do not matter."""
    for region in regions:
        if not state.of(region).exists:
            continue
        if not plane.serves("cloudwatch", region):
            yield Check("note", region, "alarms", "not known: no endpoint of cloudwatch is stated")
            continue
        try:
            watched = set(_watched_metrics(plane, state.name, region))
        except RequestError as error:
            yield Check("note", region, "alarms", f"not known: {error}")
            continue
        wanted = _WATCHED | (_REPLICATION if state.of(region).replicas else {})
        missing = [what for what, names in wanted.items() if watched.isdisjoint(names)]
        if missing:
            advice = "Add [alarms] to the table's description: `terraform` renders them."
            yield Check("warning", region, "alarms", f"none on {', '.join(missing)}", advice)
        else:
            yield Check("ok", region, "alarms", f"on {', '.join(wanted)}")


def _watched_metrics(plane: ControlPlane, table: str, region: str) -> Iterator[str]:
    """Yield the metrics of the table that a metric alarm of the region uses."""
    more: dict[str, Any] = {}
    while True:
        arguments = {"AlarmTypes": ["MetricAlarm"], "MaxRecords": 100, **more}
        page = plane.call(ControlPlaneCall(region, "DescribeAlarms", arguments, "cloudwatch"))
        for alarm in page.get("MetricAlarms", ()):
            queries = (each.get("MetricStat", {}) for each in alarm.get("Metrics", ()))
            for metric in (alarm, *(each.get("Metric", {}) for each in queries)):
                dimensions = {one["Name"]: one["Value"] for one in metric.get("Dimensions", ())}
                if metric.get("Namespace") == NAMESPACE and dimensions.get("TableName") == table:
                    yield metric["MetricName"]
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


# --- What servers of Valkey and Redis tell of themselves, judged: a store's, or a shared ---


Info: TypeAlias = Mapping[str, str]
"""What INFO answers: names to values."""

MEMORY_LIMIT = 0.9
"""The share of its memory from which on a server is said to be nearly full."""


def of_servers(target: ValkeyTarget, *, caches: bool) -> Iterator[Check]:
    """Memory, durability and replicas of each server that is read from; of a cache, memory alone.

    Each may take the target's `read_timeout` to answer.
    """
    for number, (name, place) in enumerate(target.places.items()):
        primary = number == 0
        try:
            with closing(valkey_server(place)) as transport:
                found = list(_infos(name, place, transport))
        except RequestError as error:
            # Reads and writes do without a cache, and some without a replica.
            verdict: Verdict = "error" if primary and not caches else "warning"
            yield Check(verdict, name, "server", str(error), "Start it, or correct the URL.")
            continue
        for where, info in found:
            yield from _checks(where, info, caches=caches, primary=primary)


def _checks(where: str, info: Info, *, caches: bool, primary: bool) -> Iterator[Check]:
    yield of_role(where, info, primary=primary)
    if caches:
        yield of_cache_memory(where, info)
        return
    yield of_memory(where, info)
    yield of_durability(where, info)
    if primary:
        yield check_replicas(where, info)


def _infos(name: str, target: ValkeyTarget, transport: Any) -> Iterator[tuple[str, Info]]:
    """Of every node of a cluster that has keys of its own, or of the one server."""
    for number in count():
        request = Request([("INFO",)], number if target.clustered else None)
        (reply,) = transport.send(request, target.read_timeout)
        if isinstance(reply, RequestError):
            raise reply
        if reply is None:  # There are no more nodes.
            return
        yield f"{name} node {number}" if target.clustered else name, info_of(reply)
        if not target.clustered:
            return


def info_of(reply: bytes) -> Info:
    """INFO's answer by name."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


def of_role(where: str, info: Info, *, primary: bool) -> Check:
    """What it is, against what the URL takes it for."""
    name = info.get("server_name", "redis")
    version = info.get(f"{name}_version", info.get("redis_version", "?"))
    is_primary = info.get("role", "master") == "master"
    said = f"{name} {version}, {'primary' if is_primary else 'replica'}"
    if primary and not is_primary:
        return Check("error", where, "server", said, "Name the primary first, or its sentinels.")
    if not primary and is_primary:
        return Check("error", where, "server", said, "It replicates nothing: see REPLICAOF.")
    if info.get("master_link_status", "up") != "up":
        advice = "It is behind its primary until it reaches it again."
        return Check("warning", where, "server", f"{said}, cut off from its primary", advice)
    return Check("ok", where, "server", said)


def of_memory(where: str, info: Info) -> Check:
    """A store's memory: nothing may be evicted, the registry least of all."""
    policy = info.get("maxmemory_policy", "noeviction")
    evicted = int(info.get("evicted_keys", "0"))
    said = f"{_used(info)}, {policy}"
    if policy != "noeviction":
        said += f", {evicted:,} keys evicted"
        advice = "Set maxmemory-policy noeviction: it would evict values, and the registry."
        return Check("error", where, "memory", said, advice)
    share = _share(info)
    if share is None:
        advice = "Set maxmemory: without, the system ends the server when memory is short."
        return Check("warning", where, "memory", said, advice)
    if share > MEMORY_LIMIT:
        return Check("warning", where, "memory", said, "Writes fail once it is full: give it more.")
    return Check("ok", where, "memory", said)


def of_cache_memory(where: str, info: Info) -> Check:
    """A shared cache's memory: it has to make room by itself."""
    policy = info.get("maxmemory_policy", "noeviction")
    said = f"{_used(info)}, {policy}"
    if policy in ("allkeys-lru", "allkeys-lfu"):
        return Check("ok", where, "shared cache", said)
    advice = "Set maxmemory, and maxmemory-policy allkeys-lru: else it refuses when it is full."
    return Check("warning", where, "shared cache", said, advice)


def of_durability(where: str, info: Info) -> Check:
    """Whether what is acknowledged outlives the process."""
    for name, what in (
        ("aof_last_write_status", "the append-only file"),
        ("rdb_last_bgsave_status", "the last snapshot"),
    ):
        if info.get(name, "ok") != "ok":
            said = f"{what} could not be written"
            return Check("error", where, "durability", said, "Look at the server's disk and log.")
    if info.get("aof_enabled") == "1":
        return Check("ok", where, "durability", "append-only file")
    return Check(
        "warning",
        where,
        "durability",
        "no append-only file",
        "A restart loses what came after the last snapshot, and all if there is none: set "
        "appendonly yes.",
    )


def check_replicas(where: str, info: Info) -> Check:
    """Whether anything is left when the machine is not."""
    connected = int(info.get("connected_slaves", "0"))
    said = f"{connected} connected"
    if connected:
        return Check("ok", where, "replicas", said)
    return Check("warning", where, "replicas", said, "The loss of this machine loses the store.")


def _used(info: Info) -> str:
    used, most = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
    of = f" of {most / 2**30:.1f}" if most else ""
    return f"{used / 2**30:.1f}{of} GiB"


def _share(info: Info) -> float | None:
    most = int(info.get("maxmemory", "0"))
    return int(info.get("used_memory", "0")) / most if most else None
