"""Sessions of boto3, and their choice by region.

boto3 is slow to import, so it is imported only when a session is needed.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from typing import TypeAlias
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError

from chalk_online_store.dynamodb.credentials import (
    CredentialSource,
    Endpoint,
    LocalSession,
    Session,
    is_local,
    resolve_endpoint,
)
from chalk_online_store.dynamodb.urls import DynamoDBTarget
from chalk_online_store.errors import ConnectionFailed, InvalidURL, RequestRefused, TableNotFound
from chalk_online_store.logs import event
from chalk_online_store.network.settings import resolve_network

logger = logging.getLogger("chalk_online_store.requests")

Sessions: TypeAlias = Session | Mapping[str, Session]
"""One session for all regions, or the session of each region: see docs/regions.md."""


def session_of(profile: str | None) -> Session:
    """A session with the credentials of a profile, or of the environment; raises `InvalidURL`."""
    import boto3
    from botocore.exceptions import ProfileNotFound

    try:
        session: Session = boto3.Session(profile_name=profile)
    except ProfileNotFound as error:
        raise InvalidURL(f"{error}: check the profile's name, or AWS_PROFILE.") from None
    return session


@dataclass(frozen=True, slots=True)
class RegionAccess:
    """The endpoint of one region, and the credentials for it."""

    endpoint: Endpoint
    session: Session
    credentials: CredentialSource
    """Regions of one session share it, so that their credentials are loaded once."""


def resolve_regions(target: DynamoDBTarget, given: Sessions | None = None) -> list[RegionAccess]:
    """Return how each region of a URL is accessed, in the order of the URL.

    Without `given`, a session is made for each profile of the URL, and engines on this machine take
    made-up credentials if the profile has none. Raises `InvalidURL`.
    """
    sources = _Sources(given, target)
    regions = target.regions or (None,)
    same = target.profiles * len(regions) if len(target.profiles) == 1 else target.profiles
    accesses = []
    for region, url, profile in zip_longest(regions, target.endpoint_urls, same):
        session = sources.session(region, profile)
        endpoint = resolve_endpoint(session, region, url)
        source = sources.source(session, profile, local=is_local(endpoint.url))
        accesses.append(RegionAccess(endpoint, session, source))
    if not target.endpoint_urls:
        _warn_of_shared_endpoint([access.endpoint for access in accesses])
    return accesses


_AWS_HOST = re.compile(
    r"(?P<account>\d{12}\.ddb|dynamodb(?:-fips)?)"
    r"(?P<region>\.[a-z]+(?:-[a-z]+)+-\d\.(?:amazonaws\.(?:com(?:\.cn)?|eu)|api\.[a-z0-9.-]+"
    r"|s?c2s\.(?:ic|sgov)\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov))"
)


def search_host(host: str) -> str:
    """Return the host that answers searches, given that of a region; a host of others stays.

    AWS: `ACCOUNT.ddb.REGION` has `ACCOUNT.search-ddb.REGION`, `dynamodb.REGION` has
    `search-dynamodb.REGION`, also for dual stack and FIPS.
    """
    found = _AWS_HOST.fullmatch(host)
    if found is None:
        return host
    account, _, service = found["account"].rpartition(".")
    return f"{account}{'.' if account else ''}search-{service}{found['region']}"


def search_endpoint(access: RegionAccess) -> Endpoint:
    """Return the endpoint for vector searches of a region."""
    endpoint = access.endpoint
    parts = urlsplit(endpoint.url)
    host = search_host(parts.hostname or "")
    if host == parts.hostname:
        return endpoint
    url = parts._replace(netloc=host if parts.port is None else f"{host}:{parts.port}").geturl()
    return replace(endpoint, url=url, network=resolve_network(access.session, url))


def _warn_of_shared_endpoint(endpoints: Sequence[Endpoint]) -> None:
    """Warn if the environment has one endpoint for several regions, so that none can fail over."""
    if len(endpoints) > len({endpoint.url for endpoint in endpoints}):
        regions = [endpoint.region for endpoint in endpoints]
        logger.warning(
            "The regions %s have one endpoint, from AWS_ENDPOINT_URL or the profile, so that no "
            "request can fail over. State endpoint_url= in the store's URL, one for each region.",
            ", ".join(regions),
            extra=event("endpoint.shared", regions=regions),
        )


class _Sources:
    """The sessions of a URL's regions, and one source of credentials for each of them."""

    def __init__(self, given: Sessions | None, target: DynamoDBTarget) -> None:
        self._given = given
        self._opened: dict[str | None, Session] = {}
        self._sources: dict[tuple[int, bool], CredentialSource] = {}
        if isinstance(given, Mapping) and set(given) != set(target.regions):
            raise InvalidURL(
                f"session= has an entry for {_listing(given)}; the regions of the URL are "
                f"{_listing(target.regions)}. Give one session per region, or one for all."
            )

    def session(self, region: str | None, profile: str | None) -> Session:
        if isinstance(self._given, Mapping):
            return self._given[region or ""]
        if self._given is not None:
            return self._given
        if profile not in self._opened:
            self._opened[profile] = session_of(profile)
        return self._opened[profile]

    def source(self, session: Session, profile: str | None, *, local: bool) -> CredentialSource:
        makes_up = local and self._given is None
        key = (id(session), makes_up)
        if key not in self._sources:
            self._sources[key] = CredentialSource(
                LocalSession(session) if makes_up else session,
                reopen=partial(_reopen, profile, makes_up) if self._given is None else None,
            )
        return self._sources[key]


def _reopen(profile: str | None, makes_up: bool) -> Session:
    session = session_of(profile)
    return LocalSession(session) if makes_up else session


def _listing(names: Iterable[str]) -> str:
    return ", ".join(names) or "no region"


# --- What the control plane knows of a table, by boto3 -------------------------------------


def describe_table(access: RegionAccess, table: str) -> tuple[int, int, int]:
    """The items of a table and their bytes, on AWS as they were up to six hours ago, and its WCU.

    These are 0 for a table on demand.

    Raises `TableNotFound`, `RequestRefused`, `ConnectionFailed`, `InvalidCredentials`.
    """
    keys = access.credentials.current()
    client = access.session.client(
        "dynamodb",
        region_name=access.endpoint.region,
        endpoint_url=access.endpoint.url,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
    )
    with closing(client):
        try:
            description = client.describe_table(TableName=table)["Table"]
        except ClientError as error:
            raise _refusal(table, error.response.get("Error", {}).get("Code", "")) from error
        except BotoCoreError as error:
            raise ConnectionFailed(f"DescribeTable of {table!r}: {error}.") from error
    throughput = description.get("ProvisionedThroughput", {})
    return (
        description.get("ItemCount", 0),
        description.get("TableSizeBytes", 0),
        throughput.get("WriteCapacityUnits", 0),
    )


def _refusal(table: str, code: str) -> TableNotFound | RequestRefused:
    if code == "ResourceNotFoundException":
        return TableNotFound(f"There is no table {table!r}: check its name and region in the URL.")
    return RequestRefused(f"DescribeTable of {table!r}: {code}.")
