"""Reading what there is of a table, in every region of it. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from chalk_online_store.errors import AccessDenied, RequestError, TableNotFound
from chalk_online_store.provisioning.control_plane import (
    ApiLacking,
    ControlPlane,
    ControlPlaneCall,
    Service,
)
from chalk_online_store.provisioning.state import (
    Dimension,
    PointInTimeRecovery,
    RegionTableState,
    Scaling,
    TableState,
    Unknown,
    scaling_part,
    table_part,
)

T = TypeVar("T")


def observe(control_plane: ControlPlane, table: str, regions: Iterable[str]) -> TableState:
    """What there is of a table in `regions`, and in the other regions of its Global Table.

    Needs dynamodb:DescribeTable, DescribeContinuousBackups, DescribeTimeToLive and
    ListTagsOfResource, application-autoscaling:DescribeScalableTargets and
    DescribeScalingPolicies. Only the first is required: a part of the state that the credentials
    may not read is `Unknown`. Raises `AccessDenied` for DescribeTable and the other
    `RequestError`, and `InvalidURL` where some of `regions` have endpoints of their own, and
    others none.
    """
    found: dict[str, RegionTableState | Unknown] = {}
    waiting = list(asked := tuple(regions))
    for region in waiting:
        if region not in found:
            found[region] = state = _look(control_plane, table, region, region in asked)
            waiting += sorted(state.replicas) if isinstance(state, RegionTableState) else []
    return TableState(table, found)


def _look(
    control_plane: ControlPlane, table: str, region: str, asked: bool
) -> RegionTableState | Unknown:
    """What there is in a region; of one that only follows, also why that is not known."""
    if asked:
        return _Observation(control_plane, table, region).state()
    if not control_plane.serves("dynamodb", region):
        return Unknown(f"no endpoint is stated for {region}")
    try:
        return _Observation(control_plane, table, region).state()
    except RequestError as error:
        return Unknown(str(error))


class _Observation:
    """One look at a table in one region."""

    def __init__(self, control_plane: ControlPlane, table: str, region: str) -> None:
        self._control_plane = control_plane
        self._table = table
        self._region = region

    def state(self) -> RegionTableState:
        """Everything. Also without a table, it tells which APIs the engine lacks."""
        try:
            table = self._call("DescribeTable", TableName=self._table)["Table"]
        except TableNotFound:
            table = None
        seen = table_part(table, self._region) if table else {}
        return RegionTableState(
            **seen,
            recovery=self._part(self._recovery, PointInTimeRecovery(False)),
            ttl=self._part(self._ttl, None),
            tags=self._part(lambda: self._tags(table["TableArn"]), {}) if table else {},
            scaling=self._part(self._scaling, {}),
        )

    def _part(self, read: Callable[[], T], absent: T) -> T | Unknown:
        try:
            return read()
        except TableNotFound:  # There is none, or it is a replica that is still being created.
            return absent
        except (ApiLacking, AccessDenied) as error:
            return Unknown(str(error))

    def _recovery(self) -> PointInTimeRecovery:
        answer = self._call("DescribeContinuousBackups", TableName=self._table)
        found = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        enabled = found.get("PointInTimeRecoveryStatus") == "ENABLED"
        return PointInTimeRecovery(enabled, found.get("RecoveryPeriodInDays") if enabled else None)

    def _ttl(self) -> str | None:
        answer = self._call("DescribeTimeToLive", TableName=self._table)
        found = answer["TimeToLiveDescription"]
        if found.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
            return None
        attribute: str | None = found.get("AttributeName")
        return attribute

    def _tags(self, arn: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self._tag_pages(arn)}

    def _tag_pages(self, arn: str) -> Iterator[dict[str, str]]:
        page: dict[str, Any] = {}
        while not page or page.get("NextToken"):
            more = {"NextToken": page["NextToken"]} if page else {}
            try:
                page = self._call("ListTagsOfResource", ResourceArn=arn, **more)
            except AccessDenied:
                if self._absent():  # AWS answers so for a table that is gone, or not there yet.
                    return
                raise
            yield from page.get("Tags", ())

    def _absent(self) -> bool:
        answer = self._call("DescribeTable", TableName=self._table)
        return bool(answer["Table"]["TableStatus"] != "ACTIVE")

    def _scaling(self) -> dict[Dimension, Scaling] | Unknown:
        service: Service = "application-autoscaling"
        if not self._control_plane.serves(service, self._region):
            return Unknown(f"no endpoint of {service} is stated for {self._region}")
        resource = f"table/{self._table}"
        where = {"ServiceNamespace": "dynamodb"}
        targets = self._call("DescribeScalableTargets", service, ResourceIds=[resource], **where)
        policies = self._call("DescribeScalingPolicies", service, ResourceId=resource, **where)
        return scaling_part(targets["ScalableTargets"], policies["ScalingPolicies"])

    def _call(
        self, operation: str, service: Service = "dynamodb", **arguments: Any
    ) -> dict[str, Any]:
        return self._control_plane.call(
            ControlPlaneCall(self._region, operation, arguments, service)
        )
