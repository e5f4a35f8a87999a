"""The control plane of a DynamoDB URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from chalk_online_store.dynamodb.sessions import Sessions, resolve_regions
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.provisioning.control_plane import ControlPlane


@contextmanager
def opened_plane(target: DynamoDBTarget) -> Iterator[tuple[ControlPlane, list[str]]]:
    """Open the control plane of a URL's regions, and return it with their names.

    Raises `InvalidURL` if no region is known.
    """
    accesses = resolve_regions(target)
    regions = [access.endpoint.region for access in accesses]
    urls: Mapping[str, str] = dict(zip(regions, target.endpoint_urls, strict=False))
    sessions: Sessions = accesses[0].session
    if len(target.profiles) > 1:
        sessions = {access.endpoint.region: access.session for access in accesses}
    with ControlPlane(sessions, endpoint_urls=urls) as plane:
        yield plane, regions
