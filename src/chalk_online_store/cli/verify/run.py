"""Running checks, and removing their items, however the run ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from chalk_online_store.backend import Call, chunks, fan_out
from chalk_online_store.cli.verify.context import (
    ATTEMPT_SECONDS,
    CALL_SECONDS,
    Check,
    CheckContext,
    CheckResult,
    Client,
    Measured,
    NotApplicable,
    Scratch,
    Units,
    Verdict,
    wait_until,
)
from chalk_online_store.codec.changes import key_of
from chalk_online_store.codec.layout import ItemKey
from chalk_online_store.dynamodb.messages import Request
from chalk_online_store.dynamodb.sessions import resolve_regions
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.effects import Operation
from chalk_online_store.errors import (
    InvalidValue,
    OnlineStoreError,
    RequestError,
    TableNotFound,
    WriteConflict,
)
from chalk_online_store.planning.prices import read_prices
from chalk_online_store.provisioning.applying import apply
from chalk_online_store.provisioning.control_plane import ApiLacking, ControlPlane, ControlPlaneCall
from chalk_online_store.provisioning.observing import observe
from chalk_online_store.provisioning.planning import plan
from chalk_online_store.provisioning.spec import TableSpec

REPLICATED_SECONDS = 30.0
"""The longest wait for replicated deletes, before a region is cleaned by itself."""

_CONCURRENCY = 16
_KEYS_PER_CALL = 500
_MAX_QUOTED = 300
_PATIENT_SECONDS = CALL_SECONDS / 2


def run_checks(
    context: CheckContext, checks: Sequence[Check], tell: Callable[[Check], None]
) -> Iterator[CheckResult]:
    """Run checks one after the other. A check that fails does not keep others from running."""
    for check in checks:
        tell(check)
        yield _run(context, check)


def _run(context: CheckContext, check: Check) -> CheckResult:
    before, began = context.consumed, time.perf_counter()
    detail, figures = "", None
    try:
        _require_capacity(context, check)
        seen = check.run(context)
        if isinstance(seen, Measured):
            text, as_expected, figures = seen
        else:
            text, as_expected = seen, seen == check.expected
        verdict: Verdict = "ok" if as_expected else "differs"
    except NotApplicable as error:
        text, verdict = str(error), "skipped"
    except OnlineStoreError as error:
        text, verdict, detail = _name(error), "differs", _detail(error)
    seconds, after = time.perf_counter() - began, context.consumed
    rcu, wcu = after.rcu - before.rcu, after.wcu - before.wcu
    return CheckResult(
        check.name, check.expected, text, verdict, seconds, rcu, wcu, detail, figures
    )


def _require_capacity(context: CheckContext, check: Check) -> None:
    """Raise `NotApplicable` if the table's capacity would throttle a check for minutes."""
    capacity = context.wcu_per_second
    if capacity and check.units.wcu > capacity * _PATIENT_SECONDS:
        raise NotApplicable(f"it needs {check.units.wcu:,.0f} WCU; the table has {capacity:,.0f}")


def _name(error: OnlineStoreError) -> str:
    """Return an error's class and code: the same for each run."""
    code = error.code if isinstance(error, RequestError) else ""
    return f"{type(error).__name__} ({code})" if code else type(error).__name__


def _detail(error: OnlineStoreError) -> str:
    """Return the error's text and the engine's message, which may quote made-up values."""
    said = error.engine_message if isinstance(error, RequestError) else ""
    return f"{error} {said[:_MAX_QUOTED]}".strip()


# --- what is left --------------------------------------------------------------------------


@dataclass
class Removal:
    """The outcome of removing the scratch items or the scratch table that `place` names.

    `left` is the number of items or tables that were found afterwards; None if that is not known.
    """

    place: str = ""
    left: int | None = 0
    error: str = ""

    @property
    def is_complete(self) -> bool:
        """True if the place was read afterwards and nothing was found."""
        return self.left == 0

    @property
    def text(self) -> str:
        """A sentence for people."""
        if not self.place:
            return "Nothing was written."
        if self.is_complete:
            return f"Removed, and checked that nothing is left: {self.place}."
        left = "interrupted" if self.left is None else f"{self.left} left"
        return f"Not removed ({self.error or left}): {self.place}."

    @contextmanager
    def remove_on_leaving(self, place: str, remove: Callable[[], int]) -> Iterator[None]:
        """Call `remove` on leaving. It returns the number of items or tables that are left.

        An error of the removal hides no exception of the body.
        """
        self.place, self.left = place, None
        try:
            yield
        finally:
            try:
                self.left = remove()
            except OnlineStoreError as error:
                self.error = f"{_name(error)}: {_detail(error)}"


@contextmanager
def scratch_items(context: CheckContext, removal: Removal) -> Iterator[None]:
    """Remove every scratch item on leaving, and read its partition in each region afterwards."""
    regions = ", ".join(client.region for client in context.clients)
    place = f"partitions {context.scratch.partition}:* of table {context.target.table!r}"
    with removal.remove_on_leaving(f"{place} in {regions}", partial(_remove_all, context)):
        yield


def _remove_all(context: CheckContext) -> int:
    """Remove all scratch items, and return the number of items left in all regions.

    A region that fails does not keep the others from being cleaned. Raises the first error.
    """
    steps = [
        partial(_remove_known, context),
        *(partial(_remove_rest, client, context) for client in context.clients),
    ]
    left, errors = 0, []
    for step in steps:
        try:
            left += step()
        except OnlineStoreError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return left


def _remove_known(context: CheckContext) -> int:
    for keys in chunks(list(context.scratch.keys), _KEYS_PER_CALL):
        context.client.delete(keys)
    return 0


def _remove_rest(client: Client, context: CheckContext) -> int:
    """Remove the items that a region still has, and return the number that is left then."""
    scratch = context.scratch
    if client is not context.client:
        wait_until(lambda: not _find(client, scratch), REPLICATED_SECONDS)
    # A request that timed out may have been performed after the delete.
    found = _find(client, scratch)
    if not found:
        return 0
    client.delete(found)
    return len(_find(client, scratch))


def _find(client: Client, scratch: Scratch) -> list[ItemKey]:
    """Return the keys of all items in scratch partitions of a region."""
    tasks = [partial(_read_keys, client, pk) for pk in scratch.partitions()]
    found = client.run(lambda call: fan_out(call, tasks, _CONCURRENCY))
    return [key for keys in found for key in keys]


def _read_keys(client: Client, pk: str, call: Call) -> Operation[list[ItemKey]]:
    items = yield from client.backend.list_partition(pk, " ", call)
    return [key_of(client.layout, item) for item in items]


# --- A scratch table for `--create`: created as `provision` does, and deleted however a r ---


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
        table = plane.call(ControlPlaneCall(region, "DescribeTable", {"TableName": name}))["Table"]
    except RequestError:
        return 0.0
    return float(table.get("ProvisionedThroughput", {}).get("WriteCapacityUnits", 0))


def _delete_table(plane: ControlPlane, name: str, region: str) -> int:
    """Delete a table that may still be in creation; 0 once no table of its name is found."""

    def is_gone() -> bool:
        try:
            plane.call(ControlPlaneCall(region, "DeleteTable", {"TableName": name}))
        except WriteConflict:  # It is being created, or deleted.
            return False
        except TableNotFound:
            return True
        return False

    return 1 if wait_until(is_gone, _DELETE_SECONDS) is None else 0


# --- The price of a run of checks, computed before it begins -------------------------------


_EXAMPLE_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Price:
    """Capacity units in all regions, and dollars on demand by the bundled prices of `region`."""

    rcu: float
    wcu: float
    dollars: float
    region: str
    as_of: str

    @property
    def text(self) -> str:
        """A sentence for people."""
        return (
            f"The checks take about {self.rcu:,.0f} RCU and {self.wcu:,.0f} WCU: "
            f"${self.dollars:,.2f} on demand ({self.region}, {self.as_of})."
        )


def price_of(checks: Sequence[Check], regions: Sequence[str]) -> Price:
    """Return the price of checks.

    A write is replicated, and billed, in every region. Each region is read after the removal.
    """
    prices = read_prices()
    try:
        region, found = regions[0], prices.of(regions[0])
    except InvalidValue:
        region, found = _EXAMPLE_REGION, prices.of(_EXAMPLE_REGION)
    rcu = sum(check.units.rcu for check in checks) * len(regions)
    wcu = sum(check.units.wcu for check in checks) * len(regions)
    dollars = (rcu * found.standard.million_rru + wcu * found.standard.million_wru) / 1e6
    return Price(rcu, wcu, dollars, region, f"{prices.as_of:%B %Y}")


# --- Checks of the table's TTL attribute, and of credentials that expire -------------------


_ON = "on the attribute of the URL"
_RENEWED = "renewed, and accepted"


def _check_ttl(context: CheckContext) -> str:
    arguments = {"TableName": context.target.table}
    try:
        call = ControlPlaneCall(context.client.region, "DescribeTimeToLive", arguments)
        found = context.plane.call(call)["TimeToLiveDescription"]
    except ApiLacking:
        return "the engine has no TTL"
    if found.get("TimeToLiveStatus") not in ("ENABLED", "ENABLING"):
        return "off"
    name = found.get("AttributeName")
    return _ON if name == context.layout.ttl else f"on {name!r}"


def _check_renewal(context: CheckContext) -> str:
    source = resolve_regions(context.target)[0].credentials
    if source.current(ATTEMPT_SECONDS).expires_at is None:
        raise NotApplicable("these credentials do not expire")
    client, key = context.client, context.scratch.key()
    request = Request("GetItem", client.bodies.get_whole(key), renew=True)
    response = client.send_raw(request)
    if response.status != 200:
        return "renewed, and refused"
    expires_at = source.refresh(ATTEMPT_SECONDS).expires_at
    if expires_at is not None and expires_at <= time.time() + ATTEMPT_SECONDS:
        return "renewed, and expired"
    return _RENEWED


ACCOUNT_CHECKS = [
    Check("TTL", _ON, _check_ttl),
    Check("renewal of credentials", _RENEWED, _check_renewal, Units(2, 1)),
]
