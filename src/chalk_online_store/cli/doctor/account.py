"""Checks of the account around a table: quotas, and CloudWatch alarms on its metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chalk_online_store.cli.doctor.checks import Check, Verdict
from chalk_online_store.errors import RequestError
from chalk_online_store.provisioning.alarms import NAMESPACE
from chalk_online_store.provisioning.control_plane import Call, ControlPlane
from chalk_online_store.provisioning.state import (
    DIMENSIONS,
    ON_DEMAND,
    Dimension,
    RegionTableState,
    TableState,
    Unknown,
)

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
            limits = plane.call(Call(region, "DescribeLimits", {}))
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
        page = plane.call(Call(region, "DescribeAlarms", arguments, "cloudwatch"))
        for alarm in page.get("MetricAlarms", ()):
            queries = (each.get("MetricStat", {}) for each in alarm.get("Metrics", ()))
            for metric in (alarm, *(each.get("Metric", {}) for each in queries)):
                dimensions = {one["Name"]: one["Value"] for one in metric.get("Dimensions", ())}
                if metric.get("Namespace") == NAMESPACE and dimensions.get("TableName") == table:
                    yield metric["MetricName"]
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}
