"""CloudWatch alarms of a table, as data.

Source of metrics and dimensions: "DynamoDB metrics and dimensions" in the developer guide.
`SystemErrors` exists per operation only, so its alarm adds up the operations of the library.
Utilisation is judged against the most that the table can serve: its fixed units, the maximum of its
autoscaling, its maximum on demand, or else AWS's quota of a table. The units that are
provisioned at the moment have alarms of their own, which Application Auto Scaling makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from chalk_online_store.provisioning.spec import Alarms, OnDemand, TableSpec, Units

NAMESPACE = "AWS/DynamoDB"

TABLE_QUOTA = 40_000
"""AWS: the units per second, of reads and of writes, that a table may have by default."""

OPERATIONS = (
    "BatchGetItem",
    "BatchWriteItem",
    "DeleteItem",
    "GetItem",
    "PutItem",
    "Query",
    "Scan",
    "TransactWriteItems",
    "UpdateItem",
)
"""The operations that the library sends."""

_TITLES = {"read": "Read", "write": "Write"}


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of CloudWatch: `statistic` over periods of `period` seconds."""

    name: str
    dimensions: Mapping[str, str]
    statistic: str
    period: int = 60


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm in a region: `metrics` by id, and how they are combined (`expression`).

    It goes off if `datapoints` of the last `periods` values are at `threshold` or above. A period
    without data is not a breach: DynamoDB reports no value if nothing happened.
    """

    label: str
    name: str
    region: str
    description: str
    metrics: Mapping[str, Metric]
    threshold: float
    expression: str | None = None
    periods: int = 5
    datapoints: int = 3


def table_alarms(spec: TableSpec) -> Iterator[Alarm]:
    """Yield the alarms that a description asks for, in every region of the table."""
    wanted = spec.alarms
    if wanted is None:
        return
    for region in spec.regions:
        yield from _throttles(spec, wanted, region)
        yield from _utilisation(spec, wanted, region)
        yield _system_errors(spec, region)
        yield from _replication(spec, wanted, region)
        if not isinstance(spec.capacity, OnDemand):
            yield from _account(spec, wanted, region)


def _alarm(
    spec: TableSpec,
    region: str,
    what: str,
    description: str,
    metrics: Mapping[str, Metric],
    threshold: float,
    *,
    expression: str | None = None,
    periods: int = 5,
    datapoints: int = 3,
) -> Alarm:
    label = f"{what}_{region}".replace("-", "_")
    name = f"{spec.name}-{what}"
    return Alarm(
        label, name, region, description, metrics, threshold, expression, periods, datapoints
    )


def _throttles(spec: TableSpec, wanted: Alarms, region: str) -> Iterator[Alarm]:
    for dimension, title in _TITLES.items():
        metric = Metric(f"{title}ThrottleEvents", {"TableName": spec.name}, "Sum")
        yield _alarm(
            spec,
            region,
            f"{dimension}-throttles",
            f"{title}s of {spec.name} are throttled: see Contributor Insights for hot keys.",
            {"throttles": metric},
            wanted.throttled_per_minute,
        )


def _utilisation(spec: TableSpec, wanted: Alarms, region: str) -> Iterator[Alarm]:
    for dimension, title in _TITLES.items():
        most = _most(spec, region, dimension)
        consumed = Metric(f"Consumed{title}CapacityUnits", {"TableName": spec.name}, "Sum")
        yield _alarm(
            spec,
            region,
            f"{dimension}-utilisation",
            f"{title}s of {spec.name} use {wanted.utilisation:g} % of its {most:,} units/s.",
            {"consumed": consumed},
            most * wanted.utilisation / 100,
            expression="consumed / PERIOD(consumed)",
        )


def _most(spec: TableSpec, region: str, dimension: str) -> int:
    """Return the most units per second that a table can serve in a region."""
    capacity = spec.capacity
    if isinstance(capacity, OnDemand):
        maximum = capacity.max_read if dimension == "read" else capacity.max_write
        return TABLE_QUOTA if maximum is None else maximum
    units: Units = capacity.read_in(region) if dimension == "read" else capacity.write
    return units.autoscaling.max if units.autoscaling else units.units


def _system_errors(spec: TableSpec, region: str) -> Alarm:
    metrics = {
        f"m{number}": Metric(
            "SystemErrors", {"TableName": spec.name, "Operation": operation}, "Sum"
        )
        for number, operation in enumerate(OPERATIONS)
    }
    return _alarm(
        spec,
        region,
        "system-errors",
        f"DynamoDB answers requests to {spec.name} with errors of its own (HTTP 500).",
        metrics,
        1,
        expression="SUM(METRICS())",
    )


def _replication(spec: TableSpec, wanted: Alarms, region: str) -> Iterator[Alarm]:
    for other in spec.regions:
        if other != region:
            dimensions = {"TableName": spec.name, "ReceivingRegion": other}
            yield _alarm(
                spec,
                region,
                f"replication-to-{other}",
                f"Replication of {spec.name} from {region} to {other} is late.",
                {"latency": Metric("ReplicationLatency", dimensions, "Average")},
                wanted.replication_latency_ms,
            )


def _account(spec: TableSpec, wanted: Alarms, region: str) -> Iterator[Alarm]:
    """Provisioned capacity of all tables of the account, against its quota."""
    for dimension, title in _TITLES.items():
        metric = Metric(f"AccountProvisioned{title}CapacityUtilization", {}, "Maximum", 300)
        yield _alarm(
            spec,
            region,
            f"account-{dimension}-quota",
            f"The account has provisioned {wanted.utilisation:g} % of its {dimension} quota.",
            {"utilisation": metric},
            wanted.utilisation,
            periods=2,
            datapoints=2,
        )
