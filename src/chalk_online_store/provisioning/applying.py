"""Making a plan's changes, one after the other, and telling what remains.

Each call waits until the table is active where it is sent, and each change until it has come
about, so that an interrupted plan can be made and applied again at any point.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from chalk_online_store.errors import (
    RequestRefused,
    RequestTimeout,
    TableNotFound,
    WriteConflict,
)
from chalk_online_store.provisioning.changes import Change, Plan
from chalk_online_store.provisioning.control_plane import ControlPlane, ControlPlaneCall
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan as make_plan
from chalk_online_store.provisioning.state import vector_index

Stage: TypeAlias = Literal["begins", "waits", "done"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds
_LOST_AFTER = 60.0
"""Seconds that a replica may be missing from an active table before it counts as given up: AWS
lists one within seconds, and takes it from the list without a word where its key cannot be used.
"""

_NEVER = (
    "ARCHIVED",
    "CREATION_FAILED",
    "INACCESSIBLE_ENCRYPTION_CREDENTIALS",
    "REGION_DISABLED",
    "REPLICATION_NOT_AUTHORIZED",
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a plan is: change `number` of `total` begins, waits for `status`, or is done."""

    number: int
    total: int
    change: Change
    stage: Stage
    status: str = ""


def apply(
    plan: Plan,
    control_plane: ControlPlane,
    *,
    progress: Callable[[Progress], None] | None = None,
    timeout: float = 3600.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Plan:
    """Make the changes of a plan in their order, look again, and give what remains.

    What remains is a plan, empty when all is well. Held and impossible changes are not made: they
    remain. `timeout` is in seconds, for each change; adding a replica takes AWS minutes, and more
    for a large table. `progress` is called from this thread.

    Raises `AccessDenied` naming the action, `RequestRefused` with AWS's reason, `RequestTimeout`
    for a change that goes on for longer than `timeout`, and the other `RequestError`. What was
    done until then is done: plan and apply again to go on.
    """
    for number, change in enumerate(plan.changes, start=1):
        tell = partial(_tell, progress, number, len(plan.changes), change)
        tell("begins")
        _Step(control_plane, change, _Waiting(timeout, sleep, partial(tell, "waits"))).make()
        tell("done")
    spec = plan.spec
    return make_plan(spec, observe(control_plane, spec.name, spec.regions), plan.destroy)


def _tell(
    progress: Callable[[Progress], None] | None,
    number: int,
    total: int,
    change: Change,
    stage: Stage,
    status: str = "",
) -> None:
    if progress is not None:
        progress(Progress(number, total, change, stage, status))


class _Waiting:
    """Waiting for one change, with growing pauses, up to a limit in seconds."""

    def __init__(
        self, timeout: float, sleep: Callable[[float], None], tell: Callable[[str], None]
    ) -> None:
        self._timeout = timeout
        self._sleep = sleep
        self._tell = tell
        self.waited = 0.0
        self._pause = _FIRST_PAUSE

    def until(self, settled: Callable[[], str | None], what: str) -> None:
        """Return once `settled` gives None; until then it gives what is waited for."""
        self._pause = _FIRST_PAUSE
        while status := settled():
            if self.waited >= self._timeout:
                raise RequestTimeout(
                    f"{what}: {status} for more than {self._timeout:.0f} s. It goes on: plan and "
                    "apply again later."
                )
            self._tell(status)
            self._sleep(self._pause)
            self.waited += self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)


class _Step:
    """One change: wait until it can be made, make it, wait until it has come about."""

    def __init__(self, control_plane: ControlPlane, change: Change, waiting: _Waiting) -> None:
        assert change.call is not None, "a plan's changes have calls"
        self._control_plane = control_plane
        self._call = change.call
        self._name = change.call.arguments.get("TableName", "")
        self._waiting = waiting
        self._what = f"{change.call.operation} in {change.call.region} ({change.what})"

    def make(self) -> None:
        """Make the change."""
        call = self._call
        if call.operation != "CreateTable" and call.service == "dynamodb":
            self._wait(lambda: self._inactive(call.region))
        if call.operation == "UpdateTimeToLive":
            self._wait(self._expiry_changing)
        if call.operation == "TagResource":
            call = self._with_arn(call)
        self._wait(lambda: self._conflict(call))
        if call.service == "dynamodb":
            self._wait(lambda: self._inactive(call.region))
        for name, wanted in _indexes(call):
            self._wait(partial(self._index_changing, name, wanted=wanted))
        for region, wanted in _members(call):
            self._wait(self._replica_settles(region, wanted=wanted))

    def _wait(self, settled: Callable[[], str | None]) -> None:
        self._waiting.until(settled, self._what)

    def _conflict(self, call: ControlPlaneCall) -> str | None:
        """Make the call; or tell that something else is under way, as AWS does with an error."""
        try:
            self._control_plane.call(call)
        except WriteConflict as error:
            if call.operation == "CreateTable":  # Somebody else made it: not as planned, perhaps.
                raise RequestRefused(str(error)) from error
            return f"something else is under way ({error.engine_message})"
        return None

    def _describe(self, region: str) -> Mapping[str, Any]:
        call = ControlPlaneCall(region, "DescribeTable", {"TableName": self._name})
        table: Mapping[str, Any] = self._control_plane.call(call)["Table"]
        return table

    def _inactive(self, region: str) -> str | None:
        try:
            status: str = self._describe(region)["TableStatus"]
        except TableNotFound:  # It is listed a little later than it is accepted.
            status = "not there yet"
        if status in _NEVER:
            raise RequestRefused(f"{self._what}: the table is {status}.")
        return None if status == "ACTIVE" else f"the table is {status}"

    def _replica_settles(self, region: str, *, wanted: bool) -> Callable[[], str | None]:
        since = self._waiting.waited

        def settled() -> str | None:
            listed = self._describe(self._call.region).get("Replicas", [])
            status = {one["RegionName"]: one.get("ReplicaStatus") for one in listed}.get(region)
            if not wanted:
                return f"the replica is {status}" if status else None
            if status in _NEVER:
                raise RequestRefused(f"{self._what}: the replica in {region} is {status}.")
            if status == "ACTIVE":
                return self._inactive(region)
            if status is None and self._waiting.waited - since >= _LOST_AFTER:
                raise RequestRefused(
                    f"{self._what}: AWS has given up on the replica in {region}. Can its KMS key "
                    "be used there?"
                )
            return f"the replica is {status or 'not listed yet'}"

        return settled

    def _index_changing(self, name: str, *, wanted: bool) -> str | None:
        listed = self._describe(self._call.region).get("VectorIndexes", ())
        found = {index["IndexName"]: index for index in listed}
        if name not in found:
            return f"the vector index {name} is not listed yet" if wanted else None
        index = vector_index(found[name])
        if wanted and index.ready:
            return None
        filling = ", backfilling" if index.backfilling else ""
        return f"the vector index {name} is {index.status}{filling}"

    def _expiry_changing(self) -> str | None:
        call = ControlPlaneCall(self._call.region, "DescribeTimeToLive", {"TableName": self._name})
        answer = self._control_plane.call(call)["TimeToLiveDescription"]
        status: str = answer.get("TimeToLiveStatus", "")
        return f"time to live is {status}" if status in ("ENABLING", "DISABLING") else None

    def _with_arn(self, call: ControlPlaneCall) -> ControlPlaneCall:
        arguments = dict(call.arguments)
        del arguments["TableName"]
        arguments["ResourceArn"] = self._describe(call.region)["TableArn"]
        return ControlPlaneCall(call.region, call.operation, arguments, call.service)


def _indexes(call: ControlPlaneCall) -> Iterator[tuple[str, bool]]:
    """The vector indexes that a call concerns, and whether they are there afterwards."""
    for index in call.arguments.get("VectorIndexes", ()):
        yield index["IndexName"], True
    for update in call.arguments.get("VectorIndexUpdates", ()):
        for action, index in update.items():
            yield index["IndexName"], action != "Delete"


def _members(call: ControlPlaneCall) -> Iterator[tuple[str, bool]]:
    """The replicas that a call concerns, and whether they are there afterwards."""
    for update in call.arguments.get("ReplicaUpdates", ()):
        for action, member in update.items():
            yield member["RegionName"], action != "Delete"
