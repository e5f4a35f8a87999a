"""Checks of the table's TTL attribute, and of credentials that expire."""

from __future__ import annotations

import time

from chalk_online_store.cli.verify.checks import Check, NotApplicable, Units
from chalk_online_store.cli.verify.context import ATTEMPT_SECONDS, CheckContext
from chalk_online_store.dynamodb.messages import Request
from chalk_online_store.dynamodb.sessions import resolve_regions
from chalk_online_store.provisioning.control_plane import ApiLacking, Call

_ON = "on the attribute of the URL"
_RENEWED = "renewed, and accepted"


def _check_ttl(context: CheckContext) -> str:
    arguments = {"TableName": context.target.table}
    try:
        call = Call(context.client.region, "DescribeTimeToLive", arguments)
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
