"""What a plan is made from: a spec, what there is, and what may be destroyed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from chalk_online_store.provisioning.changes import Change, Plain, Sign
from chalk_online_store.provisioning.control_plane import ControlPlaneCall
from chalk_online_store.provisioning.spec import Provisioned, TableSpec, Units
from chalk_online_store.provisioning.state import (
    BOTH_IMAGES,
    ON_DEMAND,
    PROVISIONED,
    Dimension,
    Key,
    RegionTableState,
    TableState,
    Unknown,
)


@dataclass(frozen=True, slots=True)
class PlanContext:
    """A spec, what there is, and what may be destroyed."""

    spec: TableSpec
    state: TableState
    destroy: frozenset[str] = frozenset()

    @property
    def home(self) -> str:
        """The region whose endpoint is asked for what concerns the whole table.

        The first one of the spec that has the table. Where none has it, it is created in the
        first.
        """
        regions = self.spec.regions
        return next((name for name in regions if self.state.of(name).exists), regions[0])

    @property
    def keys(self) -> tuple[Key, ...]:
        """The primary key as it should be."""
        return (Key(self.spec.pk, "HASH", "S"), Key(self.spec.sk, "RANGE", "S"))

    @property
    def provisioned(self) -> Provisioned | None:
        """The capacity as it should be, where it is provisioned."""
        capacity = self.spec.capacity
        return capacity if isinstance(capacity, Provisioned) else None

    @property
    def stream_name(self) -> str:
        """What allows to disable the stream."""
        return f"stream:{self.home}"

    def units(self, region: str, dimension: Dimension) -> Units | None:
        """The provisioned capacity of a dimension as it should be in a region."""
        capacity = self.provisioned
        if capacity is None:
            return None
        return capacity.write if dimension == "write" else capacity.read_in(region)

    def now(self, region: str) -> RegionTableState:
        """The table in a region, as it is when the changes of its settings begin.

        That is: as it is created, where it is not there yet.
        """
        found = self.state.of(region)
        return found if found.exists else self._as_created(region, found)

    def _as_created(self, region: str, absent: RegionTableState) -> RegionTableState:
        """What CreateTable makes in the home region, and ReplicaUpdates in others.

        Recovery and autoscaling are none of it; a replica gets no tags and no deletion
        protection, and shares the time to live. What an engine lacks stays unknown.
        """
        spec, capacity, is_home = self.spec, self.spec.capacity, region == self.home
        made: dict[str, Any] = {"billing_mode": PROVISIONED if self.provisioned else ON_DEMAND}
        if isinstance(capacity, Provisioned):
            made |= {"read_units": capacity.read_in(region).units}
            made |= {"write_units": capacity.write.units}
        else:
            made |= {"max_read": capacity.max_read, "max_write": capacity.max_write}
        if is_home:
            made |= {"tags": dict(spec.tags), "deletion_protection": spec.deletion_protection}
        return RegionTableState(
            status="CREATING",
            keys=self.keys,
            kms_key_arn=spec.kms_key_arns.get(region, "aws/dynamodb"),
            table_class=spec.table_class,
            stream=BOTH_IMAGES if spec.is_global else None,
            recovery=absent.recovery,
            scaling=absent.scaling,
            ttl=absent.ttl,
            **{"tags": absent.tags, **made},
        )

    def update(
        self,
        what: str,
        before: Plain,
        after: Plain,
        *,
        sign: Sign = "~",
        why: str = "",
        needs: tuple[str, ...] = (),
        region: str | None = None,
        shown: str | None = None,
        **arguments: Any,
    ) -> Change:
        """A change by UpdateTable in `region`, the home unless stated; `shown` is what it is of."""
        asked = region or self.home
        call = ControlPlaneCall(asked, "UpdateTable", {"TableName": self.spec.name, **arguments})
        return Change(shown or asked, what, before, after, call, sign, why, needs)


def known(value: Any) -> bool:
    """Whether a part of the state can be seen."""
    return not isinstance(value, Unknown)
