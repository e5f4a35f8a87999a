"""Tables as a Terraform module and its environments.

The module's files are data of this package, in `module/`: HCL that reads variables only. An
environment is a directory with a root module that calls it. IAM policies are arguments of the
call, so that they are described once, in `policies`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files as resource_files

from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.hcl import (
    Block,
    Call,
    Expression,
    Value,
    attributes,
    block,
    document,
)
from chalk_online_store.provisioning.policies import policies
from chalk_online_store.provisioning.spec import Autoscaling, OnDemand, TableSpec, Units
from chalk_online_store.provisioning.terraform import (
    HEADER,
    INSIGHTS,
    Alarm,
    adopt,
    backup_name,
    check_renderable,
    iam_sources,
    policy_document,
    resource_policy,
    table_alarms,
    versions,
)

MODULE = "modules/online_store"
ENVIRONMENTS = "environments"
LABEL = "online_store"

_ENVIRONMENT = re.compile(r"[A-Za-z0-9_-]+")
_OUTPUTS = ("table_name", "table_arn", "url", "policy_arns")


def render_module(
    environments: Mapping[str, TableSpec], adopted: str | None = None
) -> dict[str, str]:
    """Return the text of each file by its path.

    `environments` maps names such as "production" to tables. The files are the module in
    `modules/online_store`, and a directory for each environment in `environments`. Terraform is run
    in the directory of an environment. `adopted` is as for `render`, for every environment.

    Raises `InvalidValue` for a name that is not a directory name, and like `render`.
    """
    rendered = {f"{MODULE}/{name}": text for name, text in _module_files()}
    for name, spec in environments.items():
        if not _ENVIRONMENT.fullmatch(name):
            raise InvalidValue(f"{name!r} is not an environment's name. Use letters, digits, - _.")
        check_renderable(spec)
        if not spec.prevent_destroy:
            raise InvalidValue(
                f"{name}: prevent_destroy is the module's, for all environments (Terraform takes "
                "no variable for it). Leave it on, or render this table without --module."
            )
        blocks_by_file = _environment(spec)
        if adopted is not None:
            blocks_by_file["adopt.tf"] = adopt(spec, adopted, module=LABEL)
        for file, blocks in blocks_by_file.items():
            rendered[f"{ENVIRONMENTS}/{name}/{file}"] = document(HEADER, blocks)
    return rendered


def _module_files() -> Iterator[tuple[str, str]]:
    directory = resource_files("chalk_online_store.provisioning").joinpath("module")
    for file in sorted(directory.iterdir(), key=lambda each: each.name):
        if file.name.endswith(".tf"):
            yield file.name, f"# {HEADER}\n\n{file.read_text(encoding='utf-8')}"


def _environment(spec: TableSpec) -> dict[str, tuple[Block, ...]]:
    return {
        "versions.tf": versions(),
        "providers.tf": (block("provider", "aws", region=spec.regions[0]),),
        "main.tf": (*iam_sources(), module_call(LABEL, f"../../{MODULE}", spec)),
        "outputs.tf": tuple(
            block(
                "output",
                name,
                description=f"As of the module: {name}.",
                value=Expression(f"module.{LABEL}.{name}"),
            )
            for name in _OUTPUTS
        ),
    }


def module_call(label: str, source: str, spec: TableSpec) -> Block:
    """Return the block that creates a table by the module at `source`."""
    arguments: dict[str, Value] = {
        "source": source,
        "name": spec.name,
        "regions": list(spec.regions),
        "attributes": {"pk": spec.pk, "sk": spec.sk, "ttl": spec.ttl},
        **_capacity(spec),
        "recovery_days": Expression("null") if spec.recovery_days is None else spec.recovery_days,
        "deletion_protection": spec.deletion_protection,
        "table_class": spec.table_class,
        "kms_key_arns": spec.kms_key_arns,
        **_watching(spec),
        "policies": {
            policy.role: {
                "name": policy.name,
                "description": policy.description,
                "document": Call("jsonencode", policy_document(policy)),
            }
            for policy in policies(spec)
        },
        "tags": spec.tags,
    }
    return Block("module", (label,), attributes(arguments))


def _watching(spec: TableSpec) -> dict[str, Value]:
    """Warm throughput, alarms, insights, backups and sharing, if the table has them."""
    found: dict[str, Value] = {}
    if spec.warm is not None:
        found["warm_throughput"] = {"read": spec.warm.read, "write": spec.warm.write}
    if spec.alarms is not None:
        found["alarms"] = {alarm.label: _alarm(alarm) for alarm in table_alarms(spec)}
        found["alarm_topics"] = spec.alarms.topics
    if spec.contributor_insights is not None:
        found["contributor_insights"] = INSIGHTS[spec.contributor_insights]
    if spec.backups is not None:
        found["backups"] = {
            "name": backup_name(spec),
            "schedule": spec.backups.schedule,
            "keep_days": spec.backups.keep_days,
        }
    if spec.shared_with is not None:
        found["resource_policies"] = {
            region: Call("jsonencode", resource_policy(spec, region)) for region in spec.regions
        }
    return found


def _alarm(alarm: Alarm) -> Value:
    return {
        "region": alarm.region,
        "name": alarm.name,
        "description": alarm.description,
        "threshold": alarm.threshold,
        "periods": alarm.periods,
        "datapoints": alarm.datapoints,
        **({"expression": alarm.expression} if alarm.expression else {}),
        "metrics": {
            identifier: {
                "name": metric.name,
                "dimensions": metric.dimensions,
                "statistic": metric.statistic,
                "period": metric.period,
            }
            for identifier, metric in alarm.metrics.items()
        },
    }


def _capacity(spec: TableSpec) -> dict[str, Value]:
    capacity = spec.capacity
    if isinstance(capacity, OnDemand):
        maximum: dict[str, Value] = {
            name: units
            for name, units in (("read", capacity.max_read), ("write", capacity.max_write))
            if units is not None
        }
        return {"on_demand_maximum": maximum} if maximum else {}
    return {
        "provisioned": {
            "read": _units(capacity.read),
            "write": _units(capacity.write),
            "replica_read": {
                region: _units(units) for region, units in capacity.replica_read.items()
            },
        }
    }


def _units(units: Units) -> dict[str, Value]:
    scaled = units.autoscaling
    return {"units": units.units, **({"autoscaling": _autoscaling(scaled)} if scaled else {})}


def _autoscaling(scaled: Autoscaling) -> dict[str, Value]:
    return {name: getattr(scaled, name) for name in Autoscaling.__struct_fields__}
