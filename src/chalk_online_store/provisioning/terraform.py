"""A table as Terraform: files for HashiCorp's AWS provider, 6.0 or newer.

Where an argument has a rule behind it that the provider does not state, its source is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.hcl import (
    Attribute,
    Block,
    Call,
    Expression,
    Template,
    Value,
    attributes,
    block,
    document,
)
from chalk_online_store.provisioning.policies import Arn, Policy, policies, sharing_statements
from chalk_online_store.provisioning.spec import (
    Alarms,
    Autoscaling,
    OnDemand,
    Provisioned,
    TableSpec,
    Units,
)

# --- CloudWatch alarms of a table, as data -------------------------------------------------
#
# Source of metrics and dimensions: "DynamoDB metrics and dimensions" in the developer guide.
# `SystemErrors` exists per operation only, so its alarm adds up the operations of the library.
# Utilisation is judged against the most that the table can serve: its fixed units, the maximum of
# its autoscaling, its maximum on demand, or else AWS's quota of a table. The units that are
# provisioned at the moment have alarms of their own, which Application Auto Scaling makes.


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


# --- Blocks that let Terraform adopt a table which already exists --------------------------
#
# A table that another configuration created is in its state: `moved` blocks give its resources
# our addresses. A table that no state has, because somebody made it by hand, is read by `import`
# blocks. Replicas are imported in both cases: other configurations have them as blocks of the
# table.
#
# Sources: the import sections of the provider's documentation of `aws_dynamodb_table` and
# `aws_dynamodb_table_replica` ("table-name:main-region"); "@region" selects another region than the
# provider's (its version 6).


BY_HAND = "import"
"""What to adopt from if no Terraform state has the table."""

_ADDRESS = re.compile(
    r"(?P<module>(?:module\.[\w-]+(?:\[[^\]]+\])?\.)*)"
    r"aws_dynamodb_table\.(?P<name>[\w-]+)(?:\[[^\]]+\])?"
)


_ADOPTED_TABLE = "aws_dynamodb_table.online_store"

# The resources of Application Auto Scaling of other configurations, by the name of their table:
# the sizing page of Chalk's documentation, and terraform-aws-modules/dynamodb-table. Chalk's
# module ("main") has no autoscaling.
_TARGETS = {
    "chalk_online_store": {"read": "read_target", "write": "write_target"},
    "autoscaled": {"read": "table_read[0]", "write": "table_write[0]"},
    "autoscaled_gsi_ignore": {"read": "table_read[0]", "write": "table_write[0]"},
}
_POLICIES = {
    "chalk_online_store": {"read": "read_policy", "write": "write_policy"},
    "autoscaled": {"read": "table_read_policy[0]", "write": "table_write_policy[0]"},
    "autoscaled_gsi_ignore": {"read": "table_read_policy[0]", "write": "table_write_policy[0]"},
}


def adopt(spec: TableSpec, source: str, *, module: str = "") -> tuple[Block, ...]:
    """Return the blocks that adopt an existing table and its replicas.

    `source` is "import" for a table that no state has, otherwise the address of the table in the
    state, as `terraform state list` prints it, such as `aws_dynamodb_table.chalk_online_store` or
    `module.online_store.aws_dynamodb_table.main`. All regions of `spec` must already be replicas.
    `module` is the label of the module call that creates the table, empty for the flat form.

    Raises `InvalidValue` if `source` is neither.
    """
    table = f"module.{module}.{_ADOPTED_TABLE}" if module else _ADOPTED_TABLE
    if source == BY_HAND:
        imported = block("import", to=Expression(table), id=f"{spec.name}@{spec.regions[0]}")
        return (imported, *_replicas(spec, module))
    found = _ADDRESS.fullmatch(source)
    if found is None:
        raise InvalidValue(
            f"--adopt {source!r} is not the address of an aws_dynamodb_table. Pass one that "
            '`terraform state list` prints, or "import" for a table that was made by hand.'
        )
    moved = [(source, table), *_adopted_scaling(spec, found["module"], found["name"], module)]
    return (
        *(block("moved", **{"from": Expression(old), "to": Expression(new)}) for old, new in moved),
        *_replicas(spec, module),
    )


def _replicas(spec: TableSpec, module: str) -> Iterator[Block]:
    for region in spec.regions[1:]:
        kind = "aws_dynamodb_table_replica"
        label = region.replace("-", "_")
        to = f'module.{module}.{kind}.replica["{region}"]' if module else f"{kind}.{label}"
        identifier = f"{spec.name}:{spec.regions[0]}@{region}"
        yield block("import", to=Expression(to), id=identifier)


def _adopted_scaling(
    spec: TableSpec, prefix: str, table: str, module: str
) -> Iterator[tuple[str, str]]:
    """The targets and policies of the first region, which the other configuration has too."""
    if isinstance(spec.capacity, OnDemand) or table not in _TARGETS:
        return
    first = spec.regions[0]
    units = {"read": spec.capacity.read_in(first), "write": spec.capacity.write}
    for dimension, wanted in units.items():
        if wanted.autoscaling is None:
            continue
        if module:
            here = f'read["{first}"]' if dimension == "read" else "write[0]"
        else:
            here = f"read_{first.replace('-', '_')}" if dimension == "read" else "write"
        inside = f"module.{module}." if module else ""
        for kind, names in (
            ("aws_appautoscaling_target", _TARGETS),
            ("aws_appautoscaling_policy", _POLICIES),
        ):
            yield f"{prefix}{kind}.{names[table][dimension]}", f"{inside}{kind}.{here}"


Body: TypeAlias = Iterator[Attribute | Block]

HEADER = "Written by chalk-online-store from the description of a table: change that, not this."
_LIVE_UNITS = """\
Autoscaled capacity has no `ignore_changes`: while a table is on demand, Terraform's state holds 0
units, and the provider would turn an ignored 0 into 1 unit when the table becomes provisioned.
Instead, a plan reads the units that the table has now, and keeps them. A table that is new or on
demand starts with the units of the description."""
_NO_VECTOR_INDEXES = """\
The vector indexes of the description are not here: the AWS provider for Terraform does not have
them. Create them by `provision apply` or create_vector_indexes, after this was applied. The
attributes that they define are ignored, so that a plan does not remove them."""
_TABLE = "aws_dynamodb_table.online_store"
_EXISTING = "data.aws_dynamodb_table.existing"
_REPLICA = "aws_dynamodb_table_replica"
_TARGET = "aws_appautoscaling_target"
_SCALING = "aws_appautoscaling_policy"
INSIGHTS = {"all-keys": "ACCESSED_AND_THROTTLED_KEYS", "throttled-keys": "THROTTLED_KEYS"}
"""The modes of Contributor Insights by their names in a description."""

_PARTITION = Expression("data.aws_partition.current.partition")
_ACCOUNT = Expression("data.aws_caller_identity.current.account_id")


def render(spec: TableSpec, adopted: str | None = None) -> dict[str, str]:
    """The text of each file by its name, as `terraform fmt` leaves it.

    `versions.tf`, `providers.tf`, `main.tf`, `iam.tf` and `outputs.tf`; if the table has them,
    `autoscaling.tf`, `alarms.tf` (Contributor Insights included), `backup.tf` and `sharing.tf`.
    Every regional resource states its region, so that a module may leave out `providers.tf`.

    Each replica of a Global Table is a resource, in either mode, so that a change of the billing
    mode leaves it alone. Replicas of a provisioned table are created after the autoscaling of
    writes: DynamoDB refuses a replica of a table whose writes are not autoscaled yet, and
    autoscaling needs the table
    (https://github.com/terraform-aws-modules/terraform-aws-dynamodb-table/issues/109). Writes
    are autoscaled in the first region alone: AWS replicates these settings to all replicas
    (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-global-table-design.prescriptive-guidance.throughput.html).
    Reads are autoscaled in each region by itself.

    `adopted` is the source of a table that exists, as `adoption.adopt` takes it: then `adopt.tf`
    has its `moved` and `import` blocks. Render without it once it was applied.

    Raises `InvalidValue` for what the provider has no argument for, and for policies that are
    longer than IAM takes.
    """
    check_renderable(spec)
    scaling = (*_live_units(spec), *_scaling(spec))
    alarms = (*_alarms(spec), *_insights(spec))
    files = {
        "versions.tf": versions(),
        "providers.tf": (block("provider", "aws", region=spec.regions[0]),),
        "main.tf": (_table(spec), *_replica_resources(spec)),
        **({"autoscaling.tf": scaling} if scaling else {}),
        **({"alarms.tf": alarms} if alarms else {}),
        **({"backup.tf": tuple(_backups(spec))} if spec.backups else {}),
        **({"sharing.tf": tuple(_sharing(spec))} if spec.shared_with else {}),
        "iam.tf": tuple(_iam(spec)),
        "outputs.tf": tuple(_outputs(spec)),
        **({"adopt.tf": adopt(spec, adopted)} if adopted is not None else {}),
    }
    remarks = {"autoscaling.tf": f"{HEADER}\n\n{_LIVE_UNITS}"} if _is_live(spec) else {}
    if spec.vector_indexes:
        remarks["main.tf"] = f"{HEADER}\n\n{_NO_VECTOR_INDEXES}"
    return {name: document(remarks.get(name, HEADER), made) for name, made in files.items()}


def check_renderable(spec: TableSpec) -> None:
    """Raise `InvalidValue` for what the provider has no argument for.

    AWS: a replica begins with the read capacity of its source. The provider cannot set another.
    """
    if not isinstance(spec.capacity, Provisioned):
        return
    first, *others = map(spec.capacity.read_in, spec.regions)
    for region, units in zip(spec.regions[1:], others, strict=True):
        if units.autoscaling is None and units != first:
            raise InvalidValue(
                f"Terraform's AWS provider cannot fix the read capacity of a replica: autoscale "
                f"reads in {region}, or give it what {spec.regions[0]} has, without autoscaling."
            )


def versions() -> tuple[Block, ...]:
    """Return the block that requires a version of Terraform and of the provider."""
    aws: Value = {"source": "hashicorp/aws", "version": ">= 6.0"}
    providers = Block("required_providers", (), attributes({"aws": aws}))
    return (Block("terraform", (), (Attribute("required_version", ">= 1.5"), providers)),)


# --- the table -----------------------------------------------------------------------------


def _table(spec: TableSpec) -> Block:
    body = (*attributes(_arguments(spec)), *_settings(spec))
    tags = attributes(_tags(spec))
    return Block("resource", tuple(_TABLE.split(".")), (*body, *tags, *_lifecycle(spec)))


def _arguments(spec: TableSpec) -> dict[str, Value]:
    stream: dict[str, Value] = {"stream_enabled": True, "stream_view_type": "NEW_AND_OLD_IMAGES"}
    return {
        "name": spec.name,
        "region": spec.regions[0],
        **_capacity(spec),
        "hash_key": spec.pk,
        "range_key": spec.sk,
        "table_class": spec.table_class,
        "deletion_protection_enabled": spec.deletion_protection,
        **(stream if spec.is_global else {}),
    }


def _capacity(spec: TableSpec) -> dict[str, Value]:
    if isinstance(spec.capacity, OnDemand):
        return {"billing_mode": "PAY_PER_REQUEST"}
    return {
        "billing_mode": "PROVISIONED",
        **{
            f"{dimension}_capacity": units.units
            if units.autoscaling is None
            else Expression(f"local.{dimension}_capacity")
            for dimension, units in _first_units(spec.capacity, spec).items()
        },
    }


def _first_units(capacity: Provisioned, spec: TableSpec) -> dict[str, Units]:
    """The capacity of the first region, by dimension."""
    return {"read": capacity.read_in(spec.regions[0]), "write": capacity.write}


def _is_live(spec: TableSpec) -> bool:
    """Return True if units of the table itself are autoscaled, so that a plan has to read them."""
    if isinstance(spec.capacity, OnDemand):
        return False
    return any(units.autoscaling for units in _first_units(spec.capacity, spec).values())


def _live_units(spec: TableSpec) -> Iterator[Block]:
    """The units that autoscaling has set, read from the table if there is one.

    The list of all tables tells whether there is one: a data source of an absent table fails.
    """
    if isinstance(spec.capacity, OnDemand) or not _is_live(spec):
        return
    names = Expression("contains(data.aws_dynamodb_tables.all.names, local.table_name) ? 1 : 0")
    yield block("data", "aws_dynamodb_tables", "all", region=spec.regions[0])
    here: dict[str, Value] = {"name": Expression("local.table_name"), "region": spec.regions[0]}
    yield block("data", "aws_dynamodb_table", "existing", count=names, **here)
    units: dict[str, Value] = {"table_name": spec.name}
    for dimension, wanted in _first_units(spec.capacity, spec).items():
        if wanted.autoscaling is not None:
            name = f"{dimension}_capacity"
            now = f"[for n in {_EXISTING}[*].{name} : n if n > 0]"
            units[name] = Expression(f"concat({now}, [{wanted.units}])[0]")
    yield block("locals", **units)


def _settings(spec: TableSpec) -> Body:
    for name in (spec.pk, spec.sk):
        yield block("attribute", name=name, type="S")
    yield block("ttl", attribute_name=spec.ttl, enabled=True)
    yield block("point_in_time_recovery", **_recovery(spec))
    yield block("server_side_encryption", enabled=True, **_key(spec, spec.regions[0]))
    if maxima := _maxima(spec):
        yield block("on_demand_throughput", **maxima)
    if spec.warm is not None:
        yield block(
            "warm_throughput",
            read_units_per_second=spec.warm.read,
            write_units_per_second=spec.warm.write,
        )


def _recovery(spec: TableSpec) -> dict[str, Value]:
    days = spec.recovery_days
    return (
        {"enabled": False} if days is None else {"enabled": True, "recovery_period_in_days": days}
    )


def _key(spec: TableSpec, region: str) -> dict[str, Value]:
    key = spec.kms_key_arns.get(region)
    return {} if key is None else {"kms_key_arn": key}


def _maxima(spec: TableSpec) -> dict[str, Value]:
    if isinstance(spec.capacity, Provisioned):
        return {}
    found = {
        "max_read_request_units": spec.capacity.max_read,
        "max_write_request_units": spec.capacity.max_write,
    }
    return {name: units for name, units in found.items() if units is not None}


def _lifecycle(spec: TableSpec) -> Body:
    """Replicas are resources of their own: the table's own view of them is ignored.

    So are the attributes that vector indexes define, which the provider does not know.
    """
    ignored = [
        *([Expression("attribute")] if spec.vector_indexes else ()),
        *([Expression("replica")] if spec.is_global else ()),
    ]
    settings: dict[str, Value] = {
        **({"ignore_changes": ignored} if ignored else {}),
        **_protected(spec),
    }
    if settings:
        yield block("lifecycle", **settings)


def _protected(spec: TableSpec) -> dict[str, Value]:
    return {"prevent_destroy": True} if spec.prevent_destroy else {}


# --- replicas ------------------------------------------------------------------------------


def _replica_resources(spec: TableSpec) -> Iterator[Block]:
    """The provider's own region has none: it is not a replica of itself."""
    after = [] if isinstance(spec.capacity, OnDemand) else [Expression(f"{_SCALING}.write")]
    for region in spec.regions[1:]:
        arguments: dict[str, Value] = {
            "region": region,
            "global_table_arn": Expression(f"{_TABLE}.arn"),
            **_replica(spec, region),
            **_tags(spec),
            **({"depends_on": after} if after else {}),
        }
        kept = (block("lifecycle", **_protected(spec)),) if spec.prevent_destroy else ()
        body = (*attributes(arguments), *kept)
        yield Block("resource", (_REPLICA, _label(region)), body)


def _replica(spec: TableSpec, region: str) -> dict[str, Value]:
    """What AWS does not copy from the table. Replicas recover over 35 days, AWS's default."""
    return {
        "point_in_time_recovery": spec.recovery_days is not None,
        "deletion_protection_enabled": spec.deletion_protection,
        **_key(spec, region),
    }


# --- autoscaling ---------------------------------------------------------------------------


def _scaling(spec: TableSpec) -> Iterator[Block]:
    capacity = spec.capacity
    if isinstance(capacity, OnDemand):
        return
    if capacity.write.autoscaling:
        scaled = capacity.write.autoscaling
        yield from _tracking(spec, "write", "Write", spec.regions[0], scaled, ())
    for region in spec.regions:
        reads = capacity.read_in(region).autoscaling
        after = () if region == spec.regions[0] else (f"{_REPLICA}.{_label(region)}",)
        if reads:
            yield from _tracking(spec, f"read_{_label(region)}", "Read", region, reads, after)


def _tracking(
    spec: TableSpec,
    label: str,
    dimension: str,
    region: str,
    scaled: Autoscaling,
    after: tuple[str, ...],
) -> Iterator[Block]:
    """A scalable target, and the policy that keeps it at a share of use."""
    target: dict[str, Value] = {
        "region": region,
        "service_namespace": "dynamodb",
        "resource_id": Template(("table/", Expression(f"{_TABLE}.name"))),
        "scalable_dimension": f"dynamodb:table:{dimension}CapacityUnits",
        "min_capacity": scaled.min,
        "max_capacity": scaled.max,
        **_tags(spec),
        **({"depends_on": [Expression(name) for name in after]} if after else {}),
    }
    yield block("resource", _TARGET, label, **target)
    metric = f"DynamoDB{dimension}CapacityUtilization"
    of_target = ("region", "service_namespace", "resource_id", "scalable_dimension")
    policy: dict[str, Value] = {
        "name": Template((f"{metric}:table/", Expression(f"{_TABLE}.name"))),
        "policy_type": "TargetTrackingScaling",
        **{name: Expression(f"{_TARGET}.{label}.{name}") for name in of_target},
    }
    body: tuple[Attribute | Block, ...] = (*attributes(policy), _tracked(metric, scaled))
    yield Block("resource", (_SCALING, label), body)


def _tracked(metric: str, scaled: Autoscaling) -> Block:
    settings: Mapping[str, Value] = {
        "target_value": scaled.target,
        "scale_in_cooldown": scaled.scale_in_cooldown,
        "scale_out_cooldown": scaled.scale_out_cooldown,
    }
    tracked = block("predefined_metric_specification", predefined_metric_type=metric)
    name = "target_tracking_scaling_policy_configuration"
    return Block(name, (), (*attributes(settings), tracked))


# --- alarms, insights ----------------------------------------------------------------------


def _alarms(spec: TableSpec) -> Iterator[Block]:
    topics = spec.alarms.topics if spec.alarms else {}
    for alarm in table_alarms(spec):
        actions = [topics[alarm.region]] if alarm.region in topics else []
        arguments: dict[str, Value] = {
            "region": alarm.region,
            "alarm_name": alarm.name,
            "alarm_description": alarm.description,
            "comparison_operator": "GreaterThanOrEqualToThreshold",
            "threshold": alarm.threshold,
            "evaluation_periods": alarm.periods,
            "datapoints_to_alarm": alarm.datapoints,
            "treat_missing_data": "notBreaching",
            **({"alarm_actions": actions, "ok_actions": actions} if actions else {}),
            **_tags(spec),
        }
        body: tuple[Attribute | Block, ...] = (*attributes(arguments), *_queries(alarm))
        yield Block("resource", ("aws_cloudwatch_metric_alarm", alarm.label), body)


def _queries(alarm: Alarm) -> Iterator[Block]:
    """One form for all alarms: the metrics, and the expression over them."""
    for identifier, metric in alarm.metrics.items():
        measured: dict[str, Value] = {
            "namespace": NAMESPACE,
            "metric_name": metric.name,
            "dimensions": metric.dimensions,
            "stat": metric.statistic,
            "period": metric.period,
        }
        result: dict[str, Value] = {} if alarm.expression else {"return_data": True}
        head = attributes({"id": identifier, **result})
        yield Block("metric_query", (), (*head, block("metric", **measured)))
    if alarm.expression:
        yield block(
            "metric_query",
            id="result",
            expression=alarm.expression,
            label=alarm.name,
            return_data=True,
        )


def _insights(spec: TableSpec) -> Iterator[Block]:
    if spec.contributor_insights is None:
        return
    for region in spec.regions:
        yield block(
            "resource",
            "aws_dynamodb_contributor_insights",
            _label(region),
            region=region,
            table_name=Expression(f"{_TABLE}.name"),
            mode=INSIGHTS[spec.contributor_insights],
            **_after_replica(spec, region),
        )


def _after_replica(spec: TableSpec, region: str) -> dict[str, Value]:
    """The table of another region exists once its replica does."""
    if region == spec.regions[0]:
        return {}
    return {"depends_on": [Expression(f"{_REPLICA}.{_label(region)}")]}


# --- backups -------------------------------------------------------------------------------


def _backups(spec: TableSpec) -> Iterator[Block]:
    """A vault, a plan and a role of AWS Backup, in the first region."""
    wanted = spec.backups
    assert wanted is not None, "asked for a table with backups"
    name = backup_name(spec)
    region = spec.regions[0]
    tags = _tags(spec)
    trust: Value = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "sts:AssumeRole",
                "Principal": {"Service": "backup.amazonaws.com"},
            }
        ],
    }
    yield block("resource", "aws_backup_vault", "backup", region=region, name=name, **tags)
    rule: dict[str, Value] = {
        "rule_name": "regular",
        "target_vault_name": Expression("aws_backup_vault.backup.name"),
        "schedule": wanted.schedule,
    }
    kept = block("lifecycle", delete_after=wanted.keep_days)
    plan = attributes({"region": region, "name": name, **tags})
    rules = Block("rule", (), (*attributes(rule), kept))
    yield Block("resource", ("aws_backup_plan", "backup"), (*plan, rules))
    yield block(
        "resource",
        "aws_iam_role",
        "backup",
        name=name,
        assume_role_policy=Call("jsonencode", trust),
        **tags,
    )
    role = "policy/service-role/AWSBackupServiceRolePolicyForBackup"
    yield block(
        "resource",
        "aws_iam_role_policy_attachment",
        "backup",
        role=Expression("aws_iam_role.backup.name"),
        policy_arn=Template(("arn:", _PARTITION, f":iam::aws:{role}")),
    )
    yield block(
        "resource",
        "aws_backup_selection",
        "backup",
        region=region,
        name=name,
        plan_id=Expression("aws_backup_plan.backup.id"),
        iam_role_arn=Expression("aws_iam_role.backup.arn"),
        resources=[Expression(f"{_TABLE}.arn")],
    )


def backup_name(spec: TableSpec) -> str:
    """Return the name of vault, plan and role: AWS Backup takes 50 letters, digits, - and _."""
    return f"{re.sub('[^A-Za-z0-9_-]', '-', spec.name)[:43]}-backup"


# --- sharing -------------------------------------------------------------------------------


def _sharing(spec: TableSpec) -> Iterator[Block]:
    """A resource policy in each region: AWS does not replicate them."""
    for region in spec.regions:
        first = region == spec.regions[0]
        table = _TABLE if first else f"{_REPLICA}.{_label(region)}"
        yield block(
            "resource",
            "aws_dynamodb_resource_policy",
            _label(region),
            region=region,
            resource_arn=Expression(f"{table}.arn"),
            policy=Call("jsonencode", resource_policy(spec, region)),
        )


def resource_policy(spec: TableSpec, region: str) -> Value:
    """Return the resource policy of a table in a region, with the account as an expression."""
    arn = _arn(Arn("dynamodb", region, f"table/{spec.name}"))
    statements: list[Value] = [
        {
            "Sid": sid,
            "Effect": "Allow",
            "Principal": {"AWS": list(principals)},
            "Action": list(actions),
            "Resource": [arn],
        }
        for sid, principals, actions in sharing_statements(spec)
    ]
    return {"Version": "2012-10-17", "Statement": statements}


# --- IAM -----------------------------------------------------------------------------------


def _iam(spec: TableSpec) -> Iterator[Block]:
    yield from iam_sources()
    for policy in policies(spec):
        yield block("resource", "aws_iam_policy", policy.role, **_policy(spec, policy))


def iam_sources() -> tuple[Block, ...]:
    """Return the data sources that `policy_document` refers to."""
    return (
        block("data", "aws_partition", "current"),
        block("data", "aws_caller_identity", "current"),
    )


def _policy(spec: TableSpec, policy: Policy) -> dict[str, Value]:
    return {
        "name": policy.name,
        "description": policy.description,
        "policy": Call("jsonencode", policy_document(policy)),
        **_tags(spec),
    }


def policy_document(policy: Policy) -> Value:
    """Return the document of a policy, with the account and the partition as expressions."""
    document: Value = policy.written(_arn)
    return document


def _tags(spec: TableSpec) -> dict[str, Value]:
    return {"tags": spec.tags} if spec.tags else {}


def _arn(arn: Arn) -> Value:
    service, region, path = arn
    return Template(("arn:", _PARTITION, f":{service}:{region}:", _ACCOUNT, f":{path}"))


# --- outputs -------------------------------------------------------------------------------


def _outputs(spec: TableSpec) -> Iterator[Block]:
    yield _output("table_name", "The name of the table.", Expression(f"{_TABLE}.name"))
    yield _output("table_arn", "Its ARN in the first region.", Expression(f"{_TABLE}.arn"))
    yield _output("url", "What OnlineStore.open takes.", _url(spec))
    for policy in policies(spec):
        arn = Expression(f"aws_iam_policy.{policy.role}.arn")
        yield _output(f"{policy.role}_policy_arn", policy.description, arn)


def _output(name: str, description: str, value: Value) -> Block:
    return block("output", name, description=description, value=value)


def _url(spec: TableSpec) -> str:
    """Names of tables, regions and attributes need no escape in a URL."""
    usual = TableSpec("usual", ("us-east-1",))
    names = [
        f"&{option}={getattr(spec, option)}"
        for option in ("pk", "sk", "ttl")
        if getattr(spec, option) != getattr(usual, option)
    ]
    return f"dynamodb:///{spec.name}?region={','.join(spec.regions)}{''.join(names)}"


def _label(region: str) -> str:
    return region.replace("-", "_")
