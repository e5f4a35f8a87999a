"""A scratch table for `--create`: created as `provision` does, and deleted however a run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from chalk_online_store.cli.verify.run import Removal
from chalk_online_store.cli.verify.waiting import wait_until
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import RequestError, TableNotFound, WriteConflict
from chalk_online_store.provisioning.applying import apply
from chalk_online_store.provisioning.control_plane import Call, ControlPlane
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan
from chalk_online_store.provisioning.spec import TableSpec

_MAX_PREFIX = 200
"""AWS: a table's name has up to 255 characters."""

_DELETE_SECONDS = 600.0


@contextmanager
def scratch_table(
    plane: ControlPlane, target: DynamoDBTarget, region: str, token: str, removal: Removal
) -> Iterator[DynamoDBTarget]:
    """Create a table on demand in one region, and delete it on leaving.

    Raises as `provisioning.applying.apply`.
    """
    name, layout = f"{target.table[:_MAX_PREFIX]}-verify-{token}", target.layout
    spec = TableSpec(
        name,
        (region,),
        pk=layout.pk,
        sk=layout.sk,
        ttl=layout.ttl,
        recovery_days=None,
        deletion_protection=False,
    )
    wanted = plan(spec, observe(plane, name, spec.regions))
    delete = partial(_delete_table, plane, name, region)
    with removal.remove_on_leaving(f"table {name!r} in {region}", delete):
        apply(wanted, plane)
        yield replace(target, table=name)


def write_capacity(plane: ControlPlane, name: str, region: str) -> float:
    """Return the provisioned WCU of a table; 0 for a table on demand, and if that is not known."""
    try:
        table = plane.call(Call(region, "DescribeTable", {"TableName": name}))["Table"]
    except RequestError:
        return 0.0
    return float(table.get("ProvisionedThroughput", {}).get("WriteCapacityUnits", 0))


def _delete_table(plane: ControlPlane, name: str, region: str) -> int:
    """Delete a table that may still be in creation; 0 once no table of its name is found."""

    def is_gone() -> bool:
        try:
            plane.call(Call(region, "DeleteTable", {"TableName": name}))
        except WriteConflict:  # It is being created, or deleted.
            return False
        except TableNotFound:
            return True
        return False

    return 1 if wait_until(is_gone, _DELETE_SECONDS) is None else 0
