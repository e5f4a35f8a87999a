"""Blocks that let Terraform adopt a table which already exists.

A table that another configuration created is in its state: `moved` blocks give its resources our
addresses. A table that no state has, because somebody made it by hand, is read by `import` blocks.
Replicas are imported in both cases: other configurations have them as blocks of the table.

Sources: the import sections of the provider's documentation of `aws_dynamodb_table` and
`aws_dynamodb_table_replica` ("table-name:main-region"); "@region" selects another region than the
provider's (its version 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from chalk_online_store.errors import InvalidValue
from chalk_online_store.provisioning.hcl import Block, Expression, block
from chalk_online_store.provisioning.spec import OnDemand, TableSpec

BY_HAND = "import"
"""What to adopt from if no Terraform state has the table."""

_ADDRESS = re.compile(
    r"(?P<module>(?:module\.[\w-]+(?:\[[^\]]+\])?\.)*)"
    r"aws_dynamodb_table\.(?P<name>[\w-]+)(?:\[[^\]]+\])?"
)


_TABLE = "aws_dynamodb_table.online_store"

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
    table = f"module.{module}.{_TABLE}" if module else _TABLE
    if source == BY_HAND:
        imported = block("import", to=Expression(table), id=f"{spec.name}@{spec.regions[0]}")
        return (imported, *_replicas(spec, module))
    found = _ADDRESS.fullmatch(source)
    if found is None:
        raise InvalidValue(
            f"--adopt {source!r} is not the address of an aws_dynamodb_table. Pass one that "
            '`terraform state list` prints, or "import" for a table that was made by hand.'
        )
    moved = [(source, table), *_scaling(spec, found["module"], found["name"], module)]
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


def _scaling(spec: TableSpec, prefix: str, table: str, module: str) -> Iterator[tuple[str, str]]:
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
