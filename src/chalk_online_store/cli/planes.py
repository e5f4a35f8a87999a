"""The control plane of a DynamoDB URL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest

from chalk_online_store.drivers.credentials import resolve_endpoint
from chalk_online_store.drivers.sessions import session_of
from chalk_online_store.provision.control_plane import ControlPlane
from chalk_online_store.urls import DynamoDBTarget


@contextmanager
def opened_plane(target: DynamoDBTarget) -> Iterator[tuple[ControlPlane, list[str]]]:
    """Open the control plane of a URL's regions, and return it with their names.

    Raises `InvalidURL` if no region is known.
    """
    session = session_of(target.profile)
    pairs = zip_longest(target.regions or (None,), target.endpoint_urls)
    regions = [resolve_endpoint(session, region, url).region for region, url in pairs]
    urls: Mapping[str, str] = dict(zip(regions, target.endpoint_urls, strict=False))
    with ControlPlane(session, endpoint_urls=urls) as plane:
        yield plane, regions
